//! The model manifest of a file or a folder on disk.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use cocoon_attestation::Digest;
use cocoon_attestation::wire::{ModelFile, ModelManifest};
use ring::digest::{Context, SHA256};

/// Every GGUF file starts so (GGUF specification, "File Structure").
const GGUF_MAGIC: [u8; 4] = *b"GGUF";

/// What is looked at of the beginning of a file: the magic of archives (POSIX.1-1988, ustar) is in it.
const START: usize = 512;

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

/// The manifest of the GGUF file at `path`, or of the model in the folder `path`: safetensors beside a `config.json`, else
/// its only GGUF file. The enclave reads folders by the same rules.
///
/// # Errors
/// When it cannot be read or is no model.
pub fn manifest(path: &Path) -> Result<ModelManifest, Error> {
    if path.is_dir() { folder(path) } else { gguf(path) }
}

fn gguf(path: &Path) -> Result<ModelManifest, Error> {
    let (file, start) = hash(path, "model.gguf")?;
    if start.get(257..).is_some_and(|magic| magic.starts_with(b"ustar")) {
        let why = "an archive; give the folder that it was made from, which is the same model";
        return Err(Error::NotAModel { path: path.to_owned(), why });
    }
    if !start.starts_with(&GGUF_MAGIC) {
        return Err(Error::NotAModel { path: path.to_owned(), why: "not a GGUF file" });
    }
    Ok(ModelManifest::gguf(file.size, file.sha256))
}

fn folder(dir: &Path) -> Result<ModelManifest, Error> {
    let at = |source| Error::Unreachable { path: dir.to_owned(), source };
    let not_a_model = |why| Error::NotAModel { path: dir.to_owned(), why };
    let inside = std::fs::canonicalize(dir).map_err(at)?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(at)? {
        names.extend(entry.map_err(at)?.file_name().into_string());
    }
    let safetensors = names.iter().any(|name| name == "config.json");
    names.retain(|name| if safetensors { ModelManifest::is_part(name) } else { name.ends_with(".gguf") });
    let mut paths = Vec::new();
    for name in names {
        let file = std::fs::canonicalize(dir.join(&name)).map_err(at)?;
        if !file.starts_with(&inside) {
            return Err(not_a_model("a file is a link to somewhere else; copy the folder with `cp -L`"));
        }
        paths.push((name, file));
    }
    match (safetensors, &paths[..]) {
        (false, [(_, only)]) => gguf(only),
        (false, _) => {
            Err(not_a_model("it must hold config.json and safetensors files, or exactly one .gguf file"))
        }
        (true, paths) => {
            let files = paths.iter().map(|(name, path)| Ok(hash(path, name)?.0));
            let files = files.collect::<Result<_, Error>>()?;
            let manifest = ModelManifest::safetensors(files);
            manifest
                .map_err(|_no_weights| not_a_model("a folder with config.json must hold safetensors files"))
        }
    }
}

/// A file of a model, and how it begins.
fn hash(path: &Path, name: &str) -> Result<(ModelFile, Vec<u8>), Error> {
    let at = |source| Error::Unreachable { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(at)?;
    let (mut context, mut size, mut start) = (Context::new(&SHA256), 0u64, Vec::<u8>::new());
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).map_err(at)?;
        let Some(read) = buffer.get(..n).filter(|read| !read.is_empty()) else { break };
        start.extend(read.iter().take(START.saturating_sub(start.len())));
        context.update(read);
        size += n as u64;
    }
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(context.finish().as_ref());
    Ok((ModelFile { name: name.to_owned(), size, sha256: Digest(sha256) }, start))
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
    fn a_folder_of_safetensors_is_measured_file_by_file() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| std::fs::write(dir.path().join(name), content).unwrap();
        write("config.json", "{}");
        write("README.md", "anything");
        write("old.gguf", "GGUF");
        assert!(manifest(dir.path()).unwrap_err().to_string().contains("safetensors"));
        write("model.safetensors", "weights");
        let file = |name: &str, content: &str| ModelFile {
            name: name.into(),
            size: content.len() as u64,
            sha256: Digest::of(content.as_bytes()),
        };
        let wanted = vec![file("model.safetensors", "weights"), file("config.json", "{}")];
        assert_eq!(manifest(dir.path()).unwrap(), ModelManifest::safetensors(wanted).unwrap());
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("tokenizer.json")).unwrap();
        assert!(manifest(dir.path()).unwrap_err().to_string().contains("cp -L"));
    }

    #[test]
    fn other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for content in [&b""[..], b"GGU", b"PK\x03\x04.."] {
            std::fs::write(dir.path().join("x"), content).unwrap();
            assert!(manifest(&dir.path().join("x")).unwrap_err().to_string().contains("not a GGUF file"));
        }
        let mut archive = vec![0; 1024];
        archive[257..262].copy_from_slice(b"ustar");
        std::fs::write(dir.path().join("x"), archive).unwrap();
        assert!(manifest(&dir.path().join("x")).unwrap_err().to_string().contains("give the folder"));
        assert!(matches!(manifest(&dir.path().join("missing")), Err(Error::Unreachable { .. })));
    }
}
