//! What goes into the engine and what comes out of it.
#![expect(missing_debug_implementations, reason = "requests and events carry secrets")]

use crate::error::SubmitError;
use crate::secret::SecretString;
use std::ops::ControlFlow;
use std::time::Instant;

/// Messages per request: bounds the work of the chat template.
pub const MAX_MESSAGES: usize = 1024;
/// Bytes of all messages together: bounds the work of the tokenizer, and is more than 100,000 tokens take.
pub const MAX_PROMPT_BYTES: usize = 1 << 20;
/// Stop strings per request: each is searched for in every piece. The OpenAI API allows 4.
pub const MAX_STOP_STRINGS: usize = 16;
/// Bytes of a stop string: so much text may be held back.
pub const MAX_STOP_BYTES: usize = 512;
/// As in the OpenAI API.
pub const MAX_TEMPERATURE: f32 = 2.0;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions to the model.
    System,
    /// The client.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name in chat templates and in the OpenAI API.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
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
}

/// A conversation to be continued.
#[derive(Clone)]
pub struct GenerateRequest {
    /// The conversation.
    pub messages: Vec<Message>,
    /// Most tokens of the answer; as many as the context holds if not given.
    pub max_tokens: Option<usize>,
    /// 0 always takes the most likely token; 1 samples by the model's probabilities; at most [`MAX_TEMPERATURE`].
    pub temperature: f32,
    /// Samples among the most likely tokens that together have this probability; above 0, at most 1.
    pub top_p: f32,
    /// The same seed gives the same answer. Random if not given.
    pub seed: Option<u64>,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<SecretString>,
    /// When the answer is of no use any more.
    pub deadline: Option<Instant>,
}

impl GenerateRequest {
    /// A request with the defaults of the OpenAI API.
    pub fn new(messages: Vec<Message>) -> Self {
        Self {
            messages,
            max_tokens: None,
            temperature: 1.0,
            top_p: 1.0,
            seed: None,
            stop: Vec::new(),
            deadline: None,
        }
    }

    /// Checks all that does not need the model.
    pub(crate) fn check(&self) -> Result<(), SubmitError> {
        let bytes: usize = self.messages.iter().map(|message| message.content.len()).sum();
        let stop_fits = |stop: &SecretString| (1..=MAX_STOP_BYTES).contains(&stop.len());
        let checks = [
            ("messages", "must have 1 to 1024 entries", (1..=MAX_MESSAGES).contains(&self.messages.len())),
            ("messages", "must have at most 1 MiB of text", bytes <= MAX_PROMPT_BYTES),
            ("max_tokens", "must be at least 1", self.max_tokens != Some(0)),
            ("temperature", "must be between 0 and 2", (0.0..=MAX_TEMPERATURE).contains(&self.temperature)),
            ("top_p", "must be above 0 and at most 1", self.top_p > 0.0 && self.top_p <= 1.0),
            ("stop", "must have at most 16 entries", self.stop.len() <= MAX_STOP_STRINGS),
            ("stop", "must have entries of 1 to 512 bytes", self.stop.iter().all(stop_fits)),
        ];
        match checks.into_iter().find(|(_, _, good)| !good) {
            Some((name, problem, _)) => Err(SubmitError::BadParameter { name, problem }),
            None => Ok(()),
        }
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
    /// More of the answer: whole characters, never empty.
    Text {
        /// The text.
        text: SecretString,
        /// Tokens generated so far.
        completion_tokens: usize,
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
        GenerateRequest::new(vec![Message { role: Role::User, content: "hello".into() }])
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
        assert_eq!(refused(|r| r.stop = vec!["x".into(); MAX_STOP_STRINGS]), "");
        assert_eq!(refused(|r| r.stop = vec!["x".into(); MAX_STOP_STRINGS + 1]), "stop");
        assert_eq!(refused(|r| r.stop = vec!["x".repeat(MAX_STOP_BYTES).into()]), "");
        assert_eq!(refused(|r| r.stop = vec!["x".repeat(MAX_STOP_BYTES + 1).into()]), "stop");
        assert_eq!(refused(|r| r.stop = vec!["".into()]), "stop");
    }
}
