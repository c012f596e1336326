//! What OVMF says about itself at its end: a table of entries with GUIDs.
//!
//! Source: edk2, `OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm`, `OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm` and
//! `IntelTdxMetadata.asm`. The table ends 32 bytes before the end of the file; each entry ends with its length and its GUID.

use std::collections::BTreeMap;

use super::Error;
use crate::bytes::Bytes;

/// Firmware is mapped so that it ends at 4 GiB; no build of OVMF has more than 16 MiB.
pub const MAX_FIRMWARE: usize = 16 << 20;
/// Entries of the table and sections that it leads to: builds have seven.
const MAX_ENTRIES: usize = 64;
/// The last instructions, behind the table.
const RESET_VECTOR: usize = 32;
/// Length and GUID of an entry.
const ENTRY: usize = 18;
/// The size of a page.
pub const PAGE: usize = 4096;
const FOUR_GIB: u64 = 1 << 32;

/// A GUID as firmware stores it: the first three fields little-endian.
pub(crate) const fn guid(value: u128) -> [u8; 16] {
    let b = value.to_be_bytes();
    [b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]
}

const TABLE: [u8; 16] = guid(0x96b5_82de_1fb2_45f7_baea_a366_c55a_082d);
const RESET_BLOCK: [u8; 16] = guid(0x00f7_71de_1a7e_4fcb_890e_68c7_7e2f_b44e);
const HASH_TABLE: [u8; 16] = guid(0x7255_371f_3a3b_4b04_927b_1da6_efa8_d454);
const SEV_METADATA: [u8; 16] = guid(0xdc88_6566_984a_4798_a75e_5585_a7bf_67cc);
const TDX_METADATA: [u8; 16] = guid(0xe47a_6535_984a_4798_865e_4685_a7bf_8ec2);

/// Firmware whose table makes sense.
#[derive(Clone, Debug)]
pub struct Firmware<'a> {
    bytes: &'a [u8],
    entries: BTreeMap<[u8; 16], &'a [u8]>,
}

/// One kind of memory that QEMU adds to an SNP guest before it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SevSection {
    /// Where it lies in the guest, at a page.
    pub address: u32,
    /// Bytes, whole pages.
    pub size: u32,
    /// What it is for.
    pub kind: SevKind,
}

/// What a [`SevSection`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SevKind {
    /// Zeros.
    Memory,
    /// The page of secrets.
    Secrets,
    /// The CPUID page.
    Cpuid,
    /// Where an SVSM finds its calling area: zeros without one.
    CallingArea,
    /// Where the hashes of kernel, initrd and command line are.
    KernelHashes,
}

/// A section that a TDX guest's memory is made of (Intel TDX Virtual Firmware Design Guide, "TDVF Metadata").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TdxSection<'a> {
    /// The bytes that the file has for it.
    pub data: &'a [u8],
    /// Where it lies in the guest, at a page.
    pub address: u64,
    /// Pages in the guest.
    pub pages: u64,
    /// Whether its content is measured, or only that it is there.
    pub measured: bool,
    /// Whether the guest adds it itself, after launch.
    pub added_later: bool,
}

fn malformed(why: impl Into<String>) -> Error {
    Error::malformed("firmware", format!("{}; expected a build of OVMF for confidential guests", why.into()))
}

