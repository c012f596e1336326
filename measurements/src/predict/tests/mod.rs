//! Predictions beside those of other programs, and what is refused.

mod enforcement;
mod malformed;
mod store;
mod vectors;

use std::io::Write;

use cocoon_attestation::Digest;
use lzma_rust2::{LzmaOptions, LzmaWriter};

use super::enforcement::HASHES;
use super::firmware::{Firmware, guid};

/// Two pages with all that OVMF has at its end, written by `tests/vectors/launch.py`.
pub(crate) const FIRMWARE: &[u8] = include_bytes!("../../../../tests/vectors/launch.fd");
/// A small PE file, from there.
pub(crate) const KERNEL: &[u8] = include_bytes!("../../../../tests/vectors/launch.efi");

/// [`FIRMWARE`] behind a page with a compressed section that holds these bytes.
pub(crate) fn with_volume(content: &[u8]) -> Vec<u8> {
    let options = LzmaOptions::with_preset(1);
    let mut writer = LzmaWriter::new_use_header(Vec::new(), &options, Some(content.len() as u64)).unwrap();
    writer.write_all(content).unwrap();
    let data = writer.finish().unwrap();
    // Length, kind, GUID, where data begins, attributes.
    let mut out = vec![0, 0, 0, 2];
    out.extend_from_slice(&guid(0xee4e_5898_3914_4259_9d6e_dc7b_d794_03cf));
    out.extend_from_slice(&[24, 0, 1, 0]);
    out.extend_from_slice(&data);
    out.resize(out.len().next_multiple_of(4096), 0xff);
    out.extend_from_slice(FIRMWARE);
    out
}

/// The same, with nothing else that can be unpacked.
pub(crate) fn with_only_volume(content: &[u8]) -> Vec<u8> {
    let mut out = with_volume(content);
    // The GUID of the section of FIRMWARE, at 0x100 behind its beginning.
    let at = out.len() - FIRMWARE.len() + 0x100 + 4;
    out[at] ^= 1;
    out
}

/// Firmware that has the code of a blob verifier, as far as can be seen.
pub(crate) fn with_verifier() -> Vec<u8> {
    with_volume(&[&[7; 1000], HASHES.concat().as_slice(), &[8; 1000]].concat())
}

/// [`FIRMWARE`] with these bytes at this place before its end.
pub(crate) fn altered(from_end: usize, bytes: &[u8]) -> Vec<u8> {
    let mut out = FIRMWARE.to_vec();
    let at = out.len() - from_end;
    out[at..at + bytes.len()].copy_from_slice(bytes);
    out
}

/// That a firmware was reviewed.
pub(crate) fn reviewed(firmware: &[u8]) -> [Digest; 1] {
    [Digest::of(firmware)]
}

/// Firmware of the tests.
pub(crate) fn firmware() -> Firmware<'static> {
    Firmware::parse(FIRMWARE).unwrap()
}
