//! The inference engine: a model (GGUF or safetensors) read once and hashed, its tokenizer and chat template, its forward pass on the
//! CPU, and a scheduler that streams text to many requests at a time.
//!
//! ```text
//! read_model -> ModelBytes -> Model::load -> Engine::start -> Engine::submit -> GenerateEvent..
//!                         \-> Embedder::load -> Embedder::embed -> Embedding..
//! ```
//!
//! Prompts, answers and token ids travel in types without `Debug` or `Display` that are wiped when dropped; rows of activations and
//! the cache are wiped when nobody uses them. What the crate cannot wipe: registers, and parts of the stack.
//!
//! Trust boundaries: the model file is bytes of anyone (a malformed one is an [`Error`], never a panic); the text of a
//! message is bytes of an adversary, which never becomes a special token and so cannot forge a turn; the chat template
//! is the model owner's program and runs on placeholders, never on the text of messages.
#![deny(unsafe_code)] // vector instructions, threads and CUDA have some: see the architecture tests

mod archive;
mod backend;
pub mod bench;
mod blocks;
mod chat;
mod compute;
mod cpu;
#[cfg(any(test, feature = "cuda"))]
mod cuda;
mod decoder;
mod detokenizer;
mod draft;
mod embedding;
mod engine;
mod error;
mod fairness;
mod families;
pub mod fuzzing;
mod gguf;
mod grammar;
mod header;
mod huggingface;
mod model;
mod model_file;
mod request;
mod rotary;
mod sampler;
mod scheduler;
mod scored;
mod secret;
mod sequence;
mod shared;
mod source;
mod stop;
mod template;
mod tokenizer;
mod turns;
mod weights;

#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod testing;

pub use cpu::yield_processors;
#[cfg(feature = "cuda")]
pub use cuda::describe_gpu;
pub use embedding::{Embedder, Embedding, MAX_EMBED_TEXTS};
pub use engine::{Engine, EngineConfig, Load};
pub use error::{EmbedError, Error, SubmitError, TemplateError};
pub use grammar::{Grammar, GrammarError, MAX_SCHEMA_BYTES, MAX_SCHEMA_DEPTH, Rules, Tool};
pub use model::{Logits, Model, Sequence};
pub use model_file::{MAX_MODEL_BYTES, ModelBytes, ModelFile, ModelFormat, model_size, read_model};
pub use request::{
    CacheSalt, ClientId, FailureKind, FinishReason, GenerateEvent, GenerateRequest, MAX_BIAS, MAX_LOGIT_BIAS,
    MAX_MESSAGES, MAX_PENALTY, MAX_PROMPT_BYTES, MAX_REPETITION_PENALTY, MAX_STOP_BYTES, MAX_STOP_STRINGS,
    MAX_TEMPERATURE, MAX_TOOLS, MAX_TOP_LOGPROBS, Message, Role, Sink, Submitted, ToolCall,
};
pub use sampler::{TokenMask, TokenSet};
pub use scored::{ScoredToken, TokenLogprobs};
pub use secret::{SecretString, Tokens};
pub use shared::{Breakdown, Counts};
pub use turns::{Turn, Turns};
