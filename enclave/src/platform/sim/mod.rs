//! The simulated platform: a software AMD-SP that signs genuine SNP-format reports under a root of the developer's own.
//!
//! Parsing, chain and policy run the production path. What is missing is the hardware: whoever holds the keys on the developer's
//! disk can sign anything, so a client accepts it only if its policy names this very root as `insecure_simulated`.

mod ca;
pub mod launch;
pub mod processor;
mod remote;
mod report;
mod start;
mod state;

use std::path::Path;
use std::time::Duration;

use cocoon_attestation::wire::{EvidenceItem, SNP_REPORT_MEDIA_TYPE};
use cocoon_attestation::{Endorsement, EndorsementKind, Measurement};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};

use super::{Attester, NoReport, PlatformEvidence};
use crate::attest::ReportData;

pub use remote::{PORT_NAME, RemoteProcessor};
pub(super) use start::start;
pub use start::{Announcement, state_dir};
pub use state::{SimError, SimState};

/// How long a real AMD-SP takes for a report; the simulated one takes as long, so that batching is what it is in production.
pub const REPORT_TIME: Duration = Duration::from_millis(140);

/// A software AMD-SP.
pub struct SimAttester {
    key: EcdsaKeyPair,
    chip_id: [u8; 64],
    measurement: Measurement,
    host_data: [u8; 32],
    endorsements: Vec<Endorsement>,
    report_time: Duration,
}

impl std::fmt::Debug for SimAttester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimAttester").field("measurement", &self.measurement).finish_non_exhaustive()
    }
}

impl SimAttester {
    /// A processor with the keys of `state`, in which `executable` was launched.
    ///
    /// # Errors
    /// When the state cannot be used or the executable cannot be read.
    pub fn launch(state: &SimState, executable: &Path, report_time: Duration) -> Result<Self, SimError> {
        Self::launched(state, measure(executable)?, [0; 32], report_time)
    }

    /// A processor with the keys of `state`, in which something with this launch digest and HOST_DATA was launched.
    ///
    /// # Errors
    /// When the state cannot be used.
    pub fn launched(
        state: &SimState,
        measurement: Measurement,
        host_data: [u8; 32],
        report_time: Duration,
    ) -> Result<Self, SimError> {
        let key = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P384_SHA384_FIXED_SIGNING,
            state.vcek_key(),
            &SystemRandom::new(),
        )
        .map_err(|_rejected| SimError::damaged(state.dir(), "vcek.key"))?;
        let certificate =
            |der: &[u8]| Endorsement { kind: EndorsementKind::AmdCertificate, bytes: der.to_vec() };
        let crl = Endorsement { kind: EndorsementKind::AmdCrl, bytes: state.crl().to_vec() };
        let endorsements = vec![certificate(state.vcek()), certificate(state.ask()), crl];
        Ok(Self { key, chip_id: state.chip_id(), measurement, host_data, endorsements, report_time })
    }

    /// The launch measurement that reports carry.
    #[must_use]
    pub fn measurement(&self) -> Measurement {
        self.measurement
    }
}

impl SimAttester {
    /// Signs, for whoever asks: hardware does not know better either.
    fn sign(&self, report_data: [u8; 64]) -> Result<Vec<u8>, NoReport> {
        std::thread::sleep(self.report_time);
        let launched = report::Launched {
            chip_id: self.chip_id,
            measurement: self.measurement,
            host_data: self.host_data,
        };
        report::signed(&self.key, launched, report_data).ok_or(NoReport)
    }
}

impl Attester for SimAttester {
    fn attest(&self, data: &ReportData) -> Result<PlatformEvidence, NoReport> {
        let bytes = self.sign(*data.bytes())?;
        let item = EvidenceItem { media_type: SNP_REPORT_MEDIA_TYPE.to_owned(), bytes };
        Ok(PlatformEvidence { item, endorsements: self.endorsements.clone() })
    }
}

/// SHA-384 over the executable file: the simulated counterpart of a launch digest.
fn measure(executable: &Path) -> Result<Measurement, SimError> {
    let bytes =
        std::fs::read(executable).map_err(|source| SimError::Io { path: executable.into(), source })?;
    let digest = ring::digest::digest(&ring::digest::SHA384, &bytes);
    let mut out = [0; 48];
    out.copy_from_slice(digest.as_ref());
    Ok(Measurement(out))
}
