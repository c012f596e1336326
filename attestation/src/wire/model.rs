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

/// Files of a folder of safetensors that are part of the model, beside the weights themselves.
const TEXTS: [&str; 6] = [
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

/// `{ 0: "cocoon-model/1", 1: format tstr, 2: [+ [name tstr, size uint, sha256 bstr32]] }`, files sorted by name.
///
/// A GGUF file carries tokenizer, chat template and quantisation inside, so its one digest covers them. In a folder of
/// safetensors they are files of their own, each in the manifest.
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

    /// The manifest of a folder as Hugging Face publishes models, whatever the order of its files.
    ///
    /// # Errors
    /// `Misuse` when a name occurs twice, is no part of a model, or there are no weights.
    pub fn safetensors(mut files: Vec<ModelFile>) -> Result<Self, Error> {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(file) = files.iter().find(|file| !Self::is_part(&file.name)) {
            return Err(Error::misuse(format!("{} is no part of a model", file.name)));
        }
        if files.iter().zip(files.iter().skip(1)).any(|(file, next)| file.name == next.name) {
            return Err(Error::misuse("a file of the model is given twice"));
        }
        if !files.iter().any(|file| is_weights(&file.name)) {
            return Err(Error::misuse("the model has no file of weights"));
        }
        Ok(Self { format: "safetensors", files })
    }

    /// Whether a file of this name in a folder of safetensors is part of the model. Others are neither read nor measured.
    #[must_use]
    pub fn is_part(name: &str) -> bool {
        TEXTS.contains(&name) || is_weights(name)
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

/// `model.safetensors`, or `model-00001-of-00002.safetensors`.
fn is_weights(name: &str) -> bool {
    let Some(middle) = name.strip_prefix("model").and_then(|rest| rest.strip_suffix(".safetensors")) else {
        return false;
    };
    let number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let part = middle.strip_prefix('-').and_then(|middle| middle.split_once("-of-"));
    middle.is_empty() || part.is_some_and(|(nth, all)| number(nth) && number(all))
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
    fn a_folder_is_unordered_and_holds_only_the_model() {
        let file = |name: &str, byte| ModelFile { name: name.into(), size: 1, sha256: Digest([byte; 32]) };
        let (config, weights) = (file("config.json", 1), file("model-00001-of-00001.safetensors", 2));
        let manifest = ModelManifest::safetensors(vec![weights.clone(), config.clone()]).unwrap();
        assert_eq!(manifest, ModelManifest::safetensors(vec![config.clone(), weights.clone()]).unwrap());
        assert_eq!(manifest.files().first(), Some(&config));
        assert!(ModelManifest::safetensors(vec![config.clone(), weights.clone(), weights.clone()]).is_err());
        assert!(ModelManifest::safetensors(vec![config.clone()]).is_err());
        for name in ["README.md", "../config.json", "model-1.safetensors", ""] {
            assert!(ModelManifest::safetensors(vec![weights.clone(), file(name, 3)]).is_err(), "{name}");
        }
        let gguf = ModelManifest::gguf(1, Digest([2; 32]));
        let alone = ModelManifest::safetensors(vec![file("model.safetensors", 2)]).unwrap();
        assert_ne!(alone.digest(), gguf.digest());
    }

    #[test]
    fn config_is_unordered_and_unique() {
        let a = config_digest([("a", "1".to_owned()), ("b", "2".to_owned())]).unwrap();
        assert_eq!(a, config_digest([("b", "2".to_owned()), ("a", "1".to_owned())]).unwrap());
        assert_ne!(a, config_digest([("b", "1".to_owned()), ("a", "2".to_owned())]).unwrap());
        assert!(config_digest([("a", "1".to_owned()), ("a", "1".to_owned())]).is_err());
    }
}
