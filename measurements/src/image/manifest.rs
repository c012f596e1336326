//! `manifest.json`: what is in an image, and what it was made of.

use std::collections::BTreeMap;

use cocoon_attestation::Digest;
use serde::{Deserialize, Serialize};

/// What the file says it is.
pub const FORMAT: &str = "cocoon-image/1";

/// What an image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Inference on the processor: one static program.
    Cpu,
    /// Inference on NVIDIA GPUs: NVIDIA's driver and libraries beside the program.
    Cuda,
}

/// The whole file. Everything in it follows from the inputs: no time, no path of the builder's machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// What the image is for.
    pub profile: Profile,
    /// The simulated platform is in it: for development, never released.
    pub simulated: bool,
    /// The files beside the manifest, by their path in the image directory.
    pub parts: BTreeMap<String, Content>,
    /// What is in `initrd`, in its order.
    pub initrd: Vec<Entry>,
    /// Digest of the configuration in the command line: claim 12 of S.
    pub config: Digest,
    /// Packages that parts were taken from.
    pub inputs: Vec<Input>,
    /// SHA-256 of the lock file that names them.
    pub lock: Digest,
    /// Programs and archives that made `/init`.
    pub toolchain: Vec<Tool>,
    /// What has an influence and is not locked, in words.
    pub not_locked: Vec<String>,
}

/// A file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// Bytes.
    pub size: u64,
    /// SHA-256.
    pub sha256: Digest,
}

impl Content {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self { size: bytes.len() as u64, sha256: Digest::of(bytes) }
    }
}

/// One entry of the initramfs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Path without a leading slash.
    pub path: String,
    /// `st_mode` in octal, kind of file included: `0100555`.
    pub mode: String,
    /// Content, for files.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content: Option<Content>,
}

/// One package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its file.
    pub sha256: Digest,
}

/// One program or archive of the toolchain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// What it is: `rustc`, `cc1`, `libc.a`.
    pub name: String,
    /// Where it comes from, with the version.
    pub package: String,
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// Whether that is what the lock file says.
    pub locked: bool,
}
