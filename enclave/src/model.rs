//! The models, while they load and after.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};

use cocoon_attestation::Digest;
use cocoon_attestation::wire::{ModelFile, ModelManifest};
use cocoon_inference::{Breakdown, Embedder, Engine, EngineConfig, Model, ModelBytes, ModelFormat};
use tokio::sync::Semaphore;

use crate::events::{EngineFault, Event, EventLog};
use crate::settings::{ModelSettings, is_twice};

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
    /// Two models of the configuration are one.
    #[error("two of the models are the same one: give each --model once")]
    SameModel,
    /// Two models have the same name.
    #[error("two models call themselves the same, so no request could say which: give each a --model-name")]
    SameName,
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
    pub work: Work,
}

/// What a model is for.
#[expect(clippy::large_enum_variant, reason = "there are a handful of them")]
#[derive(Debug)]
pub enum Work {
    /// It writes text.
    Writes(Engine),
    /// It makes vectors of texts.
    Embeds(Embeds),
}

/// What a thread does.
pub type Task = Box<dyn FnOnce() + Send>;

/// An embedding model.
#[derive(Debug)]
pub struct Embeds {
    /// Computes vectors.
    pub embedder: Embedder,
    /// Requests at once, waiting ones included.
    pub places: Semaphore,
    /// Requests that compute in turn.
    pub running: Arc<Semaphore>,
    /// Runs each on a thread of its own, of the scheduling class of the thread that loaded the model.
    pub threads: Sender<Task>,
}

impl Served {
    /// Whether nothing can be asked of it any more, until the enclave is started again.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        matches!(&self.work, Work::Writes(engine) if engine.breakdown().is_some())
    }
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Room for the models: empty while they load.
#[derive(Clone, Debug, Default)]
pub struct Models(Arc<Slot>);

#[derive(Debug, Default)]
struct Slot {
    served: OnceLock<Vec<Arc<Served>>>,
    read: AtomicU64,
    total: AtomicU64,
}

/// A model that was read and is the one that is wanted.
#[derive(Debug)]
pub struct ReadModel {
    /// Its files.
    pub bytes: ModelBytes,
    /// Digest of its manifest.
    pub digest: Digest,
    /// The name that it shall have in the API.
    pub name: Option<String>,
}

impl Models {
    /// The models in the order of S, once all are there.
    #[must_use]
    pub fn served(&self) -> Option<&[Arc<Served>]> {
        self.0.served.get().map(Vec::as_slice)
    }

    /// Bytes read and bytes in all, of all models together.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        (self.0.read.load(Ordering::Relaxed), self.0.total.load(Ordering::Relaxed))
    }

    /// Reads and hashes the files of models, once, into private memory; refuses what is not `wanted`.
    ///
    /// # Errors
    /// When a file cannot be read or is another one, or when a model is there twice.
    pub fn read(&self, wanted: &[ModelSettings], events: &EventLog) -> Result<Vec<ReadModel>, ModelError> {
        let unreadable = |_: &cocoon_inference::Error| events.log(&Event::ModelUnusable);
        let size = |model: &ModelSettings| cocoon_inference::model_size(&model.path, model.size);
        let sizes = wanted.iter().map(size).collect::<Result<Vec<u64>, _>>().inspect_err(unreadable)?;
        let total = sizes.iter().fold(0_u64, |sum, size| sum.saturating_add(*size));
        self.0.total.store(total, Ordering::Relaxed);
        let (mut models, mut before, mut percent) = (Vec::new(), 0_u64, None);
        for (model, size) in wanted.iter().zip(sizes) {
            let bytes = cocoon_inference::read_model(&model.path, model.size, |read, _| {
                let read = before.saturating_add(read);
                self.0.read.store(read, Ordering::Relaxed);
                let now = (read.saturating_mul(100)).checked_div(total);
                if now != percent {
                    percent = now;
                    events.log(&Event::ModelLoading { read, total });
                }
            });
            let bytes = bytes.inspect_err(unreadable)?;
            before = before.saturating_add(size);
            self.0.read.store(before, Ordering::Relaxed);
            let got = manifest(&bytes)?.digest();
            if let Some(want) = model.digest.filter(|want| *want != got) {
                events.log(&Event::ModelRefused { want, got });
                return Err(ModelError::Other { got, want });
            }
            models.push(ReadModel { bytes, digest: got, name: model.name.clone() });
        }
        let digests: Vec<_> = models.iter().map(|model| model.digest).collect();
        if is_twice(&digests) {
            events.log(&Event::ModelUnusable);
            return Err(ModelError::SameModel);
        }
        Ok(models)
    }

    /// Loads models from the bytes that were hashed, on this machine's GPU or its processors, and starts their engines. Requests are
    /// answered once `check` has found nothing against it.
    ///
    /// # Errors
    /// When the bytes are not a model that the engine can run, two models have the same name, or there is no GPU that can be used; what
    /// `check` says.
    pub fn load<E: From<ModelError>>(
        &self,
        read: Vec<ReadModel>,
        on_gpu: bool,
        config: &EngineConfig,
        events: &EventLog,
        check: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let unusable = |error: ModelError| {
            events.log(&Event::ModelUnusable);
            error
        };
        let loaded = read.into_iter().map(|model| Loaded::new(model, on_gpu)).collect::<Result<Vec<_>, _>>();
        let loaded = loaded.map_err(unusable)?;
        let names: Vec<_> = loaded.iter().map(|model| &model.name).collect();
        if is_twice(&names) {
            return Err(unusable(ModelError::SameName).into());
        }
        let writers = loaded.iter().filter(|model| model.writes()).count();
        let mut left = writers;
        let start = |model: Loaded| {
            let shares = (writers, left);
            left -= usize::from(model.writes());
            model.start(config, shares, events)
        };
        let served = loaded.into_iter().map(start).collect::<Result<Vec<_>, _>>();
        let served = served.map_err(unusable)?;
        check()?;
        let digests: Vec<_> = served.iter().map(|served| served.digest).collect();
        // Only one thread loads, once.
        let _first = self.0.served.set(served.into_iter().map(Arc::new).collect());
        for model in digests {
            events.log(&Event::ModelReady { model });
        }
        Ok(())
    }
}

