//! Releases: which measurements are acceptable, who says so, and where that was published.
//!
//! | Part | What |
//! |---|---|
//! | [`ReleaseManifest`] | what was released: image, inputs, reference values, components |
//! | [`ReleaseSignature`] | a release signer's word for it |
//! | [`LogProof`] | that it is in a public log (C2SP tlog-tiles), which anybody can watch |
//! | [`Rebuild`] | the word of somebody who built the same source and got the same |
//! | [`ReleaseBundle`] | all of these: field 5 of an AttestResponse |
//!
//! A bundle comes from the host and is as good as its signatures, which [`verify`] holds against the policy's section `[release]`.

mod appraise;
mod bundle;
mod checkpoint;
mod key;
mod log;
mod manifest;
mod note;
mod reference;
mod statement;
#[cfg(test)]
pub(crate) mod tests;

pub use appraise::verify;
pub(crate) use appraise::{Appraised, appraise};
pub use bundle::{MAX_BUNDLE_LEN, ReleaseBundle};
pub use checkpoint::{Checkpoint, cosigned_message};
pub use key::PublicKey;
pub use log::{LogProof, MAX_PROOF_PATH, log_entry};
pub use manifest::{Component, ImagePart, MAX_MANIFEST_LEN, ReleaseManifest};
pub use note::{
    MAX_NOTE_LEN, MAX_NOTE_SIGNATURES, Note, NoteKind, NoteSignature, is_key_name, key_id, verifier_key,
};
pub use reference::{SnpReference, TdxReference, TdxShape};
pub use statement::{MAX_STATEMENTS, Rebuild, ReleaseSignature, rebuild_message, signed_message};

/// A text of the kind that manifests, names and origins are made of: visible ASCII without spaces, so that nothing in it can
/// steer a terminal or end a line.
fn is_word(text: &str, max_len: usize) -> bool {
    (1..=max_len).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}
