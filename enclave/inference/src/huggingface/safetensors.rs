//! The header of a safetensors file. Format: <https://github.com/huggingface/safetensors#format>.
//!
//! Stricter than the format: floating-point tensors only, none empty, at most four dimensions, every name once, tensors
//! aligned to their numbers, and every byte behind the header belongs to exactly one tensor.

use crate::error::Error;
use crate::weights::Encoding;
use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::ops::Range;

/// Some 100 bytes per tensor, of which the largest known models have about 2,000.
const MAX_HEADER: u64 = 8 << 20;
const MAX_TENSORS: usize = 16 * 1024;
const MAX_DIMS: usize = 4;
/// Holds texts that nothing depends on.
const METADATA: &str = "__metadata__";

/// A tensor and where its bytes lie in the file.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) encoding: Encoding,
    /// Outermost dimension first.
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Range<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// Tensors by name; a name that appears twice is an error.
struct Header(BTreeMap<String, Raw>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Header;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let (mut tensors, mut metadata) = (BTreeMap::new(), false);
                while let Some(name) = map.next_key::<String>()? {
                    let twice = if name == METADATA {
                        map.next_value::<BTreeMap<String, IgnoredAny>>()?;
                        std::mem::replace(&mut metadata, true)
                    } else {
                        let raw = map.next_value()?;
                        tensors.insert(name.clone(), raw).is_some()
                    };
                    if twice {
                        return Err(A::Error::custom(format!("`{}` appears twice", name.escape_debug())));
                    }
                    if tensors.len() > MAX_TENSORS {
                        return Err(A::Error::custom(format!("more than {MAX_TENSORS} tensors")));
                    }
                }
                Ok(Header(tensors))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// Takes the header of the file `name` apart; `bytes` is the whole file. Tensors that `skip` names are left out: of those only
/// matters where they lie, so that nothing is hidden between tensors.
pub(super) fn parse(
    name: &str,
    bytes: &[u8],
    skip: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Entry>, Error> {
    let malformed = |problem: String| Error::MalformedFile { name: name.to_owned(), problem };
    let (length, rest) =
        bytes.split_first_chunk::<8>().ok_or_else(|| malformed("it has fewer than 8 bytes".to_owned()))?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(malformed(format!("its header has {length} bytes, more than {MAX_HEADER}")));
    }
    let header = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let (header, data) =
        header.ok_or_else(|| malformed("it ends within the header (truncated?)".to_owned()))?;
    if header.first() != Some(&b'{') {
        return Err(malformed("its header does not begin with `{`".to_owned()));
    }
    let Header(raw) = serde_json::from_slice(header).map_err(|error| malformed(error.to_string()))?;
    let start = bytes.len() - data.len();
    let mut entries = BTreeMap::new();
    let mut ranges = Vec::with_capacity(raw.len());
    for (name, raw) in raw {
        let shown = name.escape_debug().to_string();
        if skip(&name) {
            ranges.push((raw.data_offsets, shown));
            continue;
        }
        let encoding = encoding(&raw.dtype)?;
        let entry = entry(&raw, encoding, start, data.len());
        let entry = entry.map_err(|problem| malformed(format!("tensor `{shown}` {problem}")))?;
        ranges.push((raw.data_offsets, shown));
        entries.insert(name, entry);
    }
    ranges.sort();
    let mut end = 0;
    for ((first, last), name) in ranges {
        if first != end {
            return Err(malformed(format!(
                "tensor `{name}` begins at {first}, what is before it ends at {end}"
            )));
        }
        end = last;
    }
    if end != data.len() {
        return Err(malformed(format!("its tensors have {end} bytes, {} follow the header", data.len())));
    }
    Ok(entries)
}

fn encoding(dtype: &str) -> Result<Encoding, Error> {
    match dtype {
        "F32" => Ok(Encoding::F32),
        "F16" => Ok(Encoding::F16),
        "BF16" => Ok(Encoding::Bf16),
        other => {
            let name = other.chars().take(20).collect();
            Err(Error::Unsupported { what: "tensor type", name, supported: "F32, F16, BF16" })
        }
    }
}

/// `start`: where the data begin in the file; `available`: how many bytes they are.
fn entry(raw: &Raw, encoding: Encoding, start: usize, available: usize) -> Result<Entry, String> {
    let (first, last) = raw.data_offsets;
    if last > available {
        return Err("lies outside the file (truncated?)".to_owned());
    }
    if raw.shape.is_empty() || raw.shape.len() > MAX_DIMS || raw.shape.contains(&0) {
        return Err(format!("has the shape {:?}", raw.shape));
    }
    let width = encoding.block_bytes();
    let size = raw.shape.iter().try_fold(width, |size, dim| size.checked_mul(*dim));
    if size.is_none() || size != last.checked_sub(first) {
        return Err("has another size than its shape says".to_owned());
    }
    if !first.is_multiple_of(width) {
        return Err("is not aligned".to_owned());
    }
    Ok(Entry { encoding, shape: raw.shape.clone(), bytes: start + first..start + last })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, bytes: &[u8]) -> Result<BTreeMap<String, Entry>, Error> {
        super::parse(name, bytes, |_| false)
    }

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 7);
        bytes
    }

    fn tensor(name: &str, dtype: &str, shape: &str, first: usize, last: usize) -> String {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{first},{last}]}}"#)
    }

    #[test]
    fn tensors_are_found_in_any_order_of_names() {
        let header = format!(
            "{{{},\"__metadata__\":{{\"format\":\"pt\"}},{}}}  ",
            tensor("b", "F32", "[2,3]", 0, 24),
            tensor("a", "BF16", "[1]", 24, 26)
        );
        let bytes = file(&header, 26);
        let entries = parse("x", &bytes).unwrap();
        let start = bytes.len() - 26;
        assert_eq!(
            entries["a"],
            Entry { encoding: Encoding::Bf16, shape: vec![1], bytes: start + 24..start + 26 }
        );
        assert_eq!(entries["b"].shape, [2, 3]);
        assert!(parse("x", &file("{}", 0)).unwrap().is_empty());
    }

    #[test]
    fn every_rejection_says_what_and_where() {
        let one =
            |dtype: &str, shape: &str, first, last| format!("{{{}}}", tensor("t", dtype, shape, first, last));
        for (header, data, says) in [
            (one("I8", "[2]", 0, 2), 2, "tensor type `I8`"),
            (one("F32", "[2]", 0, 8), 7, "outside the file"),
            (one("F32", "[2]", 0, 8), 9, "9 follow the header"),
            (one("F32", "[3]", 0, 8), 8, "another size"),
            (one("F32", "[2]", 8, 0), 8, "another size"),
            (one("F32", "[]", 0, 4), 4, "the shape []"),
            (one("F32", "[0]", 0, 0), 0, "the shape [0]"),
            (one("F32", "[1,1,1,1]", 0, 4), 4, ""),
            (one("F32", "[1,1,1,1,1]", 0, 4), 4, "the shape [1, 1, 1, 1, 1]"),
            (one("F32", "[4294967296,4294967296,4]", 0, 8), 8, "another size"),
            (one("F32", "[-1]", 0, 4), 4, "invalid value"),
            (
                format!("{{{},{}}}", tensor("a", "F16", "[1]", 0, 2), tensor("b", "F16", "[1]", 4, 6)),
                6,
                "begins at 4",
            ),
            (
                format!("{{{},{}}}", tensor("a", "F16", "[2]", 0, 4), tensor("b", "F16", "[1]", 2, 4)),
                4,
                "begins at 2",
            ),
            (
                format!("{{{},{}}}", tensor("a", "F16", "[1]", 0, 2), tensor("b", "F32", "[1]", 2, 6)),
                6,
                "not aligned",
            ),
            (
                format!("{{{},{}}}", tensor("a", "F16", "[1]", 0, 2), tensor("a", "F16", "[1]", 2, 4)),
                4,
                "`a` appears twice",
            ),
            (one("F32", "[1]", 0, 4).replace("\"dtype\"", "\"x\":1,\"dtype\""), 4, "unknown field"),
            ("{\"__metadata__\":{},\"__metadata__\":{}}".to_owned(), 0, "appears twice"),
            (" {}".to_owned(), 0, "begin with `{`"),
            ("{} x".to_owned(), 0, "trailing"),
            ("{".to_owned(), 0, "EOF"),
            (String::new(), 0, "begin with `{`"),
        ] {
            let result = parse("model.safetensors", &file(&header, data));
            match result {
                Ok(_) => assert_eq!(says, "", "{header}"),
                Err(error) => {
                    assert!(!says.is_empty() && error.to_string().contains(says), "{header}: {error}")
                }
            }
        }
    }

    #[test]
    fn skipped_tensors_may_be_of_any_type_but_leave_no_gap() {
        let skip = |first, last, len| {
            let header =
                format!("{{{},{}}}", tensor("a", "I64", "[]", first, last), tensor("b", "F16", "[1]", 8, 10));
            super::parse("x", &file(&header, len), |name| name == "a")
        };
        assert_eq!(skip(0, 8, 10).unwrap().into_keys().collect::<Vec<_>>(), ["b"]);
        assert!(skip(0, 7, 10).unwrap_err().to_string().contains("begins at 8"));
        assert!(skip(8, 0, 10).unwrap_err().to_string().contains("begins at 8"));
        assert!(skip(0, 9, 10).unwrap_err().to_string().contains("begins at 8"));
        assert!(skip(10, usize::MAX, 10).unwrap_err().to_string().contains("begins at 8"));
    }

    #[test]
    fn headers_have_limits() {
        let mut bytes = (MAX_HEADER + 1).to_le_bytes().to_vec();
        assert!(parse("x", &bytes).unwrap_err().to_string().contains("more than 8388608"));
        bytes[..8].copy_from_slice(&MAX_HEADER.to_le_bytes());
        assert!(parse("x", &bytes).unwrap_err().to_string().contains("ends within"));
        assert!(parse("x", &bytes[..7]).unwrap_err().to_string().contains("8 bytes"));
        let many = |count: usize| {
            let tensors: Vec<_> =
                (0..count).map(|n| tensor(&n.to_string(), "F16", "[1]", 2 * n, 2 * n + 2)).collect();
            parse("x", &file(&format!("{{{}}}", tensors.join(",")), 2 * count))
        };
        assert_eq!(many(MAX_TENSORS).unwrap().len(), MAX_TENSORS);
        assert!(many(MAX_TENSORS + 1).unwrap_err().to_string().contains("16384 tensors"));
    }
}
