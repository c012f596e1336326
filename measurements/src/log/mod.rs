//! A transparency log of releases (C2SP tlog-tiles) as plain files, which any web server can serve.
//!
//! | Module | What |
//! |---|---|
//! | [`layout`] | which file is where, and how files are written |
//! | [`tiles`] | what is in them |
//! | [`reader`] | reads a log, and checks all of it |
//! | [`writer`] | appends to a log, and signs it |
//! | [`seen`] | what a key signed before: a log that shrinks or forks is not signed again |
//! | [`witness`] | cosigns what a log shows |
//!
//! Entries are short texts ([`cocoon_attestation::release::log_entry`]), so that a log of many years is read at once.

mod error;
pub mod layout;
pub mod reader;
pub mod seen;
#[cfg(test)]
mod tests;
pub mod tiles;
pub mod witness;
pub mod writer;

pub use error::LogError;
pub use reader::Log;
pub use writer::Writer;

use cocoon_attestation::UnixTime;
use cocoon_attestation::release::{NoteKind, NoteSignature, PublicKey, cosigned_message, key_id};

use crate::key::SigningKey;

/// More are not held in memory at once; at a release a day it takes 2700 years.
pub const MAX_ENTRIES: u64 = 1_000_000;

/// The key's own public half.
///
/// # Errors
/// Never: keys are made from random bytes.
pub fn public_key(key: &SigningKey) -> Result<PublicKey, cocoon_attestation::Error> {
    key.public().parse()
}

/// The log's signature of a checkpoint's text.
fn signature(key: &SigningKey, public: &PublicKey, name: &str, text: &str) -> NoteSignature {
    NoteSignature {
        name: name.to_owned(),
        id: key_id(name, NoteKind::Ed25519, public),
        signature: key.sign(text.as_bytes()),
    }
}

/// A cosignature: what was seen, and when.
fn cosignature(key: &SigningKey, public: &PublicKey, name: &str, text: &str, now: UnixTime) -> NoteSignature {
    let signature = key.sign(&cosigned_message(now, text));
    NoteSignature {
        name: name.to_owned(),
        id: key_id(name, NoteKind::Cosignature, public),
        signature: [now.0.to_be_bytes().as_slice(), &signature].concat(),
    }
}
