//! AMD SEV-SNP.

use std::fs::OpenOptions;
use std::path::PathBuf;

use cocoon_attestation::Endorsement;
use cocoon_attestation::snp::REPORT_LEN;
use cocoon_attestation::wire::{EvidenceItem, SNP_REPORT_MEDIA_TYPE};

use super::certificates::parse_table;
use super::device::{self, SnpResponse};
use super::tsm::{Aux, Provider, Tsm};
use super::{Attester, NoReport, PlatformEvidence};
use crate::attest::ReportData;
use crate::events::{AttesterFault, Event, EventLog};

/// Where the report lies in MSG_REPORT_RSP (AMD 56860, table 24): behind status, length and 24 reserved bytes.
const REPORT_OFFSET: usize = 0x20;

/// Asks AMD's firmware.
#[derive(Debug)]
pub struct SnpAttester {
    source: Source,
    events: EventLog,
}

#[derive(Debug)]
enum Source {
    Tsm(Tsm),
    Device(PathBuf),
}

impl SnpAttester {
    /// Through configfs-tsm.
    pub(super) fn tsm(tsm: Tsm, events: EventLog) -> Self {
        Self { source: Source::Tsm(tsm), events }
    }

    /// Through `/dev/sev-guest`, for kernels without configfs-tsm.
    pub(super) fn device(path: PathBuf, events: EventLog) -> Self {
        Self { source: Source::Device(path), events }
    }

    /// The report, and the host's certificate table as it gave it.
    fn ask(&self, data: &ReportData) -> Result<(Vec<u8>, Aux), AttesterFault> {
        match &self.source {
            Source::Tsm(tsm) => {
                let report = tsm.report(Provider::SevGuest, data)?;
                Ok((report.outblob, report.aux))
            }
            Source::Device(path) => {
                let device = OpenOptions::new().read(true).write(true).open(path)?;
                let SnpResponse { response, certificates } = device::snp_report(&device, data.bytes())?;
                Ok((report_of(&response).ok_or(AttesterFault::Malformed)?, Aux::Bytes(certificates)))
            }
        }
    }

    fn endorsements(&self, aux: Aux) -> Vec<Endorsement> {
        let table = match aux {
            Aux::Absent => return Vec::new(),
            Aux::Bytes(table) => parse_table(&table).ok(),
            Aux::Unusable => None,
        };
        // Clients may have the certificates, or the operator gives them: the report is as good without.
        table.unwrap_or_else(|| {
            self.events.log(&Event::CertificateTableDropped);
            Vec::new()
        })
    }
}

impl Attester for SnpAttester {
    fn attest(&self, data: &ReportData) -> Result<PlatformEvidence, NoReport> {
        let asked = self.ask(data).and_then(|(report, aux)| {
            if report.len() == REPORT_LEN { Ok((report, aux)) } else { Err(AttesterFault::Malformed) }
        });
        let (bytes, aux) = asked.map_err(|fault| {
            self.events.log(&Event::AttesterFailed { fault });
            NoReport
        })?;
        let item = EvidenceItem { media_type: SNP_REPORT_MEDIA_TYPE.to_owned(), bytes };
        Ok(PlatformEvidence { item, endorsements: self.endorsements(aux) })
    }
}

/// The report in a MSG_REPORT_RSP; `None` if the firmware says that it made none.
fn report_of(response: &[u8]) -> Option<Vec<u8>> {
    let word = |offset: usize| {
        let bytes = response.get(offset..offset.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let (status, len) = (word(0)?, usize::try_from(word(4)?).ok()?);
    if status != 0 || len != REPORT_LEN {
        return None;
    }
    response.get(REPORT_OFFSET..REPORT_OFFSET.checked_add(len)?).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u32, len: u32) -> Vec<u8> {
        let mut out = vec![0; 4000];
        out[..4].copy_from_slice(&status.to_le_bytes());
        out[4..8].copy_from_slice(&len.to_le_bytes());
        out[REPORT_OFFSET..REPORT_OFFSET + REPORT_LEN].fill(0x42);
        out
    }

    #[test]
    fn the_report_is_taken_out_of_the_firmwares_message() {
        assert_eq!(report_of(&response(0, 1184)), Some(vec![0x42; REPORT_LEN]));
        assert_eq!(report_of(&response(0x16, 1184)), None, "the firmware refused");
        for len in [0, 1183, 1185, 4000, u32::MAX] {
            assert_eq!(report_of(&response(0, len)), None, "{len}");
        }
        for len in [0, 3, 7, 31, REPORT_OFFSET + REPORT_LEN - 1] {
            assert_eq!(report_of(&response(0, 1184)[..len]), None, "{len}");
        }
    }
}
