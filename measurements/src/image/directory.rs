//! An image where it lies: `vmlinuz`, `initrd`, `cmdline`, firmware in folders by platform, `manifest.json`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Error;
use super::manifest::Manifest;
use crate::predict::Boot;
use crate::predict::firmware::MAX_FIRMWARE;

/// A kernel with everything built in has 30 MB.
const MAX_KERNEL: usize = 256 << 20;
/// The CPU profile has 10 MB, one with NVIDIA's libraries some hundred.
const MAX_INITRD: usize = 2 << 30;
/// Linux takes no more: `COMMAND_LINE_SIZE` of x86, with the zero byte at its end.
pub const MAX_COMMAND_LINE: usize = 2047;
/// Some thousand entries are 1 MB.
const MAX_MANIFEST: usize = 16 << 20;
/// An image has six files.
const MAX_FILES: usize = 64;
/// An image has one level.
const MAX_DEPTH: usize = 4;

/// Name of the manifest.
pub const MANIFEST: &str = "manifest.json";
/// SNP's firmware, by its path in the directory.
pub const SNP_FIRMWARE: &str = "snp/OVMF.amdsev.fd";
/// TDX's firmware.
pub const TDX_FIRMWARE: &str = "tdx/OVMF.fd";

/// The directory of an image. Nothing was read yet.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

/// Kernel, initrd and command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// `vmlinuz`.
    pub kernel: Vec<u8>,
    /// `initrd`.
    pub initrd: Vec<u8>,
    /// `cmdline`.
    pub command_line: Vec<u8>,
}

impl Parts {
    /// As a prediction takes them.
    #[must_use]
    pub fn boot(&self) -> Boot<'_> {
        Boot { kernel: &self.kernel, initrd: &self.initrd, command_line: &self.command_line }
    }
}

impl Directory {
    /// The image at `path`.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Kernel, initrd and command line; a prediction needs no manifest.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Package`] for a file that is too large.
    pub fn parts(&self) -> Result<Parts, Error> {
        Ok(Parts {
            kernel: self.file("vmlinuz")?,
            initrd: self.file("initrd")?,
            command_line: self.file("cmdline")?,
        })
    }

    /// A file of an image, by its path in the directory.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Package`] for a file that is too large.
    pub fn file(&self, path: &str) -> Result<Vec<u8>, Error> {
        let max = match path {
            "vmlinuz" => MAX_KERNEL,
            "initrd" => MAX_INITRD,
            "cmdline" => MAX_COMMAND_LINE,
            MANIFEST => MAX_MANIFEST,
            _ => MAX_FIRMWARE,
        };
        read(&self.0.join(path), max)
    }

    /// The manifest.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Package`] for what is no manifest.
    pub fn manifest(&self) -> Result<Manifest, Error> {
        let text = self.file(MANIFEST)?;
        serde_json::from_slice(&text)
            .map_err(|e| Error::package(MANIFEST, format!("is no manifest of an image: {e}")))
    }

    /// Paths of all files, and of what is neither a file nor a folder, with what it is.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Package`] for more files or levels than an image has.
    pub fn list(&self) -> Result<BTreeMap<String, Kind>, Error> {
        let mut out = BTreeMap::new();
        self.list_below("", 0, &mut out)?;
        Ok(out)
    }

    fn list_below(&self, below: &str, depth: usize, out: &mut BTreeMap<String, Kind>) -> Result<(), Error> {
        let folder = self.0.join(below);
        let at = |source| Error::Io { what: "read", path: folder.clone(), source };
        for entry in std::fs::read_dir(&folder).map_err(at)? {
            let entry = entry.map_err(at)?;
            let name = format!("{below}{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type().map_err(at)?;
            if out.len() >= MAX_FILES || depth >= MAX_DEPTH {
                let why = format!(
                    "has more than {MAX_FILES} files or {MAX_DEPTH} levels: it is no image directory"
                );
                return Err(Error::package(&self.0.display().to_string(), why));
            }
            if kind.is_dir() {
                self.list_below(&format!("{name}/"), depth.saturating_add(1), out)?;
            } else {
                out.insert(name, if kind.is_file() { Kind::File } else { Kind::Other });
            }
        }
        Ok(())
    }
}

/// What a path of an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A link, a device, a socket.
    Other,
}

/// The bytes of a firmware file outside of an image.
///
/// # Errors
/// [`Error::Io`], or [`Error::Package`] for a file that is too large.
pub fn firmware(path: &Path) -> Result<Vec<u8>, Error> {
    read(path, MAX_FIRMWARE)
}

/// All of a file, which may have `max` bytes.
///
/// # Errors
/// [`Error::Io`], or [`Error::Package`] for a file that is larger.
pub fn read(path: &Path, max: usize) -> Result<Vec<u8>, Error> {
    let at = |source| Error::Io { what: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(at)?;
    let mut bytes = Vec::new();
    // One byte more than it may have tells that there are more.
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(at)?;
    if bytes.len() > max {
        let why = format!("has more than {max} bytes, which no such file of an image has");
        return Err(Error::package(&path.display().to_string(), why));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_without_a_manifest_and_up_to_their_limits() {
        let dir = tempfile::tempdir().unwrap();
        let image = Directory::new(dir.path());
        let write = |name: &str, content: &[u8]| std::fs::write(dir.path().join(name), content).unwrap();
        write("vmlinuz", b"k");
        write("initrd", b"i");
        assert!(matches!(image.parts(), Err(Error::Io { .. })), "no cmdline");
        write("cmdline", &[b'a'; MAX_COMMAND_LINE]);
        assert_eq!(image.parts().unwrap().boot().command_line.len(), MAX_COMMAND_LINE);
        write("cmdline", &[b'a'; MAX_COMMAND_LINE + 1]);
        assert!(image.parts().unwrap_err().to_string().contains("cmdline: has more than 2047 bytes"));
        assert!(matches!(image.manifest(), Err(Error::Io { .. })));
        write("manifest.json", b"{}");
        assert!(
            image.manifest().unwrap_err().to_string().contains("is no manifest of an image: missing field")
        );
    }

    #[test]
    fn other_things_and_other_directories_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let image = Directory::new(dir.path());
        std::fs::create_dir(dir.path().join("snp")).unwrap();
        std::fs::write(dir.path().join("snp/x"), b"").unwrap();
        std::os::unix::fs::symlink("snp/x", dir.path().join("initrd")).unwrap();
        let want = [("initrd".to_owned(), Kind::Other), ("snp/x".to_owned(), Kind::File)];
        assert_eq!(image.list().unwrap(), BTreeMap::from(want));
        std::fs::create_dir_all(dir.path().join("1/2/3/4/5")).unwrap();
        assert!(image.list().unwrap_err().to_string().contains("no image directory"));
        std::fs::remove_dir_all(dir.path().join("1")).unwrap();
        (0..=MAX_FILES).for_each(|n| std::fs::write(dir.path().join(n.to_string()), b"").unwrap());
        assert!(image.list().unwrap_err().to_string().contains("more than 64 files"));
    }
}
