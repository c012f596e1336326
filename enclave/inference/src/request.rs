//! What goes into the engine and what comes out of it.
#![expect(missing_debug_implementations, reason = "requests and events carry secrets")]

use crate::error::SubmitError;
use crate::sampler::TokenMask;
use crate::scored::TokenLogprobs;
use crate::secret::SecretString;
use std::ops::ControlFlow;
use std::time::Instant;
use zeroize::Zeroizing;

/// Messages per request: bounds the work of the chat template.
pub const MAX_MESSAGES: usize = 1024;
/// Tools per request, as in the OpenAI API.
pub const MAX_TOOLS: usize = 128;
/// Bytes of all messages together: bounds the work of the tokenizer, and is more than 100,000 tokens take.
pub const MAX_PROMPT_BYTES: usize = 1 << 20;
/// Stop strings per request: each is searched for in every piece. The OpenAI API allows 4.
pub const MAX_STOP_STRINGS: usize = 16;
/// Bytes of a stop string: so much text may be held back.
pub const MAX_STOP_BYTES: usize = 512;
/// As in the OpenAI API.
pub const MAX_TEMPERATURE: f32 = 2.0;
/// Presence and frequency penalties and their negatives, as in the OpenAI API.
pub const MAX_PENALTY: f32 = 2.0;
/// Above 2 answers are noise.
pub const MAX_REPETITION_PENALTY: f32 = 2.0;
/// Tokens with a bias: each costs a little with every token. The OpenAI API allows 300.
pub const MAX_LOGIT_BIAS: usize = 1024;
/// Biases and their negatives, as in the OpenAI API: enough to ban a token or to force it.
pub const MAX_BIAS: f32 = 100.0;
/// As in the OpenAI API.
pub const MAX_TOP_LOGPROBS: usize = 20;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions to the model.
    System,
    /// The client.
    User,
    /// The model.
    Assistant,
    /// A tool that the model called: its result.
    Tool,
}

impl Role {
    /// The name in chat templates and in the OpenAI API.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One turn of a conversation.
#[derive(Clone)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said. Special tokens in it are just text.
    pub content: SecretString,
    /// Tools that the model called in this turn.
    pub calls: Vec<ToolCall>,
}

impl Message {
    /// A turn without calls of tools.
    pub fn new(role: Role, content: impl Into<SecretString>) -> Self {
        Self { role, content: content.into(), calls: Vec::new() }
    }
}

/// A call of a tool that the model made in an earlier turn.
#[derive(Clone)]
pub struct ToolCall {
    /// The tool.
    pub name: SecretString,
    /// A JSON object, as text.
    pub arguments: SecretString,
}

/// Who asks: requests of one client share its part of the engine. Only compared; what it is made of is the caller's
/// business, as long as different clients have different ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientId(pub [u8; 32]);

/// Part of the key under which the engine keeps what it computed for a prompt. Requests with the same one find each
/// other's prefixes, and can tell by the time an answer takes that somebody had the same: so give it only to requests
/// that may know of each other.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheSalt(pub [u8; 32]);

/// A conversation to be continued, or a text. Fields have the names of the OpenAI API, or of vLLM where that has none.
pub struct GenerateRequest {
    /// The conversation.
    pub messages: Vec<Message>,
    /// Tools that the model may call, each as a JSON object that describes it.
    pub tools: Vec<SecretString>,
    /// A text to be continued as it is, without the chat template; then there are no messages.
    pub text: Option<SecretString>,
    /// Most tokens of the answer; as many as the context holds if not given.
    pub max_tokens: Option<usize>,
    /// 0 always takes the most likely token; 1 samples by the model's probabilities; at most [`MAX_TEMPERATURE`].
    pub temperature: f32,
    /// Samples among that many most likely tokens; among all if not given. At least 1.
    pub top_k: Option<usize>,
    /// Samples among the most likely tokens that together have this probability; above 0, at most 1.
    pub top_p: f32,
    /// Samples among tokens that have at least this share of the probability of the most likely one; 0 to 1.
    pub min_p: f32,
    /// Makes tokens that are in the answer less likely; up to [`MAX_PENALTY`], or more likely down to its negative.
    pub presence_penalty: f32,
    /// The same, as often as they are in it.
    pub frequency_penalty: f32,
    /// Above 1 makes tokens that are in the prompt or in the answer less likely, below 1 more likely; above 0, at most
    /// [`MAX_REPETITION_PENALTY`].
    pub repetition_penalty: f32,
    /// Added to the scores of tokens, by id; at most [`MAX_LOGIT_BIAS`] different ones, each with at most [`MAX_BIAS`] or its
    /// negative.
    pub logit_bias: Zeroizing<Vec<(u32, f32)>>,
    /// The same seed gives the same answer. Random if not given.
    pub seed: Option<u64>,
    /// Whether to report how likely each token of the answer was.
    pub logprobs: bool,
    /// For how many of the most likely tokens to report it too, at each place; at most [`MAX_TOP_LOGPROBS`].
    pub top_logprobs: usize,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<SecretString>,
    /// Rules for the answer, token by token.
    pub mask: Option<Box<dyn TokenMask>>,
    /// When the answer is of no use any more.
    pub deadline: Option<Instant>,
    /// Whose turn it is; requests without one share one turn.
    pub client: Option<ClientId>,
    /// With whom prefixes of the prompt are shared; with nobody, not even a request of the same client, if not given.
    pub cache_salt: Option<CacheSalt>,
}

