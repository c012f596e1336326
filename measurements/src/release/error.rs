//! Why there is no release.

use std::path::{Path, PathBuf};

use crate::log::LogError;

/// What went wrong with a release.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] LogError),
    /// The image, or its manifest, cannot be read.
    #[error(transparent)]
    Image(#[from] crate::image::Error),
    /// A file is not what it must be.
    #[error("{}: {why}", path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It does not fit into a manifest.
    #[error("this cannot be released: {0}")]
    Manifest(#[from] cocoon_attestation::Error),
    /// It was checked, and is not as it should be.
    #[error("{0}")]
    Refused(String),
}

impl ReleaseError {
    pub(super) fn wrong(path: &Path, why: impl Into<String>) -> Self {
        Self::Wrong { path: path.to_owned(), why: why.into() }
    }

    /// Whether everything was there and is refused.
    #[must_use]
    pub fn is_rejection(&self) -> bool {
        match self {
            Self::Wrong { .. } | Self::Manifest(_) | Self::Refused(_) => true,
            Self::File(error) => error.is_rejection(),
            Self::Image(error) => error.is_rejection(),
        }
    }
}
