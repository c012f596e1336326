//! From flags to a simulated processor with this program launched in it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use cocoon_attestation::Measurement;
use cocoon_attestation::policy::SimulatedPolicy;

use super::{REPORT_TIME, RemoteProcessor, SimAttester, SimState};
use crate::Clock;
use crate::events::{Event, EventLog};
use crate::node::Claims;
use crate::platform::Started;
use crate::settings::Settings;

/// What a client's policy must name.
#[derive(Debug)]
pub struct Announcement {
    root_pem: String,
    measurement: Measurement,
}

impl Announcement {
    /// Writes a policy that accepts exactly this enclave.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_policy(&self, path: &Path, claims: &Claims) -> anyhow::Result<()> {
        let Self { root_pem, measurement } = self;
        let policy = SimulatedPolicy {
            root_pem,
            measurement: *measurement,
            models: &claims.models,
            config: claims.config,
        };
        std::fs::write(path, policy.to_toml()).with_context(|| format!("cannot write {}", path.display()))
    }
}

pub(in crate::platform) fn start(
    settings: &Settings,
    clock: &Clock,
    events: &EventLog,
) -> anyhow::Result<Started> {
    if let Some(port) = &settings.sim_processor {
        let processor = RemoteProcessor::open(port).context("the simulated processor")?;
        return Ok(Started::remote(processor));
    }
    let dir = state_dir(settings.sim_state.as_deref())?;
    let state = SimState::open_or_create(&dir, clock(), || events.log(&Event::SimGenerating))
        .context("the simulated processor")?;
    let executable =
        std::env::current_exe().context("cannot find this program's file, which is what is measured")?;
    let attester =
        SimAttester::launch(&state, &executable, REPORT_TIME).context("the simulated processor")?;
    let announcement = Announcement { root_pem: state.root_pem()?, measurement: attester.measurement() };
    Ok(Started::simulated(attester, announcement))
}

/// Where a simulated processor lies: `given`, or where the XDG base directories say.
///
/// # Errors
/// When there is no home directory.
#[expect(
    clippy::disallowed_methods,
    reason = "where developers' state lies is said by the environment (XDG base directories)"
)]
pub fn state_dir(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = match given {
        Some(dir) => return Ok(dir.to_owned()),
        None => absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state"))),
    };
    Ok(state.context("no home directory: say --sim-state DIR")?.join("cocoon/sim"))
}
