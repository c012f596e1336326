//! What a client wants, whatever the endpoint, and what an endpoint makes of answers.

use bytes::Bytes;
use cocoon_inference::{FinishReason, GenerateRequest, SecretString, TokenLogprobs};
use serde_json::Value;
use zeroize::Zeroizing;

use super::error::ApiError;
use super::format::Asked;

/// What a client asked for.
pub(crate) struct Wanted {
    pub(crate) model: String,
    pub(crate) generate: GenerateRequest,
    pub(crate) rules: Option<Asked>,
    /// How many answers.
    pub(crate) choices: usize,
    pub(crate) stream: bool,
    /// What the endpoint calls fields that have another name in chats, for errors.
    pub(crate) names: &'static [(&'static str, &'static str)],
    pub(crate) writer: Box<dyn Writer>,
}

/// What every part of an answer says.
pub(crate) struct Head {
    /// Random, in hexadecimal.
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
    pub(crate) model: String,
}

/// A piece of an answer: whole characters.
pub(crate) struct Piece {
    pub(crate) text: SecretString,
    pub(crate) logprobs: Vec<TokenLogprobs>,
}

/// An answer as a whole.
pub(crate) struct Answer {
    pub(crate) text: Zeroizing<String>,
    pub(crate) logprobs: Vec<TokenLogprobs>,
    pub(crate) reason: FinishReason,
}

/// What all answers to a request came to: what is told as usage, and what a receipt is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Tokens of the prompt; once, however many answers there are.
    pub(crate) prompt_tokens: usize,
    /// Tokens of all answers together.
    pub(crate) completion_tokens: usize,
    /// Why the first answer ended, as the client was told.
    pub(crate) finish_reason: &'static str,
}

/// How an endpoint writes answers.
pub(crate) trait Writer: Send {
    /// The first events of a stream.
    fn begin(&mut self, head: &Head) -> Vec<Bytes>;

    /// Events for more of an answer.
    fn piece(&mut self, head: &Head, choice: usize, piece: Piece) -> Vec<Bytes>;

    /// Events for the end of an answer, and what is told as its reason.
    fn finish(&mut self, head: &Head, choice: usize, reason: FinishReason) -> (Vec<Bytes>, &'static str);

    /// The last events, when all answers have ended.
    fn end(&mut self, head: &Head, outcome: &Outcome) -> Vec<Bytes>;

    /// The last events of a stream that breaks off.
    fn fail(&mut self, head: &Head, error: &ApiError) -> Vec<Bytes>;

    /// Answers that are not streamed, without their outcome, and what is told as the reason of the first.
    fn whole(&mut self, head: &Head, answers: &[Answer]) -> (Value, &'static str);

    /// The same with the outcome.
    fn with_outcome(&self, whole: Value, outcome: &Outcome) -> Value;
}

/// `finish_reason` of the OpenAI API.
pub(crate) fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}
