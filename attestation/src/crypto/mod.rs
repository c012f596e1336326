//! Every cryptographic call of this crate. Verification and hashing only: there are no secret keys here.

mod p384;

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::{digest, signature};
use subtle::ConstantTimeEq;

/// SHA-256 over the concatenation of `parts`.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(hash(&digest::SHA256, parts).as_ref());
    out
}

/// SHA-384 over the concatenation of `parts`.
pub(crate) fn sha384(parts: &[&[u8]]) -> [u8; 48] {
    let mut out = [0; 48];
    out.copy_from_slice(hash(&digest::SHA384, parts).as_ref());
    out
}

/// SHA-512 over the concatenation of `parts`.
pub(crate) fn sha512(parts: &[&[u8]]) -> [u8; 64] {
    let mut out = [0; 64];
    out.copy_from_slice(hash(&digest::SHA512, parts).as_ref());
    out
}

fn hash(algorithm: &'static digest::Algorithm, parts: &[&[u8]]) -> digest::Digest {
    let mut context = digest::Context::new(algorithm);
    for part in parts {
        context.update(part);
    }
    context.finish()
}

/// Compares without revealing, by time, where the first difference is.
pub(crate) fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// How something was signed. Nothing else is taken than what the name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignatureScheme {
    /// RSASSA-PSS, SHA-384, MGF1-SHA-384, 48 bytes of salt. Key: PKCS#1 RSAPublicKey, 2048 to 8192 bits.
    RsaPssSha384,
    /// Key: uncompressed point (65 bytes). Signature: DER.
    EcdsaP256Sha256Asn1,
    /// Key: uncompressed point (65 bytes). Signature: r || s, big-endian (64 bytes).
    EcdsaP256Sha256Fixed,
    /// Key: uncompressed point (97 bytes). Signature: DER.
    EcdsaP384Sha384Asn1,
    /// Key: uncompressed point (97 bytes). Signature: r || s, big-endian (96 bytes).
    EcdsaP384Sha384Fixed,
    /// Key: 32 bytes. Signature: 64 bytes (RFC 8032).
    Ed25519,
}

impl SignatureScheme {
    /// Whether `key` signed `message`.
    pub(crate) fn verify(self, key: &[u8], message: &[u8], signature_bytes: &[u8]) -> bool {
        let algorithm: &'static dyn signature::VerificationAlgorithm = match self {
            Self::EcdsaP384Sha384Asn1 => return p384::verify_der(key, message, signature_bytes),
            Self::EcdsaP384Sha384Fixed => return p384::verify_fixed(key, message, signature_bytes),
            Self::RsaPssSha384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::EcdsaP256Sha256Asn1 => &signature::ECDSA_P256_SHA256_ASN1,
            Self::EcdsaP256Sha256Fixed => &signature::ECDSA_P256_SHA256_FIXED,
            Self::Ed25519 => &signature::ED25519,
        };
        signature::UnparsedPublicKey::new(algorithm, key).verify(message, signature_bytes).is_ok()
    }
}

/// Signatures over what many appraisals share (certificates, revocation lists, TCB info, RIMs, releases) that were verified before. It remembers that a signature is good over these exact bytes under this key, nothing else: dates, revocation and
/// names are looked at each time. Bounded; the oldest is forgotten first. Signatures over evidence do not go here.
#[derive(Debug, Default)]
pub struct SignatureCache {
    known: Arc<Mutex<Remembered>>,
    /// Of one appraisal; `None`: nobody counts.
    budget: Option<Mutex<Budget>>,
}

#[derive(Debug, Default)]
struct Remembered {
    good: HashSet<[u8; 32]>,
    order: VecDeque<[u8; 32]>,
}

/// Two platforms' endorsements for a fleet; 64 bytes each.
const MAX_REMEMBERED: usize = 1024;

/// What one appraisal has verified. A response has room for thousands of signatures that lead nowhere.
#[derive(Debug, Default)]
struct Budget {
    verified: usize,
    /// Signatures that were found bad: they are not verified again.
    bad: HashSet<[u8; 32]>,
    is_exceeded: bool,
}

/// For one appraisal. With 16 GPUs of several firmware versions, chains and OCSP responses for each, it takes 250.
pub(crate) const MAX_VERIFICATIONS: usize = 512;

impl SignatureCache {
    /// An empty cache.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same cache for one appraisal, which verifies at most 512 signatures; more are taken for bad.
    pub(crate) fn for_one_appraisal(&self) -> Self {
        Self { known: Arc::clone(&self.known), budget: Some(Mutex::default()) }
    }

    /// Whether the appraisal wanted to verify more than it may.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.budget.as_ref().is_some_and(|budget| lock(budget).is_exceeded)
    }

    /// Whether `key` signed `message`, now or before.
    pub(crate) fn verify(
        &self,
        scheme: SignatureScheme,
        key: &[u8],
        message: &[u8],
        signature_bytes: &[u8],
    ) -> bool {
        let id = Self::id(scheme, key, message, signature_bytes);
        if lock(&self.known).good.contains(&id) {
            return true;
        }
        if self.budget.as_ref().is_some_and(|budget| !lock(budget).allows(&id)) {
            return false;
        }
        let good = scheme.verify(key, message, signature_bytes);
        if good {
            lock(&self.known).remember(id);
        } else if let Some(budget) = &self.budget {
            lock(budget).bad.insert(id);
        }
        good
    }

    fn id(scheme: SignatureScheme, key: &[u8], message: &[u8], signature_bytes: &[u8]) -> [u8; 32] {
        let lengths = format!("{scheme:?} {} {} ", key.len(), message.len());
        sha256(&[lengths.as_bytes(), key, message, signature_bytes])
    }
}

/// A thread that panicked while holding the lock leaves nothing half-done that matters.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Budget {
    /// Whether this signature may be verified; counts it.
    fn allows(&mut self, id: &[u8; 32]) -> bool {
        if self.bad.contains(id) {
            return false;
        }
        self.is_exceeded |= self.verified >= MAX_VERIFICATIONS;
        self.verified = self.verified.saturating_add(1);
        !self.is_exceeded
    }
}

impl Remembered {
    fn remember(&mut self, id: [u8; 32]) {
        if !self.good.insert(id) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > MAX_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.good.remove(&oldest);
        }
    }
}
