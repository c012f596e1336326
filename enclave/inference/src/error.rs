//! What can go wrong, by whose fault, and what to do about it.

use std::path::PathBuf;

/// Why a model cannot be read, loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system did not give us the file.
    #[error("cannot read the model file {}: {source}", path.display())]
    Unreachable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is larger than [`MAX_MODEL_BYTES`](crate::MAX_MODEL_BYTES) or than memory.
    #[error("the model has {len} bytes, more than the {max} that fit; use a smaller or more quantised model")]
    TooLarge {
        /// Size of the file in bytes.
        len: u64,
        /// The most that is accepted.
        max: u64,
    },
    /// The file grew or shrank while it was read.
    #[error("the model file changed while it was read ({expected} bytes announced, {read} read); try again")]
    Changed {
        /// Size announced when the file was opened.
        expected: u64,
        /// Bytes read.
        read: u64,
    },
    /// The bytes are not a well-formed GGUF file.
    #[error("not a well-formed GGUF file: {0}; fetch it again and compare its SHA-256")]
    Malformed(String),
    /// A file of a model folder is not well-formed.
    #[error("{name} of the model is not well-formed: {problem}; fetch it again and compare its SHA-256")]
    MalformedFile {
        /// The file, by its name in the folder.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A folder is not a model as it is.
    #[error("the model {}: {problem}", path.display())]
    BadFolder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// The file lacks a metadata key that the engine needs.
    #[error("the model file has no metadata key `{key}`; convert the model again with current tools")]
    MissingMetadata {
        /// The key.
        key: String,
    },
    /// A metadata key has a value that makes no sense.
    #[error("metadata key `{key}` of the model file: {problem}")]
    BadMetadata {
        /// The key.
        key: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// The file lacks a tensor.
    #[error("the model file has no tensor `{name}`")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor has a shape other than the metadata says.
    #[error("tensor `{name}` has shape {got:?}, the metadata say {wanted:?}")]
    BadTensor {
        /// The tensor.
        name: String,
        /// Its dimensions, outermost first.
        got: Vec<usize>,
        /// The dimensions that it should have.
        wanted: Vec<usize>,
    },
    /// The model is of a kind that this engine does not compute. `what` is the kind of thing, `name` the model's.
    #[error("this engine does not support the {what} `{name}` (supported: {supported})")]
    Unsupported {
        /// What kind of thing is unsupported: architecture, pre-tokenizer, tensor type..
        what: &'static str,
        /// Its name in the file.
        name: String,
        /// What is supported instead.
        supported: &'static str,
    },
    /// The tokenizer in the file cannot be built.
    #[error("the tokenizer in the model file is unusable: {0}")]
    Tokenizer(String),
    /// The chat template in the file cannot be used.
    #[error("the chat template in the model file is unusable: {0}")]
    Template(#[from] TemplateError),
    /// A step of the model failed. Carries no token and no text.
    #[error("a step of the model failed: {0}")]
    Compute(String),
    /// The rules of a request allow no token that has a score.
    #[error("the rules of the request allow no next token; check its schema or grammar")]
    NoAllowedToken,
    /// The caller asked for more positions than the model was made for.
    #[error("the sequence would have {wanted} tokens, the model's context has {context_length}")]
    ContextFull {
        /// Tokens that the sequence would have.
        wanted: usize,
        /// The model's context length.
        context_length: usize,
    },
    /// A setting of the engine is out of range.
    #[error("engine setting `{name}`: {problem}")]
    BadConfig {
        /// The field of `EngineConfig`.
        name: &'static str,
        /// What is wrong with its value.
        problem: &'static str,
    },
    /// There is no GPU, or none that the engine can use.
    #[error("no GPU that this engine can use: {0}")]
    NoGpu(String),
    /// A GPU failed: its memory is full, or the driver reported an error.
    #[error("the GPU failed: {0}")]
    Gpu(String),
    /// The operating system gave us no thread.
    #[error("cannot start the threads of the engine: {0}")]
    Threads(String),
}

/// Why a conversation cannot be rendered. Carries text of the template's author at most, never of a message: the
/// template sees placeholders only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The template refused the conversation (`raise_exception`), for instance two user turns in a row.
    #[error("the model's template refuses this conversation: {0}")]
    Raised(String),
    /// The template ran for too long or wrote too much.
    #[error("the model's template does not end within its limits; convert the model again")]
    TooMuchWork,
    /// The template is broken or uses what the template engine does not know.
    #[error("the model's template fails: {0}")]
    Failed(String),
    /// The template changes the text of messages in a way that cannot be kept apart from the text around them.
    #[error("the model's template rewrites the text of messages")]
    RewritesContent,
    /// The template leaves out the text of a message.
    #[error("the model's template leaves out message {index}; a role may be unsupported by this model")]
    DropsMessage {
        /// Index of the message in the request.
        index: usize,
    },
    /// There is nothing to continue.
    #[error("there is no text to continue, and this model has no first token")]
    NoText,
    /// The text could not be split into tokens.
    #[error("the prompt cannot be split into tokens: {0}")]
    Tokenizer(&'static str),
}

/// Why a request was not accepted. Carries numbers and names, never text of the request.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// As many requests run and wait as are allowed; try again later.
    #[error("the engine is busy: {in_flight} requests run or wait; try again later")]
    QueueFull {
        /// Requests running and waiting.
        in_flight: usize,
    },
    /// The prompt and the answer do not fit into the model's context.
    #[error(
        "the prompt has {prompt_tokens} tokens and the answer may have {}, more than the context of {context_length}; \
         shorten the conversation or lower max_tokens",
        max_tokens.map_or_else(|| "at least 1".to_owned(), |max| max.to_string())
    )]
    ContextOverflow {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens that the request asked for, if it said.
        max_tokens: Option<usize>,
        /// The model's context length.
        context_length: usize,
    },
    /// The chat template does not take this conversation.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A parameter is out of range.
    #[error("parameter `{name}` {problem}")]
    BadParameter {
        /// The parameter, as in the OpenAI API.
        name: &'static str,
        /// What its value must be.
        problem: &'static str,
    },
    /// The operating system gave us no random bytes for a request without a seed.
    #[error("the operating system gives no random bytes; pass a seed or try again")]
    NoRandomness,
    /// The engine broke down.
    #[error("the engine broke down, and the enclave has to be started again; send the request elsewhere")]
    Broken,
    /// The engine is shutting down.
    #[error("the engine is stopping; send the request elsewhere")]
    Stopping,
}

