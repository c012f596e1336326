//! Reads a log, and checks all of it.

use std::path::{Path, PathBuf};

use cocoon_attestation::Digest;
use cocoon_attestation::binding::{leaf_hash, merkle_path, merkle_root};
use cocoon_attestation::release::{Checkpoint, LogProof, MAX_NOTE_LEN, Note, PublicKey};

use super::layout::{self, CHECKPOINT};
use super::{LogError, MAX_ENTRIES, tiles};

/// A log whose entries lead to the root that its checkpoint names.
#[derive(Clone, Debug)]
pub struct Log {
    pub(super) dir: PathBuf,
    pub(super) note: Note,
    pub(super) checkpoint: Checkpoint,
    pub(super) entries: Vec<Vec<u8>>,
    pub(super) leaves: Vec<Digest>,
}

/// Reads a signed checkpoint.
///
/// # Errors
/// When the file cannot be read or is no checkpoint.
pub fn read_checkpoint(path: &Path) -> Result<(Note, Checkpoint), LogError> {
    let bytes = layout::read(path, MAX_NOTE_LEN as u64)?;
    let text = std::str::from_utf8(&bytes).map_err(|_bytes| LogError::wrong(path, "not UTF-8"))?;
    let wrong = |error: cocoon_attestation::Error| LogError::wrong(path, error.to_string());
    let note = Note::parse(text).map_err(wrong)?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(wrong)?;
    Ok((note, checkpoint))
}

/// Writes a checkpoint, if it can be read again.
pub(super) fn write_checkpoint(path: &Path, note: &Note) -> Result<(), LogError> {
    let text = note.to_string();
    Note::parse(&text)
        .map_err(|error| LogError::Misuse(format!("no room for another signature: {error}")))?;
    layout::write(path, text.as_bytes())
}

/// Root of a tree that may be empty (RFC 9162 section 2.1.1).
pub(super) fn root(leaves: &[Digest]) -> Digest {
    merkle_root(leaves).unwrap_or_else(|| Digest::of(b""))
}

impl Log {
    /// Reads the log in `dir`. Nothing says yet whose it is: see [`Log::check_signature`].
    ///
    /// # Errors
    /// When a file cannot be read, or the entries do not lead to the root in the checkpoint.
    pub fn open(dir: &Path) -> Result<Self, LogError> {
        let path = dir.join(CHECKPOINT);
        let (note, checkpoint) = read_checkpoint(&path)?;
        Self::of_checkpoint(dir, &path, note, checkpoint)
    }

    /// The log in `dir` as the checkpoint that was read from `path` describes it.
    pub(super) fn of_checkpoint(
        dir: &Path,
        path: &Path,
        note: Note,
        checkpoint: Checkpoint,
    ) -> Result<Self, LogError> {
        if checkpoint.size > MAX_ENTRIES {
            let why = format!("{} entries, at most {MAX_ENTRIES} are read", checkpoint.size);
            return Err(LogError::wrong(path, why));
        }
        let entries = tiles::read_entries(dir, checkpoint.size)?;
        let leaves: Vec<_> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        let log = Self { dir: dir.to_owned(), note, checkpoint, entries, leaves };
        if root(&log.leaves) != log.checkpoint.root {
            return Err(LogError::wrong(path, "the entries do not lead to this root hash"));
        }
        Ok(log)
    }

    /// What the log says of itself.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The same with the signatures.
    #[must_use]
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// Checks that it is the log `origin` whose key is `key`.
    ///
    /// # Errors
    /// When it is another one, or that key did not sign it.
    pub fn check_signature(&self, origin: &str, key: &PublicKey) -> Result<(), LogError> {
        let path = self.dir.join(CHECKPOINT);
        if self.checkpoint.origin != origin {
            let why = format!("of the log {}, expected {origin}", self.checkpoint.origin);
            return Err(LogError::wrong(&path, why));
        }
        if !self.note.is_signed_by(origin, key) {
            return Err(LogError::wrong(&path, format!("not signed by {key} as {origin}")));
        }
        Ok(())
    }

    /// Checks that every tile is there and is what follows from the entries.
    ///
    /// # Errors
    /// When a tile is missing or wrong.
    pub fn check_tiles(&self) -> Result<(), LogError> {
        for (path, want) in tiles::files(&self.entries, &self.leaves, 0)? {
            let path = self.dir.join(path);
            if layout::read(&path, want.len() as u64)? != want {
                return Err(LogError::wrong(&path, "not what follows from the entries"));
            }
        }
        Ok(())
    }

    /// Checks that the log is `older` with more entries, or none (RFC 9162 section 2.1.4, by computing the older root anew).
    ///
    /// # Errors
    /// `Forked` when it is not.
    pub fn check_extends(&self, older: &Checkpoint) -> Result<(), LogError> {
        let forked = |why| LogError::forked(&self.dir, why);
        if older.origin != self.checkpoint.origin {
            let why = format!("{} is another log than {}", self.checkpoint.origin, older.origin);
            return Err(LogError::Misuse(why));
        }
        let size = usize::try_from(older.size).unwrap_or(usize::MAX);
        match self.leaves.get(..size) {
            None => Err(forked(format!("{} entries, it had {} before", self.leaves.len(), older.size))),
            Some(leaves) if root(leaves) != older.root => {
                Err(forked(format!("its first {size} entries are others than before")))
            }
            Some(_) => Ok(()),
        }
    }

    /// Where `entry` is, if it is there.
    #[must_use]
    pub fn index_of(&self, entry: &[u8]) -> Option<usize> {
        self.entries.iter().position(|known| known == entry)
    }

    /// The proof that `entry` is in the log, with the checkpoint and all its signatures.
    ///
    /// # Errors
    /// When it is not there.
    pub fn prove(&self, entry: &[u8]) -> Result<LogProof, LogError> {
        let found = self.index_of(entry).and_then(|index| Some((index, merkle_path(&self.leaves, index)?)));
        let Some((index, path)) = found else {
            let why = "this release is not in the log; add it with `cocoon-measure log append`";
            return Err(LogError::wrong(&self.dir, why));
        };
        LogProof::new(index as u64, path, self.note.clone())
            .map_err(|error| LogError::wrong(&self.dir, error.to_string()))
    }
}
