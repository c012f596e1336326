//! What lies compressed in firmware: its drivers, and their texts.

use std::io::Read;

use lzma_rust2::LzmaReader;

use super::firmware::guid;
use crate::bytes::Bytes;

/// The volume of a build unpacks to 16 MB.
const MAX_UNPACKED: u64 = 64 << 20;
/// KiB that unpacking may take: the dictionary of a build has 16 MiB.
const MAX_MEMORY: u32 = 32 << 10;
/// Compressed sections that are looked at; a build has one.
const MAX_SECTIONS: usize = 8;

/// A section that is LZMA inside (UEFI PI, volume 3, "GUID-Defined Sections").
const LZMA: [u8; 16] = guid(0xee4e_5898_3914_4259_9d6e_dc7b_d794_03cf);

/// Contents of the compressed sections, in their order; without those that cannot be unpacked.
pub(super) fn volumes(firmware: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let mut from = 0_usize;
    let places = std::iter::from_fn(move || {
        let at = find(firmware.get(from..)?, &LZMA)?.checked_add(from)?;
        from = at.checked_add(LZMA.len())?;
        Some(at)
    });
    places.take(MAX_SECTIONS).filter_map(|at| unpack(firmware, at))
}

/// What is in the section whose GUID lies at `at`.
fn unpack(firmware: &[u8], at: usize) -> Option<Vec<u8>> {
    // Behind the GUID is where the data begins, counted from the section's header: 4 bytes before the GUID, or 8 if it is large.
    let to_data = usize::from(Bytes(firmware).u16(at.checked_add(16)?)?);
    let large = at.checked_sub(8).and_then(|start| Bytes(firmware).array(start)) == Some([0xff; 3]);
    let header = if large { 8 } else { 4 };
    let data = firmware.get(at.checked_sub(header)?.checked_add(to_data)?..)?;
    let mut out = Vec::new();
    let reader = LzmaReader::new_mem_limit(data, MAX_MEMORY, None).ok()?;
    reader.take(MAX_UNPACKED).read_to_end(&mut out).ok()?;
    Some(out)
}

/// Where `needle` begins.
pub(super) fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    loop {
        let rest = bytes.get(from..)?;
        let at = from.checked_add(rest.iter().position(|byte| *byte == first)?)?;
        if bytes.get(at..)?.starts_with(needle) {
            return Some(at);
        }
        from = at.checked_add(1)?;
    }
}