/// A model whose weights are where they are computed with.
struct Loaded {
    name: String,
    digest: Digest,
    model: Weights,
}

enum Weights {
    Writes(Box<Model>),
    /// Not ready to be computed with yet.
    Embeds(ModelBytes),
}

impl Loaded {
    fn new(read: ReadModel, on_gpu: bool) -> Result<Self, ModelError> {
        let ReadModel { bytes, digest, name } = read;
        if Embedder::is_embedder(&bytes) {
            let name = name.unwrap_or_else(|| "embeddings".to_owned());
            return Ok(Self { name, digest, model: Weights::Embeds(bytes) });
        }
        let model = if on_gpu { Model::load_on_gpu(bytes) } else { Model::load(bytes) };
        let model = model.map_err(|source| ModelError::Unusable { got: digest, source })?;
        let name = name.unwrap_or_else(|| api_name(model.display_name()));
        Ok(Self { name, digest, model: Weights::Writes(Box::new(model)) })
    }

    fn writes(&self) -> bool {
        matches!(self.model, Weights::Writes(_))
    }

    /// Starts it. `writers`: how many models that write there are, and how many of them have not started yet, this one included. They
    /// share memory evenly.
    fn start(
        self,
        config: &EngineConfig,
        writers: (usize, usize),
        events: &EventLog,
    ) -> Result<Served, ModelError> {
        let Self { name, digest, model } = self;
        let unusable = |source| ModelError::Unusable { got: digest, source };
        let (work, context_length) = match model {
            Weights::Writes(model) => {
                let engine = start_engine(*model, config, writers, events).map_err(unusable)?;
                let context_length = engine.context_length();
                (Work::Writes(engine), context_length)
            }
            Weights::Embeds(bytes) => {
                let embedder =
                    Embedder::load(bytes, config.threads, config.turns.clone()).map_err(unusable)?;
                let context_length = embedder.context_length();
                let places = config.max_running.saturating_add(config.max_waiting);
                let (places, running) =
                    (Semaphore::new(places), Arc::new(Semaphore::new(config.max_running)));
                let threads =
                    threads().map_err(|e| unusable(cocoon_inference::Error::Threads(e.to_string())))?;
                (Work::Embeds(Embeds { embedder, places, running, threads }), context_length)
            }
        };
        Ok(Served { name, digest, context_length, work })
    }
}

/// A thread that starts threads.
fn threads() -> std::io::Result<Sender<Task>> {
    let (sender, tasks) = channel::<Task>();
    let start = move || tasks.into_iter().for_each(|task| drop(std::thread::Builder::new().spawn(task)));
    std::thread::Builder::new().name("embeddings".to_owned()).spawn(start)?;
    Ok(sender)
}

fn start_engine(
    model: Model,
    config: &EngineConfig,
    (writers, left): (usize, usize),
    events: &EventLog,
) -> Result<Engine, cocoon_inference::Error> {
    let mut config = config.clone();
    config.kv_bytes = Some(match config.kv_bytes {
        Some(all) => all / writers,
        // On a GPU this is a part of what is free now.
        None => model.usual_kv_bytes()? / left,
    });
    let engine = Engine::start(model, config)?;
    let events = events.clone();
    engine.on_breakdown(move |why| {
        let reason = match why {
            Breakdown::Gpu => EngineFault::Gpu,
            Breakdown::Panic | _ => EngineFault::Panicked,
        };
        events.log(&Event::EngineBroken { reason });
    });
    Ok(engine)
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
