//! MRTD, RTMR1 and RTMR2 of TDX.
//!
//! Sources: Intel TDX Module Base Specification, "Measurement and Attestation"; QEMU, `hw/i386/tdvf.c` and `target/i386/kvm/tdx.c`;
//! edk2, `SecurityPkg/Library/DxeTpm2MeasureBootLib`, `OvmfPkg/Tcg/TdTcg2Dxe`, QemuLoadImageLib; Linux, `drivers/firmware/efi/libstub`. The inputs of RTMR1 and RTMR2 are
//! compared with the event log of a virtual TPM under this firmware by a test; nothing here was confirmed on TDX hardware.

use cocoon_attestation::Measurement;
use ring::digest::{Context, SHA384};

use super::firmware::{Firmware, PAGE, TdxSection};
use super::volume::{find, volumes};
use super::{Boot, Error, authenticode, check_command_line, replay, sha384};

/// What `MR.EXTEND` takes at once.
const CHUNK: usize = 256;

/// In which order pages are added and measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Each page is measured when it is added: QEMU 9 and later.
    SinglePass,
    /// All pages of a section are added, then measured: early versions of QEMU for TDX.
    TwoPass,
}

/// Where firmware puts the words `initrd=initrd` in the line that it hands to a kernel; builds of edk2 differ in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitrdWord {
    /// Before the host's line: Debian's 2026.08.
    First,
    /// Behind it: Debian's 2025.02.
    Last,
}

impl InitrdWord {
    /// Reads it off the text in the firmware's volume, which the kernel's line is put together with.
    ///
    /// # Errors
    /// [`Error::Malformed`] for firmware that has neither text, or both.
    pub fn of(firmware: &Firmware<'_>) -> Result<Self, Error> {
        let mut found = volumes(firmware.bytes()).flat_map(|volume| {
            let has = |text| find(&volume, text).is_some();
            let first = has(b"initrd=initrd \0").then_some(Self::First);
            first.into_iter().chain(has(b" initrd=initrd\0").then_some(Self::Last))
        });
        match (found.next(), found.next()) {
            (Some(word), None) => Ok(word),
            (None | Some(_), _) => {
                let why = "it does not say in one way where it puts initrd=initrd in a kernel's command line, so RTMR2 cannot be \
                           predicted; take the locked OVMF.fd";
                Err(Error::malformed("firmware", why))
            }
        }
    }

    /// The line as the kernel gets it.
    fn line(self, host: &[u8]) -> Vec<u8> {
        match self {
            Self::First => [b"initrd=initrd ", host].concat(),
            Self::Last => [host, b" initrd=initrd"].concat(),
        }
    }
}

/// What a guest's quote will say. RTMR0 is not there: see [`RTMR0`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// The firmware.
    pub mr_td: Measurement,
    /// The kernel.
    pub rtmr1: Measurement,
    /// Command line and initrd.
    pub rtmr2: Measurement,
}

/// Why RTMR0 is not predicted.
pub const RTMR0: &str = "not predicted: RTMR0 depends on memory size, ACPI and SMBIOS tables and boot variables, which QEMU makes; \
                         appraise it by replaying the event log (cocoon inspect tdx --event-log)";
/// What the prediction rests on.
pub const CONFIRMED: &str = "not confirmed on hardware: computed from specifications and compared with an independent program and, \
                             for the events of RTMR1 and RTMR2, with a virtual TPM's log of the same firmware";

/// Predicts the registers of a guest that QEMU starts with this firmware, kernel, initrd and command line.
///
/// # Errors
/// [`Error::Malformed`] for firmware without TDX metadata or a place for the initrd, a kernel that UEFI cannot start, [`Error::Refused`] for a command line
/// that is not printable ASCII.
pub fn predict(firmware: &Firmware<'_>, boot: &Boot<'_>) -> Result<Prediction, Error> {
    Ok(Prediction {
        mr_td: mr_td(firmware, Order::SinglePass)?,
        rtmr1: rtmr1(boot.kernel)?,
        rtmr2: rtmr2(InitrdWord::of(firmware)?, boot)?,
    })
}