impl GenerateRequest {
    /// A request with the defaults of the OpenAI API.
    pub fn new(messages: Vec<Message>) -> Self {
        Self {
            messages,
            tools: Vec::new(),
            text: None,
            max_tokens: None,
            temperature: 1.0,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Zeroizing::default(),
            seed: None,
            logprobs: false,
            top_logprobs: 0,
            stop: Vec::new(),
            mask: None,
            deadline: None,
            client: None,
            cache_salt: None,
        }
    }

    /// A request to continue a text, with the same defaults.
    pub fn continuing(text: impl Into<SecretString>) -> Self {
        Self { text: Some(text.into()), ..Self::new(Vec::new()) }
    }

    /// Bytes of all texts of the prompt.
    fn prompt_bytes(&self) -> usize {
        let calls = |message: &Message| {
            message.calls.iter().map(|call| call.name.len() + call.arguments.len()).sum::<usize>()
        };
        let messages = self.messages.iter().map(|message| message.content.len() + calls(message));
        let others = self.tools.iter().chain(&self.text).map(SecretString::len);
        messages.chain(others).sum()
    }

    fn calls(&self) -> usize {
        self.messages.iter().map(|message| message.calls.len()).sum()
    }

    /// Checks all that does not need the model.
    pub(crate) fn check(&self) -> Result<(), SubmitError> {
        let source = if self.text.is_some() { "prompt" } else { "messages" };
        let entries = if self.text.is_some() { 0..=0 } else { 1..=MAX_MESSAGES };
        let stop_fits = |stop: &SecretString| (1..=MAX_STOP_BYTES).contains(&stop.len());
        let bias_fits = |(_, bias): &(u32, f32)| bias.abs() <= MAX_BIAS;
        let checks = [
            ("messages", "must have 1 to 1024 entries", entries.contains(&self.messages.len())),
            ("messages", "must have at most 1024 calls of tools", self.calls() <= MAX_MESSAGES),
            ("tools", "must have at most 128 entries", self.tools.len() <= MAX_TOOLS),
            (
                source,
                "must have at most 1 MiB of text, tools included",
                self.prompt_bytes() <= MAX_PROMPT_BYTES,
            ),
            ("max_tokens", "must be at least 1", self.max_tokens != Some(0)),
            ("temperature", "must be between 0 and 2", (0.0..=MAX_TEMPERATURE).contains(&self.temperature)),
            ("top_k", "must be at least 1", self.top_k != Some(0)),
            ("top_p", "must be above 0 and at most 1", self.top_p > 0.0 && self.top_p <= 1.0),
            ("min_p", "must be between 0 and 1", (0.0..=1.0).contains(&self.min_p)),
            ("presence_penalty", "must be between -2 and 2", self.presence_penalty.abs() <= MAX_PENALTY),
            ("frequency_penalty", "must be between -2 and 2", self.frequency_penalty.abs() <= MAX_PENALTY),
            (
                "repetition_penalty",
                "must be above 0 and at most 2",
                self.repetition_penalty > 0.0 && self.repetition_penalty <= MAX_REPETITION_PENALTY,
            ),
            ("logit_bias", "must have at most 1024 entries", self.logit_bias.len() <= MAX_LOGIT_BIAS),
            ("logit_bias", "must have values between -100 and 100", self.logit_bias.iter().all(bias_fits)),
            ("logit_bias", "must have each token once", !self.is_biased_twice()),
            ("top_logprobs", "must be at most 20", self.top_logprobs <= MAX_TOP_LOGPROBS),
            ("top_logprobs", "goes with logprobs: true only", self.top_logprobs == 0 || self.logprobs),
            ("stop", "must have at most 16 entries", self.stop.len() <= MAX_STOP_STRINGS),
            ("stop", "must have entries of 1 to 512 bytes", self.stop.iter().all(stop_fits)),
        ];
        match checks.into_iter().find(|(_, _, good)| !good) {
            Some((name, problem, _)) => Err(SubmitError::BadParameter { name, problem }),
            None => Ok(()),
        }
    }

