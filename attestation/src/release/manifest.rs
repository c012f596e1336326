//! The release manifest, whose digest is claim 13 of S.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::is_word;
use super::reference::{self, SnpReference, TdxReference, exactly, word};
use crate::cbor::{self, Field, Fields, Value};
use crate::{Digest, Error, Measurement, UnixTime};

/// 400 components of 75 bytes, 256 shapes of 75 bytes and the rest stay below it; it leaves most of an AttestResponse to evidence.
pub const MAX_MANIFEST_LEN: usize = 64 * 1024;

/// Longest version.
const MAX_VERSION: usize = 64;
/// Longest source revision.
const MAX_SOURCE: usize = 128;
/// Files of an image.
const MAX_PARTS: usize = 64;
/// Longest path of one, and longest kind, name or version of a component.
const MAX_TEXT: usize = 128;
/// Configurations that a release vouches for.
const MAX_CONFIGS: usize = 64;
/// Components: crates and packages.
const MAX_COMPONENTS: usize = 1024;

const WHAT: &str = "release manifest";
const FORMAT: &str = "cocoon-release/1";

/// `{ 0: "cocoon-release/1", 1: version tstr, 2: source tstr, 3: created uint, 4: {+ path tstr => [size, sha256]}, 5: inputs bstr32,
/// ? 6: [+ SNP reference value], ? 7: [+ TDX reference value], ? 8: [+ config bstr32], ? 9: [+ component] }`
///
/// Lists are sorted and have nothing twice, so that the same release has one manifest. As JSON it has the names of the fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReleaseManifest {
    /// Version of the release, for people and monitors of the log.
    pub version: String,
    /// Revision of the source that it was built from.
    pub source: String,
    /// When it was put together.
    pub created: UnixTime,
    /// Files of the image, by their path in it.
    pub parts: BTreeMap<String, ImagePart>,
    /// SHA-256 of the lock file of the inputs.
    pub inputs: Digest,
    /// What SNP processors measure.
    pub snp: BTreeSet<SnpReference>,
    /// What TDX processors measure.
    pub tdx: BTreeSet<TdxReference>,
    /// Digests of configurations that the release vouches for; empty: it says nothing about them.
    pub configs: BTreeSet<Digest>,
    /// What the image is made of (a software bill of materials).
    pub components: BTreeSet<Component>,
}

/// One file of an image: `[size uint, sha256 bstr32]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ImagePart {
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: Digest,
}

/// One component: `[kind tstr, name tstr, version tstr, sha256 bstr32 or null]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Component {
    /// `crate` or `deb`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the archive it came in; `None` for the project's own.
    pub sha256: Option<Digest>,
}

impl ReleaseManifest {
    /// Deterministic CBOR.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut fields = vec![
            (0, cbor::text(FORMAT)),
            (1, cbor::text(&self.version)),
            (2, cbor::text(&self.source)),
            (3, cbor::uint(self.created.0)),
            (4, self.parts_value()),
            (5, cbor::bytes(&self.inputs.0)),
        ];
        // A list that is empty is left out.
        let mut list = |key, is_empty: bool, value| fields.extend((!is_empty).then_some((key, value)));
        list(6, self.snp.is_empty(), reference::snp_value(&self.snp));
        list(7, self.tdx.is_empty(), reference::tdx_value(&self.tdx));
        let configs = self.configs.iter().map(|digest| cbor::bytes(&digest.0)).collect();
        list(8, self.configs.is_empty(), Value::Array(configs));
        let components = self.components.iter().map(Component::value).collect();
        list(9, self.components.is_empty(), Value::Array(components));
        cbor::encode(&cbor::map(fields))
    }

    fn parts_value(&self) -> Value {
        let entry = |(path, part): (&String, &ImagePart)| {
            let value = Value::Array(vec![cbor::uint(part.size), cbor::bytes(&part.sha256.0)]);
            (cbor::text(path), value)
        };
        Value::Map(self.parts.iter().map(entry).collect())
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// `Malformed` for anything that is not exactly one canonical manifest of at most 64 KiB.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields::decode(WHAT, bytes, MAX_MANIFEST_LEN)?;
        fields.version(&cbor::text(FORMAT))?;
        let manifest = Self {
            version: word(fields.required(1)?, MAX_VERSION)?,
            source: word(fields.required(2)?, MAX_SOURCE)?,
            created: UnixTime(fields.required(3)?.uint()?),
            parts: parts(fields.required(4)?)?,
            inputs: Digest(fields.required(5)?.array()?),
            snp: fields.optional(6).map(reference::snp).transpose()?.unwrap_or_default(),
            tdx: fields.optional(7).map(reference::tdx).transpose()?.unwrap_or_default(),
            configs: fields.optional(8).map(configs).transpose()?.unwrap_or_default(),
            components: fields.optional(9).map(components).transpose()?.unwrap_or_default(),
        };
        fields.finish()?;
        if manifest.encode() != bytes {
            return Err(Error::malformed(WHAT, "a list that is not sorted or has something twice"));
        }
        Ok(manifest)
    }

    /// SHA-256 of its encoding: what S, signatures, log and rebuilds are about.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }

    /// Whether an SNP report with this launch digest and guest policy is of this release.
    pub(crate) fn has_snp(&self, measurement: &Measurement, policy: u64) -> bool {
        self.snp.iter().any(|reference| {
            reference.measurement == *measurement && reference.policy.is_none_or(|want| want == policy)
        })
    }
}

impl Component {
    fn value(&self) -> Value {
        let digest = self.sha256.map_or(Value::Null, |digest| cbor::bytes(&digest.0));
        Value::Array(vec![cbor::text(&self.kind), cbor::text(&self.name), cbor::text(&self.version), digest])
    }
}

fn parts(field: Field) -> Result<BTreeMap<String, ImagePart>, Error> {
    let mut out = BTreeMap::new();
    for (path, part) in field.not_empty()?.entries(MAX_PARTS)? {
        let path = path.text(MAX_TEXT)?;
        let plain =
            |name: &str| is_word(name, MAX_TEXT) && name != "." && name != ".." && !name.contains('\\');
        if !path.split('/').all(plain) {
            return Err(Error::malformed(WHAT, "field 4: a path that is not plain"));
        }
        let [size, sha256] = exactly(part, "a file of 2 parts")?;
        out.insert(path, ImagePart { size: size.uint()?, sha256: Digest(sha256.array()?) });
    }
    Ok(out)
}

fn configs(field: Field) -> Result<BTreeSet<Digest>, Error> {
    field.not_empty()?.items(MAX_CONFIGS)?.into_iter().map(|item| item.array().map(Digest)).collect()
}

fn components(field: Field) -> Result<BTreeSet<Component>, Error> {
    let one = |item: Field| {
        let [kind, name, version, sha256] = exactly(item, "a component of 4 parts")?;
        Ok(Component {
            kind: word(kind, MAX_TEXT)?,
            name: word(name, MAX_TEXT)?,
            version: word(version, MAX_TEXT)?,
            sha256: if sha256.is_null() { None } else { Some(Digest(sha256.array()?)) },
        })
    };
    field.not_empty()?.items(MAX_COMPONENTS)?.into_iter().map(one).collect()
}
