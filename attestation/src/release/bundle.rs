//! What travels: the manifest with everything that vouches for it.

use super::reference::exactly;
use super::{
    LogProof, MAX_MANIFEST_LEN, MAX_STATEMENTS, PublicKey, Rebuild, ReleaseManifest, ReleaseSignature,
};
use crate::cbor::{self, Field, Fields, Value};
use crate::{Digest, Error, UnixTime};

/// A manifest, a log proof and sixteen statements of each kind, all as large as they may be, stay below it; the rest of an
/// AttestResponse of 256 KiB is for evidence and endorsements.
pub const MAX_BUNDLE_LEN: usize = 80 * 1024;

const WHAT: &str = "release bundle";
const FORMAT: &str = "cocoon-release-bundle/1";

/// `{ 0: "cocoon-release-bundle/1", 1: manifest bstr, ? 2: [+ signature], ? 3: log proof, ? 4: [+ rebuild] }`, field 5 of an
/// AttestResponse. Signatures and rebuilds are sorted by key, one of each key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseBundle {
    /// What was released.
    pub manifest: ReleaseManifest,
    signatures: Vec<ReleaseSignature>,
    /// That it is in a log.
    pub log: Option<LogProof>,
    rebuilds: Vec<Rebuild>,
}

impl ReleaseBundle {
    /// A manifest for which nobody vouches yet.
    #[must_use]
    pub fn new(manifest: ReleaseManifest) -> Self {
        Self { manifest, signatures: Vec::new(), log: None, rebuilds: Vec::new() }
    }

    /// Signatures of release signers.
    #[must_use]
    pub fn signatures(&self) -> &[ReleaseSignature] {
        &self.signatures
    }

    /// Statements of those who rebuilt it.
    #[must_use]
    pub fn rebuilds(&self) -> &[Rebuild] {
        &self.rebuilds
    }

    /// Adds a signature, or replaces the one of the same key.
    ///
    /// # Errors
    /// `Misuse` if there are sixteen already.
    pub fn sign(&mut self, signature: ReleaseSignature) -> Result<(), Error> {
        put(&mut self.signatures, signature, |one| one.key)
    }

    /// Adds a rebuild, or replaces the one of the same key.
    ///
    /// # Errors
    /// `Misuse` if there are sixteen already.
    pub fn attest_rebuild(&mut self, rebuild: Rebuild) -> Result<(), Error> {
        put(&mut self.rebuilds, rebuild, |one| one.key)
    }

    /// Takes over what `other` has for the same manifest. Of two proofs from one log, the one of the larger tree stays, then the one
    /// with the log's later time, then the one with more signatures; one that leads elsewhere never stays. Of another log's, the own one.
    ///
    /// # Errors
    /// `Misuse` if it is about another one, or there would be more than sixteen signatures or rebuilds.
    pub fn merge(&mut self, other: Self) -> Result<(), Error> {
        if other.manifest != self.manifest {
            return Err(Error::misuse("this bundle is of another release"));
        }
        other.signatures.into_iter().try_for_each(|one| self.sign(one))?;
        other.rebuilds.into_iter().try_for_each(|one| self.attest_rebuild(one))?;
        self.log = match (self.log.take(), other.log) {
            (Some(own), Some(new)) => Some(better(own, new, &self.manifest)),
            (own, new) => own.or(new),
        };
        Ok(())
    }

    /// Deterministic CBOR.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut fields = vec![(0, cbor::text(FORMAT)), (1, cbor::bytes(&self.manifest.encode()))];
        let mut list = |key, values: Vec<Value>| {
            fields.extend((!values.is_empty()).then_some((key, Value::Array(values))));
        };
        let signature =
            |one: &ReleaseSignature| Value::Array(vec![cbor::bytes(&one.key.0), cbor::bytes(&one.signature)]);
        let rebuild = |one: &Rebuild| {
            let parts = [cbor::bytes(&one.key.0), cbor::uint(one.time.0), cbor::bytes(&one.signature)];
            Value::Array(parts.into())
        };
        list(2, self.signatures.iter().map(signature).collect());
        list(4, self.rebuilds.iter().map(rebuild).collect());
        fields.extend(self.log.as_ref().map(|log| (3, log.value())));
        cbor::encode(&cbor::map(fields))
    }

    /// Reads a bundle.
    ///
    /// # Errors
    /// `Malformed` for anything that is not exactly one canonical bundle of at most 80 KiB.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields::decode(WHAT, bytes, MAX_BUNDLE_LEN)?;
        fields.version(&cbor::text(FORMAT))?;
        let manifest = fields.required(1)?.bytes()?;
        if manifest.len() > MAX_MANIFEST_LEN {
            return Err(Error::malformed(WHAT, format!("a manifest of more than {MAX_MANIFEST_LEN} bytes")));
        }
        let mut bundle = Self::new(ReleaseManifest::decode(&manifest)?);
        bundle.signatures = list(fields.optional(2), signature)?;
        bundle.log = fields.optional(3).map(LogProof::read).transpose()?;
        bundle.rebuilds = list(fields.optional(4), rebuild)?;
        fields.finish()?;
        let sorted = bundle.signatures.is_sorted_by(|a, b| a.key < b.key)
            && bundle.rebuilds.is_sorted_by(|a, b| a.key < b.key);
        if !sorted {
            return Err(Error::malformed(WHAT, "signatures that are not sorted by key, one of each"));
        }
        Ok(bundle)
    }

    /// SHA-256 of the manifest: what S must name.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.manifest.digest()
    }
}

/// Nothing is verified here: who reads the bundle does that.
fn better(own: LogProof, new: LogProof, manifest: &ReleaseManifest) -> LogProof {
    let rank = |proof: &LogProof| {
        let (checkpoint, note) = (proof.checkpoint(), &proof.note);
        let time = note.claimed_time(&checkpoint.origin);
        (proof.includes(manifest), checkpoint.size, time, note.signatures().len())
    };
    let same_log = own.checkpoint().origin == new.checkpoint().origin;
    let leads = new.includes(manifest) && (same_log || !own.includes(manifest));
    if leads && rank(&new) > rank(&own) { new } else { own }
}

fn put<T>(list: &mut Vec<T>, one: T, key: impl Fn(&T) -> PublicKey) -> Result<(), Error> {
    list.retain(|old| key(old) != key(&one));
    if list.len() >= MAX_STATEMENTS {
        return Err(Error::misuse(format!("a bundle has room for {MAX_STATEMENTS} signatures of each kind")));
    }
    list.push(one);
    list.sort_by_key(key);
    Ok(())
}

fn list<T>(field: Option<Field>, read: impl Fn(Field) -> Result<T, Error>) -> Result<Vec<T>, Error> {
    let Some(field) = field else { return Ok(Vec::new()) };
    field.not_empty()?.items(MAX_STATEMENTS)?.into_iter().map(read).collect()
}

fn signature(item: Field) -> Result<ReleaseSignature, Error> {
    let [key, signature] = exactly(item, "a signature of 2 parts")?;
    Ok(ReleaseSignature { key: PublicKey(key.array()?), signature: signature.array()? })
}

fn rebuild(item: Field) -> Result<Rebuild, Error> {
    let [key, time, signature] = exactly(item, "a rebuild of 3 parts")?;
    Ok(Rebuild { key: PublicKey(key.array()?), time: UnixTime(time.uint()?), signature: signature.array()? })
}
