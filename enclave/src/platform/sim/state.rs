//! Where a developer's simulated processor lives between runs.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cocoon_attestation::UnixTime;
use der::pem::LineEnding;
use zeroize::Zeroizing;

use super::ca::Hierarchy;

/// The simulated platform's state cannot be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimError {
    /// The file system.
    #[error("{path}: {source}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// A file that is not what was written there.
    #[error("{0} is damaged: remove the folder to start over with another simulated processor")]
    Damaged(PathBuf),
    /// A simulated processor of another version of this program.
    #[error(
        "{0} is of another version of Cocoon: remove the folder to start over with another simulated processor"
    )]
    OtherVersion(PathBuf),
    /// Keys could not be made.
    #[error("the simulated processor's keys could not be generated")]
    Generation,
}

impl SimError {
    pub(super) fn damaged(dir: &Path, file: &str) -> Self {
        Self::Damaged(dir.join(file))
    }
}

/// What the files are, and the TCB that the VCEK is of.
const FORMAT: &[u8] = b"2\n";

/// Keys and certificates of one simulated processor.
pub struct SimState {
    dir: PathBuf,
    ark: Vec<u8>,
    ask: Vec<u8>,
    crl: Vec<u8>,
    vcek: Vec<u8>,
    vcek_key: Zeroizing<Vec<u8>>,
    chip_id: [u8; 64],
}

impl std::fmt::Debug for SimState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimState").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl SimState {
    /// Opens the state in `dir`, or makes it there, which takes some seconds; `generating` is called before.
    ///
    /// # Errors
    /// When files cannot be written or read, or are not what was written.
    pub fn open_or_create(dir: &Path, now: UnixTime, generating: impl FnOnce()) -> Result<Self, SimError> {
        if !is_there(dir) {
            let _one_at_a_time = lock(dir)?;
            if !is_there(dir) {
                generating();
                create(dir, &Hierarchy::generate(now).map_err(|_any| SimError::Generation)?)?;
            }
        }
        Self::open(dir)
    }

    fn open(dir: &Path) -> Result<Self, SimError> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path).map_err(|source| SimError::Io { path, source })
        };
        if std::fs::read(dir.join("format")).ok().as_deref() != Some(FORMAT) {
            return Err(SimError::OtherVersion(dir.to_owned()));
        }
        Ok(Self {
            dir: dir.to_owned(),
            ark: read("ark.der")?,
            ask: read("ask.der")?,
            crl: read("ark.crl")?,
            vcek: read("vcek.der")?,
            vcek_key: Zeroizing::new(read("vcek.key")?),
            chip_id: read("chip_id")?
                .try_into()
                .map_err(|_wrong_length| SimError::damaged(dir, "chip_id"))?,
        })
    }

    /// The root certificate, PEM: what a policy names.
    ///
    /// # Errors
    /// When the file is not what was written.
    pub fn root_pem(&self) -> Result<String, SimError> {
        der::pem::encode_string("CERTIFICATE", LineEnding::LF, &self.ark)
            .map_err(|_too_long| SimError::damaged(&self.dir, "ark.der"))
    }

    /// Where this is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The ASK, DER.
    #[must_use]
    pub fn ask(&self) -> &[u8] {
        &self.ask
    }

    /// Revocation list of the ARK, DER.
    #[must_use]
    pub fn crl(&self) -> &[u8] {
        &self.crl
    }

    /// The VCEK, DER.
    #[must_use]
    pub fn vcek(&self) -> &[u8] {
        &self.vcek
    }

    pub(super) fn vcek_key(&self) -> &[u8] {
        &self.vcek_key
    }

    pub(super) fn chip_id(&self) -> [u8; 64] {
        self.chip_id
    }
}

fn is_there(dir: &Path) -> bool {
    dir.join("ark.der").exists()
}

/// Enclaves that start at once wait for the first one's processor.
fn lock(dir: &Path) -> Result<File, SimError> {
    let path = dir.with_extension("lock");
    let at = |source| SimError::Io { path: path.clone(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(at)?;
    }
    let file = File::create(&path).map_err(at)?;
    file.lock().map_err(at)?;
    Ok(file)
}

/// Writes beside `dir` and renames, so that nobody sees half of a processor.
fn create(dir: &Path, hierarchy: &Hierarchy) -> Result<(), SimError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| SimError::Io { path, source }
    };
    let fresh = dir.with_extension("new");
    if fresh.exists() {
        // Left by an enclave that was killed here.
        std::fs::remove_dir_all(&fresh).map_err(at(&fresh))?;
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&fresh).map_err(at(&fresh))?;
    let files: [(&str, &[u8]); 7] = [
        ("format", FORMAT),
        ("ark.der", &hierarchy.ark),
        ("ask.der", &hierarchy.ask),
        ("ark.crl", &hierarchy.crl),
        ("vcek.der", &hierarchy.vcek),
        ("vcek.key", &hierarchy.vcek_key),
        ("chip_id", &hierarchy.chip_id),
    ];
    for (name, content) in files {
        let path = fresh.join(name);
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut f| f.write_all(content)).map_err(at(&path))?;
    }
    std::fs::rename(&fresh, dir).map_err(at(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_of_another_version_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ark.der"), b"old").unwrap();
        let refused = |expected: &str| {
            let error = SimState::open_or_create(dir.path(), UnixTime(0), || ()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        refused("is of another version of Cocoon");
        std::fs::write(dir.path().join("format"), FORMAT).unwrap();
        refused("ask.der");
    }
}
