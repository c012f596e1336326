//! NVIDIA GPUs in confidential-computing mode: SPDM measurement reports and what NVIDIA endorses about them.
//!
//! ```text
//! pinned device root -- .. -- boot ROM -- attestation key --signs--> report: nonce, versions, FWID, measurements
//! pinned RIM root    -- .. -- signer   --signs--> manifests (driver, VBIOS): what the measurements must be
//! ```
//!
//! [`GpuEvidence`] reads, [`authenticate`] verifies signatures and chains and compares, [`appraise`] applies a policy. Everything is
//! local. What NVIDIA's own verifier leaves open is refused here: a report without FWID, a missing manifest.
//!
//! Sources: DMTF DSP0274 1.1 (SPDM); NVIDIA/nvtrust and NVIDIA/attestation-sdk (opaque data, manifests, which measurements count).

mod appraise;
mod authenticate;
mod c14n;
mod chain;
mod claims;
mod dice;
mod endorsements;
mod evidence;
mod ocsp;
mod opaque;
mod reference;
mod rim;
mod spdm;
#[cfg(test)]
pub(crate) mod tests;
mod version;
mod xml;
mod xmldsig;

pub use appraise::{appraise, appraise_all};
pub use authenticate::{Authenticity, authenticate};
pub use chain::{Anchors, Arch};
pub use claims::claims;
pub use endorsements::Endorsements;
pub use evidence::{GpuEvidence, NVIDIA_GPU_MEDIA_TYPE};
pub(crate) use ocsp::about_ocsp;
pub use ocsp::{OcspResponse, ocsp_request};
pub use opaque::Opaque;
pub(crate) use rim::about_rim;
pub use rim::{ReferenceValue, Rim};
pub use spdm::Report;
pub use version::Version;

/// The certificates of a device that must be asked about, each with its issuer: all but the attestation key's, which no authority
/// of NVIDIA's issued.
///
/// # Errors
/// None in practice: the root is built in.
pub fn to_ask_about(
    gpu: &GpuEvidence,
) -> Result<Vec<(crate::x509::Certificate, crate::x509::Certificate)>, crate::Error> {
    let anchors = Anchors::nvidia()?;
    let path = chain::DeviceChain::new(&gpu.chain, &anchors.device).path();
    let issuers = path.certificates.iter().skip(1).copied().chain([path.anchor]);
    Ok(path
        .certificates
        .iter()
        .zip(issuers)
        .skip(1)
        .map(|(c, issuer)| ((*c).clone(), issuer.clone()))
        .collect())
}

/// The chip that a device's certificates name, such as `GH100`: see [`rim_ids`]. Empty when they do not agree.
#[must_use]
pub fn chip(gpu: &GpuEvidence) -> String {
    Anchors::nvidia()
        .map(|anchors| chain::DeviceChain::new(&gpu.chain, &anchors.device).chip())
        .unwrap_or_default()
}

/// The names under which NVIDIA publishes the manifests for a report: the driver's and the VBIOS's. `chip`: see
/// [`Authenticity::chip`]. `None` for chips that this version does not know and reports that do not name their parts.
#[must_use]
pub fn rim_ids(report: &Report, chip: &str) -> Option<[String; 2]> {
    let opaque = &report.opaque;
    let (prefix, driver) = (Arch::of_chip(chip)?.driver_rim_prefix(), opaque.driver_version()?);
    let ([project, project_sku, chip_sku], vbios) = (opaque.board()?, opaque.vbios_version()?);
    let vbios = format!("NV_GPU_VBIOS_{project}_{project_sku}_{chip_sku}_{}", vbios.replace('.', ""));
    Some([format!("{prefix}_{chip}_{driver}"), vbios.to_ascii_uppercase()])
}
