//! Endorsements that the operator provides in a file: vendor certificates, revocation lists, TCB info, RIMs, OCSP responses.
//!
//! They come from the host and are as good as their signatures, which clients verify. A file that does not change what is accepted
//! is no part of the configuration.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use cocoon_attestation::{Endorsement, EndorsementBundle, Error};

use super::{Attester, NoReport, PlatformEvidence};
use crate::attest::ReportData;
use crate::events::{Event, EventLog};
use crate::node::Node;

/// What a bundle may have at most: nothing longer is read.
const MAX_FILE: u64 = 1024 * 1024;

/// How often to look whether the file was replaced, or an epoch began.
const CHECK: Duration = Duration::from_secs(20);

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndorsementFileError {
    /// The file system.
    #[error("--endorsements {path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
    /// No bundle.
    #[error("--endorsements {path}: {error}; write it with `cocoon-host endorsements`")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: Error,
    },
}

/// The file, and what was in it when it was last good.
#[derive(Debug)]
pub struct EndorsementFile {
    path: PathBuf,
    items: RwLock<Arc<[Endorsement]>>,
    seen: Mutex<Seen>,
}

/// When the file was last read, successfully or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    modified: Option<SystemTime>,
    epoch: u64,
}

impl EndorsementFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// When it cannot be read or is no bundle.
    pub fn open(path: &Path, events: &EventLog) -> Result<Self, EndorsementFileError> {
        let seen = Seen { modified: modified(path), epoch: 0 };
        let items = read(path)?;
        events.log(&Event::EndorsementsRead { items: items.len() as u64 });
        Ok(Self { path: path.to_owned(), items: RwLock::new(items.into()), seen: Mutex::new(seen) })
    }

    /// What was in the file when it was last good.
    #[must_use]
    pub fn items(&self) -> Arc<[Endorsement]> {
        self.items.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the file again if it was modified, or `epoch` is another than the last time. What cannot be used changes nothing.
    pub fn refresh(&self, epoch: u64, events: &EventLog) {
        // Before reading: a file that is replaced meanwhile is read again the next time.
        let now = Seen { modified: modified(&self.path), epoch };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return;
        }
        *seen = now;
        match read(&self.path) {
            Ok(items) => {
                events.log(&Event::EndorsementsRead { items: items.len() as u64 });
                *self.items.write().unwrap_or_else(PoisonError::into_inner) = items.into();
            }
            Err(_) => events.log(&Event::EndorsementsUnusable),
        }
    }

    /// Refreshes for as long as the enclave lives.
    pub async fn keep_fresh(self: Arc<Self>, node: Arc<Node>, events: EventLog) {
        loop {
            tokio::time::sleep(CHECK).await;
            let (file, epoch, events) = (self.clone(), node.current().number, events.clone());
            // A file system that hangs holds this up, and nothing else.
            let _ended = tokio::task::spawn_blocking(move || file.refresh(epoch, &events)).await;
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn read(path: &Path) -> Result<Vec<Endorsement>, EndorsementFileError> {
    let io = |error| EndorsementFileError::Io { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes)).map_err(io)?;
    let bundle = EndorsementBundle::decode(&bytes)
        .map_err(|error| EndorsementFileError::Malformed { path: path.to_owned(), error })?;
    Ok(bundle.0)
}

/// A platform whose evidence goes out with the endorsements of a file.
pub struct Stapled {
    attester: Arc<dyn Attester>,
    file: Arc<EndorsementFile>,
}

impl std::fmt::Debug for Stapled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stapled").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Stapled {
    /// `attester`, with the endorsements of `file`.
    #[must_use]
    pub fn new(attester: Arc<dyn Attester>, file: Arc<EndorsementFile>) -> Self {
        Self { attester, file }
    }
}

impl Attester for Stapled {
    fn attest(&self, data: &ReportData) -> Result<PlatformEvidence, NoReport> {
        let mut evidence = self.attester.attest(data)?;
        evidence.endorsements.extend_from_slice(&self.file.items());
        // The platform's own come first: they are about this machine for sure.
        let mut seen = HashSet::new();
        evidence.endorsements.retain(|item| seen.insert(item.digest()));
        Ok(evidence)
    }
}
