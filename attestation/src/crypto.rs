//! Every cryptographic call of this crate. Verification and hashing only: there are no secret keys here.

use ring::{digest, signature};
use subtle::ConstantTimeEq;

/// SHA-256 over the concatenation of `parts`.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(hash(&digest::SHA256, parts).as_ref());
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

/// ECDSA P-384 with SHA-384. `point`: uncompressed (97 bytes); `signature`: r || s, big-endian (96 bytes).
pub(crate) fn verify_p384(point: &[u8], message: &[u8], signature_rs: &[u8]) -> bool {
    signature::UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point)
        .verify(message, signature_rs)
        .is_ok()
}

/// RSASSA-PSS with SHA-384, MGF1-SHA-384 and a salt of 48 bytes. `key`: PKCS#1 RSAPublicKey, 2048 to 8192 bits.
pub(crate) fn verify_rsa_pss_sha384(key: &[u8], message: &[u8], signature_bytes: &[u8]) -> bool {
    signature::UnparsedPublicKey::new(&signature::RSA_PSS_2048_8192_SHA384, key)
        .verify(message, signature_bytes)
        .is_ok()
}
