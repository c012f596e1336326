//! The launch digest of SEV-SNP: MEASUREMENT of the report.
//!
//! Sources: AMD 56860 (SEV-SNP Firmware ABI), "Launch Digest" and `SNP_LAUNCH_UPDATE`; QEMU, `target/i386/sev.c`; AMD 24593 (APM
//! volume 2), table B-4, for the state of a processor at its start, which the crate `sev` writes.

pub mod launch;
mod vcpu;

use cocoon_attestation::{Digest, Measurement};

pub use vcpu::VcpuType;

use super::enforcement::Enforcing;
use super::firmware::Firmware;
use super::{Boot, Error, check_command_line};
use launch::{Hashes, Order, Start, Vcpus};

/// As many as a guest can have that QEMU starts with these processors.
pub const MAX_VCPUS: u32 = 512;
/// `SEV_FEATURES` of a guest that nobody asked for more: only that it is an SNP guest.
pub const GUEST_FEATURES: u64 = 0x1;

/// What else is measured: the virtual machine's processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many.
    pub vcpus: u32,
    /// What QEMU shows them as.
    pub vcpu_type: VcpuType,
    /// `SEV_FEATURES` (AMD 24593, table B-4).
    pub guest_features: u64,
}

impl Shape {
    /// Whether there can be such a machine.
    ///
    /// # Errors
    /// [`Error::Misuse`] for no processor, more than [`MAX_VCPUS`], or a guest that is no SNP guest.
    pub fn check(&self) -> Result<(), Error> {
        if !(1..=MAX_VCPUS).contains(&self.vcpus) {
            return Err(Error::Misuse(format!("{} vCPUs, expected 1 to {MAX_VCPUS}", self.vcpus)));
        }
        if self.guest_features & 1 == 0 {
            let got = self.guest_features;
            return Err(Error::Misuse(format!(
                "guest features {got:#x} lack bit 0, which every SNP guest has"
            )));
        }
        Ok(())
    }
}

/// A guest's policy (AMD 56860, table "Guest Policy"), which the processor would not refuse for its form.
///
/// # Errors
/// [`Error::Misuse`] if bit 17 is not set, or a bit that has no meaning is.
pub fn check_policy(policy: u64) -> Result<u64, Error> {
    const MUST_BE_ONE: u64 = 1 << 17;
    // Bits 0 to 25 have meanings in ABI 1.58.
    const KNOWN: u64 = (1 << 26) - 1;
    if policy & MUST_BE_ONE == 0 || policy & !KNOWN != 0 {
        let why = format!(
            "policy {policy:#x} is none: bit 17 must be set, and no bit above 25; a usual one is 0x30000"
        );
        return Err(Error::Misuse(why));
    }
    Ok(policy)
}

/// What a processor will report, and what of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// MEASUREMENT.
    pub measurement: Measurement,
    /// SHA-256 of the firmware's file.
    pub firmware: Digest,
    /// The hashes in the measured page.
    pub hashes: Hashes,
    /// The processors.
    pub shape: Shape,
}

/// Predicts the measurement of a guest that QEMU starts with this firmware and `kernel-hashes=on`.
///
/// # Errors
/// [`Error::Misuse`] for a shape that no guest has, [`Error::Malformed`] for firmware that cannot start such a guest,
/// [`Error::Refused`] for a command line that QEMU or the kernel would not take as it is.
pub fn predict(firmware: &Enforcing<'_>, boot: &Boot<'_>, shape: &Shape) -> Result<Prediction, Error> {
    measure(firmware.firmware(), boot, shape)
}

/// What [`predict`] gives, for any firmware.
pub(crate) fn measure(firmware: &Firmware<'_>, boot: &Boot<'_>, shape: &Shape) -> Result<Prediction, Error> {
    shape.check()?;
    check_command_line(boot.command_line)?;
    let hashes = Hashes::of(boot);
    let start = Start::new(firmware, Order::Qemu)?;
    let vcpus = Vcpus::new(firmware, Order::Qemu, shape.vcpu_type, shape.guest_features)?;
    let measurement = vcpus.add(start.with(Some(&hashes))?, shape.vcpus).measurement();
    Ok(Prediction { measurement, firmware: Digest::of(firmware.bytes()), hashes, shape: *shape })
}
