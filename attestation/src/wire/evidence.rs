//! Evidence as a RATS Conceptual Message Wrapper collection (draft-ietf-rats-msg-wrap), CBOR form.

use std::collections::BTreeMap;

use super::MAX_RESPONSE_LEN;
use crate::Error;
use crate::cbor::{self, Value};

/// Media type of an AMD SEV-SNP ATTESTATION_REPORT, 1184 bytes (AMD 56860, table 23).
pub const SNP_REPORT_MEDIA_TYPE: &str = "application/vnd.cocoon.snp-report";

/// Media type of an Intel TDX quote (Intel DCAP, quote versions 4 and 5).
pub const TDX_QUOTE_MEDIA_TYPE: &str = "application/vnd.cocoon.tdx-quote";

/// `ind` of a CMW record: bit 2 says "evidence".
const IND_EVIDENCE: u64 = 1 << 2;

/// One CPU and sixteen GPUs.
const MAX_ITEMS: usize = 17;
const MAX_LABEL: usize = 16;
const MAX_MEDIA_TYPE: usize = 128;

/// What one device signed: a CMW record `[media type, bytes, ind]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceItem {
    /// What the bytes are.
    pub media_type: String,
    /// The device's own format, untouched.
    pub bytes: Vec<u8>,
}

/// All evidence of a node by label: `cpu`, `gpu0`, `gpu1`, ..
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EvidenceSet(pub BTreeMap<String, EvidenceItem>);

const WHAT: &str = "evidence collection";

impl EvidenceSet {
    /// A collection with only a CPU.
    #[must_use]
    pub fn cpu(item: EvidenceItem) -> Self {
        Self(BTreeMap::from([("cpu".to_owned(), item)]))
    }

    /// Deterministic CBOR.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let record = |item: &EvidenceItem| {
            Value::Array(vec![
                cbor::text(&item.media_type),
                cbor::bytes(&item.bytes),
                cbor::uint(IND_EVIDENCE),
            ])
        };
        cbor::encode(&Value::Map(
            self.0.iter().map(|(label, item)| (cbor::text(label), record(item))).collect(),
        ))
    }

    /// Reads a collection.
    ///
    /// # Errors
    /// `Malformed` for anything that is not exactly one canonical collection of evidence records under known labels.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let Value::Map(map) = cbor::decode(WHAT, bytes, MAX_RESPONSE_LEN)? else {
            return Err(Error::malformed(WHAT, "not a map"));
        };
        if map.len() > MAX_ITEMS {
            return Err(Error::malformed(
                WHAT,
                format!("{} items, at most {MAX_ITEMS} are allowed", map.len()),
            ));
        }
        map.into_iter()
            .map(|(key, value)| Ok((label(key)?, record(value)?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn label(key: Value) -> Result<String, Error> {
    if let Value::Text(label) = key
        && label.len() <= MAX_LABEL
        && (label == "cpu" || is_gpu_label(&label))
    {
        return Ok(label);
    }
    Err(Error::malformed(WHAT, "a label that is neither cpu nor gpu0, gpu1, .."))
}

fn is_gpu_label(label: &str) -> bool {
    label.strip_prefix("gpu").is_some_and(|n| n.parse::<u8>().is_ok_and(|parsed| parsed.to_string() == n))
}

fn record(value: Value) -> Result<EvidenceItem, Error> {
    let Value::Array(items) = value else {
        return Err(Error::malformed(WHAT, "an item that is not a record"));
    };
    match <[Value; 3]>::try_from(items) {
        Ok([Value::Text(media_type), Value::Bytes(bytes), Value::Integer(ind)])
            if ind == i128::from(IND_EVIDENCE) && media_type.len() <= MAX_MEDIA_TYPE =>
        {
            Ok(EvidenceItem { media_type, bytes })
        }
        _ => Err(Error::malformed(WHAT, "a record that is not [media type, bytes, 4]")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item() -> EvidenceItem {
        EvidenceItem { media_type: SNP_REPORT_MEDIA_TYPE.into(), bytes: vec![1, 2] }
    }

    #[test]
    fn round_trip() {
        let mut set = EvidenceSet::cpu(item());
        set.0.insert("gpu0".into(), item());
        assert_eq!(EvidenceSet::decode(&set.encode()).unwrap(), set);
    }

    #[test]
    fn refuses_unknown_labels_and_records() {
        for label in ["tpm", "gpu", "gpu01", "gpu256", "CPU", ""] {
            let set = EvidenceSet(BTreeMap::from([(label.to_owned(), item())]));
            assert!(EvidenceSet::decode(&set.encode()).is_err(), "{label}");
        }
        let record = |ind| Value::Array(vec![cbor::text("x"), cbor::bytes(&[]), cbor::uint(ind)]);
        let encode = |v| cbor::encode(&Value::Map(BTreeMap::from([(cbor::text("cpu"), v)])));
        assert!(EvidenceSet::decode(&encode(record(4))).is_ok());
        assert!(EvidenceSet::decode(&encode(record(8))).is_err());
        assert!(EvidenceSet::decode(&encode(cbor::uint(0))).is_err());
        assert!(EvidenceSet::decode(&cbor::encode(&cbor::uint(0))).is_err());
    }
}
