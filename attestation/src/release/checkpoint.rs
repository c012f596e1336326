//! Checkpoints (C2SP tlog-checkpoint): what a log was, in three lines.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::note::is_key_name;
use crate::{Digest, Error, UnixTime};

const WHAT: &str = "checkpoint";

/// The text of a checkpoint's note: origin, size, root. Extension lines, which C2SP advises against, are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: the name of its key.
    pub origin: String,
    /// Number of entries.
    pub size: u64,
    /// Root of their Merkle tree (RFC 9162 section 2.1).
    pub root: Digest,
}

impl Checkpoint {
    /// Reads the text of a note.
    ///
    /// # Errors
    /// `Malformed` for anything but the one way to write a checkpoint.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || Error::malformed(WHAT, "expected three lines: origin, size and root hash");
        let lines: Vec<_> = text.split('\n').collect();
        let &[origin, size, root, ""] = lines.as_slice() else { return Err(wrong()) };
        let root = STANDARD.decode(root).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let (Some(root), Ok(size)) = (root, size.parse()) else { return Err(wrong()) };
        let read = Self { origin: origin.to_owned(), size, root: Digest(root) };
        // A size with zeros or a sign in front, an origin that no key can have.
        if !is_key_name(origin) || read.text() != text {
            return Err(wrong());
        }
        Ok(read)
    }

    /// The text, which the log signs.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.0))
    }
}

/// What a witness signs for the text of a checkpoint (C2SP tlog-cosignature, "Ed25519 signed message").
#[must_use]
pub fn cosigned_message(time: UnixTime, text: &str) -> Vec<u8> {
    format!("cosignature/v1\ntime {}\n{text}", time.0).into_bytes()
}
