//! The launch digest, page by page.
//!
//! Each page that is added changes the digest: the new one is SHA-384 over the old one, the SHA-384 of the page and what the page
//! is. So a digest can be kept and gone on from, which lets a search try thousands of command lines without measuring the firmware
//! again. The crate `sev` computes the same only from files, and stops the program on firmware that is cut off; it is what the tests
//! compare with.

use cocoon_attestation::{Digest, Measurement};
use sev::measurement::vmsa::{GuestFeatures, VMMType, VMSA};

use super::{Boot, Error, VcpuType};
use crate::predict::enforcement::HASHES;
use crate::predict::firmware::{Firmware, PAGE, SevKind, SevSection, guid};
use crate::predict::sha384;

/// Address under which all processors' pages are added: AMD 56860, `SNP_LAUNCH_FINISH`.
const VMSA_ADDRESS: u64 = 0xffff_ffff_f000;
const ZEROS: [u8; 48] = [0; 48];

/// `PAGE_TYPE` (AMD 56860, `SNP_LAUNCH_UPDATE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Normal = 1,
    Vmsa = 2,
    Zero = 3,
    Secrets = 5,
    Cpuid = 6,
}

/// Which program starts the guest: it decides on the order of pages and on the state of processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// QEMU: sections in the firmware's order.
    Qemu,
    /// Amazon EC2: the CPUID page last, other descriptors of segments.
    Ec2,
}

/// SHA-256 of kernel, initrd, and of the command line with the zero byte at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashes {
    /// Of the kernel's file.
    pub kernel: Digest,
    /// Of the initrd's file; of nothing if there is none.
    pub initrd: Digest,
    /// Of the command line and a zero byte.
    pub command_line: Digest,
}

impl Hashes {
    /// As QEMU computes them.
    #[must_use]
    pub fn of(boot: &Boot<'_>) -> Self {
        Self {
            kernel: Digest::of(boot.kernel),
            initrd: Digest::of(boot.initrd),
            command_line: Self::of_command_line(boot.command_line),
        }
    }

    /// The hash of a command line.
    #[must_use]
    pub fn of_command_line(line: &[u8]) -> Digest {
        Digest::of(&[line, &[0]].concat())
    }

    /// The table as QEMU writes it: `SevHashTable`, padded to 16 bytes.
    #[must_use]
    pub fn table(&self) -> [u8; TABLE_LEN] {
        let [kernel, initrd, command_line] = HASHES;
        let mut table = Vec::with_capacity(TABLE_LEN);
        table.extend_from_slice(&TABLE);
        table.extend_from_slice(&[168, 0]);
        for (id, hash) in [(command_line, self.command_line), (initrd, self.initrd), (kernel, self.kernel)] {
            table.extend_from_slice(&id);
            table.extend_from_slice(&[50, 0]);
            table.extend_from_slice(&hash.0);
        }
        let mut out = [0; TABLE_LEN];
        out.iter_mut().zip(table).for_each(|(to, from)| *to = from);
        out
    }
}

/// Bytes of the table of hashes with its padding.
pub const TABLE_LEN: usize = 176;
const TABLE: [u8; 16] = guid(0x9438_d606_4f22_4cc9_b479_a793_d411_fd21);

/// A launch digest so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch([u8; 48]);

impl Launch {
    /// `PAGE_INFO` (AMD 56860, table "Layout of the PAGE_INFO Structure"), hashed. Permissions of lower levels and the bit for
    /// migration are zero.
    fn add(&mut self, kind: Kind, address: u64, content: &[u8; 48]) {
        let about = [0x70, 0, kind as u8, 0, 0, 0, 0, 0];
        self.0 = sha384(&[&self.0, content, &about, &address.to_le_bytes()]);
    }

    fn zeros(&mut self, section: SevSection) {
        for page in 0..section.size / 4096 {
            self.add(Kind::Zero, u64::from(section.address) + u64::from(page) * 4096, &ZEROS);
        }
    }

    /// The digest, if nothing else is added.
    #[must_use]
    pub fn measurement(self) -> Measurement {
        Measurement(self.0)
    }
}

/// A launch up to the page of hashes, and the sections behind it.
#[derive(Clone, Debug)]
pub struct Start {
    before: Launch,
    hashes: Option<SevSection>,
    /// Where the table lies in its page.
    table: Option<(u32, u32)>,
    after: Vec<SevSection>,
}

