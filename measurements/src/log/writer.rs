//! Appends to a log, and signs it.

use std::fs::File;
use std::path::Path;

use cocoon_attestation::UnixTime;
use cocoon_attestation::binding::leaf_hash;
use cocoon_attestation::release::{Checkpoint, Note, PublicKey, is_key_name};

use super::layout::{self, CHECKPOINT};
use super::reader::{root, write_checkpoint};
use super::seen::Seen;
use super::{Log, LogError, MAX_ENTRIES, cosignature, signature, tiles};
use crate::key::SigningKey;

/// The log of one key, locked for writing.
#[derive(Debug)]
pub struct Writer {
    log: Log,
    key: SigningKey,
    public: PublicKey,
    seen: Seen,
    _lock: File,
}

impl Writer {
    /// Makes a new, empty log.
    ///
    /// # Errors
    /// When there is one already, or this key signed one before; when files cannot be written.
    pub fn create(
        dir: &Path,
        origin: &str,
        key: SigningKey,
        seen: Seen,
        now: UnixTime,
    ) -> Result<Self, LogError> {
        if !is_key_name(origin) {
            let why = format!(
                "{origin:?}: an origin is visible ASCII without spaces and plus signs, as log.example/releases"
            );
            return Err(LogError::Misuse(why));
        }
        std::fs::create_dir_all(dir).map_err(|source| LogError::io("write", dir, source))?;
        let lock = layout::lock(dir)?;
        let path = dir.join(CHECKPOINT);
        if path.exists() {
            return Err(LogError::Misuse(format!("{} exists: there is a log already", path.display())));
        }
        let checkpoint = Checkpoint { origin: origin.to_owned(), size: 0, root: root(&[]) };
        let note = Note::new(checkpoint.text());
        let log = Log { dir: dir.to_owned(), note, checkpoint, entries: Vec::new(), leaves: Vec::new() };
        seen.check(&log)?;
        let public = super::public_key(&key).map_err(|error| LogError::Misuse(error.to_string()))?;
        let mut writer = Self { log, key, public, seen, _lock: lock };
        writer.publish(now)?;
        Ok(writer)
    }

    /// Opens a log for writing. It must be whole, signed by `key`, and continue what `key` signed before. What `key` signed and a
    /// crash kept from being published is published first, if all of it is on disk.
    ///
    /// # Errors
    /// When it is not; when another process writes.
    pub fn open(dir: &Path, key: SigningKey, seen: Seen) -> Result<Self, LogError> {
        let lock = layout::lock(dir)?;
        let mut log = Log::open(dir)?;
        let public = super::public_key(&key).map_err(|error| LogError::Misuse(error.to_string()))?;
        let origin = log.checkpoint.origin.clone();
        log.check_signature(&origin, &public)?;
        log.check_tiles()?;
        if let Some(unpublished) = seen.unpublished(&log, &public)? {
            write_checkpoint(&dir.join(CHECKPOINT), &unpublished.note)?;
            log = unpublished;
        }
        seen.check(&log)?;
        Ok(Self { log, key, public, seen, _lock: lock })
    }

    /// The log as it is.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Adds entries that are not there yet, and signs anew. The checkpoint is written last: until then the log is the old one.
    ///
    /// # Errors
    /// When there are too many or files cannot be written; then the log is as before, or [`Writer::open`] finishes it.
    pub fn append(&mut self, entries: &[Vec<u8>], now: UnixTime) -> Result<(), LogError> {
        let before = self.log.checkpoint.size;
        let mut log = self.log.clone();
        for entry in entries {
            if log.index_of(entry).is_none() {
                log.leaves.push(leaf_hash(entry));
                log.entries.push(entry.clone());
            }
        }
        let size = log.entries.len() as u64;
        if size > MAX_ENTRIES {
            return Err(LogError::Misuse(format!(
                "a log has room for {MAX_ENTRIES} entries: begin another one"
            )));
        }
        for (path, bytes) in tiles::files(&log.entries, &log.leaves, before)? {
            layout::write(&log.dir.join(path), &bytes)?;
        }
        if size > before {
            log.checkpoint = Checkpoint { size, root: root(&log.leaves), ..log.checkpoint };
            // Witnesses have not seen this one.
            log.note = Note::new(log.checkpoint.text());
        }
        self.log = log;
        self.publish(now)
    }

    /// Signs the log as it is, with the time of now. What witnesses said of it stays.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn publish(&mut self, now: UnixTime) -> Result<(), LogError> {
        let (origin, text) = (&self.log.checkpoint.origin, self.log.checkpoint.text());
        self.log.note.sign(signature(&self.key, &self.public, origin, &text));
        self.log.note.sign(cosignature(&self.key, &self.public, origin, &text, now));
        // First remembered, then said: after a crash nothing was published that is forgotten.
        self.seen.remember(&self.log)?;
        write_checkpoint(&self.log.dir.join(CHECKPOINT), &self.log.note)
    }
}
