//! Sentence embeddings: a BERT model from a folder of safetensors, such as all-MiniLM-L6-v2. A text becomes the mean of the last
//! layer's rows over all of its tokens, scaled to length 1: what sentence-transformers does by default, and what these models are
//! trained for. Folders that say otherwise (`1_Pooling/config.json`) say so in files that are neither read nor measured.
//!
//! ```text
//! read_model -> ModelBytes -> Embedder::load -> Embedder::embed -> Embedding..
//! ```
//!
//! Texts come in packs: their rows lie one behind the other, without padding, and only texts of one pack are in memory as activations.
//! An embedding depends on its text and the model alone, not on the pack, the threads or the processor.

mod bert;
mod config;
mod trie;
mod vocabulary;
mod wordpiece;

use crate::cpu::Threads;
use crate::error::{EmbedError, Error};
use crate::huggingface::{self, CONFIG, TOKENIZER, need};
use crate::model_file::{ModelBytes, ModelFormat};
use crate::request::MAX_PROMPT_BYTES;
use crate::secret::{SecretString, Tokens};
use crate::turns::Turns;
use bert::{Bert, Buffers};
use std::sync::{Mutex, PoisonError};
use wordpiece::WordPiece;
use zeroize::Zeroizing;

/// Texts of one call, as in the OpenAI API.
pub const MAX_EMBED_TEXTS: usize = 2048;

/// Rows of a pack, unless one text has more: they stay in a processor's cache, and are enough for products to be fast. With 384
/// numbers a token, activations take some 6 MB.
const MAX_ROWS: usize = 512;

/// An embedding model. May be shared by threads; one of them computes at a time, and they take turns after each pack.
pub struct Embedder {
    tokenizer: WordPiece,
    model: Bert,
    threads: Threads,
    turns: Turns,
    buffers: Mutex<Buffers>,
    dimensions: usize,
    context_length: usize,
}

impl std::fmt::Debug for Embedder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedder").field("dimensions", &self.dimensions).finish_non_exhaustive()
    }
}

/// What a text is to the model: as secret as the text. Wiped when dropped; cannot be formatted.
#[expect(missing_debug_implementations, reason = "secrets must not be printable")]
pub struct Embedding {
    values: Zeroizing<Vec<f32>>,
    tokens: usize,
}

impl Embedding {
    /// As many numbers as the model has dimensions; the sum of their squares is 1. Do not log them: much of the text can be told
    /// from them.
    pub fn expose(&self) -> &[f32] {
        &self.values
    }

    /// Tokens of the text, with the first and the last one, which the model adds.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

impl Embedder {
    /// Whether a model is one for embeddings, by the `model_type` in its `config.json`. Whether this engine computes it,
    /// [`Embedder::load`] says.
    pub fn is_embedder(bytes: &ModelBytes) -> bool {
        bytes.format() == ModelFormat::Safetensors && need(&bytes.named(), CONFIG).is_ok_and(config::is_bert)
    }

    /// Loads a model, to be computed by `threads` with the caller's (at least 1). What the engine does not know or compute is
    /// refused by its name.
    pub fn load(bytes: ModelBytes, threads: usize, turns: Turns) -> Result<Self, Error> {
        let files = bytes.named();
        if bytes.format() != ModelFormat::Safetensors {
            let name = "GGUF".to_owned();
            return Err(Error::Unsupported {
                what: "format of an embedding model",
                name,
                supported: "safetensors",
            });
        }
        let config = config::read(need(&files, CONFIG)?)?;
        let tokenizer = vocabulary::read(need(&files, TOKENIZER)?, config.vocabulary)?;
        let model = Bert::new(huggingface::tensors(&files, bert::is_unused)?, config)?;
        Ok(Self {
            tokenizer,
            model,
            threads: Threads::new(threads)?,
            turns,
            buffers: Mutex::default(),
            dimensions: config.hidden,
            context_length: config.positions,
        })
    }

    /// Numbers of an embedding.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// The most tokens of a text, with the first and the last one, which the model adds.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// Tokens of a text, with the first and the last one, which the model adds: at least 2.
    pub fn count(&self, text: &str) -> usize {
        self.tokenizer.count(text)
    }

    /// The tokens of a text, however long, for fuzzing: they reveal the text.
    pub(crate) fn dangerous_tokens(&self, text: &str) -> Tokens {
        self.tokenizer.encode(text, usize::MAX).unwrap_or_default()
    }

    /// The embedding of each text, in order. `go_on` is asked before each text is cut into tokens, and before each pack of some 512 tokens.
    ///
    /// Fails before anything is computed if there are more than [`MAX_EMBED_TEXTS`] texts, or one is longer than
    /// [`MAX_PROMPT_BYTES`] or [`Embedder::context_length`]: no text is cut. Fails with [`EmbedError::Stopped`] once `go_on` says
    /// no.
    pub fn embed(
        &self,
        texts: &[SecretString],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Vec<Embedding>, EmbedError> {
        if texts.len() > MAX_EMBED_TEXTS {
            return Err(EmbedError::TooManyTexts { texts: texts.len(), max: MAX_EMBED_TEXTS });
        }
        let encode = |(index, text): (usize, &SecretString)| {
            if go_on() { self.encode(index, text.expose()) } else { Err(EmbedError::Stopped) }
        };
        let tokens = (0..).zip(texts).map(encode);
        let tokens = tokens.collect::<Result<Vec<_>, _>>()?;
        let mut embeddings = Vec::with_capacity(tokens.len());
        let mut rest = tokens.as_slice();
        while !rest.is_empty() {
            if !go_on() {
                return Err(EmbedError::Stopped);
            }
            let (pack, others) = rest.split_at(pack(rest));
            rest = others;
            let values = self.compute(pack)?;
            let with_count = values.into_iter().zip(pack);
            embeddings.extend(with_count.map(|(values, text)| Embedding { values, tokens: text.len() }));
        }
        Ok(embeddings)
    }

    fn encode(&self, index: usize, text: &str) -> Result<Tokens, EmbedError> {
        if text.len() > MAX_PROMPT_BYTES {
            return Err(EmbedError::TooManyBytes { index, bytes: text.len(), max: MAX_PROMPT_BYTES });
        }
        let context_length = self.context_length;
        let too_long = |tokens| EmbedError::TooLong { index, tokens, context_length };
        self.tokenizer.encode(text, context_length).map_err(too_long)
    }

    fn compute(&self, pack: &[Tokens]) -> Result<Vec<Zeroizing<Vec<f32>>>, Error> {
        // What a panic left in them is wiped with the rest.
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever has the buffers waits for a turn: one for all that want vectors, so that others come in between.
        let _turn = self.turns.take();
        let values = self.model.embed(&self.threads, pack, &mut buffers);
        buffers.wipe();
        values
    }
}

/// How many of the texts make up the next pack: at least one.
fn pack(texts: &[Tokens]) -> usize {
    let mut rows = 0;
    let fit = texts.iter().take_while(|text| {
        rows += text.len();
        rows <= MAX_ROWS
    });
    fit.count().max(1)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
