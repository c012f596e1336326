//! A loaded model: weights, tokenizer and chat template of one GGUF file.

use crate::chat;
use crate::error::{Error, TemplateError};
use crate::kv::KvCache;
use crate::llama::Llama;
use crate::model_file::ModelBytes;
use crate::request::Message;
use crate::sampler::argmax;
use crate::secret::Tokens;
use crate::template::Template;
use crate::tokenizer::Tokenizer;
use zeroize::Zeroizing;

/// Tokens per step while a prompt is read: so long do other sequences wait for it at most.
pub(crate) const PREFILL_CHUNK: usize = 64;
/// Longest name that is shown.
const MAX_NAME_CHARS: usize = 100;

/// A model, ready to compute. Shared by all sequences; nothing in it changes.
pub struct Model {
    pub(crate) llama: Llama,
    pub(crate) tokenizer: Tokenizer,
    template: Template,
    display_name: Option<String>,
    sha256: [u8; 32],
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("display_name", &self.display_name).finish_non_exhaustive()
    }
}

impl Model {
    /// Takes a GGUF file apart. The bytes may be anything: what is wrong with them is an error, never a panic, and no
    /// allocation is larger than a small multiple of the file.
    pub fn load(bytes: ModelBytes) -> Result<Self, Error> {
        let mut gguf = bytes.source()?;
        let tokenizer = Tokenizer::load(&gguf)?;
        let template = Template::new(gguf.string("tokenizer.chat_template")?, tokenizer.names())?;
        let name = gguf.optional_string("general.name")?;
        let printable =
            |name: &&str| name.chars().count() <= MAX_NAME_CHARS && !name.chars().any(char::is_control);
        let display_name = name.filter(printable).map(str::to_owned);
        let llama = Llama::load(&mut gguf, tokenizer.vocabulary())?;
        gguf.finish()?;
        Ok(Self { llama, tokenizer, template, display_name, sha256: bytes.sha256() })
    }

    /// How many tokens prompt and answer may have together.
    pub fn context_length(&self) -> usize {
        self.llama.context_length()
    }

    /// What the model calls itself (`general.name`): a claim of the file, not an identity.
    pub fn display_name(&self) -> Option<&str> {
        self.display_name.as_deref()
    }

    /// What [`ModelBytes::sha256`] says of the files that this model was loaded from: its identity.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// The tokens of a conversation, ready for the model's answer. Special tokens come from the chat template only.
    pub fn prompt(&self, messages: &[Message]) -> Result<Tokens, TemplateError> {
        chat::encode(&self.template, &self.tokenizer, messages)
    }

    /// The most likely answer, without an engine: for tests and benchmarks. Ends behind an end token or after
    /// `max_tokens`.
    pub fn generate_greedy(
        &self,
        prompt: &Tokens,
        max_tokens: usize,
        threads: usize,
    ) -> Result<Tokens, Error> {
        let mut sequence = Sequence::new(self, threads)?;
        let mut answer = Tokens::with_capacity(max_tokens);
        let mut logits = sequence.push(prompt)?;
        while answer.len() < max_tokens {
            let token = logits.argmax()?;
            answer.push(token);
            if self.tokenizer.is_end(token) {
                break;
            }
            if answer.len() < max_tokens {
                logits = sequence.push(&Tokens::dangerous_from_ids(&[token]))?;
            }
        }
        Ok(answer)
    }
}

/// One sequence on a model, without an engine: for tests and benchmarks.
#[expect(missing_debug_implementations, reason = "holds a client's tokens")]
pub struct Sequence<'a> {
    model: &'a Model,
    kv: KvCache,
    pool: rayon::ThreadPool,
}

impl<'a> Sequence<'a> {
    /// An empty sequence that computes on `threads` threads.
    pub fn new(model: &'a Model, threads: usize) -> Result<Self, Error> {
        Ok(Self { model, kv: model.llama.cache(), pool: thread_pool(threads)? })
    }

    /// Runs tokens behind those before; gives the scores of the next one.
    pub fn push(&mut self, tokens: &Tokens) -> Result<Logits, Error> {
        let (llama, kv) = (&self.model.llama, &mut self.kv);
        self.pool.install(|| {
            let mut last = Err(Error::Compute("no tokens to run".to_owned()));
            for chunk in tokens.as_slice().chunks(PREFILL_CHUNK) {
                last = Ok(llama.advance(kv, chunk)?);
            }
            llama.logits(&last?).map(Logits)
        })
    }
}

/// Scores of every token of the vocabulary. Wiped when dropped.
#[expect(missing_debug_implementations, reason = "scores reveal the text")]
pub struct Logits(Zeroizing<Vec<f32>>);

