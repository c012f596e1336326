//! A loaded model: weights, tokenizer and chat template.

use crate::backend::{BLOCK_TOKENS, Batch, Span};
use crate::chat;
use crate::compute::{Compute, On, Room};
use crate::cpu::{Cpu, read_bandwidth};
#[cfg(any(test, feature = "cuda"))]
use crate::cuda::{Device, Gpu, copy_bandwidth};
use crate::decoder::Decoder;
use crate::error::{Error, TemplateError};
use crate::families::Spec;
use crate::grammar::{Grammar, GrammarError, Grammars, Rules};
use crate::model_file::ModelBytes;
use crate::request::Message;
use crate::sampler::argmax;
use crate::secret::{SecretString, Tokens};
use crate::source::Source;
use crate::template::Template;
use crate::tokenizer::{Piece, Tokenizer};
use std::sync::{Arc, OnceLock};
use zeroize::Zeroizing;

/// Tokens per step of a [`Sequence`].
const PREFILL_CHUNK: usize = 128;
/// Most tokens of a [`Sequence`], if the model takes as many.
const MAX_SEQUENCE: usize = 8192;
/// Bytes for keys and values in the memory of processors.
const USUAL_KV_BYTES: usize = 4 << 30;
/// Longest name that is shown.
const MAX_NAME_CHARS: usize = 100;

/// A model, ready to compute. Shared by all sequences; nothing in it changes.
pub struct Model {
    weights: Weights,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) template: Template,
    display_name: Option<String>,
    sha256: [u8; 32],
    grammars: OnceLock<Grammars>,
}

/// Where the weights of a model are, and what computes with them.
enum Weights {
    Cpu(Arc<Decoder<Cpu>>),
    #[cfg(any(test, feature = "cuda"))]
    Gpu(Arc<Decoder<Gpu>>, Arc<Device>),
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("display_name", &self.display_name).finish_non_exhaustive()
    }
}

impl Model {
    /// Takes the files of a model apart. The bytes may be anything: what is wrong with them is an error, never a panic, and no
    /// allocation is larger than a small multiple of the file.
    pub fn load(bytes: ModelBytes) -> Result<Self, Error> {
        Self::from_source(bytes.source()?, bytes.sha256())
    }

    /// The same, with weights in the memory of this machine's GPU, as BF16, which computes with them.
    ///
    /// # Errors
    /// Also [`Error::NoGpu`], if this program was built without CUDA, and where there is no GPU that can be used; and [`Error::Gpu`], if its
    /// memory is too small.
    pub fn load_on_gpu(bytes: ModelBytes) -> Result<Self, Error> {
        Self::gpu_from_source(bytes.source()?, bytes.sha256())
    }

    pub(crate) fn from_source(source: Source<'_>, sha256: [u8; 32]) -> Result<Self, Error> {
        let load = |source: &mut Source<'_>, spec| Decoder::load(source, spec, &());
        Self::assemble(source, sha256, |source, spec| Ok(Weights::Cpu(Arc::new(load(source, spec)?))))
    }

    #[cfg(any(test, feature = "cuda"))]
    pub(crate) fn gpu_from_source(source: Source<'_>, sha256: [u8; 32]) -> Result<Self, Error> {
        let device = Arc::new(Device::open()?);
        Self::assemble(source, sha256, |source, spec| {
            let decoder = Decoder::load(source, spec, &device)?;
            Ok(Weights::Gpu(Arc::new(decoder), device))
        })
    }

    #[cfg(not(any(test, feature = "cuda")))]
    pub(crate) fn gpu_from_source(_source: Source<'_>, _sha256: [u8; 32]) -> Result<Self, Error> {
        Err(Error::NoGpu("this program was built without CUDA; build it with feature `cuda`".to_owned()))
    }

