//! What vendors sign about their hardware, fetched from their services, kept on disk and put into the file that an enclave staples
//! (`cocoon-enclave --endorsements`).
//!
//! Nothing here is trusted by anyone: clients verify every endorsement themselves. What is checked is that an answer is what was asked
//! for, so that a wrong or old one does not take the place of a good one. This is the only part of the host with a TLS client.
//!
//! | File | What |
//! |---|---|
//! | `evidence.rs` | files of evidence, and what must be known about them |
//! | `wanted.rs` | one thing to fetch: URLs as AMD KDS, Intel PCS and NVIDIA define them |
//! | `http.rs` | one request, with limits |
//! | `fetch.rs` | cache first, then the service, with retries |
//! | `cache.rs` | the folder |
//! | `import.rs`, `list.rs` | files in, a table out |
//! | `command.rs` | `cocoon-host endorsements` |

mod cache;
mod command;
mod evidence;
mod fetch;
mod http;
mod import;
mod list;
mod wanted;

pub use cache::Cache;
pub use command::{EndorsementsArgs, EndorsementsCommand, FetchArgs, ProductName, execute};
pub use evidence::Sources;
pub use fetch::{Fetched, Fetcher, Retry};
pub use http::Client;
pub use import::import;
pub use list::{Row, State, rows};
pub use wanted::Services;

use std::path::PathBuf;

/// Why endorsements could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndorsementError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it was said to be.
    #[error("{}: {why}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// What is asked for cannot be.
    #[error("{0}")]
    Usage(String),
    /// The service does not answer, or says that it cannot now.
    #[error("{what}: {url}: {why}")]
    Unreachable {
        /// What was wanted.
        what: String,
        /// Where.
        url: String,
        /// Why.
        why: String,
    },
    /// The service's answer is final and not what was asked for.
    #[error("{what}: {url}: {why}")]
    Refused {
        /// What was wanted.
        what: String,
        /// Where.
        url: String,
        /// Why.
        why: String,
    },
}

impl EndorsementError {
    /// 1 for an answer that was refused, 2 for what could not be told.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { .. } | Self::Malformed { .. } => 1,
            Self::File { .. } | Self::Usage(_) | Self::Unreachable { .. } => 2,
        }
    }
}

/// Reads a file of at most `max` bytes.
pub(crate) fn read(path: &std::path::Path, max: u64) -> Result<Vec<u8>, EndorsementError> {
    use std::io::Read as _;
    let failed = |source| EndorsementError::File { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max {
        let why = format!("larger than {max} bytes");
        return Err(EndorsementError::Malformed { path: path.to_owned(), why });
    }
    Ok(bytes)
}
