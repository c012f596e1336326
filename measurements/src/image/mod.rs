//! The VM image: from locked packages and the enclave program to the files that are booted.
//!
//! | Module | What |
//! |---|---|
//! | [`manifest`] | what is in an image, for auditors |
//! | [`directory`] | its files, where it lies |
//! | [`archive`] | what is in an initramfs |
//! | [`verify`](mod@verify) | whether files, initramfs and manifest agree |
//! | [`lock`] | which packages, by version and SHA-256 |
//! | [`update`] | which packages there are now |
//! | [`store`] | where they come from |
//! | [`cuda`] | what an image for GPUs has beside |
//! | [`deb`] | what is inside a Debian package |
//! | [`modules`] | which kernel modules, in which order |
//! | [`toolchain`] | what compiles the program |
//! | [`compile`] | from source to the program |
//! | [`newc`] | the initramfs as bytes |
//! | [`build`](mod@build) | all of it together |

pub mod archive;
pub mod build;
pub mod compile;
pub mod cuda;
pub mod deb;
pub mod directory;
pub mod lock;
pub mod manifest;
pub mod modules;
pub mod newc;
pub mod store;
pub mod toolchain;
pub mod update;
pub mod verify;

use std::path::PathBuf;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// Read or write.
        what: &'static str,
        /// Which file or folder.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// The lock file makes no sense.
    #[error("{}: {why}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file is not the one that is locked.
    #[error("{}: {what} is {got}, the lock file wants {want}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// `size` or `sha256`.
        what: &'static str,
        /// What it has.
        got: String,
        /// What it should have.
        want: String,
    },
    /// No source has a package.
    #[error(
        "{file} is nowhere to be found ({looked}); give a folder that holds it with --store, or a snapshot archive with --mirror. If no source has it any more, `cocoon-measure image lock --update` locks the version that there is now"
    )]
    Missing {
        /// Name of the package's file.
        file: String,
        /// Where it was looked for.
        looked: String,
    },
    /// A file of NVIDIA's driver is missing.
    #[error(
        "{name} ({purpose}) is not in {} or not in its {}: put it there, with its size and sha256",
        folder.display(),
        cuda::DRIVER_LOCK
    )]
    Driver {
        /// The file.
        name: &'static str,
        /// What it is for.
        purpose: &'static str,
        /// The operator's folder.
        folder: PathBuf,
    },
    /// A program is missing or does not work.
    #[error("{name}: {why}; install it (`docs/image.md` says which packages)")]
    Tool {
        /// Which.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The toolchain is not the locked one.
    #[error(
        "the toolchain is not the locked one: {}; install that one, or say --any-toolchain for an image that nobody can reproduce",
        differences.join("; ")
    )]
    Toolchain {
        /// Name, what is there, what is locked.
        differences: Vec<String>,
    },
    /// A program did not do its work.
    #[error("the enclave could not be compiled ({status}); see the messages above")]
    Compile {
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// A package, or a file in it, is not what the recipe needs.
    #[error("{file}: {why}")]
    Package {
        /// The package or the file.
        file: String,
        /// What is wrong.
        why: String,
    },
}

impl Error {
    pub(crate) fn package(file: &str, why: impl Into<String>) -> Self {
        Self::Package { file: file.to_owned(), why: why.into() }
    }

    pub(crate) fn tool(name: &str, why: impl ToString) -> Self {
        Self::Tool { name: name.to_owned(), why: why.to_string() }
    }

    /// Whether an input was there and was refused.
    #[must_use]
    pub fn is_rejection(&self) -> bool {
        match self {
            Self::Mismatch { .. } | Self::Package { .. } | Self::Toolchain { .. } => true,
            Self::Io { .. }
            | Self::Lock { .. }
            | Self::Missing { .. }
            | Self::Tool { .. }
            | Self::Driver { .. }
            | Self::Compile { .. } => false,
        }
    }
}
