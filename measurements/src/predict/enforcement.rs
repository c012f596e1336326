//! Whether firmware compares a kernel with what was measured of it.
//!
//! QEMU puts hashes of kernel, initrd and command line into a measured page. That says something about what runs only if the
//! firmware compares, and stops. Every recent OVMF has a place for the page; the generic build measures it and boots whatever it is
//! given: under its digest a host could show the audited kernel and run another. No field of the firmware tells the two apart.
//!
//! So firmware is accepted by its digest: either it is one of [`KNOWN`], which were booted with wrong hashes and stopped, or an
//! auditor who did the same with another build names its digest. In addition, what is accepted must have the code that compares:
//! edk2's `BlobVerifierLibSevHashes` holds the GUIDs of the three hashes, which lie in the compressed volume of the firmware, and
//! nothing else in OVMF does. That is no proof, but it catches an auditor's mistake, and says what the generic build lacks.

use cocoon_attestation::Digest;

use super::Error;
use super::firmware::{Firmware, SevKind, guid};
use super::volume::{find, volumes};

/// SHA-256 of firmware that stops on a wrong kernel, initrd or command line, as boots with wrong hashes showed:
/// `OVMF.amdsev.fd` of Debian's `ovmf-amdsev` 2026.08+ds-2.
pub const KNOWN: [Digest; 1] = [Digest([
    0x3e, 0x4f, 0xd0, 0xb3, 0xfe, 0x3b, 0x2d, 0xbe, 0x48, 0x1c, 0x3d, 0x9e, 0x99, 0x41, 0x8a, 0x03, 0x41,
    0x74, 0xf2, 0x6c, 0xbe, 0x1f, 0x55, 0xaa, 0x21, 0x2b, 0x0f, 0x18, 0xc1, 0x2d, 0x2d, 0x6f,
])];

/// Kernel, initrd and command line in the table of hashes (QEMU, `target/i386/sev.c`).
pub(crate) const HASHES: [[u8; 16]; 3] = [
    guid(0x4de7_9437_abd2_427f_b835_d5b1_72d2_045b),
    guid(0x44ba_f731_3a2f_4bd7_9af1_41e2_9169_781d),
    guid(0x97d0_2dd8_bd20_4c94_aa78_e771_4d36_ab2a),
];

/// Firmware that stops when kernel, initrd or command line are not those that were measured. Made only by [`enforcing`].
#[derive(Clone, Debug)]
pub struct Enforcing<'a>(Firmware<'a>);

impl<'a> Enforcing<'a> {
    /// The firmware.
    #[must_use]
    pub fn firmware(&self) -> &Firmware<'a> {
        &self.0
    }
}

/// Accepts firmware that is [`KNOWN`] or `reviewed` by its SHA-256.
///
/// # Errors
/// [`Error::Refused`] for all other firmware: the reason says what is missing. [`Error::Malformed`] for what makes no sense.
pub fn enforcing<'a>(firmware: Firmware<'a>, reviewed: &[Digest]) -> Result<Enforcing<'a>, Error> {
    let refused = |why: &str| Error::refused("firmware", why);
    place(&firmware)?;
    if !has_verifier(firmware.bytes()) {
        return Err(refused(
            "it measures hashes of kernel, initrd and command line, but has no code to compare them (no blob verifier): a \
             host could run anything under this measurement; take OVMF.amdsev.fd",
        ));
    }
    let digest = Digest::of(firmware.bytes());
    if !KNOWN.contains(&digest) && !reviewed.contains(&digest) {
        return Err(Error::refused(
            "firmware",
            format!(
                "sha256 {digest} is not known to stop on a wrong kernel, initrd or command line; take the locked OVMF.amdsev.fd \
                 (sha256 {}), or boot this one with wrong hashes and, if it stops, name it with --reviewed-ovmf {digest}",
                KNOWN[0]
            ),
        ));
    }
    Ok(Enforcing(firmware))
}

/// The table of hashes has a place, and that place is measured.
fn place(firmware: &Firmware<'_>) -> Result<(), Error> {
    let refused = |why: &str| {
        Err(Error::refused(
            "firmware",
            format!("{why}, so kernel, initrd and command line would not be measured; take OVMF.amdsev.fd"),
        ))
    };
    let sections = firmware.sev_sections()?;
    let mut pages = sections.iter().filter(|section| section.kind == SevKind::KernelHashes);
    let (Some(page), None) = (pages.next(), pages.next()) else {
        return refused("it has no section for kernel hashes, or several");
    };
    match firmware.hash_table() {
        None | Some((0, _) | (_, 0)) => {
            refused("it has no place for a table of hashes (base or size is zero)")
        }
        Some((base, _)) if base & !0xfff != page.address => {
            refused("its table of hashes lies outside of the measured section")
        }
        Some(_) => Ok(()),
    }
}

/// Whether a compressed section of the firmware holds the GUIDs of all three hashes.
fn has_verifier(firmware: &[u8]) -> bool {
    volumes(firmware).any(|volume| HASHES.iter().all(|hash| find(&volume, hash).is_some()))
}
