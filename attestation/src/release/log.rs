//! That a release is in a public log.

use super::checkpoint::Checkpoint;
use super::note::Note;
use super::reference::exactly;
use super::{MAX_NOTE_LEN, ReleaseManifest};
use crate::binding::{leaf_hash, root_from_path};
use crate::cbor::{self, Field, Value};
use crate::{Digest, Error};

/// A log of 2^40 entries.
pub const MAX_PROOF_PATH: usize = 40;

/// `[index uint, [* bstr32] path, note tstr]`: the entry's place in the tree, what leads from there to the root, and the signed root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogProof {
    /// Number of the entry.
    pub index: u64,
    /// Sibling hashes from the leaf to the root (RFC 9162 section 2.1.3).
    pub path: Vec<Digest>,
    /// The signed checkpoint.
    pub note: Note,
    /// What its text says.
    checkpoint: Checkpoint,
}

/// The entry of a release in a log: three lines, so that whoever watches the log can read it.
#[must_use]
pub fn log_entry(manifest: &ReleaseManifest) -> Vec<u8> {
    format!("cocoon-release/1\n{}\n{}\n", manifest.version, manifest.digest()).into_bytes()
}

impl LogProof {
    /// A proof from its parts.
    ///
    /// # Errors
    /// `Malformed` if the note is no checkpoint.
    pub fn new(index: u64, path: Vec<Digest>, note: Note) -> Result<Self, Error> {
        let checkpoint = Checkpoint::parse(note.text())?;
        Ok(Self { index, path, note, checkpoint })
    }

    /// What the log was when it made this proof.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Whether the entry of `manifest` is in the log that the checkpoint describes.
    #[must_use]
    pub fn includes(&self, manifest: &ReleaseManifest) -> bool {
        let leaf = leaf_hash(&log_entry(manifest));
        root_from_path(leaf, self.index, self.checkpoint.size, &self.path) == Some(self.checkpoint.root)
    }

    pub(super) fn value(&self) -> Value {
        let path = self.path.iter().map(|node| cbor::bytes(&node.0)).collect();
        Value::Array(vec![cbor::uint(self.index), Value::Array(path), cbor::text(&self.note.to_string())])
    }

    pub(super) fn read(field: Field) -> Result<Self, Error> {
        let [index, path, note] = exactly(field, "a log proof of 3 parts")?;
        let path = path.items(MAX_PROOF_PATH)?.into_iter().map(|node| node.array().map(Digest));
        let path = path.collect::<Result<_, _>>()?;
        Self::new(index.uint()?, path, Note::parse(&note.text(MAX_NOTE_LEN)?)?)
    }
}
