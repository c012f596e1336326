//! The epoch statement S: what an enclave says about itself for at most an hour, bound into every report.

use std::collections::BTreeMap;

use crate::cbor::{self, Field, Fields, Value};
use crate::{Digest, Error, UnixTime};

/// `protocol.md`: not_after <= not_before + 3600.
pub const MAX_EPOCH_SECONDS: u64 = 3600;

/// S with eight GPUs and sixteen models is about 1.5 KiB.
const MAX_LEN: usize = 8 * 1024;
const MAX_GPUS: usize = 16;
const MAX_MODELS: usize = 64;
const MAX_GPU_ID: usize = 64;
const MAX_GPU_MODE: usize = 32;

/// What the enclave promises about content; each is part of S, so a client can demand it.
///
/// On the wire a map of unsigned integers. A key that this version does not know is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrivacyFlags {
    /// Key 0: the padding profile that responses have: 0 none, 1 constant size and rate.
    pub padding: u64,
    /// Key 1: 1 if prompts or answers can reach a log.
    pub content_logged: u64,
    /// Key 2: 1 if clients can share cached prefixes.
    pub shared_prefix_cache: u64,
}

/// S, see `protocol.md`. All times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochStatement {
    /// Random per boot.
    pub boot_id: [u8; 16],
    /// Number of the epoch since boot, from 0.
    pub epoch: u64,
    /// Start of validity.
    pub not_before: UnixTime,
    /// End of validity, at most an hour later.
    pub not_after: UnixTime,
    /// Identity of the node.
    pub node_id: Digest,
    /// SHA-256 of the SubjectPublicKeyInfo of the TLS key.
    pub spki: Digest,
    /// Ed25519 public key that signs receipts.
    pub receipt_key: [u8; 32],
    /// SHA-256 of the GPU evidence, if there are GPUs.
    pub gpu_evidence: Option<Digest>,
    /// Identifiers of the GPUs.
    pub gpu_ids: Vec<Vec<u8>>,
    /// Confidential-computing mode of the GPUs, `none` without GPUs.
    pub gpu_mode: String,
    /// Digests of the model manifests that are served; at least one.
    pub models: Vec<Digest>,
    /// Digest of the enclave's configuration.
    pub config: Digest,
    /// Digest of the release manifest, zero when the enclave was not released.
    pub release: Digest,
    /// Promises about content.
    pub privacy: PrivacyFlags,
}

const WHAT: &str = "epoch statement";

impl EpochStatement {
    /// Deterministic CBOR.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let flags = [self.privacy.padding, self.privacy.content_logged, self.privacy.shared_prefix_cache];
        cbor::encode(&cbor::map([
            (0, cbor::text("cocoon-epoch/1")),
            (1, cbor::bytes(&self.boot_id)),
            (2, cbor::uint(self.epoch)),
            (3, cbor::uint(self.not_before.0)),
            (4, cbor::uint(self.not_after.0)),
            (5, cbor::bytes(&self.node_id.0)),
            (6, cbor::bytes(&self.spki.0)),
            (7, cbor::bytes(&self.receipt_key)),
            (8, self.gpu_evidence.map_or(Value::Null, |digest| cbor::bytes(&digest.0))),
            (9, Value::Array(self.gpu_ids.iter().map(|id| cbor::bytes(id)).collect())),
            (10, cbor::text(&self.gpu_mode)),
            (11, Value::Array(self.models.iter().map(|digest| cbor::bytes(&digest.0)).collect())),
            (12, cbor::bytes(&self.config.0)),
            (13, cbor::bytes(&self.release.0)),
            (14, cbor::map((0..).zip(flags.map(cbor::uint)))),
        ]))
    }

    /// Reads S.
    ///
    /// # Errors
    /// `Malformed` for anything that is not exactly one canonical statement, or whose validity is longer than an hour.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields::decode(WHAT, bytes, MAX_LEN)?;
        fields.version(&cbor::text("cocoon-epoch/1"))?;
        let statement = Self {
            boot_id: fields.required(1)?.array()?,
            epoch: fields.required(2)?.uint()?,
            not_before: UnixTime(fields.required(3)?.uint()?),
            not_after: UnixTime(fields.required(4)?.uint()?),
            node_id: Digest(fields.required(5)?.array()?),
            spki: Digest(fields.required(6)?.array()?),
            receipt_key: fields.required(7)?.array()?,
            gpu_evidence: nullable_digest(fields.required(8)?)?,
            gpu_ids: fields
                .required(9)?
                .items(MAX_GPUS)?
                .into_iter()
                .map(gpu_id)
                .collect::<Result<_, _>>()?,
            gpu_mode: fields.required(10)?.text(MAX_GPU_MODE)?,
            models: digests(fields.required(11)?)?,
            config: Digest(fields.required(12)?.array()?),
            release: Digest(fields.required(13)?.array()?),
            privacy: privacy(fields.required(14)?)?,
        };
        fields.finish()?;
        statement.check()?;
        Ok(statement)
    }

    fn check(&self) -> Result<(), Error> {
        let length = self.not_after.0.checked_sub(self.not_before.0);
        if length.is_none_or(|seconds| seconds > MAX_EPOCH_SECONDS) {
            return Err(Error::malformed(WHAT, "validity is negative or longer than an hour"));
        }
        if self.models.is_empty() {
            return Err(Error::malformed(WHAT, "names no model"));
        }
        if self.gpu_evidence.is_some() == self.gpu_ids.is_empty() {
            return Err(Error::malformed(WHAT, "GPU evidence and GPU ids do not go together"));
        }
        Ok(())
    }
}

