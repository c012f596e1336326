//! The Attester: asks the hardware for evidence.
//!
//! | Platform | File | State |
//! |---|---|---|
//! | AMD SEV-SNP | - | detected, not yet supported |
//! | Intel TDX | - | detected, not yet supported |
//! | simulated | `sim/` | only with the cargo feature `sim` |

mod detect;
#[cfg(feature = "sim")]
pub mod sim;
mod start;

pub use detect::{DetectError, Tee, detect};
pub use start::{Started, start};

use cocoon_attestation::Endorsement;
use cocoon_attestation::wire::EvidenceItem;

use crate::attest::ReportData;

/// What the hardware signed, and the certificates that it is verified with.
#[derive(Clone, Debug)]
pub struct PlatformEvidence {
    /// The vendor's report.
    pub item: EvidenceItem,
    /// What it is verified with, for clients that do not have it.
    pub endorsements: Vec<Endorsement>,
}

/// The hardware did not give a report. Says nothing about what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the platform gave no report")]
pub struct NoReport;

/// A platform that signs reports. One implementation per platform, one instance per enclave.
pub trait Attester: Send + Sync + 'static {
    /// Asks for a report over `data`. Blocks for as long as the hardware takes.
    ///
    /// # Errors
    /// [`NoReport`] when the hardware refuses or fails.
    fn attest(&self, data: &ReportData) -> Result<PlatformEvidence, NoReport>;
}
