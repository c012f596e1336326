//! Measures Cocoon against named baselines, side by side in one run. `scripts/bench` builds and starts it.
//!
//! | Module | What |
//! |---|---|
//! | [`channel`] | attested requests, against the same enclave without the gate |
//! | [`relay`] | bytes through `cocoon-host relay`, against a direct connection |
//! | [`engine`] | tokens per second, against llama.cpp on the same file and threads |
//! | [`serve`] | many streams through the whole product, against the same engine in process |
//! | [`boot`] | a VM's first attested answer, against its firmware and kernel alone |
//! | [`llama`] | llama.cpp as a process of its own |
//! | [`pairs`] | measures two things alternately, and what the pairs say |
//! | [`machine`] | where it runs, and CPU time |
//! | [`report`] | the table and the JSON |

mod boot;
mod channel;
mod engine;
mod llama;
mod machine;
mod pairs;
mod relay;
mod report;
mod serve;

use std::io::Write;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use report::Report;

/// Measure Cocoon against named baselines, side by side.
#[derive(Debug, Parser)]
#[command(name = "cocoon-bench")]
struct Cli {
    /// What to measure; everything when not given.
    #[arg(value_enum)]
    groups: Vec<Group>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Folder with node_modules/node-llama-cpp: without it there is nothing to measure the engine against.
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
}

/// What can be measured on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Attested requests.
    Channel,
    /// The relay.
    Relay,
    /// The inference engine.
    Engine,
    /// Many streams at a time.
    Serve,
    /// The VM image.
    Boot,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    anyhow::ensure!(!cfg!(debug_assertions), "a debug build measures nothing: run scripts/bench");
    let mut report = Report::new(machine::describe());
    for group in Group::value_variants() {
        if cli.groups.is_empty() || cli.groups.contains(group) {
            measure(*group, cli.peers.as_deref(), &mut report)?;
        }
    }
    let text = if cli.json { format!("{:#}\n", report.json()) } else { report.table() };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn measure(group: Group, peers: Option<&std::path::Path>, report: &mut Report) -> anyhow::Result<()> {
    eprintln!("bench: measuring {group:?}");
    match (group, peers) {
        (Group::Channel, _) => report.add(channel::measure()?),
        (Group::Serve, _) => report.add(serve::measure()?),
        (Group::Relay, _) => report.add(relay::measure()?),
        (Group::Boot, _) => match boot::measure()? {
            rows if rows.is_empty() => report.skip("boot", "no image, or no QEMU that boots it"),
            rows => report.add(rows),
        },
        (Group::Engine, Some(peers)) => report.add(engine::measure(peers, &peers.join("models"))?),
        (Group::Engine, None) => report.skip("engine", "llama.cpp is not at hand"),
    }
    Ok(())
}