fn nullable_digest(field: Field) -> Result<Option<Digest>, Error> {
    if field.is_null() {
        return Ok(None);
    }
    field.array().map(|bytes| Some(Digest(bytes)))
}

fn gpu_id(field: Field) -> Result<Vec<u8>, Error> {
    let id = field.bytes()?;
    if id.is_empty() || id.len() > MAX_GPU_ID {
        return Err(Error::malformed(
            WHAT,
            format!("a GPU id of {} bytes, expected 1 to {MAX_GPU_ID}", id.len()),
        ));
    }
    Ok(id)
}

fn digests(field: Field) -> Result<Vec<Digest>, Error> {
    field.items(MAX_MODELS)?.into_iter().map(|item| item.array().map(Digest)).collect()
}

fn privacy(field: Field) -> Result<PrivacyFlags, Error> {
    let mut flags = BTreeMap::new();
    for (key, value) in field.entries(3)? {
        flags.insert(key.uint()?, value.uint()?);
    }
    let mut flag = |key: u64, max: u64| {
        let value = flags.remove(&key).filter(|value| *value <= max);
        value.ok_or_else(|| Error::malformed(WHAT, format!("privacy flag {key} is missing or not 0..={max}")))
    };
    // There are three, and at most three were taken.
    Ok(PrivacyFlags { padding: flag(0, 1)?, content_logged: flag(1, 1)?, shared_prefix_cache: flag(2, 1)? })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn statement() -> EpochStatement {
        EpochStatement {
            boot_id: [1; 16],
            epoch: 3,
            not_before: UnixTime(1_800_000_000),
            not_after: UnixTime(1_800_003_600),
            node_id: Digest([2; 32]),
            spki: Digest([3; 32]),
            receipt_key: [4; 32],
            gpu_evidence: None,
            gpu_ids: Vec::new(),
            gpu_mode: "none".into(),
            models: vec![Digest([5; 32])],
            config: Digest([6; 32]),
            release: Digest([0; 32]),
            privacy: PrivacyFlags { padding: 0, content_logged: 0, shared_prefix_cache: 0 },
        }
    }

    #[test]
    fn round_trip() {
        let with_gpu =
            EpochStatement { gpu_evidence: Some(Digest([7; 32])), gpu_ids: vec![vec![8; 16]], ..statement() };
        for s in [statement(), with_gpu] {
            assert_eq!(EpochStatement::decode(&s.encode()).unwrap(), s);
        }
    }

    #[test]
    fn refuses_statements_that_make_no_sense() {
        let refused = |s: EpochStatement| EpochStatement::decode(&s.encode()).unwrap_err().to_string();
        let s = statement();
        assert!(
            refused(EpochStatement { not_after: UnixTime(s.not_before.0 + 3601), ..s.clone() })
                .contains("hour")
        );
        assert!(
            refused(EpochStatement { not_after: UnixTime(s.not_before.0 - 1), ..s.clone() })
                .contains("negative")
        );
        assert!(refused(EpochStatement { models: vec![], ..s.clone() }).contains("no model"));
        assert!(refused(EpochStatement { gpu_ids: vec![vec![1]], ..s.clone() }).contains("go together"));
        assert!(
            refused(EpochStatement { gpu_evidence: Some(Digest([0; 32])), ..s.clone() })
                .contains("go together")
        );
        let padding = PrivacyFlags { padding: 2, ..s.privacy };
        assert!(refused(EpochStatement { privacy: padding, ..s }).contains("privacy flag 0"));
    }
}