impl Logits {
    /// The most likely token.
    pub fn argmax(&self) -> Result<u32, Error> {
        argmax(&self.0)
    }

    /// The scores, for tests and benchmarks: they reveal the text.
    pub fn dangerous_values(&self) -> &[f32] {
        &self.0
    }
}

/// The threads that share the work of a step.
pub(crate) fn thread_pool(threads: usize) -> Result<rayon::ThreadPool, Error> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|n| format!("inference-{n}"))
        .build();
    pool.map_err(|error| Error::Threads(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Role;
    use crate::testing::{Tiny, tiny_model};

    fn load(bytes: Vec<u8>) -> Result<Model, Error> {
        Model::load(ModelBytes::from_vec(bytes))
    }

    fn message(text: &str) -> Vec<Message> {
        vec![Message { role: Role::User, content: text.into() }]
    }

    #[test]
    fn a_tiny_model_loads_and_answers() {
        let model = load(tiny_model()).unwrap();
        assert_eq!((model.context_length(), model.display_name()), (256, Some("Tiny")));
        let prompt = model.prompt(&message("hello")).unwrap();
        let answer = model.generate_greedy(&prompt, 5, 1).unwrap();
        assert!((1..=5).contains(&answer.len()));
        assert!(model.generate_greedy(&prompt, 5, 2).unwrap() == answer);
    }

    #[test]
    fn chunks_and_single_tokens_give_the_same_scores() {
        let model = load(tiny_model()).unwrap();
        let prompt = model.prompt(&message(&"long prompt ".repeat(12))).unwrap();
        assert!(prompt.len() > 2 * PREFILL_CHUNK);
        let together = Sequence::new(&model, 1).unwrap().push(&prompt).unwrap();
        let mut sequence = Sequence::new(&model, 1).unwrap();
        let mut last = None;
        for id in prompt.dangerous_ids() {
            last = Some(sequence.push(&Tokens::dangerous_from_ids(&[*id])).unwrap());
        }
        assert_eq!(together.dangerous_values(), last.unwrap().dangerous_values());
    }

    #[test]
    fn the_context_is_a_limit() {
        let model = load(tiny_model()).unwrap();
        let mut sequence = Sequence::new(&model, 1).unwrap();
        sequence.push(&Tokens::dangerous_from_ids(&[5; 256])).unwrap();
        let error = sequence.push(&Tokens::dangerous_from_ids(&[5])).err().unwrap();
        assert!(matches!(error, Error::ContextFull { wanted: 257, context_length: 256 }));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = tiny_model();
        // The end of the file is padding; a cut within it loses nothing.
        for len in (0..bytes.len() - 32).step_by(41).chain(0..200) {
            assert!(load(bytes[..len].to_vec()).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn flipped_bits_of_the_header_never_panic() {
        let tiny = Tiny::default();
        let (bytes, header) = (tiny.build(), tiny.header_len());
        for index in (0..header).step_by(3) {
            let mut flipped = bytes.clone();
            flipped[index] ^= 1 << (index % 8);
            let _ = load(flipped);
        }
    }

    #[test]
    fn garbage_never_panics() {
        for seed in 0..200 {
            let mut state = seed as u64;
            let mut bytes = tiny_model()[..seed % 64].to_vec();
            bytes.extend((0..2000).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state.to_be_bytes()[0]
            }));
            assert!(load(bytes).is_err());
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let error = |tiny: Tiny| load(tiny.build()).unwrap_err().to_string();
        assert!(error(Tiny::default().without("llama.block_count")).contains("`llama.block_count`"));
        assert!(
            error(Tiny::default().without("tokenizer.chat_template")).contains("`tokenizer.chat_template`")
        );
        assert!(
            error(Tiny::default().with_string("general.architecture", "gemma"))
                .contains("architecture `gemma`")
        );
        assert!(error(Tiny::default().with_number("llama.block_count", 3)).contains("no tensor `blk.2."));
        assert!(error(Tiny::default().with_number("llama.block_count", 1)).contains("tensor `blk.1."));
        assert!(
            error(Tiny::default().with_number("llama.feed_forward_length", 64))
                .contains("blk.0.ffn_gate.weight")
        );
        assert!(error(Tiny::default().with_number("llama.attention.head_count", 5)).contains("head_count"));
        assert!(
            error(Tiny::default().with_string("llama.context_length", "many"))
                .contains("`llama.context_length`")
        );
        assert!(
            error(Tiny::default().with_string("llama.rope.scaling.type", "yarn"))
                .contains("rope scaling `yarn`")
        );
    }

    #[test]
    fn a_name_with_control_characters_is_not_shown() {
        let bytes = Tiny::default().with_string("general.name", "a\u{1b}[2Jb").build();
        assert_eq!(load(bytes).unwrap().display_name(), None);
    }
}
