//! The Attester: asks the hardware for evidence (`docs/attesters.md`).
//!
//! | Platform | File | Through |
//! |---|---|---|
//! | AMD SEV-SNP | [`snp`] | configfs-tsm ([`tsm`]), else `/dev/sev-guest` |
//! | Intel TDX | [`tdx`] | configfs-tsm, else `/dev/tdx_guest` and the host's quote generation service ([`qgs`]) |
//! | NVIDIA GPUs | [`nvidia`] | NVML |
//! | simulated | `sim/` | only with the cargo feature `sim` |
//!
//! The kernel and the driver are trusted as parts of the image; what passes through them from the host is not: certificate tables
//! ([`certificates`]), quotes, endorsements ([`stapled`]). All of it is limited in size and parsed strictly, and none of it is
//! believed here: clients verify it.

pub mod certificates;
mod detect;
mod device;
mod files;
pub mod gpu;
mod host_data;
pub mod nvidia;
pub mod qgs;
pub mod rtmr;
#[cfg(feature = "sim")]
pub mod sim;
pub mod snp;
pub mod stapled;
mod start;
pub mod tdx;
#[cfg(test)]
mod tests;
pub mod tsm;

pub use detect::{DetectError, Tee};
pub use gpu::{GpuAttester, GpuError, GpuNonce, GpuReport, GpuSet};
pub use host_data::LaunchedFor;
pub use snp::SnpAttester;
pub use stapled::{EndorsementFile, Stapled};
pub use start::{Started, start, start_gpus};
pub use tdx::TdxAttester;

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
