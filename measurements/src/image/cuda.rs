//! What an image for NVIDIA GPUs has beside the program: the loader and C library that it links, NVIDIA's libraries and firmware, and a
//! kernel with NVIDIA's modules.
//!
//! NVIDIA's files are not in Debian's packages: an operator gives them in a folder, locked by a `driver.lock` of its own. The kernel comes
//! from there too: it loads only modules that were signed where it was built, and NVIDIA's are in no distribution's kernel.

use std::path::{Path, PathBuf};

use cocoon_attestation::Digest;
use serde::Deserialize;

use super::Error;
use super::lock::{Lock, Package};
use super::newc::Initramfs;
use super::store::{Store, checked};

/// Name of the lock file in an operator's folder.
pub const DRIVER_LOCK: &str = "driver.lock";

/// Kernel modules beyond those of every image; what they depend on comes along.
pub const MODULES: [&str; 3] = ["ecdh_generic", "nvidia", "nvidia-uvm"];

/// From Debian: package, path in it, path in the image. What the program and NVIDIA's libraries need and nothing else.
pub const LIBRARIES: [(&str, &str, &str); 7] = [
    ("libc6", "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2"),
    ("libc6", "lib/x86_64-linux-gnu/libc.so.6", "lib/x86_64-linux-gnu/libc.so.6"),
    ("libc6", "lib/x86_64-linux-gnu/libm.so.6", "lib/x86_64-linux-gnu/libm.so.6"),
    ("libc6", "lib/x86_64-linux-gnu/libdl.so.2", "lib/x86_64-linux-gnu/libdl.so.2"),
    ("libc6", "lib/x86_64-linux-gnu/libpthread.so.0", "lib/x86_64-linux-gnu/libpthread.so.0"),
    ("libc6", "lib/x86_64-linux-gnu/librt.so.1", "lib/x86_64-linux-gnu/librt.so.1"),
    ("libgcc-s1", "lib/x86_64-linux-gnu/libgcc_s.so.1", "lib/x86_64-linux-gnu/libgcc_s.so.1"),
];

/// From the operator: name in the folder, path in the image with `VERSION` for the driver's, and what it is for.
pub const DRIVER: [(&str, &str, &str); 4] = [
    ("libcuda.so.1", "lib/x86_64-linux-gnu/libcuda.so.1", "the driver's interface to programs"),
    ("libnvidia-ml.so.1", "lib/x86_64-linux-gnu/libnvidia-ml.so.1", "attestation reports of the GPU"),
    ("libcublasLt.so.13", "lib/x86_64-linux-gnu/libcublasLt.so.13", "matrix products"),
    ("gsp_ga10x.bin", "lib/firmware/nvidia/VERSION/gsp_ga10x.bin", "firmware that the GPU runs"),
];

/// A kernel and four files are a few KiB.
const MAX_LOCK: usize = 256 * 1024;
/// No file of NVIDIA's is as large.
const MAX_FILE: u64 = 2 << 30;

/// An operator's folder, as its lock file describes it.
#[derive(Clone, Debug)]
pub struct Driver {
    folder: PathBuf,
    text: Text,
    /// Packages of the folder: the kernel.
    pub lock: Lock,
    /// SHA-256 of the lock file.
    pub digest: Digest,
}

/// The part of a `driver.lock` that other lock files do not have.
#[derive(Clone, Debug, Deserialize)]
struct Text {
    /// Version of NVIDIA's driver, as its files name it.
    driver: String,
    #[serde(rename = "file", default)]
    files: Vec<File>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    size: u64,
    sha256: Digest,
}

impl Driver {
    /// Reads an operator's folder.
    ///
    /// # Errors
    /// When its lock file cannot be read or makes no sense.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(DRIVER_LOCK);
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Io {
            what: "read",
            path: path.clone(),
            source,
        })?;
        Self::parse(folder, &text)
    }

    /// The same from the text of the lock file.
    ///
    /// # Errors
    /// When it makes no sense.
    pub fn parse(folder: &Path, text: &str) -> Result<Self, Error> {
        let path = folder.join(DRIVER_LOCK);
        let wrong = |why: String| Error::Lock { path: path.clone(), why };
        if text.len() > MAX_LOCK {
            return Err(wrong(format!("{} bytes, at most {MAX_LOCK} are allowed", text.len())));
        }
        let ours: Text = toml::from_str(text).map_err(|e| wrong(e.message().replace('\n', ", ")))?;
        let version = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if !version(&ours.driver) {
            return Err(wrong(format!("driver = {:?}, expected a version such as 580.95.05", ours.driver)));
        }
        let lock = Lock::of_driver(text, &path)?;
        Ok(Self { folder: folder.to_owned(), text: ours, digest: Digest::of(text.as_bytes()), lock })
    }

    /// Adds NVIDIA's files to `image`; gives them as inputs, and the lock file that names them.
    ///
    /// # Errors
    /// The first that is not locked, not there, or not the one that is locked, by its name and what it is for.
    pub fn add(&self, image: &mut Initramfs) -> Result<Vec<Package>, Error> {
        let input = |name: &str, size, sha256| Package {
            name: name.to_owned(),
            version: self.text.driver.clone(),
            suite: String::new(),
            path: name.to_owned(),
            size,
            sha256,
        };
        let mut used = vec![input(DRIVER_LOCK, 0, self.digest)];
        for (name, to, purpose) in DRIVER {
            let missing = || Error::Driver { name, purpose, folder: self.folder.clone() };
            let file = self.text.files.iter().find(|file| file.name == name).ok_or_else(missing)?;
            let path = self.folder.join(name);
            let opened = std::fs::File::open(&path).map_err(|_not_there| missing())?;
            let package = input(name, file.size.min(MAX_FILE), file.sha256);
            let bytes = checked(&package, &path, opened)?;
            image.file(&to.replace("VERSION", &self.text.driver), 0o555, bytes);
            used.push(package);
        }
        Ok(used)
    }

    /// Where the kernel's package is looked for first.
    #[must_use]
    pub fn store(&self) -> Store {
        Store::new(vec![self.folder.clone()])
    }
}

