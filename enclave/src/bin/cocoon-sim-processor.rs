//! `cocoon-sim-processor`: a software AMD-SP for a VM on a machine without one. Protects nothing.

#![forbid(unsafe_code)]

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use cocoon_attestation::policy::SimulatedPolicy;
use cocoon_attestation::{Digest, Measurement, UnixTime};
use cocoon_enclave::platform::sim::{REPORT_TIME, SimAttester, SimState, launch, state_dir};
use cocoon_inference::read_model;

/// A software AMD secure processor: measures a VM as a real one does and signs its reports, under a root of the developer's own. It
/// protects nothing, and no client accepts it unless its policy names that root.
#[derive(Debug, Parser)]
#[command(version, about, after_help = "Exit codes: 0 done, 2 could not (usage, missing file).")]
struct Cli {
    /// Folder of the simulated processor [default: $XDG_STATE_HOME/cocoon/sim or ~/.local/state/cocoon/sim]
    #[arg(long, value_name = "DIR", global = true)]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the root certificate, PEM: what a policy names
    Root,
    /// Measure a VM and answer its requests for reports. Prints one line of JSON: `measurement`, `table_address`; ends with its input
    Serve(ServeArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// The image directory, with the SNP firmware
    #[arg(long, value_name = "DIR")]
    image: PathBuf,
    /// vCPUs of the VM
    #[arg(long, value_name = "N")]
    vcpus: u32,
    /// Their type, as QEMU names it
    #[arg(long, value_name = "TYPE", default_value = "EPYC-Genoa")]
    vcpu_type: String,
    /// HOST_DATA of the launch, 64 hex digits
    #[arg(long, value_name = "HEX", value_parser = host_data)]
    host_data: Option<[u8; 32]>,
    /// Where to answer: a Unix socket for QEMU to connect to
    #[arg(long, value_name = "FILE")]
    socket: PathBuf,
    /// Write a client policy that accepts exactly this VM
    #[arg(long, value_name = "FILE", requires = "model")]
    policy_out: Option<PathBuf>,
    /// The model, for the policy; several times for several
    #[arg(long, value_name = "FILE")]
    model: Vec<PathBuf>,
    /// Where to write the hashes of kernel, initrd and command line, for the firmware
    #[arg(long, value_name = "FILE")]
    table: PathBuf,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut stderr = stderr();
            let _gone = writeln!(stderr, "cocoon-sim-processor: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let dir = state_dir(cli.state.as_deref())?;
    let state = SimState::open_or_create(&dir, now(), || {
        let _gone = writeln!(stderr(), "generating the keys of a simulated processor, once");
    })?;
    match &cli.command {
        Command::Root => {
            stdout().write_all(state.root_pem()?.as_bytes()).context("cannot write to standard output")
        }
        Command::Serve(args) => serve(&state, args),
    }
}

fn serve(state: &SimState, args: &ServeArgs) -> anyhow::Result<()> {
    let launch = launch::measure(&args.image, args.vcpus, &args.vcpu_type)?;
    let at = |path: &Path| format!("cannot write {}", path.display());
    std::fs::write(&args.table, &launch.table).with_context(|| at(&args.table))?;
    if let Some(path) = &args.policy_out {
        let policy = policy(state, &args.image, launch.measurement, &args.model)?;
        std::fs::write(path, policy).with_context(|| at(path))?;
    }
    let socket = UnixListener::bind(&args.socket).with_context(|| at(&args.socket))?;
    let host_data = args.host_data.unwrap_or_default();
    let processor = SimAttester::launched(state, launch.measurement, host_data, REPORT_TIME)?;
    std::thread::spawn(move || processor.serve(&socket));
    writeln!(
        stdout(),
        "{{\"measurement\":\"{}\",\"table_address\":{}}}",
        launch.measurement,
        launch.table_address
    )
    .context("cannot write to standard output")?;
    // The host holds the other end for as long as the VM runs.
    let _ended = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
    Ok(())
}

/// The policy that accepts this VM and no other.
fn policy(
    state: &SimState,
    image: &Path,
    measurement: Measurement,
    models: &[PathBuf],
) -> anyhow::Result<String> {
    let path = image.join("manifest.json");
    let manifest = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest: Manifest =
        serde_json::from_slice(&manifest).with_context(|| format!("{} is no manifest", path.display()))?;
    let digest = |model: &PathBuf| {
        let model = read_model(model, None, |_, _| ()).context("cannot read the model")?;
        anyhow::Ok(cocoon_enclave::model::manifest(&model)?.digest())
    };
    let models = models.iter().map(digest).collect::<anyhow::Result<Vec<_>>>()?;
    let policy = SimulatedPolicy {
        root_pem: &state.root_pem()?,
        measurement,
        models: &models,
        config: manifest.config,
    };
    Ok(policy.to_toml())
}

/// What is needed of an image's manifest.
#[derive(serde::Deserialize)]
struct Manifest {
    config: Digest,
}

fn host_data(text: &str) -> Result<[u8; 32], String> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|e| format!("{e}, expected 64 hex digits"))?;
    Ok(bytes)
}

#[expect(clippy::disallowed_methods, reason = "this program reads the clock once, for new certificates")]
fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

#[expect(clippy::disallowed_methods, reason = "a command line prints its result")]
fn stdout() -> std::io::Stdout {
    std::io::stdout()
}

#[expect(clippy::disallowed_methods, reason = "a command line prints its one line of error")]
fn stderr() -> std::io::Stderr {
    std::io::stderr()
}
