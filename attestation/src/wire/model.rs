//! The model manifest, whose digest is claim 11 of S.

use crate::cbor::{self, Value};
use crate::{Digest, Error};

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Name inside the model, not on a disk: two operators with different paths get the same digest.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: Digest,
}

/// `{ 0: "cocoon-model/1", 1: format tstr, 2: [+ [name tstr, size uint, sha256 bstr32]] }`, files sorted by name.
///
/// A GGUF file carries tokenizer, chat template and quantisation inside, so its one digest covers them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelManifest {
    format: &'static str,
    files: Vec<ModelFile>,
}

impl ModelManifest {
    /// The manifest of a single GGUF file; its name inside the model is always `model.gguf`.
    #[must_use]
    pub fn gguf(size: u64, sha256: Digest) -> Self {
        Self { format: "gguf", files: vec![ModelFile { name: "model.gguf".into(), size, sha256 }] }
    }

    /// Files of the model, sorted by name.
    #[must_use]
    pub fn files(&self) -> &[ModelFile] {
        &self.files
    }

    /// Deterministic CBOR.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let file = |f: &ModelFile| {
            Value::Array(vec![cbor::text(&f.name), cbor::uint(f.size), cbor::bytes(&f.sha256.0)])
        };
        cbor::encode(&cbor::map([
            (0, cbor::text("cocoon-model/1")),
            (1, cbor::text(self.format)),
            (2, Value::Array(self.files.iter().map(file).collect())),
        ]))
    }

    /// The digest that S, policies and receipts name.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }
}

/// Digest of an enclave's configuration: over deterministic CBOR `{ 0: "cocoon-config/1", 1: { name tstr => value tstr } }`.
///
/// # Errors
/// `Misuse` when a name occurs twice.
pub fn config_digest<'a>(settings: impl IntoIterator<Item = (&'a str, String)>) -> Result<Digest, Error> {
    let mut map = std::collections::BTreeMap::new();
    for (name, value) in settings {
        if map.insert(cbor::text(name), Value::Text(value)).is_some() {
            return Err(Error::misuse(format!("setting {name} is given twice")));
        }
    }
    Ok(Digest::of(&cbor::encode(&cbor::map([(0, cbor::text("cocoon-config/1")), (1, Value::Map(map))]))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_depends_on_content_only() {
        let manifest = ModelManifest::gguf(1, Digest([1; 32]));
        assert_eq!(manifest.files().len(), 1);
        assert_eq!(manifest.digest(), ModelManifest::gguf(1, Digest([1; 32])).digest());
        assert_ne!(manifest.digest(), ModelManifest::gguf(2, Digest([1; 32])).digest());
        assert_ne!(manifest.digest(), ModelManifest::gguf(1, Digest([2; 32])).digest());
    }

    #[test]
    fn config_is_unordered_and_unique() {
        let a = config_digest([("a", "1".to_owned()), ("b", "2".to_owned())]).unwrap();
        assert_eq!(a, config_digest([("b", "2".to_owned()), ("a", "1".to_owned())]).unwrap());
        assert_ne!(a, config_digest([("b", "1".to_owned()), ("a", "2".to_owned())]).unwrap());
        assert!(config_digest([("a", "1".to_owned()), ("a", "1".to_owned())]).is_err());
    }
}
