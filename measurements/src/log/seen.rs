//! What a key signed before.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cocoon_attestation::release::{Checkpoint, Note, PublicKey};

use super::reader::{read_checkpoint, write_checkpoint};
use super::{Log, LogError};

/// A file beside a key with the last checkpoint that it signed. Whoever signs two trees that do not fit together has lost
/// everybody's trust; so this is looked at before each signature.
#[derive(Clone, Debug)]
pub struct Seen(PathBuf);

impl Seen {
    /// The file at `path`.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// The file beside a key: `KEY.seen`.
    #[must_use]
    pub fn beside(key: &Path) -> Self {
        let mut name = key.as_os_str().to_owned();
        name.push(".seen");
        Self(name.into())
    }

    /// Checks that `log` continues what was signed last. Without a file, this is the first time.
    ///
    /// # Errors
    /// `Forked` when it does not; when the file cannot be read.
    pub fn check(&self, log: &Log) -> Result<(), LogError> {
        self.read()?.map_or(Ok(()), |(_, older)| log.check_extends(&older))
    }

    /// What was signed last, if anything.
    fn read(&self) -> Result<Option<(Note, Checkpoint)>, LogError> {
        match read_checkpoint(&self.0) {
            Ok(read) => Ok(Some(read)),
            Err(LogError::Io { error, .. }) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The log that was signed last, if `published` shows less of it and all that it has is on disk: whoever wrote it stopped
    /// before it was published.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn unpublished(&self, published: &Log, key: &PublicKey) -> Result<Option<Log>, LogError> {
        let Some((note, checkpoint)) = self.read()? else { return Ok(None) };
        let origin = published.checkpoint.origin.clone();
        if checkpoint.size <= published.checkpoint.size {
            return Ok(None);
        }
        // What is not all there was lost, which `check` says.
        let whole = Log::of_checkpoint(&published.dir, &self.0, note, checkpoint).and_then(|log| {
            log.check_signature(&origin, key)?;
            log.check_tiles()?;
            log.check_extends(&published.checkpoint)?;
            Ok(log)
        });
        Ok(whole.ok())
    }

    /// Remembers the checkpoint of `log`.
    ///
    /// # Errors
    /// When the file cannot be written, or could not be read again.
    pub fn remember(&self, log: &Log) -> Result<(), LogError> {
        write_checkpoint(&self.0, log.note())
    }
}
