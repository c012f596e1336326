//! From `--tee` and `--gpus` to Attesters.

use std::path::Path;
use std::sync::Arc;

use super::detect::{Hardware, Way, detect};
use super::files::{Files, Kernel};
use super::nvidia::{NVML, Nvml, NvmlError};
use super::rtmr::{self, Extended, RtmrError};
use super::tsm::Provider;
use super::{Attester, GpuAttester, SnpAttester, TdxAttester, Tee};
use crate::Clock;
use crate::events::{Event, EventLog};
use crate::node::Claims;
use crate::settings::Settings;

/// A platform that is ready to attest.
pub struct Started {
    attester: Arc<dyn Attester>,
    /// Whether there are registers that the enclave extends.
    has_rtmrs: bool,
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

    /// Has the hardware measure what the enclave states about itself, where it can. Once, before the first report.
    ///
    /// # Errors
    /// When it can, and its register says something else: the enclave must not start.
    pub fn measure(&self, claims: &Claims, events: &EventLog) -> Result<(), RtmrError> {
        if !self.has_rtmrs {
            return Ok(());
        }
        let event = match rtmr::extend(&Kernel, Path::new("/"), claims)? {
            Extended::Yes => Event::RtmrExtended,
            Extended::Unavailable => Event::RtmrUnavailable,
        };
        events.log(&event);
        Ok(())
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
    let starting = |tee| events.log(&Event::Starting { version: env!("CARGO_PKG_VERSION"), tee });
    let want = match settings.tee {
        #[cfg(feature = "sim")]
        Tee::Sim => {
            starting("sim");
            return super::sim::start(settings, clock, events);
        }
        Tee::Auto => None,
        Tee::Snp => Some(Provider::SevGuest),
        Tee::Tdx => Some(Provider::TdxGuest),
    };
    let _unused_without_sim = clock;
    let files: Arc<dyn Files> = Arc::new(Kernel);
    let found = detect(want, &files, Path::new("/"));
    starting(match &found {
        Ok(Hardware { provider: Provider::SevGuest, .. }) => "snp",
        Ok(Hardware { provider: Provider::TdxGuest, .. }) => "tdx",
        Err(_) => "none",
    });
    Ok(on_hardware(found?, settings.qgs_port, events))
}

/// The Attester for what was found.
pub(super) fn on_hardware(hardware: Hardware, qgs_port: u32, events: &EventLog) -> Started {
    let events = events.clone();
    let attester: Arc<dyn Attester> = match (hardware.provider, hardware.way) {
        (Provider::SevGuest, Way::Tsm(tsm)) => Arc::new(SnpAttester::tsm(tsm, events)),
        (Provider::SevGuest, Way::Device(path)) => Arc::new(SnpAttester::device(path, events)),
        (Provider::TdxGuest, Way::Tsm(tsm)) => Arc::new(TdxAttester::tsm(tsm, events)),
        (Provider::TdxGuest, Way::Device(path)) => Arc::new(TdxAttester::device(path, qgs_port, events)),
    };
    Started {
        attester,
        has_rtmrs: hardware.provider == Provider::TdxGuest,
        #[cfg(feature = "sim")]
        sim: None,
    }
}

/// The GPUs that `settings` name; `None` for none, and then NVIDIA's library is not even loaded.
///
/// # Errors
/// When they are not all there and confidential.
pub fn start_gpus(settings: &Settings) -> Result<Option<Arc<dyn GpuAttester>>, NvmlError> {
    match settings.gpus {
        0 => Ok(None),
        want => Ok(Some(Arc::new(Nvml::open(Path::new(NVML), want)?))),
    }
}

#[cfg(feature = "sim")]
impl Started {
    pub(super) fn simulated(attester: super::sim::SimAttester, sim: super::sim::Announcement) -> Self {
        Self { attester: Arc::new(attester), has_rtmrs: false, sim: Some(sim) }
    }

    pub(super) fn remote(processor: super::sim::RemoteProcessor) -> Self {
        Self { attester: Arc::new(processor), has_rtmrs: false, sim: None }
    }
}
