//! Deterministic CBOR (RFC 8949 section 4.2.1), strict: what is not the one canonical encoding is malformed.
//!
//! `serde_cbor` decodes leniently, so decoding here means: decode, encode again, compare. That refuses long integers, indefinite
//! lengths, duplicate and unsorted keys, tags and trailing bytes at once. Maps have keys of one kind only (unsigned integers, byte
//! strings or text), for which the library's length-first order and RFC 8949's bytewise order are the same.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever kind of value is not listed is refused, later ones too"
)]

use std::collections::BTreeMap;

pub(crate) use serde_cbor::Value;

use crate::Error;

/// `protocol.md`: depth <= 6.
const MAX_DEPTH: usize = 6;

/// Decodes one value that is all of `bytes` and is encoded canonically.
pub(crate) fn decode(what: &'static str, bytes: &[u8], max_len: usize) -> Result<Value, Error> {
    if bytes.len() > max_len {
        return Err(Error::malformed(what, format!("{} bytes, at most {max_len} are allowed", bytes.len())));
    }
    // The library's message can quote input: it is dropped.
    let value: Value = serde_cbor::from_slice(bytes)
        .map_err(|e| Error::malformed(what, format!("not CBOR at byte {}", e.offset())))?;
    check_shape(what, &value, MAX_DEPTH)?;
    if encode(&value) != bytes {
        return Err(Error::malformed(what, "not deterministically encoded (RFC 8949 section 4.2.1)"));
    }
    Ok(value)
}

/// Encodes canonically.
pub(crate) fn encode(value: &Value) -> Vec<u8> {
    // Encoding a `Value` into memory cannot fail: there is no I/O and no type that CBOR lacks.
    serde_cbor::to_vec(value).unwrap_or_default()
}

fn check_shape(what: &'static str, value: &Value, depth: usize) -> Result<(), Error> {
    match value {
        Value::Null | Value::Integer(_) | Value::Bytes(_) | Value::Text(_) => Ok(()),
        Value::Array(items) => {
            let depth = deeper(what, depth)?;
            items.iter().try_for_each(|item| check_shape(what, item, depth))
        }
        Value::Map(map) => {
            let depth = deeper(what, depth)?;
            let same_kind = |a: &Value, b: &Value| std::mem::discriminant(a) == std::mem::discriminant(b);
            let first = map.keys().next();
            for (key, item) in map {
                let allowed = matches!(key, Value::Integer(0..) | Value::Bytes(_) | Value::Text(_));
                if !allowed || !first.is_some_and(|first| same_kind(first, key)) {
                    return Err(Error::malformed(what, "a map key of a kind that is not allowed here"));
                }
                check_shape(what, item, depth)?;
            }
            Ok(())
        }
        _ => Err(Error::malformed(what, "a float, boolean or tag, none of which cocoon/1 has")),
    }
}

fn deeper(what: &'static str, depth: usize) -> Result<usize, Error> {
    depth.checked_sub(1).ok_or_else(|| Error::malformed(what, format!("nested deeper than {MAX_DEPTH}")))
}

/// A map with unsigned integer keys, taken apart field by field; what nobody took is an error.
pub(crate) struct Fields {
    what: &'static str,
    map: BTreeMap<Value, Value>,
}

impl Fields {
    pub(crate) fn decode(what: &'static str, bytes: &[u8], max_len: usize) -> Result<Self, Error> {
        match decode(what, bytes, max_len)? {
            Value::Map(map) => Ok(Self { what, map }),
            _ => Err(Error::malformed(what, "not a map")),
        }
    }

    /// The value of `key`, or an error that names it.
    pub(crate) fn required(&mut self, key: u8) -> Result<Field, Error> {
        self.optional(key).ok_or_else(|| Error::malformed(self.what, format!("field {key} is missing")))
    }

    pub(crate) fn optional(&mut self, key: u8) -> Option<Field> {
        self.map.remove(&Value::Integer(key.into())).map(|value| Field { what: self.what, key, value })
    }

    /// Checks that field 0 is the constant `version` and nothing else.
    pub(crate) fn version(&mut self, version: &Value) -> Result<(), Error> {
        if self.required(0)?.value == *version {
            return Ok(());
        }
        Err(Error::malformed(self.what, "field 0: unknown version"))
    }

    pub(crate) fn finish(self) -> Result<(), Error> {
        if self.map.is_empty() {
            return Ok(());
        }
        Err(Error::malformed(self.what, format!("{} unknown fields", self.map.len())))
    }
}

/// One value with the name of its place, for errors.
pub(crate) struct Field {
    what: &'static str,
    key: u8,
    value: Value,
}

impl Field {
    fn wrong(&self, want: &str) -> Error {
        Error::malformed(self.what, format!("field {}: expected {want}", self.key))
    }

    pub(crate) fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    pub(crate) fn uint(self) -> Result<u64, Error> {
        match self.value {
            Value::Integer(n) => u64::try_from(n).map_err(|_out_of_range| self.wrong("an unsigned integer")),
            _ => Err(self.wrong("an unsigned integer")),
        }
    }

