//! The files of a model, read once into private memory and hashed while they are read: whoever holds the files cannot
//! change what was hashed after the fact.

use crate::archive::{self, BLOCK, Entry, Problem};
use crate::error::Error;
use crate::source::Source;
use crate::{gguf, huggingface};
use ring::digest::{Context, SHA256};
use std::fs::File;
use std::io::{Chain, Cursor, Read, Seek, SeekFrom, Take};
use std::path::{Path, PathBuf};

/// The largest model that is accepted: 64 GiB, more than any model that a CPU answers with in reasonable time.
pub const MAX_MODEL_BYTES: u64 = 64 << 30;

/// Bytes between two calls of `progress`.
const CHUNK: usize = 1 << 20;
/// Files of a folder that are part of the model: the largest models come in some 200.
pub(crate) const MAX_FILES: usize = 1024;
/// Largest file that holds no weights: `tokenizer.json` of Gemma 3 has 33 MB.
pub(crate) const MAX_TEXT_BYTES: u64 = 128 << 20;
/// The name of a model's only file, whatever it is called on a disk.
const GGUF: &str = "model.gguf";

/// What the files of a model are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelFormat {
    /// One GGUF file.
    Gguf,
    /// A folder as Hugging Face publishes models: safetensors and JSON.
    Safetensors,
}

/// A whole model in private memory, with its digests.
#[derive(Debug)]
pub struct ModelBytes {
    format: ModelFormat,
    files: Vec<ModelFile>,
}

/// A file of a model in private memory.
#[derive(Debug)]
pub struct ModelFile {
    name: String,
    bytes: Bytes,
    sha256: [u8; 32],
}

/// The bytes alone, so that `Debug` of `ModelBytes` does not print gigabytes.
struct Bytes(Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl ModelFile {
    fn new(name: &str, bytes: Vec<u8>) -> Self {
        let sha256 = finish(&ring::digest::digest(&SHA256, &bytes));
        Self { name: name.to_owned(), bytes: Bytes(bytes), sha256 }
    }

    /// Name inside the model: without a folder, and `model.gguf` for a GGUF file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of the file.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Size in bytes.
    pub fn len(&self) -> u64 {
        self.bytes.0.len() as u64
    }

    /// Whether the file is empty.
    pub fn is_empty(&self) -> bool {
        self.bytes.0.is_empty()
    }
}

impl ModelBytes {
    /// A GGUF file that is in memory already.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        Self { format: ModelFormat::Gguf, files: vec![ModelFile::new(GGUF, bytes)] }
    }

    /// A folder that is in memory already: names and contents, of which those that are no part of a model are left out.
    pub fn from_files(files: Vec<(String, Vec<u8>)>) -> Self {
        let parts = files.into_iter().filter(|(name, _)| huggingface::is_part(name));
        let mut files: Vec<_> = parts.map(|(name, bytes)| ModelFile::new(&name, bytes)).collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Self { format: ModelFormat::Safetensors, files }
    }

    /// What the files are.
    pub fn format(&self) -> ModelFormat {
        self.format
    }

    /// The files, sorted by name.
    pub fn files(&self) -> &[ModelFile] {
        &self.files
    }

    /// SHA-256 of a GGUF file; of a folder, that of the SHA-256 and the name of each file, in order.
    pub fn sha256(&self) -> [u8; 32] {
        if let [only] = &self.files[..]
            && self.format == ModelFormat::Gguf
        {
            return only.sha256;
        }
        let mut hash = Context::new(&SHA256);
        for file in &self.files {
            hash.update(&file.sha256);
            hash.update(&(file.name.len() as u64).to_be_bytes());
            hash.update(file.name.as_bytes());
        }
        finish(&hash.finish())
    }

    /// Size of all files in bytes.
    pub fn len(&self) -> usize {
        self.files.iter().map(|file| file.bytes.0.len()).sum()
    }

    /// Whether there is nothing in the files.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The files, each with its name.
    pub(crate) fn named(&self) -> Vec<(&str, &[u8])> {
        self.files.iter().map(|file| (file.name.as_str(), file.bytes.0.as_slice())).collect()
    }

    /// Takes the files apart.
    pub(crate) fn source(&self) -> Result<Source<'_>, Error> {
        match (self.format, &self.named()[..]) {
            (ModelFormat::Gguf, [(_, bytes), ..]) => gguf::parse(bytes),
            (ModelFormat::Gguf, []) => gguf::parse(&[]),
            (ModelFormat::Safetensors, files) => huggingface::parse(files),
        }
    }
}

