//! The folder in which endorsements lie, one file each.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use cocoon_attestation::{About, Digest, Endorsement, EndorsementKind};

use super::{EndorsementError, read};

/// An endorsement has at most 128 KiB, and some bytes of CBOR around it.
const MAX_FILE: u64 = 129 * 1024;
/// Far above what one machine needs: files beyond are not looked at.
const MAX_FILES: usize = 1024;
const SUFFIX: &str = ".cbor";
const LOCK: &str = "lock";

/// An open cache; other processes wait until it is dropped.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    _lock: File,
}

/// What one file holds.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) endorsement: Endorsement,
    pub(super) about: About,
    /// Of the file, without suffix.
    pub(super) name: String,
}

impl Cache {
    /// Opens or makes the folder, and waits for others that use it.
    ///
    /// # Errors
    /// When it cannot be made or locked.
    pub fn open(folder: PathBuf) -> Result<Self, EndorsementError> {
        let failed = |source| EndorsementError::File { path: folder.clone(), source };
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let lock = File::create(folder.join(LOCK)).map_err(failed)?;
        lock.lock().map_err(failed)?;
        Ok(Self { folder, _lock: lock })
    }

    /// Everything that can be read, by name; and the files that cannot, with the reason.
    pub(super) fn entries(&self) -> Result<(Vec<Entry>, Vec<String>), EndorsementError> {
        let failed = |source| EndorsementError::File { path: self.folder.clone(), source };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(failed)?.take(MAX_FILES) {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            names.extend(name.strip_suffix(SUFFIX).map(str::to_owned));
        }
        names.sort();
        let (mut entries, mut damaged) = (Vec::new(), Vec::new());
        for name in names {
            let path = self.path(&name);
            match read(&path, MAX_FILE).map_err(|e| e.to_string()).and_then(|bytes| parse(&bytes)) {
                Ok((endorsement, about)) => entries.push(Entry { endorsement, about, name }),
                Err(why) => damaged.push(format!("{}: {why}", path.display())),
            }
        }
        Ok((entries, damaged))
    }

    /// The newest endorsement of this kind and subject. With a `name`, one that was kept under another is none.
    pub(super) fn find(
        &self,
        kind: EndorsementKind,
        subject: &str,
        name: Option<&str>,
    ) -> Result<Option<Entry>, EndorsementError> {
        let (entries, _) = self.entries()?;
        let own = file_name(kind, name.unwrap_or(subject));
        let imported = file_name(kind, subject);
        let fits = |entry: &Entry| {
            let named = name.is_none() || entry.name == own || entry.name == imported;
            entry.endorsement.kind == kind && entry.about.subject == subject && named
        };
        Ok(entries.into_iter().filter(fits).max_by_key(|entry| (entry.about.not_before, entry.name == own)))
    }

    /// Keeps one, in the place of an older one of the same name: first beside it, then by one rename, so that there is always a whole file.
    pub(super) fn keep(
        &self,
        item: &Endorsement,
        about: &About,
        name: Option<&str>,
    ) -> Result<(), EndorsementError> {
        let path = self.path(&file_name(item.kind, name.unwrap_or(&about.subject)));
        write_whole(&path, &item.encode())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}{SUFFIX}"))
    }
}

/// Writes a file so that a reader finds the old one or the new one.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), EndorsementError> {
    let failed = |source| EndorsementError::File { path: path.to_owned(), source };
    // Of this process: two may write at once.
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = File::create(&beside).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)
}

fn parse(bytes: &[u8]) -> Result<(Endorsement, About), String> {
    let endorsement = Endorsement::decode(bytes).map_err(|e| e.to_string())?;
    let about = endorsement.about().map_err(|e| e.to_string())?;
    Ok((endorsement, about))
}

/// Readable, and different for different names: chip identifiers are longer than a file's name may be.
fn file_name(kind: EndorsementKind, name: &str) -> String {
    let readable = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' });
    let readable: String = readable.take(60).collect();
    let digest: String = Digest::of(name.as_bytes()).to_string().chars().take(8).collect();
    format!("{}-{readable}-{digest}", kind.name())
}
