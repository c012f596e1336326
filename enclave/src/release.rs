//! The release that this enclave is of, as the operator provides it in a file: manifest, signatures, log proof.
//!
//! It comes from the host and is as good as its signatures, which clients verify. S names the manifest's digest for as long as the
//! enclave lives; what vouches for it may be replaced, because log proofs expire.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use cocoon_attestation::release::{MAX_BUNDLE_LEN, ReleaseBundle};
use cocoon_attestation::{Digest, Error};

use crate::events::{Event, EventLog};

/// How often to look whether the file was replaced.
const CHECK: Duration = Duration::from_secs(20);

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseFileError {
    /// The file system.
    #[error("--release {path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
    /// No bundle.
    #[error("--release {path}: {error}; write it with `cocoon-measure release create`")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: Error,
    },
}

/// The file, and what was in it when it was last good.
#[derive(Debug)]
pub struct ReleaseFile {
    path: PathBuf,
    digest: Digest,
    bytes: RwLock<Arc<[u8]>>,
    seen: Mutex<Option<SystemTime>>,
}

impl ReleaseFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// When it cannot be read or is no bundle.
    pub fn open(path: &Path, events: &EventLog) -> Result<Self, ReleaseFileError> {
        let seen = modified(path);
        let (bytes, digest) = read(path)?;
        events.log(&Event::ReleaseRead { release: digest });
        Ok(Self { path: path.to_owned(), digest, bytes: RwLock::new(bytes), seen: Mutex::new(seen) })
    }

    /// Digest of the manifest: claim 13 of S.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Field 5 of an AttestResponse: what was in the file when it was last good.
    #[must_use]
    pub fn bytes(&self) -> Arc<[u8]> {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the file again if it was modified. What cannot be used, or is of another release, changes nothing.
    pub fn refresh(&self, events: &EventLog) {
        // Before reading: a file that is replaced meanwhile is read again the next time.
        let now = modified(&self.path);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return;
        }
        *seen = now;
        match read(&self.path) {
            Ok((bytes, digest)) if digest == self.digest => {
                events.log(&Event::ReleaseRead { release: digest });
                *self.bytes.write().unwrap_or_else(PoisonError::into_inner) = bytes;
            }
            Ok(_) | Err(_) => events.log(&Event::ReleaseUnusable),
        }
    }

    /// Refreshes for as long as the enclave lives.
    pub async fn keep_fresh(self: Arc<Self>, events: EventLog) {
        loop {
            tokio::time::sleep(CHECK).await;
            let (file, events) = (self.clone(), events.clone());
            // A file system that hangs holds this up, and nothing else.
            let _ended = tokio::task::spawn_blocking(move || file.refresh(&events)).await;
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn read(path: &Path) -> Result<(Arc<[u8]>, Digest), ReleaseFileError> {
    let io = |error| ReleaseFileError::Io { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    // One byte more than there may be, so that a file that is too long is told from one that fits.
    let limit = MAX_BUNDLE_LEN as u64 + 1;
    File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(io)?;
    let bundle = ReleaseBundle::decode(&bytes)
        .map_err(|error| ReleaseFileError::Malformed { path: path.to_owned(), error })?;
    Ok((bytes.into(), bundle.digest()))
}

#[cfg(test)]
mod tests {
    use cocoon_attestation::UnixTime;
    use cocoon_attestation::release::{ImagePart, ReleaseManifest};

    use super::*;

    fn bundle(version: &str) -> ReleaseBundle {
        let part = ImagePart { size: 1, sha256: Digest([1; 32]) };
        ReleaseBundle::new(ReleaseManifest {
            version: version.to_owned(),
            source: "test".to_owned(),
            created: UnixTime(1),
            parts: [("vmlinuz".to_owned(), part)].into(),
            inputs: Digest([2; 32]),
            snp: Default::default(),
            tdx: Default::default(),
            configs: Default::default(),
            components: Default::default(),
        })
    }

    fn log() -> EventLog {
        EventLog::new(io::sink())
    }

    #[test]
    fn unusable_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("release.cbor");
        let refused = || ReleaseFile::open(&path, &log()).unwrap_err().to_string();
        assert!(refused().starts_with("--release /") && refused().contains("release.cbor: No such file"));
        for bad in [Vec::new(), b"{}".to_vec(), [bundle("1").encode(), vec![0]].concat()] {
            std::fs::write(&path, bad).unwrap();
            assert!(refused().contains("malformed release bundle"), "{}", refused());
        }
        std::fs::write(&path, vec![0; MAX_BUNDLE_LEN * 2]).unwrap();
        assert!(refused().contains("81921 bytes, at most 81920"), "{}", refused());
    }

    #[test]
    fn what_vouches_for_it_may_change_and_the_release_may_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("release.cbor");
        let mut time = SystemTime::UNIX_EPOCH;
        let mut put = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            time += Duration::from_secs(1);
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        put(&bundle("1").encode());
        let file = ReleaseFile::open(&path, &log()).unwrap();
        assert_eq!(file.digest(), bundle("1").digest());
        for other in [bundle("2").encode(), Vec::new()] {
            put(&other);
            file.refresh(&log());
            assert_eq!(*file.bytes(), *bundle("1").encode());
        }
        let mut signed = bundle("1");
        let signature = cocoon_attestation::release::ReleaseSignature {
            key: cocoon_attestation::release::PublicKey([3; 32]),
            signature: [4; 64],
        };
        signed.sign(signature).unwrap();
        put(&signed.encode());
        file.refresh(&log());
        assert_eq!(*file.bytes(), *signed.encode());
    }
}