/// Reads a model once, from the first byte to the last, calling `progress(bytes read, bytes in all)` on the way.
///
/// `path` is a GGUF file; or a folder with `config.json`, of which only the files of the model are read; or a folder
/// with exactly one `.gguf` file; or a tar archive of a folder with `config.json`. Block devices work as well as files. They end at a whole sector: `size` says how many
/// of their bytes are the model.
pub fn read_model(
    path: &Path,
    size: Option<u64>,
    mut progress: impl FnMut(u64, u64),
) -> Result<ModelBytes, Error> {
    let (format, mut open) = open_model(path, size)?;
    let (total, mut done) = (sum(&open), 0);
    progress(0, total);
    if let (ModelFormat::Gguf, [file]) = (format, &mut open[..])
        && archive::is_archive(file.first())
    {
        return file.unpack(|read| progress(read, total));
    }
    let mut files = Vec::with_capacity(open.len());
    for file in &mut open {
        let (bytes, sha256) = file.read(|read| progress(done + read, total))?;
        done += bytes.len() as u64;
        files.push(ModelFile { name: std::mem::take(&mut file.name), bytes: Bytes(bytes), sha256 });
    }
    Ok(ModelBytes { format, files })
}

/// How many bytes [`read_model`] would read.
///
/// # Errors
/// As [`read_model`] has them before it reads.
pub fn model_size(path: &Path, size: Option<u64>) -> Result<u64, Error> {
    open_model(path, size).map(|(_, files)| sum(&files))
}

fn sum(files: &[Opened]) -> u64 {
    files.iter().fold(0, |sum, file| sum.saturating_add(file.total))
}

/// The files of a model, open.
fn open_model(path: &Path, size: Option<u64>) -> Result<(ModelFormat, Vec<Opened>), Error> {
    let (format, paths) = if path.is_dir() {
        if size.is_some() {
            return Err(folder(path, "a size was given; that is for a single file or a disk"));
        }
        parts(path)?
    } else {
        (ModelFormat::Gguf, vec![(GGUF.to_owned(), path.to_owned())])
    };
    let mut files = Vec::with_capacity(paths.len());
    for (name, path) in paths {
        let file = open(name, path, size)?;
        let is_text = format != ModelFormat::Gguf && !file.name.ends_with(".safetensors");
        if is_text && file.total > MAX_TEXT_BYTES {
            return Err(folder(&file.path, &format!("{} bytes are too many for it", file.total)));
        }
        files.push(file);
    }
    match sum(&files) {
        len if len > MAX_MODEL_BYTES => Err(Error::TooLarge { len, max: MAX_MODEL_BYTES }),
        _ => Ok((format, files)),
    }
}

