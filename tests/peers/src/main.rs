//! Holds the Verifier against other implementations: what they say of the same evidence, and how long they take. See `scripts/peers`
//! and `scripts/bench appraisal`.

mod bench;
mod evidence;
#[allow(dead_code, reason = "part of it is for other measurements")]
#[path = "../../src/bin/cocoon-bench/machine.rs"]
mod machine;
#[path = "../../src/bin/cocoon-bench/pairs.rs"]
mod pairs;
mod python;
#[allow(dead_code, reason = "part of it is for other measurements")]
#[path = "../../src/bin/cocoon-bench/report.rs"]
mod report;
mod snp;
mod tdx;
mod tlog;
mod verdicts;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand};

use evidence::Corpus;
use report::Report;

/// Hold the Verifier against other implementations.
#[derive(Debug, Parser)]
#[command(name = "cocoon-peers")]
struct Cli {
    /// The evidence corpus.
    #[arg(long, value_name = "DIR")]
    evidence: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What the crates `tlog_tiles` and `signed_note` say of a log of releases; exit code 1 if they refuse it.
    Log {
        /// Folder of the log.
        dir: PathBuf,
        /// The log's verifier key (C2SP signed-note), as `cocoon-measure log init` writes it to standard error.
        #[arg(long)]
        key: String,
        /// Checkpoints from before.
        #[arg(long, num_args = 1..)]
        older: Vec<PathBuf>,
    },
    /// What each says of every case; exit code 1 if two differ.
    Verdicts,
    /// How long each takes, in CPU time.
    Bench {
        /// A Python with the peers' packages: without it, those are left out.
        #[arg(long, value_name = "PROGRAM")]
        python: Option<PathBuf>,
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let corpus =
        || Corpus::open(cli.evidence.as_deref().context("say where the evidence is: --evidence DIR")?);
    match cli.command {
        Command::Log { dir, key, older } => {
            let said = tlog::check(&dir, &key, &older)?;
            Ok(writeln!(std::io::stdout(), "{said}")?)
        }
        Command::Verdicts => verdicts::compare(&corpus()?),
        Command::Bench { python, json } => {
            anyhow::ensure!(!cfg!(debug_assertions), "a debug build measures nothing: run scripts/bench");
            let mut report = Report::new(machine::describe());
            report.add(bench::measure(&corpus()?, python.as_deref())?);
            let text = if json { format!("{:#}\n", report.json()) } else { report.table() };
            Ok(std::io::stdout().write_all(text.as_bytes())?)
        }
    }
}