/// Adds the loader and the C library to `image`; gives the packages that they are from.
///
/// # Errors
/// When a package is missing, or lacks one of them.
pub fn add_libraries(lock: &Lock, store: &Store, image: &mut Initramfs) -> Result<Vec<Package>, Error> {
    let mut used: Vec<Package> = Vec::new();
    for (name, from, to) in LIBRARIES {
        let package = lock.package(name)?;
        let files = super::deb::extract(package.file(), &store.read(package)?, |path| path == from)?;
        let missing = || Error::package(package.file(), format!("it has no {from}"));
        image.file(to, 0o555, files.into_values().next().ok_or_else(missing)?);
        if !used.contains(package) {
            used.push(package.clone());
        }
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::deb::tests::package;

    fn lock_text(files: &[(&str, &[u8])]) -> String {
        let mut text = "version = 1\ndriver = \"580.95.05\"\npackage = []\n".to_owned();
        for (name, bytes) in files {
            let sha256 = Digest::of(bytes);
            text += &format!("[[file]]\nname = {name:?}\nsize = {}\nsha256 = \"{sha256}\"\n", bytes.len());
        }
        text
    }

    fn folder(files: &[(&str, &[u8])], lock: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        std::fs::write(folder.path().join(DRIVER_LOCK), lock).unwrap();
        folder
    }

    #[test]
    fn every_file_is_taken_and_a_missing_one_is_named() {
        let files = DRIVER.map(|(name, ..)| (name, name.as_bytes()));
        let whole = folder(&files, &lock_text(&files));
        let mut image = Initramfs::new();
        let used = Driver::open(whole.path()).unwrap().add(&mut image).unwrap();
        assert_eq!((used[0].name.as_str(), used.len()), (DRIVER_LOCK, 1 + DRIVER.len()));
        let paths: Vec<_> = image.files().map(|(path, _)| path.to_owned()).collect();
        assert!(paths.contains(&"lib/firmware/nvidia/580.95.05/gsp_ga10x.bin".to_owned()), "{paths:?}");
        assert_eq!(paths.len(), DRIVER.len());
        for (index, (name, _, purpose)) in DRIVER.iter().enumerate() {
            let without: Vec<_> =
                files.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, f)| *f).collect();
            for (there, locked) in [(&without[..], &files[..]), (&files[..], &without[..])] {
                let folder = folder(there, &lock_text(locked));
                let error = Driver::open(folder.path()).unwrap().add(&mut Initramfs::new()).unwrap_err();
                assert!(error.to_string().contains(name) && error.to_string().contains(purpose), "{error}");
            }
        }
    }

    #[test]
    fn what_is_not_locked_so_is_refused() {
        let files = DRIVER.map(|(name, ..)| (name, name.as_bytes()));
        let other = folder(&files, &lock_text(&files));
        std::fs::write(other.path().join("libcuda.so.1"), b"libcuda.so.2").unwrap();
        let error = Driver::open(other.path()).unwrap().add(&mut Initramfs::new()).unwrap_err().to_string();
        assert!(error.contains("libcuda.so.1: sha256 is"), "{error}");
        let refused = |text: &str| Driver::open(folder(&[], text).path()).unwrap_err().to_string();
        assert!(refused("").contains("driver"));
        assert!(refused(&lock_text(&[]).replace("580.95.05", "../x")).contains("expected a version"));
        assert!(
            refused(&lock_text(&[]).replace("version = 1", "version = 7")).contains("version 7 is unknown")
        );
        assert!(refused(&" ".repeat(MAX_LOCK + 1)).contains("at most 262144"));
        assert!(Driver::open(Path::new("/nowhere")).unwrap_err().to_string().contains(DRIVER_LOCK));
    }

    #[test]
    fn libraries_come_from_their_packages() {
        let store = tempfile::tempdir().unwrap();
        let mut text = "version = 1\n".to_owned();
        for name in ["libc6", "libgcc-s1"] {
            let files: Vec<_> = LIBRARIES
                .iter()
                .filter(|(of, ..)| *of == name)
                .map(|(_, from, _)| (*from, from.as_bytes()))
                .collect();
            let bytes = package(&files);
            let path = format!("{name}.deb");
            std::fs::write(store.path().join(&path), &bytes).unwrap();
            text += &format!(
                "[[package]]\nname = {name:?}\nversion = \"1\"\nsuite = \"s\"\npath = {path:?}\nsize = {}\nsha256 = \"{}\"\n",
                bytes.len(),
                Digest::of(&bytes)
            );
        }
        let lock = Lock::parse(&text, Path::new("lock")).unwrap();
        let store = Store::new(vec![store.path().to_owned()]);
        let mut image = Initramfs::new();
        assert_eq!(add_libraries(&lock, &store, &mut image).unwrap().len(), 2);
        assert_eq!(image.files().count(), LIBRARIES.len());
        let without = text.replace("libgcc-s1", "libgcc-s2");
        let lock = Lock::parse(&without, Path::new("lock")).unwrap();
        assert!(add_libraries(&lock, &store, &mut image).unwrap_err().to_string().contains("libgcc-s1"));
    }
}
