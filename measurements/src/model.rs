//! The model manifest of a file on disk.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use cocoon_attestation::Digest;
use cocoon_attestation::wire::ModelManifest;
use ring::digest::{Context, SHA256};

/// Every GGUF file starts so (GGUF specification, "File Structure").
const GGUF_MAGIC: [u8; 4] = *b"GGUF";

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system.
    #[error("cannot read {path}: {source}")]
    Unreachable {
        /// Which file or folder.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// Not a model of a kind that this version knows.
    #[error("{path}: {why}")]
    NotAModel {
        /// Which file or folder.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
}

/// The manifest of the GGUF file at `path`, or of the only one in the folder `path`.
///
/// # Errors
/// When it cannot be read or is no GGUF file.
pub fn manifest(path: &Path) -> Result<ModelManifest, Error> {
    let path = if path.is_dir() { &only_gguf(path)? } else { path };
    let at = |source| Error::Unreachable { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(at)?;
    let (mut context, mut size, mut start) = (Context::new(&SHA256), 0u64, Vec::<u8>::new());
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).map_err(at)?;
        let Some(read) = buffer.get(..n).filter(|read| !read.is_empty()) else { break };
        start.extend(read.iter().take(GGUF_MAGIC.len().saturating_sub(start.len())));
        context.update(read);
        size += n as u64;
    }
    if start != GGUF_MAGIC {
        return Err(Error::NotAModel { path: path.to_owned(), why: "not a GGUF file" });
    }
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(context.finish().as_ref());
    Ok(ModelManifest::gguf(size, Digest(sha256)))
}

fn only_gguf(dir: &Path) -> Result<PathBuf, Error> {
    let at = |source| Error::Unreachable { path: dir.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(at)? {
        let path = entry.map_err(at)?.path();
        if path.extension().is_some_and(|extension| extension == "gguf") {
            found.push(path);
        }
    }
    match <[PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(path),
        Err(_) => {
            Err(Error::NotAModel { path: dir.to_owned(), why: "a folder must hold exactly one .gguf file" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_folders_with_one_file_agree() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.gguf");
        std::fs::write(&file, b"GGUF and more").unwrap();
        let manifest_of_file = manifest(&file).unwrap();
        assert_eq!(manifest_of_file, ModelManifest::gguf(13, Digest::of(b"GGUF and more")));
        assert_eq!(manifest(dir.path()).unwrap(), manifest_of_file);
        std::fs::write(dir.path().join("b.gguf"), b"GGUF").unwrap();
        assert!(manifest(dir.path()).unwrap_err().to_string().contains("exactly one"));
    }

    #[test]
    fn other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for content in [&b""[..], b"GGU", b"PK\x03\x04.."] {
            std::fs::write(dir.path().join("x"), content).unwrap();
            assert!(manifest(&dir.path().join("x")).unwrap_err().to_string().contains("not a GGUF file"));
        }
        assert!(matches!(manifest(&dir.path().join("missing")), Err(Error::Unreachable { .. })));
    }
}
