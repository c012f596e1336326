//! A first walk over the header of a GGUF file that bounds everything before candle's parser allocates by it.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Stricter than the format: version 2 or 3 only,
//! no nested arrays, no duplicate names, no empty tensors, no gaps for a tensor to point into the header.

use crate::error::Error;
use std::collections::HashSet;

/// More than the largest known models have (about 1,200 tensors, 60 keys).
const MAX_TENSORS: u64 = 16 * 1024;
const MAX_METADATA: u64 = 4 * 1024;
/// Longest string: chat templates have some ten thousand bytes.
const MAX_STRING: u64 = 1 << 20;
/// All array elements of the metadata together: a value takes 32 bytes in memory and at least one in the file.
/// The largest vocabularies have 260,000 tokens, as many types and scores, and 510,000 merges.
const MAX_ARRAY_ELEMENTS: u64 = 4 << 20;
const MAX_DIMS: u32 = 4;
const MAX_ALIGNMENT: u64 = 64 * 1024;

const TYPE_U32: u32 = 4;
const TYPE_STRING: u32 = 8;
const TYPE_ARRAY: u32 = 9;

/// Checks that candle can parse the header and read every tensor within the bounds of `bytes`.
pub(crate) fn check(bytes: &[u8]) -> Result<(), Error> {
    let mut reader = Reader { rest: bytes };
    let (tensors, metadata) = preamble(&mut reader)?;
    let alignment = walk_metadata(&mut reader, metadata)?;
    let extents = walk_tensors(&mut reader, tensors)?;
    let position = (bytes.len() - reader.rest.len()) as u64;
    let data = position.next_multiple_of(alignment);
    let available = (bytes.len() as u64).saturating_sub(data);
    let mut extents = extents;
    extents.sort_by_key(|(_, offset, _)| *offset);
    let mut end = 0;
    for (name, offset, size) in extents {
        if offset < end {
            return malformed(format!("tensor `{name}` overlaps another one"));
        }
        end = offset.saturating_add(size);
        let fits = offset.checked_add(size).is_some_and(|end| end <= available);
        if !fits || !offset.is_multiple_of(alignment) {
            return malformed(format!(
                "tensor `{name}` lies outside the file (truncated?) or is not aligned"
            ));
        }
    }
    Ok(())
}

/// Magic and version; gives the number of tensors and of metadata entries.
fn preamble(reader: &mut Reader<'_>) -> Result<(u64, u64), Error> {
    if reader.take(4)? != b"GGUF" {
        return malformed("it does not begin with `GGUF`");
    }
    let version = reader.u32()?;
    if !matches!(version, 2 | 3) {
        return malformed(format!("version {version}, known are 2 and 3"));
    }
    let tensors = reader.u64()?;
    let metadata = reader.u64()?;
    if tensors > MAX_TENSORS || metadata > MAX_METADATA {
        return malformed(format!("{tensors} tensors and {metadata} metadata entries are too many"));
    }
    Ok((tensors, metadata))
}

/// Walks the metadata; gives the alignment of tensor data.
fn walk_metadata(reader: &mut Reader<'_>, count: u64) -> Result<u64, Error> {
    let mut keys = HashSet::new();
    let mut elements = 0;
    let mut alignment = candle_core::quantized::gguf_file::DEFAULT_ALIGNMENT;
    for _ in 0..count {
        let key = reader.string()?;
        if !keys.insert(key) {
            return malformed(format!("metadata key `{}` appears twice", key.escape_ascii()));
        }
        let value_type = reader.u32()?;
        if key == b"general.alignment" {
            if value_type != TYPE_U32 {
                return malformed("`general.alignment` is not a 32-bit number");
            }
            alignment = u64::from(reader.u32()?);
            if !alignment.is_power_of_two() || !(8..=MAX_ALIGNMENT).contains(&alignment) {
                return malformed(format!("alignment {alignment}"));
            }
        } else {
            walk_value(reader, value_type, &mut elements)?;
        }
    }
    Ok(alignment)
}

fn walk_value(reader: &mut Reader<'_>, value_type: u32, elements: &mut u64) -> Result<(), Error> {
    match value_type {
        TYPE_STRING => {
            reader.string()?;
        }
        TYPE_ARRAY => walk_array(reader, elements)?,
        scalar => {
            reader.take(scalar_size(scalar)?)?;
        }
    }
    Ok(())
}

fn walk_array(reader: &mut Reader<'_>, elements: &mut u64) -> Result<(), Error> {
    let item_type = reader.u32()?;
    let len = reader.u64()?;
    *elements = elements.saturating_add(len);
    if *elements > MAX_ARRAY_ELEMENTS {
        return malformed("the arrays of the metadata have too many elements");
    }
    if item_type == TYPE_ARRAY {
        return malformed("nested arrays in the metadata");
    }
    for _ in 0..len {
        walk_value(reader, item_type, elements)?;
    }
    Ok(())
}

/// Walks the tensor descriptions; gives name, offset and size in bytes of each.
fn walk_tensors(reader: &mut Reader<'_>, count: u64) -> Result<Vec<(String, u64, u64)>, Error> {
    let mut names = HashSet::new();
    let mut extents = Vec::new();
    for _ in 0..count {
        let raw = reader.string()?;
        let name = raw.escape_ascii().to_string();
        if !names.insert(raw) {
            return malformed(format!("tensor `{name}` appears twice"));
        }
        let dims = reader.u32()?;
        if !(1..=MAX_DIMS).contains(&dims) {
            return malformed(format!("tensor `{name}` has {dims} dimensions"));
        }
        let row = reader.u64()?;
        let mut count = row;
        for _ in 1..dims {
            let dim = reader.u64()?;
            count = count
                .checked_mul(dim)
                .map_or_else(|| malformed(format!("tensor `{name}` is too large")), Ok)?;
        }
        let (block, block_bytes) = block_size(reader.u32()?)?;
        if count == 0 || !row.is_multiple_of(block) {
            return malformed(format!(
                "tensor `{name}` has rows of {row} values, its type has blocks of {block}"
            ));
        }
        let size = (count / block).checked_mul(block_bytes);
        let size = size.map_or_else(|| malformed(format!("tensor `{name}` is too large")), Ok)?;
        extents.push((name, reader.u64()?, size));
    }
    Ok(extents)
}

