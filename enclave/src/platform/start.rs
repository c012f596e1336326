//! From `--tee` to an Attester.

use std::path::Path;
use std::sync::Arc;

use super::{Attester, Tee, detect};
use crate::Clock;
use crate::events::{Event, EventLog};
use crate::node::Claims;
use crate::settings::Settings;

/// A platform that is ready to attest.
pub struct Started {
    attester: Arc<dyn Attester>,
    #[cfg(feature = "sim")]
    sim: Option<super::sim::Announcement>,
}

impl std::fmt::Debug for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Started")
    }
}

impl Started {
    /// What reports are asked from.
    #[must_use]
    pub fn attester(&self) -> Arc<dyn Attester> {
        self.attester.clone()
    }

    /// Tells developers what they need to know of a simulated platform: writes the policy that accepts it, if asked for.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn announce(&self, settings: &Settings, claims: &Claims) -> anyhow::Result<()> {
        #[cfg(feature = "sim")]
        if let (Some(sim), Some(path)) = (&self.sim, &settings.sim_policy_out) {
            sim.write_policy(path, claims)?;
        }
        let _unused_without_sim = (settings, claims);
        Ok(())
    }
}

/// Starts the platform that `settings` name.
///
/// # Errors
/// When there is no such hardware, or the simulated processor cannot be made.
pub fn start(settings: &Settings, clock: &Clock, events: &EventLog) -> anyhow::Result<Started> {
    let version = env!("CARGO_PKG_VERSION");
    match settings.tee {
        #[cfg(feature = "sim")]
        Tee::Sim => {
            events.log(&Event::Starting { version, tee: "sim" });
            super::sim::start(settings, clock, events)
        }
        tee @ (Tee::Auto | Tee::Snp | Tee::Tdx) => {
            let _unused_without_sim = clock;
            events.log(&Event::Starting { version, tee: "none" });
            Err(detect(tee, Path::new("/")).into())
        }
    }
}

#[cfg(feature = "sim")]
impl Started {
    pub(super) fn simulated(attester: super::sim::SimAttester, sim: super::sim::Announcement) -> Self {
        Self { attester: Arc::new(attester), sim: Some(sim) }
    }
}
