//! The model, while it loads and after.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use cocoon_attestation::Digest;
use cocoon_attestation::wire::{ModelFile, ModelManifest};
use cocoon_inference::{Breakdown, Engine, EngineConfig, Model, ModelBytes, ModelFormat};

use crate::events::{EngineFault, Event, EventLog};

/// Why there is no model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The files are another model than the configuration names.
    #[error(
        "the model is another one than configured: its manifest digest is {got}, --model-digest says {want}"
    )]
    Other {
        /// Digest of what was found.
        got: Digest,
        /// Digest that was configured.
        want: Digest,
    },
    /// The folder is no model.
    #[error("the model folder holds no file of weights; fetch the whole folder again")]
    NoWeights,
    /// The file cannot be read.
    #[error(transparent)]
    Unreadable(#[from] cocoon_inference::Error),
    /// The file was read and is no model that can be run.
    #[error("{source}; the manifest digest of what was found is {got}")]
    Unusable {
        /// Digest of what was found.
        got: Digest,
        /// What is wrong with it.
        source: cocoon_inference::Error,
    },
}

/// A model that answers.
pub struct Served {
    /// Its name in the API.
    pub name: String,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Tokens of prompt and answer together.
    pub context_length: usize,
    /// Runs it.
    pub engine: Engine,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Room for the model: empty while it loads.
#[derive(Clone, Debug, Default)]
pub struct ModelSlot(Arc<Slot>);

#[derive(Debug, Default)]
struct Slot {
    served: OnceLock<Served>,
    read: AtomicU64,
    total: AtomicU64,
}

impl ModelSlot {
    /// The model, once it is there.
    #[must_use]
    pub fn served(&self) -> Option<&Served> {
        self.0.served.get()
    }

    /// Bytes read and bytes in all.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        (self.0.read.load(Ordering::Relaxed), self.0.total.load(Ordering::Relaxed))
    }

    /// Reads and hashes the files, once, into private memory; refuses it if it is not `want`.
    ///
    /// # Errors
    /// When the file cannot be read or is another one.
    pub fn read(
        &self,
        path: &Path,
        size: Option<u64>,
        want: Option<Digest>,
        events: &EventLog,
    ) -> Result<(ModelBytes, Digest), ModelError> {
        let mut percent = None;
        let bytes = cocoon_inference::read_model(path, size, |read, total| {
            self.0.read.store(read, Ordering::Relaxed);
            self.0.total.store(total, Ordering::Relaxed);
            let now = (read.saturating_mul(100)).checked_div(total);
            if now != percent {
                percent = now;
                events.log(&Event::ModelLoading { read, total });
            }
        })
        .inspect_err(|_| events.log(&Event::ModelUnusable))?;
        let got = manifest(&bytes)?.digest();
        if let Some(want) = want.filter(|want| *want != got) {
            events.log(&Event::ModelRefused { want, got });
            return Err(ModelError::Other { got, want });
        }
        Ok((bytes, got))
    }

    /// Loads the model from the bytes that were hashed, on this machine's GPU or its processors, and starts the engine. Requests are
    /// answered once `check` has found nothing against it.
    ///
    /// # Errors
    /// When the bytes are not a model that the engine can run, or there is no GPU that can be used; what `check` says.
    pub fn load<E: From<ModelError>>(
        &self,
        (bytes, digest): (ModelBytes, Digest),
        name: Option<String>,
        (on_gpu, engine): (bool, EngineConfig),
        events: &EventLog,
        check: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let unusable = |source| {
            events.log(&Event::ModelUnusable);
            ModelError::Unusable { got: digest, source }
        };
        let model = if on_gpu { Model::load_on_gpu(bytes) } else { Model::load(bytes) };
        let model = model.map_err(unusable)?;
        let name = name.unwrap_or_else(|| api_name(model.display_name()));
        let engine = Engine::start(model, engine).map_err(unusable)?;
        let broken = events.clone();
        engine.on_breakdown(move |why| {
            let reason = match why {
                Breakdown::Gpu => EngineFault::Gpu,
                Breakdown::Panic | _ => EngineFault::Panicked,
            };
            broken.log(&Event::EngineBroken { reason });
        });
        check()?;
        let context_length = engine.context_length();
        // Only one thread loads, once.
        let _first = self.0.served.set(Served { name, digest, context_length, engine });
        events.log(&Event::ModelReady { model: digest });
        Ok(())
    }
}

/// The manifest of a model that was read.
///
/// # Errors
/// When its folder holds no weights.
pub fn manifest(bytes: &ModelBytes) -> Result<ModelManifest, ModelError> {
    let file = |file: &cocoon_inference::ModelFile| ModelFile {
        name: file.name().to_owned(),
        size: file.len(),
        sha256: Digest(file.sha256()),
    };
    match bytes.format() {
        ModelFormat::Gguf => Ok(ModelManifest::gguf(bytes.len() as u64, Digest(bytes.sha256()))),
        ModelFormat::Safetensors => {
            let manifest = ModelManifest::safetensors(bytes.files().iter().map(file).collect());
            manifest.map_err(|_misuse| ModelError::NoWeights)
        }
    }
}

/// `SmolLM2 135M Instruct` becomes `smollm2-135m-instruct`.
fn api_name(display_name: Option<&str>) -> String {
    let lower = display_name.unwrap_or("model").to_lowercase();
    let keep = |c: char| c.is_ascii_alphanumeric() || c == '.';
    lower.split(|c| !keep(c)).filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_for_the_api() {
        assert_eq!(api_name(Some("SmolLM2 135M Instruct")), "smollm2-135m-instruct");
        assert_eq!(api_name(Some(" Qwen2.5  / 7B ")), "qwen2.5-7b");
        assert_eq!(api_name(None), "model");
    }
}
