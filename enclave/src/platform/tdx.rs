//! Intel TDX.

use std::fs::OpenOptions;
use std::path::PathBuf;

use cocoon_attestation::wire::{EvidenceItem, TDX_QUOTE_MEDIA_TYPE};

use super::tsm::{Provider, Tsm};
use super::{Attester, NoReport, PlatformEvidence, device, qgs};
use crate::attest::ReportData;
use crate::events::{AttesterFault, Event, EventLog};

/// Asks the TDX module, and the host's quoting enclave behind it.
#[derive(Debug)]
pub struct TdxAttester {
    source: Source,
    events: EventLog,
}

#[derive(Debug)]
enum Source {
    Tsm(Tsm),
    Device { path: PathBuf, qgs_port: u32 },
}

impl TdxAttester {
    /// Through configfs-tsm.
    pub(super) fn tsm(tsm: Tsm, events: EventLog) -> Self {
        Self { source: Source::Tsm(tsm), events }
    }

    /// Through `/dev/tdx_guest` and the quote generation service at `qgs_port` of the host, for kernels without configfs-tsm.
    pub(super) fn device(path: PathBuf, qgs_port: u32, events: EventLog) -> Self {
        Self { source: Source::Device { path, qgs_port }, events }
    }

    fn ask(&self, data: &ReportData) -> Result<Vec<u8>, AttesterFault> {
        match &self.source {
            Source::Tsm(tsm) => Ok(tsm.report(Provider::TdxGuest, data)?.outblob),
            Source::Device { path, qgs_port } => {
                let device = OpenOptions::new().read(true).write(true).open(path)?;
                qgs::quote(*qgs_port, &*device::td_report(&device, data.bytes())?)
            }
        }
    }
}

impl Attester for TdxAttester {
    fn attest(&self, data: &ReportData) -> Result<PlatformEvidence, NoReport> {
        let bytes = self.ask(data).map_err(|fault| {
            self.events.log(&Event::AttesterFailed { fault });
            NoReport
        })?;
        let item = EvidenceItem { media_type: TDX_QUOTE_MEDIA_TYPE.to_owned(), bytes };
        // A quote has its own certificates; what Intel says about them comes from the operator.
        Ok(PlatformEvidence { item, endorsements: Vec::new() })
    }
}