/// MRTD: each page by its address, and the content of those that are measured.
///
/// # Errors
/// [`Error::Malformed`] for firmware without TDX metadata that makes sense.
pub fn mr_td(firmware: &Firmware<'_>, order: Order) -> Result<Measurement, Error> {
    let mut context = Context::new(&SHA384);
    for section in firmware.tdx_sections()?.iter().filter(|section| !section.added_later) {
        match order {
            Order::SinglePass => (0..section.pages).for_each(|page| {
                add(&mut context, section, page);
                extend(&mut context, section, page);
            }),
            Order::TwoPass => {
                (0..section.pages).for_each(|page| add(&mut context, section, page));
                (0..section.pages).for_each(|page| extend(&mut context, section, page));
            }
        }
    }
    let mut out = [0; 48];
    out.copy_from_slice(context.finish().as_ref());
    Ok(Measurement(out))
}

/// `TDH.MEM.PAGE.ADD`: 128 bytes with the name and the address.
fn add(context: &mut Context, section: &TdxSection<'_>, page: u64) {
    context.update(&operation(b"MEM.PAGE.ADD", section.address.saturating_add(page.saturating_mul(4096))));
}

/// `TDH.MR.EXTEND` for each 256 bytes of a page: 128 bytes with the name and the address, then the bytes.
fn extend(context: &mut Context, section: &TdxSection<'_>, page: u64) {
    if !section.measured {
        return;
    }
    let start = usize::try_from(page).unwrap_or(usize::MAX).saturating_mul(PAGE);
    let mut content = [0; PAGE];
    let data = section.data.get(start..).unwrap_or_default();
    content.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
    let address = section.address.saturating_add(start as u64);
    for (chunk, address) in content.chunks(CHUNK).zip((address..).step_by(CHUNK)) {
        context.update(&operation(b"MR.EXTEND", address));
        context.update(chunk);
    }
}

fn operation(name: &[u8], address: u64) -> [u8; 128] {
    let mut out = [0; 128];
    let fields = name.iter().copied().chain(std::iter::repeat_n(0, 16usize.saturating_sub(name.len())));
    out.iter_mut().zip(fields.chain(address.to_le_bytes())).for_each(|(to, from)| *to = from);
    out
}

/// RTMR1: the kernel as a UEFI program, then what firmware notes of every start.
///
/// # Errors
/// [`Error::Malformed`] for a kernel that UEFI cannot start.
pub fn rtmr1(kernel: &[u8]) -> Result<Measurement, Error> {
    Ok(rtmr1_of(&authenticode::digest(kernel)?))
}

/// RTMR1 of a kernel's Authenticode digest.
pub(crate) fn rtmr1_of(kernel: &[u8; 48]) -> Measurement {
    let note = |text: &str| sha384(&[text.as_bytes()]);
    replay(&[
        *kernel,
        note("Calling EFI Application from Boot Option"),
        // EV_SEPARATOR: four bytes of zero.
        sha384(&[&[0; 4]]),
        note("Exit Boot Services Invocation"),
        note("Exit Boot Services Returned with Success"),
    ])
}

/// RTMR2: what the kernel's EFI stub measures, the command line as firmware hands it over, and the initrd.
///
/// # Errors
/// [`Error::Refused`] for a command line that is not printable ASCII.
pub fn rtmr2(word: InitrdWord, boot: &Boot<'_>) -> Result<Measurement, Error> {
    check_command_line(boot.command_line)?;
    Ok(rtmr2_of(word, boot.command_line, &sha384(&[boot.initrd])))
}

/// RTMR2 of any command line and the SHA-384 of an initrd: for a search that tries many lines with one initrd. The line is measured
/// as UTF-16 with a zero at its end.
pub(crate) fn rtmr2_of(word: InitrdWord, command_line: &[u8], initrd: &[u8; 48]) -> Measurement {
    let wide: Vec<u8> =
        word.line(command_line).into_iter().flat_map(|byte| [byte, 0]).chain([0, 0]).collect();
    replay(&[sha384(&[&wide]), *initrd])
}
