//! The files that may have been measured: the image's, and those of other images.

use std::path::PathBuf;

use cocoon_attestation::Digest;

use crate::image::Error;
use crate::image::directory::{Directory, firmware};
use crate::predict::{authenticode, sha384};

/// Candidates that a search takes: with more, all combinations would take minutes.
pub const MAX_CANDIDATES: usize = 4;

/// A file with the digests that searches need of it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Where it comes from.
    pub name: String,
    /// SHA-256.
    pub sha256: Digest,
    /// SHA-384 as TDX measures it: of a kernel the Authenticode digest, which only a UEFI program has.
    pub sha384: Option<[u8; 48]>,
    /// The bytes, of firmware and command lines alone.
    pub bytes: Vec<u8>,
}

impl Candidate {
    /// As it is shown.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{} (sha256 {})", self.name, self.sha256)
    }

    fn small(name: String, bytes: Vec<u8>) -> Self {
        Self { name, sha256: Digest::of(&bytes), sha384: Some(sha384(&[&bytes])), bytes }
    }
}

/// What may have been booted. In each list the image's own is the first, and none is there twice.
#[derive(Clone, Debug)]
pub struct Material {
    /// Firmware.
    pub firmware: Vec<Candidate>,
    /// Kernels.
    pub kernels: Vec<Candidate>,
    /// Initrds.
    pub initrds: Vec<Candidate>,
    /// Command lines.
    pub command_lines: Vec<Candidate>,
}

impl Material {
    /// Reads an image with the firmware at `path` in it, what `others` have of its files, and more firmware.
    ///
    /// # Errors
    /// [`Error`] for files that cannot be read or are too large, too many candidates, and a candidate without any file of an image.
    pub fn read(image: &Directory, path: &str, others: &[PathBuf], ovmf: &[PathBuf]) -> Result<Self, Error> {
        if others.len() > MAX_CANDIDATES || ovmf.len() > MAX_CANDIDATES {
            let why = format!("at most {MAX_CANDIDATES} are taken at once; call again with the others");
            return Err(Error::package("candidates", why));
        }
        let mut all = Self {
            firmware: Vec::new(),
            kernels: Vec::new(),
            initrds: Vec::new(),
            command_lines: Vec::new(),
        };
        all.add(image, path, |result| result.map(Some))?;
        for other in others {
            if !all.add(&Directory::new(other), path, or_none)? {
                let why =
                    "has no vmlinuz, initrd, cmdline or firmware to try; give the directory of an image";
                return Err(Error::package(&other.display().to_string(), why));
            }
        }
        for path in ovmf {
            push(&mut all.firmware, Candidate::small(path.display().to_string(), firmware(path)?));
        }
        Ok(all)
    }

    /// Whether there was any file.
    fn add(
        &mut self,
        from: &Directory,
        firmware: &str,
        missing: impl Fn(Result<Vec<u8>, Error>) -> Result<Option<Vec<u8>>, Error>,
    ) -> Result<bool, Error> {
        let mut any = false;
        for (list, path) in [
            (&mut self.firmware, firmware),
            (&mut self.kernels, "vmlinuz"),
            (&mut self.initrds, "initrd"),
            (&mut self.command_lines, "cmdline"),
        ] {
            let Some(bytes) = missing(from.file(path))? else { continue };
            any = true;
            let mut candidate = Candidate::small(from.path().join(path).display().to_string(), bytes);
            match path {
                "vmlinuz" => candidate.sha384 = authenticode::digest(&candidate.bytes).ok(),
                "initrd" => {}
                _ => {
                    push(list, candidate);
                    continue;
                }
            }
            candidate.bytes = Vec::new();
            push(list, candidate);
        }
        Ok(any)
    }
}

fn push(list: &mut Vec<Candidate>, candidate: Candidate) {
    if list.iter().all(|known| known.sha256 != candidate.sha256) {
        list.push(candidate);
    }
}

fn or_none(read: Result<Vec<u8>, Error>) -> Result<Option<Vec<u8>>, Error> {
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
