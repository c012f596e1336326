//! Why a log cannot be read, written or believed.

use std::io;
use std::path::{Path, PathBuf};

/// What went wrong with a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The file system.
    #[error("cannot {what} {}: {error}", path.display())]
    Io {
        /// Read or write.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
    /// A file of the log is not what it must be.
    #[error("{}: {why}", path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The log lost or changed entries that it had.
    #[error("{}: {why}: the log was cut or forked; nothing is signed", path.display())]
    Forked {
        /// The log's folder.
        path: PathBuf,
        /// How it shows.
        why: String,
    },
    /// Somebody else is writing.
    #[error("{} is held by another process that writes to this log; try again when it has ended", path.display())]
    Busy {
        /// The lock.
        path: PathBuf,
    },
    /// What was asked for makes no sense.
    #[error("{0}")]
    Misuse(String),
}

impl LogError {
    pub(super) fn io(what: &'static str, path: &Path, error: io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), error }
    }

    pub(super) fn wrong(path: &Path, why: impl Into<String>) -> Self {
        Self::Wrong { path: path.to_owned(), why: why.into() }
    }

    pub(super) fn forked(path: &Path, why: impl Into<String>) -> Self {
        Self::Forked { path: path.to_owned(), why: why.into() }
    }

    /// Whether the log was there and is refused.
    #[must_use]
    pub fn is_rejection(&self) -> bool {
        match self {
            Self::Wrong { .. } | Self::Forked { .. } => true,
            Self::Io { .. } | Self::Busy { .. } | Self::Misuse(_) => false,
        }
    }
}
