//! AttestResponse: what the enclave answers.

use super::MAX_RESPONSE_LEN;
use crate::binding::MAX_TREE_SIZE;
use crate::cbor::{self, Field, Fields, Value};
use crate::{Digest, Endorsement, Error};

/// A tree of 4096 leaves has paths of 12 nodes.
const MAX_PATH: usize = 12;

/// CPU chain, CRLs, TCB info and RIMs of eight GPUs stay below this.
const MAX_ENDORSEMENTS: usize = 64;

/// `{ 0: 1, 1: S, 2: evidence, 3: [index, size, [* bstr32]], ? 4: {* bstr32 => bstr}, ? 5: bstr }`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestResponse {
    /// The epoch statement S, as bytes: hashes are over received bytes.
    pub statement: Vec<u8>,
    /// The CMW collection, as bytes.
    pub evidence: Vec<u8>,
    /// Place of this client's leaf in the batch.
    pub index: u64,
    /// Number of leaves in the batch, 1..=4096.
    pub size: u64,
    /// Sibling hashes from the leaf to the root.
    pub path: Vec<Digest>,
    /// Endorsements. On the wire each is keyed by the SHA-256 of its encoding, which was checked.
    pub endorsements: Vec<Endorsement>,
    /// The release manifest with its signatures and log proof.
    pub release: Option<Vec<u8>>,
}

impl AttestResponse {
    /// Deterministic CBOR.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let path = self.path.iter().map(|node| cbor::bytes(&node.0)).collect();
        let place = vec![cbor::uint(self.index), cbor::uint(self.size), Value::Array(path)];
        let mut fields = vec![
            (0, cbor::uint(1)),
            (1, cbor::bytes(&self.statement)),
            (2, cbor::bytes(&self.evidence)),
            (3, Value::Array(place)),
        ];
        if !self.endorsements.is_empty() {
            let entries = self.endorsements.iter().map(|endorsement| {
                let item = endorsement.encode();
                (cbor::bytes(&Digest::of(&item).0), cbor::bytes(&item))
            });
            fields.push((4, Value::Map(entries.collect())));
        }
        fields.extend(self.release.as_ref().map(|release| (5, cbor::bytes(release))));
        cbor::encode(&cbor::map(fields))
    }

    /// Reads a response.
    ///
    /// # Errors
    /// `Malformed` for anything that is not exactly one canonical response of at most 256 KiB, and for an endorsement whose
    /// digest is not its key.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields::decode("AttestResponse", bytes, MAX_RESPONSE_LEN)?;
        fields.version(&cbor::uint(1))?;
        let statement = fields.required(1)?.bytes()?;
        let evidence = fields.required(2)?.bytes()?;
        let (index, size, path) = place(fields.required(3)?)?;
        let endorsements = fields.optional(4).map(endorsements).transpose()?.unwrap_or_default();
        let release = fields.optional(5).map(Field::bytes).transpose()?;
        fields.finish()?;
        Ok(Self { statement, evidence, index, size, path, endorsements, release })
    }
}

fn place(field: Field) -> Result<(u64, u64, Vec<Digest>), Error> {
    let wrong = |why| Error::malformed("AttestResponse", format!("field 3: {why}"));
    let Ok([index, size, path]) = <[Field; 3]>::try_from(field.items(3)?) else {
        return Err(wrong("expected [index, size, path]"));
    };
    let (index, size) = (index.uint()?, size.uint()?);
    if size == 0 || size > MAX_TREE_SIZE || index >= size {
        return Err(wrong("index and size are not a place in a tree of 1 to 4096 leaves"));
    }
    let path =
        path.items(MAX_PATH)?.into_iter().map(|node| node.array().map(Digest)).collect::<Result<_, _>>()?;
    Ok((index, size, path))
}

fn endorsements(field: Field) -> Result<Vec<Endorsement>, Error> {
    let mut out = Vec::new();
    for (key, item) in field.not_empty()?.entries(MAX_ENDORSEMENTS)? {
        let (digest, item) = (Digest(key.array()?), item.bytes()?);
        if Digest::of(&item) != digest {
            return Err(Error::malformed(
                "AttestResponse",
                "field 4: an endorsement whose digest is not its key",
            ));
        }
        out.push(Endorsement::decode(&item)?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EndorsementKind;

    fn response() -> AttestResponse {
        AttestResponse {
            statement: vec![1],
            evidence: vec![2],
            index: 1,
            size: 3,
            path: vec![Digest([3; 32]); 2],
            endorsements: vec![Endorsement { kind: EndorsementKind::AmdCrl, bytes: b"a".to_vec() }],
            release: Some(vec![4]),
        }
    }

    #[test]
    fn round_trip() {
        let minimal = AttestResponse { endorsements: Vec::new(), release: None, ..response() };
        for response in [response(), minimal] {
            assert_eq!(AttestResponse::decode(&response.encode()).unwrap(), response);
        }
    }

    #[test]
    fn refuses_places_outside_the_tree() {
        for (index, size) in [(0, 0), (3, 3), (0, 4097), (u64::MAX, 4096)] {
            let bytes = AttestResponse { index, size, ..response() }.encode();
            assert!(AttestResponse::decode(&bytes).unwrap_err().to_string().contains("1 to 4096"));
        }
        let bytes = AttestResponse { path: vec![Digest([0; 32]); 13], ..response() }.encode();
        assert!(AttestResponse::decode(&bytes).is_err());
    }

    #[test]
    fn refuses_an_endorsement_under_another_digest() {
        let (bytes, item) = (response().encode(), response().endorsements[0].encode());
        let refused = |bytes: &[u8]| AttestResponse::decode(bytes).unwrap_err().to_string();
        let place = bytes.windows(item.len()).position(|window| window == item).unwrap();
        let mut altered = bytes.clone();
        altered[place + item.len() - 1] ^= 1;
        assert!(refused(&altered).contains("digest is not its key"));
        // Under its digest, but of no kind that exists.
        let mut untyped = bytes;
        untyped[place + 1] = 3;
        let digest = Digest::of(&untyped[place..place + item.len()]);
        let key = untyped.windows(32).position(|window| window == Digest::of(&item).0).unwrap();
        untyped[key..key + 32].copy_from_slice(&digest.0);
        assert!(refused(&untyped).contains("kind 3 is unknown"));
    }

    #[test]
    fn refuses_a_second_way_to_staple_nothing() {
        let place = Value::Array(vec![cbor::uint(0), cbor::uint(1), Value::Array(Vec::new())]);
        let fields = [
            (0, cbor::uint(1)),
            (1, cbor::bytes(&[1])),
            (2, cbor::bytes(&[2])),
            (3, place),
            (4, Value::Map(Default::default())),
        ];
        let refused = AttestResponse::decode(&cbor::encode(&cbor::map(fields))).unwrap_err().to_string();
        assert!(refused.contains("field 4: empty; leave the field out"), "{refused}");
    }

    #[test]
    fn size_limit() {
        let fill = |n| AttestResponse { release: Some(vec![0; n]), ..response() }.encode();
        let overhead = fill(MAX_RESPONSE_LEN / 2).len() - MAX_RESPONSE_LEN / 2;
        assert!(AttestResponse::decode(&fill(MAX_RESPONSE_LEN - overhead)).is_ok());
        assert!(AttestResponse::decode(&fill(MAX_RESPONSE_LEN - overhead + 1)).is_err());
    }
}
