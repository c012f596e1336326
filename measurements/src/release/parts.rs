//! The files of an image.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use cocoon_attestation::Digest;
use cocoon_attestation::release::ImagePart;
use ring::digest::{Context, SHA256};

use super::ReleaseError;
use crate::log::LogError;

/// An image has some dozen files; a manifest has room for 64.
const MAX_FILES: usize = 64;

/// Every file below `dir`, by its path there.
///
/// # Errors
/// When one cannot be read, is neither file nor folder, or has no UTF-8 name; when there are more than 64.
pub fn of(dir: &Path) -> Result<BTreeMap<String, ImagePart>, ReleaseError> {
    let (mut folders, mut out) = (vec![dir.to_owned()], BTreeMap::new());
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).map_err(|source| unreadable(&folder, source))?;
        for entry in entries {
            let path = entry.map_err(|source| unreadable(&folder, source))?.path();
            // Of the name itself: a link is neither.
            let kind = fs::symlink_metadata(&path).map_err(|source| unreadable(&path, source))?.file_type();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                out.insert(name_in(dir, &path)?, part(&path)?);
            } else {
                return Err(ReleaseError::wrong(
                    &path,
                    "neither a file nor a folder: an image has nothing else",
                ));
            }
            if out.len() > MAX_FILES || folders.len() > MAX_FILES {
                let why = format!("more than {MAX_FILES} files: is this the folder of an image?");
                return Err(ReleaseError::wrong(dir, why));
            }
        }
    }
    if out.is_empty() {
        return Err(ReleaseError::wrong(dir, "an image without files"));
    }
    Ok(out)
}

fn unreadable(path: &Path, error: std::io::Error) -> ReleaseError {
    LogError::Io { what: "read", path: path.to_owned(), error }.into()
}

fn name_in(dir: &Path, path: &Path) -> Result<String, ReleaseError> {
    let name = path.strip_prefix(dir).ok().and_then(Path::to_str).map(str::to_owned);
    name.ok_or_else(|| ReleaseError::wrong(path, "a name that is not UTF-8"))
}

fn part(path: &Path) -> Result<ImagePart, ReleaseError> {
    let (mut file, mut context, mut size) =
        (File::open(path).map_err(|source| unreadable(path, source))?, Context::new(&SHA256), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).map_err(|source| unreadable(path, source))?;
        let Some(read) = buffer.get(..n).filter(|read| !read.is_empty()) else { break };
        context.update(read);
        size += n as u64;
    }
    let mut sha256 = Digest([0; 32]);
    sha256.0.copy_from_slice(context.finish().as_ref());
    Ok(ImagePart { size, sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_an_image() {
        let dir = tempfile::tempdir().unwrap();
        let refused = || of(dir.path()).unwrap_err().to_string();
        assert!(refused().contains("without files"));
        fs::create_dir(dir.path().join("snp")).unwrap();
        fs::write(dir.path().join("snp/OVMF.fd"), b"abc").unwrap();
        fs::write(dir.path().join("vmlinuz"), b"").unwrap();
        let parts = of(dir.path()).unwrap();
        assert_eq!(parts.keys().collect::<Vec<_>>(), ["snp/OVMF.fd", "vmlinuz"]);
        assert_eq!(parts["snp/OVMF.fd"], ImagePart { size: 3, sha256: Digest::of(b"abc") });
        std::os::unix::fs::symlink("vmlinuz", dir.path().join("link")).unwrap();
        assert!(refused().contains("neither a file nor a folder"));
        fs::remove_file(dir.path().join("link")).unwrap();
        for n in 2..64 {
            fs::write(dir.path().join(n.to_string()), b"").unwrap();
        }
        assert_eq!(of(dir.path()).unwrap().len(), 64);
        fs::write(dir.path().join("64"), b"").unwrap();
        assert!(refused().contains("more than 64 files"));
        assert!(of(Path::new("/nowhere")).unwrap_err().to_string().contains("cannot read /nowhere"));
    }
}