    fn assemble(
        mut source: Source<'_>,
        sha256: [u8; 32],
        load: impl FnOnce(&mut Source<'_>, Spec) -> Result<Weights, Error>,
    ) -> Result<Self, Error> {
        let tokenizer = Tokenizer::load(&source)?;
        let template = Template::new(source.string("tokenizer.chat_template")?, tokenizer.names())?;
        let name = source.optional_string("general.name")?;
        let printable =
            |name: &&str| name.chars().count() <= MAX_NAME_CHARS && !name.chars().any(char::is_control);
        let display_name = name.filter(printable).map(str::to_owned);
        let spec = Spec::read(&source, tokenizer.vocabulary())?;
        let weights = load(&mut source, spec)?;
        source.finish()?;
        Ok(Self { weights, tokenizer, template, display_name, sha256, grammars: OnceLock::new() })
    }

    pub(crate) fn spec(&self) -> &Spec {
        match &self.weights {
            Weights::Cpu(decoder) => decoder.spec(),
            #[cfg(any(test, feature = "cuda"))]
            Weights::Gpu(decoder, _) => decoder.spec(),
        }
    }

    /// Bytes of weights that are fetched for a step with scores.
    pub(crate) fn step_bytes(&self) -> usize {
        match &self.weights {
            Weights::Cpu(decoder) => decoder.step_bytes(),
            #[cfg(any(test, feature = "cuda"))]
            Weights::Gpu(decoder, _) => decoder.step_bytes(),
        }
    }

    /// Bytes per second that what computes can move, as measured now: `threads` processors read, or the GPU reads and writes.
    pub(crate) fn bandwidth(&self, threads: usize) -> Result<f64, Error> {
        match &self.weights {
            Weights::Cpu(_) => read_bandwidth(threads),
            #[cfg(any(test, feature = "cuda"))]
            Weights::Gpu(_, device) => copy_bandwidth(device),
        }
    }

    /// Whether processors compute it.
    pub(crate) fn is_on_processors(&self) -> bool {
        matches!(self.weights, Weights::Cpu(_))
    }

    /// Bytes for keys and values, if nobody says how many.
    ///
    /// # Errors
    /// If the GPU does not say how much memory is free.
    pub fn usual_kv_bytes(&self) -> Result<usize, Error> {
        match &self.weights {
            Weights::Cpu(_) => Ok(USUAL_KV_BYTES),
            #[cfg(any(test, feature = "cuda"))]
            Weights::Gpu(_, device) => Ok(device.memory()?.0 / 4 * 3), // the rest is for rows and scratch
        }
    }

    /// The simulated GPU that the weights are on, if they are.
    #[cfg(all(test, not(feature = "cuda")))]
    pub(crate) fn device(&self) -> Option<&Device> {
        match &self.weights {
            Weights::Gpu(_, device) => Some(device),
            Weights::Cpu(_) => None,
        }
    }

    /// Readies what computes.
    pub(crate) fn compute(&self, room: Room) -> Result<Box<dyn Compute>, Error> {
        Ok(match &self.weights {
            Weights::Cpu(decoder) => {
                let backend = Cpu::new(decoder.spec().sizes, room.threads, room.blocks)?;
                Box::new(On { decoder: Arc::clone(decoder), backend })
            }
            #[cfg(any(test, feature = "cuda"))]
            Weights::Gpu(decoder, device) => {
                let backend = Gpu::new(Arc::clone(device), decoder.spec(), decoder.rotary(), room)?;
                Box::new(On { decoder: Arc::clone(decoder), backend })
            }
        })
    }

    /// How many tokens prompt and answer may have together.
    pub fn context_length(&self) -> usize {
        self.spec().context
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
        self.conversation(messages, &[])
    }

    /// The same, with tools that the model may call.
    pub(crate) fn conversation(
        &self,
        messages: &[Message],
        tools: &[SecretString],
    ) -> Result<Tokens, TemplateError> {
        chat::encode(&self.template, &self.tokenizer, messages, tools)
    }

    /// The tokens of a text, ready to be continued: none of them is special, but for the first one where the model wants it.
    pub(crate) fn text(&self, text: &SecretString) -> Result<Tokens, TemplateError> {
        let tokens =
            self.tokenizer.encode(&[Piece::Text(text.expose())]).map_err(TemplateError::Tokenizer)?;
        if tokens.is_empty() { Err(TemplateError::NoText) } else { Ok(tokens) }
    }

    /// Compiles rules for answers of this model.
    ///
    /// # Errors
    /// Rules that ask for what is not supported, that no answer can keep to, or that take too much work.
    pub fn grammar(&self, rules: &Rules) -> Result<Grammar, GrammarError> {
        self.grammars().compile(rules)
    }

    /// What grammars of this model have in common: made once.
    pub(crate) fn grammars(&self) -> &Grammars {
        self.grammars.get_or_init(|| Grammars::new(&self.tokenizer))
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
    compute: Box<dyn Compute>,
    table: Vec<u32>,
    len: usize,
}

impl<'a> Sequence<'a> {
    /// An empty sequence that computes on `threads` threads.
    pub fn new(model: &'a Model, threads: usize) -> Result<Self, Error> {
        let blocks = model.context_length().min(MAX_SEQUENCE).div_ceil(BLOCK_TOKENS);
        let compute = model.compute(Room { threads, blocks, rows: PREFILL_CHUNK, wanted: PREFILL_CHUNK })?;
        let table = (0..blocks).filter_map(|block| u32::try_from(block).ok()).collect();
        Ok(Self { model, compute, table, len: 0 })
    }

    /// Runs tokens behind those before; gives the scores of the next one.
    pub fn push(&mut self, tokens: &Tokens) -> Result<Logits, Error> {
        let mut last = None;
        self.run(tokens, false, |logits| last = Some(logits))?;
        last.ok_or_else(|| Error::Compute("no tokens to run".to_owned()))
    }

    /// Runs tokens behind those before; gives the scores of the next one after each.
    pub fn push_each(&mut self, tokens: &Tokens) -> Result<Vec<Logits>, Error> {
        let mut all = Vec::with_capacity(tokens.len());
        self.run(tokens, true, |logits| all.push(logits))?;
        Ok(all)
    }

    fn run(&mut self, tokens: &Tokens, each: bool, mut give: impl FnMut(Logits)) -> Result<(), Error> {
        let Self { model, compute, table, len } = self;
        let (wanted, context_length) = (*len + tokens.len(), model.context_length().min(MAX_SEQUENCE));
        if wanted > context_length {
            return Err(Error::ContextFull { wanted, context_length });
        }
        for tokens in tokens.as_slice().chunks(PREFILL_CHUNK) {
            let spans = [Span { row: 0, rows: tokens.len(), position: *len, table }];
            let wanted: Vec<usize> = if each { (0..tokens.len()).collect() } else { vec![tokens.len() - 1] };
            compute.step(&Batch { tokens, spans: &spans, wanted: &wanted }, 0)?;
            *len += tokens.len();
            for row in 0..wanted.len() {
                give(Logits(Zeroizing::new(compute.scores(row)?.to_vec())));
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Role;
    use crate::testing::{Tiny, tiny_model};

    fn load(bytes: Vec<u8>) -> Result<Model, Error> {
        Model::load(ModelBytes::from_vec(bytes))
    }

    fn message(text: &str) -> Vec<Message> {
        vec![Message::new(Role::User, text)]
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
        let prompt = model.prompt(&message(&"long prompt ".repeat(18))).unwrap();
        assert!(prompt.len() > PREFILL_CHUNK);
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
