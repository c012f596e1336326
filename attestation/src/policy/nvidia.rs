//! Demands on NVIDIA GPUs.

use serde::Deserialize;

use super::{Check, Demand};
use crate::Error;
use crate::nvidia::Version;

/// The section `[nvidia]`. The nonce has no row: in a session it is always compared.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NvidiaPolicy {
    /// `Hopper` or `Blackwell`.
    pub arch: Check<String>,
    /// Number of GPUs.
    pub count: Check<u64>,
    /// Version of the driver.
    pub driver_version: Check<Version>,
    /// Version of the VBIOS.
    pub vbios_version: Check<Version>,
    /// The firmware that holds the attestation key, by report and by certificate.
    pub fwid: Demand,
    /// NVIDIA's manifests of driver and VBIOS.
    pub rim: Demand,
    /// Every measurement against them.
    pub measurements: Demand,
    /// NVIDIA's word that certificates are not revoked. A response that says otherwise fails in any case.
    pub ocsp: Demand,
    /// Firmware that cannot be debugged, where certificates say it.
    pub debug: Demand,
    /// `on`, `off` or `unstated`.
    pub protected_pcie: Check<String>,
    /// `single-gpu`, `multi-gpu`, `protected-pcie` or `unstated`.
    pub feature: Check<String>,
}

impl NvidiaPolicy {
    /// The strict rows, for `count` GPUs.
    ///
    /// # Errors
    /// `Misuse` for no GPU at all.
    pub fn strict(count: u64) -> Result<Self, Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Sections {
            nvidia: NvidiaPolicy,
        }
        if count == 0 {
            return Err(Error::misuse("a policy for no GPU"));
        }
        let text = SECTION.replace("{gpu_count}", &format!("{{ exactly = {count} }}"));
        let sections = toml::from_str::<Sections>(&text);
        sections.map(|s| s.nvidia).map_err(|e| Error::misuse(format!("the strict rows: {}", e.message())))
    }
}

/// The strict `[nvidia]` section. `{gpu_count}` is filled in.
pub(super) const SECTION: &str = r#"[nvidia]
arch = { any_of = ["Hopper", "Blackwell"] }
# How many GPUs there must be, each with a report of its own.
count = {gpu_count}
driver_version = { unchecked = "the manifest of the driver names its version" }
vbios_version = { unchecked = "the manifest of the VBIOS names its version" }
# The report names the firmware that holds the attestation key, and it is the one that the key was certified for.
fwid = "required"
# NVIDIA's signed manifests of driver and VBIOS, and every measurement against them.
rim = "required"
measurements = "required"
# OCSP responses about the device and the signers of the manifests. They live for a day.
ocsp = "required"
# Blackwell's certificates say whether the firmware can be debugged, Hopper's do not.
debug = "required"
# In protected PCIe mode the GPUs trust NVSwitches, of which there is no evidence here.
protected_pcie = { any_of = ["off", "unstated"] }
feature = { any_of = ["single-gpu", "multi-gpu", "unstated"] }
"#;