/// The files in a folder that are the model, sorted by name.
fn parts(path: &Path) -> Result<(ModelFormat, Vec<(String, PathBuf)>), Error> {
    let unreachable = |source| Error::Unreachable { path: path.to_owned(), source };
    let inside = std::fs::canonicalize(path).map_err(unreachable)?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreachable)? {
        // A name that is no text is no part of a model.
        names.extend(entry.map_err(unreachable)?.file_name().into_string());
    }
    let (format, wanted): (_, fn(&str) -> bool) = if names.iter().any(|name| name == huggingface::CONFIG) {
        (ModelFormat::Safetensors, huggingface::is_part)
    } else {
        (ModelFormat::Gguf, |name| name.ends_with(".gguf"))
    };
    names.retain(|name| wanted(name));
    names.sort();
    if names.len() > MAX_FILES {
        return Err(folder(path, &format!("it has {} files, more than {MAX_FILES}", names.len())));
    }
    let mut paths = Vec::new();
    for name in names {
        let file = std::fs::canonicalize(path.join(&name)).map_err(unreachable)?;
        if !file.starts_with(&inside) {
            return Err(folder(
                path,
                &format!("{name} is a link to somewhere else; copy the folder with `cp -L`"),
            ));
        }
        if !file.is_file() {
            return Err(folder(path, &format!("{name} is no file")));
        }
        paths.push((name, file));
    }
    match (format, &mut paths[..]) {
        (ModelFormat::Safetensors, _) => Ok((format, paths)),
        (ModelFormat::Gguf, [(name, _)]) => {
            *name = GGUF.to_owned();
            Ok((format, paths))
        }
        (ModelFormat::Gguf, _) => {
            Err(folder(path, "it must hold config.json and safetensors files, or exactly one .gguf file"))
        }
    }
}

fn folder(path: &Path, problem: &str) -> Error {
    Error::BadFolder { path: path.to_owned(), problem: problem.to_owned() }
}

/// A file, open, and how many bytes of it are wanted.
struct Opened {
    name: String,
    path: PathBuf,
    file: Chain<Cursor<Vec<u8>>, Take<File>>,
    total: u64,
}

fn open(name: String, path: PathBuf, size: Option<u64>) -> Result<Opened, Error> {
    let unreachable = |source| Error::Unreachable { path: path.clone(), source };
    let mut file = File::open(&path).map_err(unreachable)?;
    let end = file.seek(SeekFrom::End(0)).map_err(unreachable)?;
    file.rewind().map_err(unreachable)?;
    let mut file = file.take(size.unwrap_or(u64::MAX));
    let mut first = Vec::with_capacity(BLOCK);
    file.by_ref().take(BLOCK as u64).read_to_end(&mut first).map_err(unreachable)?;
    let file = Cursor::new(first).chain(file);
    Ok(Opened { name, path, file, total: size.unwrap_or(end) })
}

impl Opened {
    /// What it begins with.
    fn first(&self) -> &[u8] {
        self.file.get_ref().0.get_ref()
    }

    /// The model in an archive.
    fn unpack(&mut self, progress: impl FnMut(u64)) -> Result<ModelBytes, Error> {
        let files = archive::read(&mut self.file, self.total, progress).map_err(|problem| match problem {
            Problem::Unreadable(source) => Error::Unreachable { path: self.path.clone(), source },
            Problem::Malformed(problem) => folder(&self.path, &problem),
        })?;
        let file =
            |(name, bytes, sha256): Entry| ModelFile { name, bytes: Bytes(bytes), sha256: finish(&sha256) };
        let files: Vec<_> = files.into_iter().map(file).collect();
        if !files.iter().any(|file| file.name == huggingface::CONFIG) {
            return Err(folder(
                &self.path,
                "there is no config.json at its top; make it with `tar -C FOLDER -cf FILE .`",
            ));
        }
        Ok(ModelBytes { format: ModelFormat::Safetensors, files })
    }

    /// All bytes, and their SHA-256.
    fn read(&mut self, mut progress: impl FnMut(u64)) -> Result<(Vec<u8>, [u8; 32]), Error> {
        let mut bytes = reserve(self.total, MAX_MODEL_BYTES)?;
        let mut hash = Context::new(&SHA256);
        let mut chunk = vec![0; CHUNK];
        loop {
            let n = match self.file.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(Error::Unreachable { path: self.path.clone(), source }),
            };
            let read = (bytes.len() + n) as u64;
            if read > self.total {
                return Err(Error::Changed { expected: self.total, read });
            }
            let piece = chunk.get(..n).unwrap_or_default();
            hash.update(piece);
            bytes.extend_from_slice(piece);
            progress(read);
        }
        match bytes.len() as u64 {
            read if read == self.total => Ok((bytes, finish(&hash.finish()))),
            read => Err(Error::Changed { expected: self.total, read }),
        }
    }
}