    pub(crate) fn bytes(self) -> Result<Vec<u8>, Error> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(self.wrong("a byte string")),
        }
    }

    pub(crate) fn array<const N: usize>(self) -> Result<[u8; N], Error> {
        match &self.value {
            Value::Bytes(bytes) => <[u8; N]>::try_from(bytes.as_slice())
                .map_err(|_out_of_range| self.wrong(&format!("a byte string of {N} bytes"))),
            _ => Err(self.wrong(&format!("a byte string of {N} bytes"))),
        }
    }

    pub(crate) fn text(self, max_len: usize) -> Result<String, Error> {
        match self.value {
            Value::Text(text) if text.len() <= max_len => Ok(text),
            _ => Err(self.wrong(&format!("a text of at most {max_len} bytes"))),
        }
    }

    pub(crate) fn into_value(self) -> Value {
        self.value
    }

    /// An optional list has one way to be empty: not to be there.
    pub(crate) fn not_empty(self) -> Result<Self, Error> {
        match &self.value {
            Value::Array(items) if items.is_empty() => Err(self.empty()),
            Value::Map(entries) if entries.is_empty() => Err(self.empty()),
            _ => Ok(self),
        }
    }

    fn empty(&self) -> Error {
        Error::malformed(self.what, format!("field {}: empty; leave the field out", self.key))
    }

    /// The items of an array of at most `max` items.
    pub(crate) fn items(self, max: usize) -> Result<Vec<Field>, Error> {
        match self.value {
            Value::Array(items) if items.len() <= max => {
                Ok(items.into_iter().map(|value| Field { what: self.what, key: self.key, value }).collect())
            }
            _ => Err(self.wrong(&format!("an array of at most {max} items"))),
        }
    }

    /// The entries of a map of at most `max` entries.
    pub(crate) fn entries(self, max: usize) -> Result<Vec<(Field, Field)>, Error> {
        let (what, key) = (self.what, self.key);
        let field = |value| Field { what, key, value };
        match self.value {
            Value::Map(map) if map.len() <= max => {
                Ok(map.into_iter().map(|(k, v)| (field(k), field(v))).collect())
            }
            _ => Err(self.wrong(&format!("a map of at most {max} entries"))),
        }
    }
}

/// A map with unsigned integer keys, for encoding.
pub(crate) fn map(fields: impl IntoIterator<Item = (u8, Value)>) -> Value {
    Value::Map(fields.into_iter().map(|(key, value)| (Value::Integer(key.into()), value)).collect())
}

pub(crate) fn uint(n: u64) -> Value {
    Value::Integer(n.into())
}

pub(crate) fn bytes(b: &[u8]) -> Value {
    Value::Bytes(b.to_vec())
}

pub(crate) fn text(t: &str) -> Value {
    Value::Text(t.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(hex_bytes: &str) -> String {
        decode("test", &hex::decode(hex_bytes).unwrap(), 64).unwrap_err().to_string()
    }

    #[test]
    fn accepts_canonical() {
        for ok in
            ["a0", "a10001", "a2000101f6", "a1006161", "a14101a0", "818181818180", "a100a100a100a100a100a0"]
        {
            let bytes = hex::decode(ok).unwrap();
            assert_eq!(encode(&decode("test", &bytes, 64).unwrap()), bytes, "{ok}");
        }
    }

    #[test]
    fn refuses_what_is_not_canonical() {
        assert!(refused("a1180001").contains("deterministically"), "long integer");
        assert!(refused("bf0001ff").contains("deterministically"), "indefinite map");
        assert!(refused("5f4101ff").contains("deterministically"), "indefinite bytes");
        assert!(refused("a200010002").contains("deterministically"), "duplicate key");
        assert!(refused("a201010001").contains("deterministically"), "unsorted keys");
        assert!(refused("c000").contains("malformed"), "tag");
        assert!(refused("0000").contains("not CBOR"), "trailing bytes");
        assert!(refused("a1").contains("not CBOR"), "truncated");
        assert!(refused("").contains("not CBOR"), "empty");
        assert!(refused("f4").contains("boolean"), "boolean");
        assert!(refused("f93c00").contains("float"), "float");
        assert!(refused("a12001").contains("map key"), "negative key");
        assert!(refused("a20001616102").contains("map key"), "mixed keys");
        assert!(refused("81818181818180").contains("nested deeper than 6"), "depth 7");
        assert!(refused("a100a100a100a100a100a100a0").contains("nested deeper than 6"), "depth 7");
        assert!(refused("9b7fffffffffffffff").contains("not CBOR"), "huge array");
        assert!(refused("5b7fffffffffffffff").contains("not CBOR"), "huge byte string");
    }

    #[test]
    fn size_limit_is_exact() {
        assert!(decode("test", &[0x43, 1, 2, 3], 4).is_ok());
        assert!(decode("test", &[0x43, 1, 2, 3], 3).unwrap_err().to_string().contains("at most 3"));
    }

    #[test]
    fn fields_are_typed_and_exhaustive() {
        let bytes = encode(&map([(0, uint(1)), (1, bytes(&[1, 2])), (2, text("x")), (9, uint(0))]));
        let mut fields = Fields::decode("test", &bytes, 64).unwrap();
        fields.version(&uint(1)).unwrap();
        assert!(fields.required(1).unwrap().array::<3>().is_err());
        assert!(fields.required(2).unwrap().uint().is_err());
        assert!(fields.required(3).map(|_| ()).unwrap_err().to_string().contains("field 3 is missing"));
        assert!(fields.finish().unwrap_err().to_string().contains("1 unknown fields"));
    }
}