    fn is_biased_twice(&self) -> bool {
        let mut tokens: Zeroizing<Vec<u32>> = Zeroizing::new(
            self.logit_bias.iter().take(MAX_LOGIT_BIAS + 1).map(|(token, _)| *token).collect(),
        );
        tokens.sort_unstable();
        tokens.windows(2).any(|pair| pair.first() == pair.last())
    }
}

/// A request that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submitted {
    /// Tokens of the rendered conversation.
    pub prompt_tokens: usize,
}

/// What a sink is told. `Finished` or `Failed` is the last event, unless the sink breaks off.
pub enum GenerateEvent {
    /// Nothing to pass on from this step. Tells a sink whose consumer is gone to break off.
    Working,
    /// A part of the prompt was read, not yet all of it.
    Reading {
        /// Tokens of the prompt that were read, or found in the cache.
        read: usize,
        /// Tokens of the prompt.
        prompt_tokens: usize,
    },
    /// More of the answer: whole characters, never empty.
    Text {
        /// The text.
        text: SecretString,
        /// Tokens generated so far.
        completion_tokens: usize,
        /// How likely the tokens were whose text begins in this text, if the request asked for it. Empty if they were
        /// all told before.
        logprobs: Vec<TokenLogprobs>,
    },
    /// The answer is complete.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens generated, with the end token if there was one.
        completion_tokens: usize,
    },
    /// There will be no more.
    Failed(FailureKind),
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model ended its turn or a stop string came.
    Stop,
    /// The answer has as many tokens as it may.
    Length,
}

/// Why an answer broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The request's deadline passed.
    Deadline,
    /// The request's rules allowed no token that could follow.
    NoAllowedToken,
    /// The engine failed.
    Internal,
    /// The engine is shutting down.
    Stopping,
}

