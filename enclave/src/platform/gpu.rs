//! Evidence of GPUs, whatever asks them for it.

use std::collections::BTreeMap;

use cocoon_attestation::binding::gpu_nonce;
use cocoon_attestation::nvidia::{GpuEvidence, NVIDIA_GPU_MEDIA_TYPE};
use cocoon_attestation::wire::{EvidenceItem, EvidenceSet};
use cocoon_attestation::{Digest, Error};

use super::nvidia::NvmlError;

/// GPUs that an epoch statement has room for.
pub const MAX_GPUS: u32 = 16;

/// What GPUs sign. Made only from what is bound to an epoch: there is no way to have another nonce signed.
#[derive(Clone, Copy, Debug)]
pub struct GpuNonce(Digest);

impl GpuNonce {
    /// The 32 bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0.0
    }
}

/// What one GPU answered, as its driver gives it.
#[derive(Clone, Debug)]
pub struct GpuReport {
    /// SPDM request and response.
    pub report: Vec<u8>,
    /// Certificates of the attestation key, leaf first, PEM.
    pub chain: Vec<u8>,
}

/// Asks GPUs for evidence. One instance per enclave.
pub trait GpuAttester: Send + Sync + 'static {
    /// Makes sure that confidential computing is on, and asks every GPU. Blocks for as long as they take.
    ///
    /// # Errors
    /// When one of them does not answer, or is not in the state that it has to be in.
    fn attest(&self, nonce: &GpuNonce) -> Result<Vec<GpuReport>, GpuError>;

    /// Whether programs may use the GPUs.
    ///
    /// # Errors
    /// When the driver refuses.
    fn set_ready(&self, ready: bool) -> Result<(), GpuError>;
}

/// Why there is no evidence of the GPUs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// The driver.
    #[error(transparent)]
    Nvml(#[from] NvmlError),
    /// What the driver gave is no evidence.
    #[error("GPU {index}: {error}. Update the driver")]
    Malformed {
        /// Which GPU, in the driver's order.
        index: usize,
        /// What is wrong.
        error: Error,
    },
    /// There is no certificate that says which device it is.
    #[error("GPU {0}: its chain names no device: it has one certificate. Update the driver")]
    Nameless(usize),
    /// One GPU is there twice.
    #[error("two GPUs have the same identity")]
    Twice,
    /// Other GPUs than those of the epoch.
    #[error("the GPUs are not those of the epoch any more")]
    Changed,
    /// Evidence is being collected already.
    #[error("the GPUs are busy with other evidence")]
    Busy,
}

/// What a nonce is bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding {
    pub(crate) boot_id: [u8; 16],
    pub(crate) epoch: u64,
    pub(crate) spki: Digest,
    /// Random for an epoch, the leaf for one client.
    pub(crate) x: [u8; 32],
}

/// Evidence of all GPUs, and what S says about it.
#[derive(Clone, Debug)]
pub struct GpuSet {
    evidence: EvidenceSet,
    ids: Vec<Vec<u8>>,
}

impl GpuSet {
    /// Collects it.
    pub(crate) fn collect(attester: &dyn GpuAttester, bound: Binding) -> Result<Self, GpuError> {
        let nonce = GpuNonce(gpu_nonce(bound.boot_id, bound.epoch, bound.spki, bound.x));
        let mut gpus = BTreeMap::new();
        for (index, report) in attester.attest(&nonce)?.into_iter().enumerate() {
            let malformed = |error| GpuError::Malformed { index, error };
            let evidence = GpuEvidence::from_parts(&report.report, &report.chain).map_err(malformed)?;
            // The certificate of the boot ROM names the device for good, as the Verifier has it.
            let boot_rom = evidence.chain.get(1).ok_or(GpuError::Nameless(index))?;
            let id = boot_rom.serial().to_vec();
            if gpus.insert(id, GpuEvidence { x: bound.x, ..evidence }).is_some() {
                return Err(GpuError::Twice);
            }
        }
        // Labels and ids in the same order: that of the labels as text, which is how a collection is sorted.
        let mut labels: Vec<String> = (0..gpus.len()).map(|number| format!("gpu{number}")).collect();
        labels.sort_unstable();
        let item = |gpu: &GpuEvidence| EvidenceItem {
            media_type: NVIDIA_GPU_MEDIA_TYPE.to_owned(),
            bytes: gpu.encode(),
        };
        let evidence = EvidenceSet(labels.into_iter().zip(gpus.values().map(item)).collect());
        Ok(Self { evidence, ids: gpus.into_keys().collect() })
    }

    /// Claim 8 of S: digest of the collection without a CPU.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.evidence.encode())
    }

    /// Claim 9 of S: identities in the order of the labels.
    #[must_use]
    pub fn ids(&self) -> &[Vec<u8>] {
        &self.ids
    }

    /// The evidence by label.
    #[must_use]
    pub fn evidence(&self) -> &EvidenceSet {
        &self.evidence
    }
}
