//! From flags to a simulated processor with this program launched in it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use cocoon_attestation::Measurement;
use cocoon_attestation::policy::SimulatedPolicy;

use super::{REPORT_TIME, SimAttester, SimState};
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
    let dir = state_dir(settings)?;
    let state = SimState::open_or_create(&dir, clock(), || events.log(&Event::SimGenerating))
        .context("the simulated processor")?;
    let executable =
        std::env::current_exe().context("cannot find this program's file, which is what is measured")?;
    let attester =
        SimAttester::launch(&state, &executable, REPORT_TIME).context("the simulated processor")?;
    let announcement = Announcement { root_pem: state.root_pem()?, measurement: attester.measurement() };
    Ok(Started::simulated(attester, announcement))
}

#[expect(
    clippy::disallowed_methods,
    reason = "where developers' state lies is said by the environment (XDG base directories)"
)]
fn state_dir(settings: &Settings) -> anyhow::Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = match &settings.sim_state {
        Some(dir) => return Ok(dir.clone()),
        None => absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state"))),
    };
    Ok(state.context("no home directory: say --sim-state DIR")?.join("cocoon/sim"))
}