fn scalar_size(value_type: u32) -> Result<usize, Error> {
    match value_type {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        other => malformed(format!("metadata value of unknown type {other}")),
    }
}

/// Values and bytes per block of a tensor type (`ggml_type` in ggml.h).
fn block_size(tensor_type: u32) -> Result<(u64, u64), Error> {
    Ok(match tensor_type {
        0 => (1, 4),      // F32
        1 | 30 => (1, 2), // F16, BF16
        2 => (32, 18),    // Q4_0
        3 => (32, 20),    // Q4_1
        6 => (32, 22),    // Q5_0
        7 => (32, 24),    // Q5_1
        8 => (32, 34),    // Q8_0
        12 => (256, 144), // Q4_K
        13 => (256, 176), // Q5_K
        14 => (256, 210), // Q6_K
        other => {
            return Err(Error::Unsupported {
                what: "tensor type",
                name: other.to_string(),
                supported: "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K",
            });
        }
    })
}

fn malformed<T>(problem: impl Into<String>) -> Result<T, Error> {
    Err(Error::Malformed(problem.into()))
}

/// The only place that slices the header.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Error> {
        match self.rest.split_at_checked(n) {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(head)
            }
            None => malformed("it ends within the header"),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_le_bytes)
    }

    fn string(&mut self) -> Result<&'a [u8], Error> {
        let len = self.u64()?;
        match usize::try_from(len) {
            Ok(n) if len <= MAX_STRING => self.take(n),
            _ => malformed(format!("a string of {len} bytes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny_model;

    #[test]
    fn a_good_header_passes_and_every_truncation_fails() {
        let bytes = tiny_model();
        check(&bytes).unwrap();
        for len in (0..bytes.len() - 32).step_by(7) {
            assert!(check(&bytes[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn hostile_counts_are_refused_before_anything_is_allocated() {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend_from_slice(&(MAX_TENSORS + 1).to_le_bytes());
        bytes.extend_from_slice(&0u64.to_le_bytes());
        assert!(check(&bytes).unwrap_err().to_string().contains("too many"));
        bytes[8..16].copy_from_slice(&MAX_TENSORS.to_le_bytes());
        assert!(check(&bytes).unwrap_err().to_string().contains("ends within"));
    }

    #[test]
    fn odd_headers_are_refused_by_name() {
        let entry = |key: &str, value_type: u32, value: &[u8]| {
            let mut bytes = b"GGUF\x03\0\0\0".to_vec();
            bytes.extend_from_slice(&0u64.to_le_bytes());
            bytes.extend_from_slice(&1u64.to_le_bytes());
            bytes.extend_from_slice(&(key.len() as u64).to_le_bytes());
            bytes.extend_from_slice(key.as_bytes());
            bytes.extend_from_slice(&value_type.to_le_bytes());
            bytes.extend_from_slice(value);
            check(&bytes).map_err(|error| error.to_string())
        };
        assert_eq!(entry("k", 4, &[0; 4]), Ok(()));
        assert!(entry("general.alignment", 4, &[0; 4]).unwrap_err().contains("alignment 0"));
        assert!(entry("general.alignment", 4, &33u32.to_le_bytes()).unwrap_err().contains("alignment 33"));
        assert!(entry("k", 13, &[0; 4]).unwrap_err().contains("unknown type 13"));
        let nested: Vec<u8> = [9u32.to_le_bytes().as_slice(), &1u64.to_le_bytes(), &[0; 12]].concat();
        assert!(entry("k", 9, &nested).unwrap_err().contains("nested"));
        let long: Vec<u8> = [0u32.to_le_bytes().as_slice(), &(MAX_ARRAY_ELEMENTS + 1).to_le_bytes()].concat();
        assert!(entry("k", 9, &long).unwrap_err().contains("too many elements"));
        assert!(entry("k", 8, &(MAX_STRING + 1).to_le_bytes()).unwrap_err().contains("a string of"));
    }

    #[test]
    fn tensors_may_touch_but_not_overlap() {
        let with_offset = |second: u64| {
            let mut bytes = b"GGUF\x03\0\0\0".to_vec();
            bytes.extend_from_slice(&2u64.to_le_bytes());
            bytes.extend_from_slice(&0u64.to_le_bytes());
            for (name, offset) in [(b"a", 0), (b"b", second)] {
                bytes.extend_from_slice(&1u64.to_le_bytes());
                bytes.extend_from_slice(name);
                bytes.extend_from_slice(&1u32.to_le_bytes()); // one dimension, of 16 F32
                bytes.extend_from_slice(&16u64.to_le_bytes());
                bytes.extend_from_slice(&0u32.to_le_bytes());
                bytes.extend_from_slice(&offset.to_le_bytes());
            }
            bytes.resize(bytes.len().next_multiple_of(32) + 128, 0);
            check(&bytes).map_err(|error| error.to_string())
        };
        assert_eq!(with_offset(64), Ok(()));
        assert!(with_offset(32).unwrap_err().contains("`b` overlaps"));
        assert!(with_offset(0).unwrap_err().contains("overlaps"));
        assert!(with_offset(96).unwrap_err().contains("outside"));
    }
}
