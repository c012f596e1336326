//! Releases: what they are made of, and the files that carry them.
//!
//! | Module | What |
//! |---|---|
//! | [`parts`] | the files of an image |
//! | [`references`] | reference values from files |
//! | [`sbom`] | components from lock files |
//! | [`sound`] | whether an image is one to release |

mod error;
pub mod parts;
pub mod references;
pub mod sbom;
pub mod sound;

pub use error::ReleaseError;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cocoon_attestation::release::{MAX_BUNDLE_LEN, ReleaseBundle, ReleaseManifest};
use cocoon_attestation::{Digest, UnixTime};

use crate::image::directory::{Directory, MANIFEST};
use crate::log::LogError;

/// Longest lock file that is read.
const MAX_LOCK: u64 = 16 * 1024 * 1024;

/// Where everything comes from that another party can make again.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Folder of the image.
    pub image: PathBuf,
    /// Lock file of the inputs.
    pub lock: PathBuf,
    /// `Cargo.lock`, for the crates among the components.
    pub cargo_lock: Option<PathBuf>,
    /// Files with reference values.
    pub references: Vec<PathBuf>,
}

/// What only the release signer says.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Version.
    pub version: String,
    /// Revision of the source.
    pub source: String,
    /// Time.
    pub created: UnixTime,
    /// Digests of configurations that the release vouches for beside the image's own.
    pub configs: Vec<Digest>,
}

impl Sources {
    /// The manifest of a release made from these.
    ///
    /// # Errors
    /// When a file cannot be read or is not what it must be, or something is too long or too much for a manifest.
    pub fn manifest(&self, identity: Identity) -> Result<ReleaseManifest, ReleaseError> {
        let mut configs: BTreeSet<_> = identity.configs.into_iter().collect();
        configs.extend(self.own_config()?);
        let inputs = read(&self.lock, MAX_LOCK)?;
        let (snp, tdx) = references::read_all(&self.references)?;
        let mut components = sbom::packages(&self.lock, &inputs)?;
        if let Some(path) = &self.cargo_lock {
            components.extend(sbom::crates(path, &read(path, MAX_LOCK)?)?);
        }
        let manifest = ReleaseManifest {
            version: identity.version,
            source: identity.source,
            created: identity.created,
            parts: parts::of(&self.image)?,
            inputs: Digest::of(&inputs),
            snp,
            tdx,
            configs,
            components,
        };
        // What Verifiers would not read is not released.
        Ok(ReleaseManifest::decode(&manifest.encode())?)
    }

    /// The configuration in the image's command line, as its manifest has it, if there is one.
    fn own_config(&self) -> Result<Option<Digest>, ReleaseError> {
        let path = self.image.join(MANIFEST);
        if !path.try_exists().map_err(|error| LogError::Io { what: "read", path, error })? {
            return Ok(None);
        }
        Ok(Some(Directory::new(&self.image).manifest()?.config))
    }

    /// What differs between `released` and what is made from these: a line for each part. `configs` are those that whoever rebuilds
    /// confirms beside the image's own.
    ///
    /// # Errors
    /// As [`Sources::manifest`].
    pub fn differences(
        &self,
        released: &ReleaseManifest,
        configs: &[Digest],
    ) -> Result<Vec<String>, ReleaseError> {
        let identity = Identity {
            version: released.version.clone(),
            source: released.source.clone(),
            created: released.created,
            configs: configs.to_vec(),
        };
        Ok(compare(released, &self.manifest(identity)?))
    }
}

fn compare(released: &ReleaseManifest, rebuilt: &ReleaseManifest) -> Vec<String> {
    let mut out = Vec::new();
    for path in released.parts.keys().chain(rebuilt.parts.keys()) {
        let said = |part: Option<&cocoon_attestation::release::ImagePart>| {
            part.map_or("none".to_owned(), |part| format!("{} bytes, {}", part.size, part.sha256))
        };
        let (want, got) = (released.parts.get(path), rebuilt.parts.get(path));
        let line = format!("{path}: released {}, rebuilt {}", said(want), said(got));
        if want != got && !out.contains(&line) {
            out.push(line);
        }
    }
    for config in released.configs.difference(&rebuilt.configs) {
        out.push(format!("config {config}: released, neither the image's own nor confirmed with --config"));
    }
    for config in rebuilt.configs.difference(&released.configs) {
        out.push(format!("config {config}: yours, not released"));
    }
    if released.inputs != rebuilt.inputs {
        out.push(format!("inputs: released {}, rebuilt {}", released.inputs, rebuilt.inputs));
    }
    let mut note =
        |differs: bool, what: &str| out.extend(differs.then(|| format!("{what}: others than released")));
    note(released.snp != rebuilt.snp, "SNP reference values");
    note(released.tdx != rebuilt.tdx, "TDX reference values");
    note(released.components != rebuilt.components, "components");
    out
}

/// Reads a bundle.
///
/// # Errors
/// When the file cannot be read or is no bundle.
pub fn read_bundle(path: &Path) -> Result<ReleaseBundle, ReleaseError> {
    let bytes = read(path, MAX_BUNDLE_LEN as u64)?;
    ReleaseBundle::decode(&bytes).map_err(|error| ReleaseError::wrong(path, error.to_string()))
}

/// Writes a bundle, whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn write_bundle(path: &Path, bundle: &ReleaseBundle) -> Result<(), ReleaseError> {
    Ok(crate::log::layout::write(path, &bundle.encode())?)
}

fn read(path: &Path, max: u64) -> Result<Vec<u8>, ReleaseError> {
    Ok(crate::log::layout::read(path, max)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::verify::tests::image;

    #[test]
    fn configurations_are_the_images_own_or_confirmed() {
        let (dir, image) = (tempfile::tempdir().unwrap(), image());
        let reference = dir.path().join("reference.json");
        let value = serde_json::json!({ "vcpus": 1, "vcpu_type": "sim", "measurement": "ab".repeat(48) });
        std::fs::write(&reference, serde_json::json!({ "snp": [value] }).to_string()).unwrap();
        let sources = Sources {
            image: image.path().to_owned(),
            lock: Path::new(env!("CARGO_MANIFEST_DIR")).join("inputs.lock"),
            cargo_lock: None,
            references: vec![reference],
        };
        let released = |configs: &[Digest]| {
            let (version, source) = ("1".to_owned(), "git:0".to_owned());
            let configs = configs.to_vec();
            sources.manifest(Identity { version, source, created: UnixTime(1), configs }).unwrap()
        };
        let (own, more, other) = (Digest([0; 32]), Digest([1; 32]), Digest([2; 32]));
        assert_eq!(released(&[]).configs, [own].into());
        assert_eq!(released(&[more, own]).configs, [own, more].into());
        let differences = |released: &ReleaseManifest, configs: &[Digest]| {
            sources.differences(released, configs).unwrap().join("; ")
        };
        assert_eq!(differences(&released(&[]), &[]), "");
        assert_eq!(differences(&released(&[more]), &[more]), "");
        let slipped_in =
            format!("config {more}: released, neither the image's own nor confirmed with --config");
        assert_eq!(differences(&released(&[more]), &[]), slipped_in);
        let both = format!("{slipped_in}; config {other}: yours, not released");
        assert_eq!(differences(&released(&[more]), &[other]), both);
        let mut without = released(&[]);
        without.configs.clear();
        assert_eq!(differences(&without, &[]), format!("config {own}: yours, not released"));
        std::fs::write(image.path().join(MANIFEST), b"{}").unwrap();
        assert!(sources.differences(&without, &[]).unwrap_err().is_rejection());
    }
}