impl<'a> Firmware<'a> {
    /// Reads the table at the end.
    ///
    /// # Errors
    /// [`Error::Malformed`] for what is no OVMF, or has more than [`MAX_FIRMWARE`] bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_FIRMWARE || !bytes.len().is_multiple_of(PAGE) {
            let why =
                format!("it has {} bytes, expected whole pages, at most {MAX_FIRMWARE} bytes", bytes.len());
            return Err(malformed(why));
        }
        let table = table(bytes).ok_or_else(|| malformed("it does not end with a table of GUIDs"))?;
        let mut entries = BTreeMap::new();
        let mut rest = table;
        while !rest.is_empty() {
            let (above, guid, data) =
                last_entry(rest).ok_or_else(|| malformed("an entry of its table is cut off"))?;
            if entries.len() >= MAX_ENTRIES || entries.insert(guid, data).is_some() {
                return Err(malformed("its table has an entry twice, or too many"));
            }
            rest = above;
        }
        Ok(Self { bytes, entries })
    }

    /// The whole file.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Where the file lies in the guest.
    #[must_use]
    pub fn address(&self) -> u64 {
        FOUR_GIB.saturating_sub(self.bytes.len() as u64)
    }

    /// Where processors but the first start: `SEV-ES reset block`.
    #[must_use]
    pub fn reset_address(&self) -> Option<u32> {
        Bytes(self.entries.get(&RESET_BLOCK)?).u32(0)
    }

    /// Where the table of hashes has its place: address and bytes, both zero in firmware that has none.
    #[must_use]
    pub fn hash_table(&self) -> Option<(u32, u32)> {
        let entry = Bytes(self.entries.get(&HASH_TABLE)?);
        Some((entry.u32(0)?, entry.u32(4)?))
    }

    /// Descriptor, at most [`MAX_ENTRIES`] records of `N` bytes behind its header of 16.
    fn records<const N: usize>(
        &self,
        entry: &[u8; 16],
        signature: [u8; 4],
    ) -> Result<impl Iterator<Item = Bytes<'a>>, Error> {
        let name = String::from_utf8_lossy(&signature).into_owned();
        let wrong = |why: &str| malformed(format!("its {name} metadata {why}"));
        let entry = self.entries.get(entry).ok_or_else(|| wrong("is not there"))?;
        let from_end = Bytes(entry).size(0).ok_or_else(|| wrong("has no place"))?;
        let start = self.bytes.len().checked_sub(from_end).ok_or_else(|| wrong("lies before the file"))?;
        let header = Bytes(self.bytes.get(start..).unwrap_or_default());
        if header.array(0) != Some(signature) || header.u32(8) != Some(1) {
            return Err(wrong("has no header of version 1"));
        }
        let count = header.size(12).filter(|count| (1..=MAX_ENTRIES).contains(count));
        let count = count.ok_or_else(|| wrong("has no sections, or too many"))?;
        // At most 64 records of 32 bytes: no overflow.
        if header.size(4) != Some(16 + count * N) {
            return Err(wrong("has a length that does not fit its sections"));
        }
        let records = header.slice(16, count * N).ok_or_else(|| wrong("is cut off"))?;
        Ok(records.chunks_exact(N).map(Bytes))
    }

    /// What QEMU adds to an SNP guest, in its order.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the firmware has no such metadata, or metadata that makes no sense.
    pub fn sev_sections(&self) -> Result<Vec<SevSection>, Error> {
        self.records::<12>(&SEV_METADATA, *b"ASEV")?
            .map(|record| {
                let section = sev_section(record);
                section.ok_or_else(|| {
                    malformed("a section of its ASEV metadata is of an unknown kind or no whole pages")
                })
            })
            .collect()
    }

    /// What a TDX guest's memory is made of, in its order.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the firmware has no such metadata, or metadata that makes no sense.
    pub fn tdx_sections(&self) -> Result<Vec<TdxSection<'a>>, Error> {
        self.records::<32>(&TDX_METADATA, *b"TDVF")?
            .map(|record| {
                let section = tdx_section(self.bytes, record);
                section.ok_or_else(|| {
                    malformed("a section of its TDVF metadata lies outside the file or is no whole pages")
                })
            })
            .collect()
    }
}

/// The entries, without that of the table itself.
fn table(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.len().checked_sub(RESET_VECTOR)?;
    let (_, id, rest) = last_entry(bytes.get(..end)?)?;
    (id == TABLE).then_some(rest)
}

/// The entry at the end of `bytes`: what is before it, its GUID, its data.
fn last_entry(bytes: &[u8]) -> Option<(&[u8], [u8; 16], &[u8])> {
    let (rest, id) = bytes.split_last_chunk::<16>()?;
    let (_, len) = rest.split_last_chunk::<2>()?;
    let len = usize::from(u16::from_le_bytes(*len));
    let (above, entry) = bytes.split_at_checked(bytes.len().checked_sub(len)?)?;
    Some((above, *id, entry.get(..entry.len().checked_sub(ENTRY)?)?))
}

fn sev_section(record: Bytes<'_>) -> Option<SevSection> {
    let kind = match record.u32(8)? {
        1 => SevKind::Memory,
        2 => SevKind::Secrets,
        3 => SevKind::Cpuid,
        4 => SevKind::CallingArea,
        0x10 => SevKind::KernelHashes,
        _ => return None,
    };
    let (address, size) = (record.u32(0)?, record.u32(4)?);
    let one_page = !matches!(kind, SevKind::Memory | SevKind::CallingArea);
    // What is added lies below the firmware: no section has more than that many pages.
    let fits = size > 0 && (size as usize) <= MAX_FIRMWARE && (!one_page || size as usize == PAGE);
    let aligned =
        address.is_multiple_of(4096) && size.is_multiple_of(4096) && address.checked_add(size).is_some();
    (fits && aligned).then_some(SevSection { address, size, kind })
}

fn tdx_section<'a>(file: &'a [u8], record: Bytes<'_>) -> Option<TdxSection<'a>> {
    let (offset, len) = (record.size(0)?, record.size(4)?);
    let (address, size) = (record.u64(8)?, record.u64(16)?);
    let attributes = record.u32(28)?;
    let data = Bytes(file).slice(offset, len)?;
    // Bit 0: MR.EXTEND, bit 1: PAGE.AUG. Kinds above 6 and other bits are not known.
    let known = record.u32(24)? <= 6 && attributes <= 3;
    let fits = size <= MAX_FIRMWARE as u64 && data.len() as u64 <= size;
    let aligned =
        address.is_multiple_of(4096) && size.is_multiple_of(4096) && address.checked_add(size).is_some();
    (known && fits && aligned).then_some(TdxSection {
        data,
        address,
        pages: size / 4096,
        measured: attributes & 1 != 0,
        added_later: attributes & 2 != 0,
    })
}