fn finish(digest: &ring::digest::Digest) -> [u8; 32] {
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest.as_ref());
    sha256
}

/// An empty buffer for `len` bytes, or an error where an allocation would abort.
fn reserve(len: u64, max: u64) -> Result<Vec<u8>, Error> {
    let too_large = || Error::TooLarge { len, max };
    if len > max {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let wanted = usize::try_from(len).ok().ok_or_else(too_large)?;
    bytes.try_reserve_exact(wanted).ok().ok_or_else(too_large)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hashes_and_reports_progress() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..=250).cycle().take(3 * CHUNK + 17).collect();
        std::fs::write(file.path(), &content).unwrap();
        let mut seen = Vec::new();
        let model = read_model(file.path(), None, |read, total| seen.push((read, total))).unwrap();
        assert_eq!(model.files()[0].bytes.0, content);
        assert_eq!(model.sha256(), ModelBytes::from_vec(content.clone()).sha256());
        assert_eq!(seen.first(), Some(&(0, content.len() as u64)));
        assert_eq!(seen.last(), Some(&(content.len() as u64, content.len() as u64)));
        assert!(seen.is_sorted());
        assert!(format!("{model:?}").len() < 300);
    }

    #[test]
    fn a_disk_is_read_as_far_as_the_model_goes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"model\0\0\0").unwrap();
        let model = read_model(file.path(), Some(5), |_, total| assert_eq!(total, 5)).unwrap();
        assert_eq!(model.files()[0].bytes.0, b"model");
        let short = read_model(file.path(), Some(9), |_, _| ()).unwrap_err();
        assert!(matches!(short, Error::Changed { expected: 9, read: 8 }), "{short}");
    }

    fn folder_of(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, content)| std::fs::write(dir.path().join(name), content).unwrap());
        dir
    }

    fn problem(dir: &Path) -> String {
        read_model(dir, None, |_, _| ()).unwrap_err().to_string()
    }

    #[test]
    fn of_a_folder_only_the_model_is_read() {
        let dir = folder_of(&[
            ("model.safetensors", "weights"),
            ("config.json", "{}"),
            ("README.md", "x"),
            ("x.gguf", "y"),
        ]);
        let mut seen = Vec::new();
        let model = read_model(dir.path(), None, |read, total| seen.push((read, total))).unwrap();
        assert_eq!(seen, [(0, 9), (2, 9), (9, 9)]);
        assert_eq!((model.format(), model.len()), (ModelFormat::Safetensors, 9));
        let names: Vec<_> = model.files().iter().map(ModelFile::name).collect();
        assert_eq!(names, ["config.json", "model.safetensors"]);
        let files = vec![
            ("model.safetensors".to_owned(), b"weights".to_vec()),
            ("config.json".to_owned(), b"{}".to_vec()),
        ];
        assert_eq!(model.sha256(), ModelBytes::from_files(files).sha256());
        assert!(read_model(dir.path(), Some(1), |_, _| ()).unwrap_err().to_string().contains("size"));
    }

    #[test]
    fn an_archive_is_the_folder_that_is_in_it() {
        let dir = folder_of(&[("model.safetensors", "weights"), ("config.json", "{}"), ("README.md", "x")]);
        let archive = archive::tests::pack(&[
            ("./README.md", b"x"),
            ("./model.safetensors", b"weights"),
            ("./config.json", b"{}"),
        ]);
        let disk = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(disk.path(), [&archive[..], b"behind it"].concat()).unwrap();
        let mut seen = Vec::new();
        let size = archive.len() as u64;
        let model = read_model(disk.path(), Some(size), |read, total| seen.push((read, total))).unwrap();
        assert_eq!(model.sha256(), read_model(dir.path(), None, |_, _| ()).unwrap().sha256());
        assert_eq!((model.format(), model.len(), seen[0]), (ModelFormat::Safetensors, 9, (0, size)));
        assert_eq!(model_size(disk.path(), Some(size)).unwrap(), size);
        std::fs::write(disk.path(), archive::tests::pack(&[("a/config.json", b"{}")])).unwrap();
        assert!(problem(disk.path()).contains("no config.json at its top"));
        std::fs::write(disk.path(), &archive[..BLOCK]).unwrap();
        assert!(problem(disk.path()).contains("cut off"));
    }

    #[test]
    fn a_folder_with_one_gguf_file_is_that_file() {
        let dir = folder_of(&[("a.gguf", "GGUF"), ("README.md", "x")]);
        let model = read_model(dir.path(), None, |_, _| ()).unwrap();
        assert_eq!(
            (model.files()[0].name(), model.sha256()),
            (GGUF, ModelBytes::from_vec(b"GGUF".to_vec()).sha256())
        );
        std::fs::write(dir.path().join("b.gguf"), "GGUF").unwrap();
        assert!(problem(dir.path()).contains("exactly one"));
        assert!(problem(folder_of(&[]).path()).contains("exactly one"));
    }

    #[test]
    fn links_out_of_the_folder_are_refused() {
        let outside = folder_of(&[("config.json", "{}")]);
        let dir = folder_of(&[("real.json", "{}")]);
        std::os::unix::fs::symlink(dir.path().join("real.json"), dir.path().join("config.json")).unwrap();
        assert_eq!(read_model(dir.path(), None, |_, _| ()).unwrap().len(), 2);
        std::fs::remove_file(dir.path().join("config.json")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("config.json"), dir.path().join("config.json"))
            .unwrap();
        assert!(problem(dir.path()).contains("cp -L"));
        std::fs::remove_file(dir.path().join("config.json")).unwrap();
        std::fs::create_dir(dir.path().join("config.json")).unwrap();
        assert!(problem(dir.path()).contains("is no file"));
    }

    #[test]
    fn a_folder_has_limits() {
        let dir = folder_of(&[("config.json", "{}")]);
        for nth in 1..MAX_FILES {
            std::fs::write(dir.path().join(format!("model-{nth:05}-of-99999.safetensors")), "").unwrap();
        }
        assert_eq!(read_model(dir.path(), None, |_, _| ()).unwrap().files().len(), MAX_FILES);
        std::fs::write(dir.path().join("model.safetensors"), "").unwrap();
        assert!(problem(dir.path()).contains("1025 files"));
        let dir = folder_of(&[]);
        let file = File::create(dir.path().join("config.json")).unwrap();
        file.set_len(MAX_TEXT_BYTES + 1).unwrap();
        assert!(problem(dir.path()).contains("too many"));
        let weights = File::create(dir.path().join("model.safetensors")).unwrap();
        file.set_len(0).unwrap();
        weights.set_len(MAX_MODEL_BYTES + 1).unwrap();
        assert!(matches!(read_model(dir.path(), None, |_, _| ()), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn names_a_missing_file() {
        let error = read_model(Path::new("/nowhere/model.gguf"), None, |_, _| ()).unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }));
        assert!(error.to_string().contains("/nowhere/model.gguf"));
    }

    #[test]
    fn refuses_one_byte_more_than_the_cap() {
        assert!(reserve(16, 16).is_ok());
        assert!(matches!(reserve(17, 16), Err(Error::TooLarge { len: 17, max: 16 })));
    }

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        assert_eq!(ModelBytes::from_vec(Vec::new()).sha256()[..4], [0xe3, 0xb0, 0xc4, 0x42]);
    }
}