impl Start {
    /// Adds the firmware and what comes before the page of hashes.
    ///
    /// # Errors
    /// [`Error::Malformed`] for firmware whose metadata makes no sense.
    pub fn new(firmware: &Firmware<'_>, order: Order) -> Result<Self, Error> {
        let mut before = Launch(ZEROS);
        for (page, address) in firmware.bytes().chunks(PAGE).zip((firmware.address()..).step_by(PAGE)) {
            before.add(Kind::Normal, address, &sha384(&[page]));
        }
        let mut sections = firmware.sev_sections()?;
        if order == Order::Ec2 {
            // A stable sort: all others stay in their order.
            sections.sort_by_key(|section| section.kind == SevKind::Cpuid);
        }
        let mut after = Vec::new();
        let mut hashes = None;
        for section in sections {
            let is_hashes = section.kind == SevKind::KernelHashes;
            match (is_hashes, hashes.is_some()) {
                (true, true) => {
                    return Err(Error::malformed("firmware", "it has two sections for kernel hashes"));
                }
                (true, false) => hashes = Some(section),
                (false, true) => after.push(section),
                (false, false) => add_section(&mut before, section),
            }
        }
        Ok(Self { before, hashes, table: firmware.hash_table(), after })
    }

    /// Goes on with these hashes; `None`: with the page of zeros of a guest that was started with `kernel-hashes=off`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the firmware has no place for hashes.
    pub fn with(&self, hashes: Option<&Hashes>) -> Result<Launch, Error> {
        let mut launch = self.before;
        match (hashes, self.hashes) {
            (Some(hashes), Some(section)) => {
                let page = self.page(hashes, section);
                let page = page.ok_or_else(|| {
                    Error::malformed("firmware", "its table of hashes does not fit its page")
                })?;
                launch.add(Kind::Normal, section.address.into(), &sha384(&[&page]));
            }
            (Some(_), None) => {
                return Err(Error::malformed("firmware", "it has no section for kernel hashes"));
            }
            (None, Some(section)) => launch.zeros(section),
            (None, None) => {}
        }
        self.after.iter().for_each(|section| add_section(&mut launch, *section));
        Ok(launch)
    }

    fn page(&self, hashes: &Hashes, section: SevSection) -> Option<[u8; PAGE]> {
        let (base, size) = self.table?;
        let offset = usize::try_from(base.checked_sub(section.address)?).ok()?;
        let mut page = [0; PAGE];
        let place = page.get_mut(offset..offset.checked_add(TABLE_LEN)?)?;
        place.copy_from_slice(&hashes.table());
        (size as usize >= TABLE_LEN).then_some(page)
    }
}

fn add_section(launch: &mut Launch, section: SevSection) {
    match section.kind {
        SevKind::Secrets => launch.add(Kind::Secrets, section.address.into(), &ZEROS),
        SevKind::Cpuid => launch.add(Kind::Cpuid, section.address.into(), &ZEROS),
        SevKind::Memory | SevKind::CallingArea | SevKind::KernelHashes => launch.zeros(section),
    }
}

/// The state that processors start in: the first one's and the others'.
#[derive(Clone, Copy, Debug)]
pub struct Vcpus {
    first: [u8; 48],
    other: [u8; 48],
}

impl Vcpus {
    /// Of this type, with these `SEV_FEATURES`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the firmware does not say where processors start.
    pub fn new(
        firmware: &Firmware<'_>,
        order: Order,
        vcpu_type: VcpuType,
        guest_features: u64,
    ) -> Result<Self, Error> {
        let malformed = |why: &str| Error::malformed("firmware", why);
        let address = firmware.reset_address().filter(|address| *address != 0);
        let address = address.ok_or_else(|| malformed("it does not say where further processors start"))?;
        let program = match order {
            Order::Qemu => VMMType::QEMU,
            Order::Ec2 => VMMType::EC2,
        };
        let features = GuestFeatures(guest_features);
        let state = VMSA::new(address.into(), vcpu_type.processor(), program, Some(2), features);
        let pages = state.pages(2).map_err(|e| malformed(&format!("the state of processors: {e}")))?;
        match pages.as_slice() {
            [first, other] => Ok(Self { first: sha384(&[first]), other: sha384(&[other]) }),
            _ => Err(malformed("it has no state for further processors")),
        }
    }

    /// Adds `count` processors.
    #[must_use]
    pub fn add(&self, mut launch: Launch, count: u32) -> Launch {
        for vcpu in 0..count {
            self.add_one(&mut launch, vcpu);
        }
        launch
    }

    /// The launches with one processor, with two, and so on.
    pub fn each(&self, launch: Launch) -> impl Iterator<Item = (u32, Launch)> + '_ {
        (0u32..).scan(launch, |launch, vcpu| {
            self.add_one(launch, vcpu);
            Some((vcpu.checked_add(1)?, *launch))
        })
    }

    fn add_one(&self, launch: &mut Launch, vcpu: u32) {
        launch.add(Kind::Vmsa, VMSA_ADDRESS, if vcpu == 0 { &self.first } else { &self.other });
    }
}
