//! `cocoon policy`

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use cocoon_attestation::policy::{init, init_released, init_simulated};
use cocoon_attestation::x509::Certificate;
use serde_json::json;

use super::output;

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Print a strict, commented policy to fill in
    Init {
        /// One that accepts every enclave on this machine's simulated platform instead, for development
        #[arg(long)]
        sim: bool,

        /// For enclaves with this many NVIDIA GPUs
        #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "sim")]
        gpus: u64,

        /// For releases: who signs them, where they are logged, who rebuilds them, instead of measurements
        #[arg(long, conflicts_with = "sim")]
        release: bool,

        /// Where the simulated processor's keys and certificates are [default: $XDG_STATE_HOME/cocoon/sim or
        /// ~/.local/state/cocoon/sim]
        #[arg(long, value_name = "DIR", requires = "sim")]
        sim_state: Option<PathBuf>,

        /// Print it as JSON: the text, under "policy"
        #[arg(long)]
        json: bool,
    },
    /// Say in words what a policy accepts
    Explain {
        /// The policy, TOML
        #[arg(value_name = "FILE")]
        file: PathBuf,

        /// Print it as JSON: the lines, under "accepts"
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(command: PolicyCommand) -> anyhow::Result<()> {
    match command {
        PolicyCommand::Init { sim, gpus, release, sim_state, json } => {
            let policy = match (sim, release) {
                (true, _) => init_simulated(&simulated_root(sim_state)?),
                (false, true) => init_released(gpus),
                (false, false) => init(gpus),
            };
            if json {
                return output::json(&json!({ "policy": policy }));
            }
            output::line(policy.trim_end());
        }
        PolicyCommand::Explain { file, json } => {
            let lines = super::read_policy(&file)?.explain();
            if json {
                return output::json(&json!({ "accepts": lines }));
            }
            lines.iter().for_each(|line| output::line(line));
        }
    }
    Ok(())
}

/// The root of the simulated platform, PEM.
fn simulated_root(dir: Option<PathBuf>) -> anyhow::Result<String> {
    let dir = match dir {
        Some(dir) => dir,
        None => super::user_dir("XDG_STATE_HOME", ".local/state")
            .context("no home directory: say --sim-state DIR")?
            .join("cocoon/sim"),
    };
    let path = dir.join("ark.der");
    let der = std::fs::read(&path).with_context(|| {
        format!(
            "cannot read {}; there is no simulated processor before `cocoon-host run --tee sim` ran once",
            path.display()
        )
    })?;
    let root = Certificate::from_pem_or_der(&der).with_context(|| path.display().to_string())?;
    Ok(root.to_pem())
}
