//! What a key signed before.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::reader::read_checkpoint;
use super::{Log, LogError, layout};

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
        match read_checkpoint(&self.0) {
            Ok((_, older)) => log.check_extends(&older),
            Err(LogError::Io { error, .. }) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Remembers the checkpoint of `log`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn remember(&self, log: &Log) -> Result<(), LogError> {
        layout::write(&self.0, log.note().to_string().as_bytes())
    }
}