/// Why texts were not embedded. Carries numbers, never text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// More texts than one call may have.
    #[error("there are {texts} texts, more than {max}; send them in several requests")]
    TooManyTexts {
        /// Texts of the call.
        texts: usize,
        /// [`MAX_EMBED_TEXTS`](crate::MAX_EMBED_TEXTS).
        max: usize,
    },
    /// A text has more bytes than are cut into tokens.
    #[error("text {index} has {bytes} bytes, more than {max}; split it")]
    TooManyBytes {
        /// Index of the text in the call, from 0.
        index: usize,
        /// Its size.
        bytes: usize,
        /// [`MAX_PROMPT_BYTES`](crate::MAX_PROMPT_BYTES).
        max: usize,
    },
    /// A text has more tokens than the model has positions.
    #[error("text {index} has {tokens} tokens, more than the {context_length} of the model; split it")]
    TooLong {
        /// Index of the text in the call, from 0.
        index: usize,
        /// Its tokens, with the first and the last one, which the model adds.
        tokens: usize,
        /// The most that a text may have.
        context_length: usize,
    },
    /// The caller did not want to go on.
    #[error("stopped before all texts were embedded")]
    Stopped,
    /// A pass of the model failed.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Errors of candle: they speak of shapes and types, not of values.
pub(crate) fn compute(error: candle_core::Error) -> Error {
    Error::Compute(error.to_string())
}