/// Takes the events of one request, on the engine's thread: it must not block. `Break` cancels the request.
pub type Sink = Box<dyn FnMut(GenerateEvent) -> ControlFlow<()> + Send>;

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> GenerateRequest {
        GenerateRequest::new(vec![Message::new(Role::User, "hello")])
    }

    fn refused(change: impl FnOnce(&mut GenerateRequest)) -> &'static str {
        let mut request = request();
        change(&mut request);
        match request.check() {
            Ok(()) => "",
            Err(SubmitError::BadParameter { name, .. }) => name,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn limits_hold_at_the_limit_and_one_over() {
        assert_eq!(refused(|_| ()), "");
        assert_eq!(refused(|r| r.messages.clear()), "messages");
        assert_eq!(refused(|r| r.messages = vec![r.messages[0].clone(); MAX_MESSAGES]), "");
        assert_eq!(refused(|r| r.messages = vec![r.messages[0].clone(); MAX_MESSAGES + 1]), "messages");
        assert_eq!(refused(|r| r.messages[0].content = "x".repeat(MAX_PROMPT_BYTES).into()), "");
        assert_eq!(refused(|r| r.messages[0].content = "x".repeat(MAX_PROMPT_BYTES + 1).into()), "messages");
        assert_eq!(refused(|r| r.max_tokens = Some(0)), "max_tokens");
        assert_eq!(refused(|r| r.max_tokens = Some(1)), "");
        assert_eq!(refused(|r| r.temperature = MAX_TEMPERATURE), "");
        for temperature in [-0.1, 2.1, f32::NAN, f32::INFINITY] {
            assert_eq!(refused(|r| r.temperature = temperature), "temperature");
        }
        for top_p in [0.0, -1.0, 1.01, f32::NAN] {
            assert_eq!(refused(|r| r.top_p = top_p), "top_p");
        }
        assert_eq!(refused(|r| r.top_k = Some(0)), "top_k");
        assert_eq!(refused(|r| r.top_k = Some(1)), "");
        assert_eq!(refused(|r| r.stop = vec!["x".into(); MAX_STOP_STRINGS]), "");
        assert_eq!(refused(|r| r.stop = vec!["x".into(); MAX_STOP_STRINGS + 1]), "stop");
        assert_eq!(refused(|r| r.stop = vec!["x".repeat(MAX_STOP_BYTES).into()]), "");
        assert_eq!(refused(|r| r.stop = vec!["x".repeat(MAX_STOP_BYTES + 1).into()]), "stop");
        assert_eq!(refused(|r| r.stop = vec!["".into()]), "stop");
    }

    #[test]
    fn texts_of_tools_and_calls_count() {
        let call = |bytes: usize| ToolCall { name: "t".into(), arguments: "x".repeat(bytes).into() };
        assert_eq!(refused(|r| r.messages[0].calls = vec![call(MAX_PROMPT_BYTES - 6)]), "");
        assert_eq!(refused(|r| r.messages[0].calls = vec![call(MAX_PROMPT_BYTES - 5)]), "messages");
        assert_eq!(refused(|r| r.messages[0].calls = vec![call(1); MAX_MESSAGES]), "");
        assert_eq!(refused(|r| r.messages[0].calls = vec![call(1); MAX_MESSAGES + 1]), "messages");
        assert_eq!(refused(|r| r.tools = vec!["{}".into(); MAX_TOOLS]), "");
        assert_eq!(refused(|r| r.tools = vec!["{}".into(); MAX_TOOLS + 1]), "tools");
        let text = |bytes: usize| GenerateRequest::continuing("x".repeat(bytes)).check();
        assert!(text(MAX_PROMPT_BYTES).is_ok());
        assert!(matches!(text(MAX_PROMPT_BYTES + 1), Err(SubmitError::BadParameter { name: "prompt", .. })));
        assert_eq!(refused(|r| r.text = Some("both".into())), "messages");
    }

    #[test]
    fn limits_of_the_numbers_that_change_scores() {
        for good in [0.0, 1.0] {
            assert_eq!(refused(|r| r.min_p = good), "");
        }
        for bad in [-0.1, 1.01, f32::NAN] {
            assert_eq!(refused(|r| r.min_p = bad), "min_p");
        }
        for good in [-MAX_PENALTY, MAX_PENALTY] {
            assert_eq!(refused(|r| (r.presence_penalty, r.frequency_penalty) = (good, good)), "");
        }
        for bad in [-2.01, 2.01, f32::NAN, f32::INFINITY] {
            assert_eq!(refused(|r| r.presence_penalty = bad), "presence_penalty");
            assert_eq!(refused(|r| r.frequency_penalty = bad), "frequency_penalty");
        }
        for good in [f32::MIN_POSITIVE, MAX_REPETITION_PENALTY] {
            assert_eq!(refused(|r| r.repetition_penalty = good), "");
        }
        for bad in [0.0, -1.0, 2.01, f32::NAN] {
            assert_eq!(refused(|r| r.repetition_penalty = bad), "repetition_penalty");
        }
    }

    #[test]
    fn limits_of_bias_and_logprobs() {
        let biases = |n: u32| Zeroizing::new((0..n).map(|id| (id, 1.0)).collect::<Vec<_>>());
        assert_eq!(refused(|r| r.logit_bias = biases(1024)), "");
        assert_eq!(refused(|r| r.logit_bias = biases(1025)), "logit_bias");
        for good in [-MAX_BIAS, MAX_BIAS] {
            assert_eq!(refused(|r| r.logit_bias.push((7, good))), "");
        }
        for bad in [-100.1, 100.1, f32::NAN, f32::INFINITY] {
            assert_eq!(refused(|r| r.logit_bias.push((7, bad))), "logit_bias");
        }
        assert_eq!(refused(|r| r.logit_bias.extend([(7, 1.0), (8, 1.0), (7, 2.0)])), "logit_bias");
        assert_eq!(refused(|r| (r.logprobs, r.top_logprobs) = (true, MAX_TOP_LOGPROBS)), "");
        assert_eq!(refused(|r| (r.logprobs, r.top_logprobs) = (true, MAX_TOP_LOGPROBS + 1)), "top_logprobs");
        assert_eq!(refused(|r| r.top_logprobs = 1), "top_logprobs");
    }
}
