//! What people sign about a release. Each message begins with a label that no other message of Cocoon has.

use super::PublicKey;
use crate::{Digest, UnixTime};

/// Signatures of each kind in a bundle.
pub const MAX_STATEMENTS: usize = 16;

/// A signature of a release signer over [`signed_message`]: `[key bstr32, signature bstr64]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleaseSignature {
    /// Who signed.
    pub key: PublicKey,
    /// Ed25519 (RFC 8032).
    pub signature: [u8; 64],
}

/// "I rebuilt this release and got the same", signed over [`rebuild_message`]: `[key bstr32, time uint, signature bstr64]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuild {
    /// Who rebuilt it.
    pub key: PublicKey,
    /// When.
    pub time: UnixTime,
    /// Ed25519 (RFC 8032).
    pub signature: [u8; 64],
}

/// `L("cocoon/release/v1") || H256(manifest)`, 64 bytes.
#[must_use]
pub fn signed_message(release: Digest) -> Vec<u8> {
    [label(b"cocoon/release/v1").as_slice(), &release.0].concat()
}

/// `L("cocoon/rebuild/v1") || H256(manifest) || time(8)`, 72 bytes.
#[must_use]
pub fn rebuild_message(release: Digest, time: UnixTime) -> Vec<u8> {
    [label(b"cocoon/rebuild/v1").as_slice(), &release.0, &time.0.to_be_bytes()].concat()
}

/// `L("x")` of `docs/protocol.md`: zero-padded to 32 bytes.
fn label(text: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
    out
}
