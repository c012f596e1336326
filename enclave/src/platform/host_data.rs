//! HOST_DATA of an SEV-SNP launch: for which configuration and models the host says that it started this machine.

use std::sync::Arc;

use cocoon_attestation::binding::host_data;
use cocoon_attestation::wire::SNP_REPORT_MEDIA_TYPE;

use super::{Attester, NoReport, PlatformEvidence};
use crate::attest::ReportData;
use crate::events::{AttesterFault, Event, EventLog};
use crate::node::Claims;

/// Where HOST_DATA lies in a report (AMD 56860, ATTESTATION_REPORT).
const OFFSET: usize = 0xc0;
const LEN: usize = 32;

/// A platform whose reports are given to nobody if they are for something else. Zeroes are for nothing in particular: then S alone
/// says what runs here, and clients decide whether that is enough.
pub struct LaunchedFor {
    attester: Arc<dyn Attester>,
    want: [u8; LEN],
    events: EventLog,
}

impl std::fmt::Debug for LaunchedFor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaunchedFor").field("want", &self.want).finish_non_exhaustive()
    }
}

impl LaunchedFor {
    /// `attester`, for `claims` only.
    #[must_use]
    pub fn new(attester: Arc<dyn Attester>, claims: &Claims, events: EventLog) -> Self {
        Self { attester, want: host_data(claims.config, &claims.models).0, events }
    }
}

impl Attester for LaunchedFor {
    fn attest(&self, data: &ReportData) -> Result<PlatformEvidence, NoReport> {
        let evidence = self.attester.attest(data)?;
        if evidence.item.media_type != SNP_REPORT_MEDIA_TYPE {
            return Ok(evidence);
        }
        let got = evidence.item.bytes.get(OFFSET..OFFSET + LEN);
        if got == Some(&self.want[..]) || got == Some(&[0; LEN][..]) {
            return Ok(evidence);
        }
        self.events.log(&Event::AttesterFailed { fault: AttesterFault::HostData });
        Err(NoReport)
    }
}

#[cfg(test)]
mod tests {
    use cocoon_attestation::Digest;
    use cocoon_attestation::wire::EvidenceItem;

    use super::*;

    struct Fixed(&'static str, Vec<u8>);

    impl Attester for Fixed {
        fn attest(&self, _: &ReportData) -> Result<PlatformEvidence, NoReport> {
            let item = EvidenceItem { media_type: self.0.to_owned(), bytes: self.1.clone() };
            Ok(PlatformEvidence { item, endorsements: Vec::new() })
        }
    }

    #[test]
    fn reports_of_a_launch_for_something_else_are_kept_back() {
        let claims =
            Claims { models: vec![Digest([1; 32])], config: Digest([2; 32]), release: Digest([0; 32]) };
        let passes = |kind, bytes: Vec<u8>| {
            let events = EventLog::new(std::io::sink());
            let bound = LaunchedFor::new(Arc::new(Fixed(kind, bytes)), &claims, events);
            bound.attest(&ReportData::for_test(0)).is_ok()
        };
        let report = |host_data: [u8; 32]| [&[7; OFFSET][..], &host_data, &[7; 100]].concat();
        let mine = host_data(claims.config, &claims.models).0;
        assert!(passes(SNP_REPORT_MEDIA_TYPE, report(mine)));
        assert!(passes(SNP_REPORT_MEDIA_TYPE, report([0; 32])));
        assert!(!passes(SNP_REPORT_MEDIA_TYPE, report([1; 32])));
        let other_model = host_data(claims.config, &[Digest([3; 32])]).0;
        assert!(!passes(SNP_REPORT_MEDIA_TYPE, report(other_model)));
        assert!(!passes(SNP_REPORT_MEDIA_TYPE, vec![0; OFFSET + LEN - 1]), "too short");
        assert!(passes("application/quote", report([1; 32])), "not an SNP report");
    }
}
