//! The answer as it comes, or whole.

use std::collections::VecDeque;

use cocoon_attestation::receipt::ReceiptBundle;
use http::StatusCode;
use serde::Deserialize;

use super::request::{ChatRequest, Message};
use super::tools::{Calls, Piece, ToolCall};
use crate::answer::{Answer, AnswerBody};
use crate::error::Error;
use crate::session::AttestedSession;
use crate::sse::Events;

/// More than any context holds.
const MAX_TEXT: usize = 64 * 1024 * 1024;

/// A part of an answer.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
#[expect(missing_debug_implementations, reason = "answers must not be printable by accident")]
pub enum ChatEvent {
    /// More text.
    Text(String),
    /// How likely the tokens were whose text begins in the [`ChatEvent::Text`] before, if that was asked for.
    Logprobs(Vec<TokenLogprob>),
    /// A whole call of one of [`ChatRequest::tools`]. What [`FinishReason::Length`] cuts off is none.
    ToolCall(ToolCall),
    /// The answer is complete.
    Finished(FinishReason),
    /// Tokens, after the end.
    Usage(Usage),
}

/// Why an answer ends where it does.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
#[non_exhaustive]
pub enum FinishReason {
    /// The model ended it, or one of [`ChatRequest::stop`] came.
    Stop,
    /// [`ChatRequest::max_tokens`], or the end of the model's context.
    Length,
    /// The model waits for the results of its calls.
    ToolCalls,
    /// What this version of the SDK has no name for.
    Other(String),
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: u64,
    /// Of the answer.
    pub completion_tokens: u64,
}

/// A token of an answer.
#[derive(Clone, PartialEq, Deserialize)]
#[non_exhaustive]
#[expect(missing_debug_implementations, reason = "answers must not be printable by accident")]
pub struct TokenLogprob {
    /// Its text; parts of a character are U+FFFD.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f64,
    /// Its bytes; special tokens have none.
    pub bytes: Option<Vec<u8>>,
    /// The most likely tokens at its place, as many as were asked for.
    #[serde(default)]
    pub top_logprobs: Vec<AlternativeToken>,
}

/// A token that might have come.
#[derive(Clone, PartialEq, Deserialize)]
#[non_exhaustive]
#[expect(missing_debug_implementations, reason = "answers must not be printable by accident")]
pub struct AlternativeToken {
    /// As [`TokenLogprob::token`].
    pub token: String,
    /// As [`TokenLogprob::logprob`].
    pub logprob: f64,
    /// As [`TokenLogprob::bytes`].
    pub bytes: Option<Vec<u8>>,
}

/// A whole answer, whose receipt was verified.
#[derive(Clone)]
#[non_exhaustive]
#[expect(missing_debug_implementations, reason = "answers must not be printable by accident")]
pub struct ChatAnswer {
    /// What the model says; nothing, as a rule, if it calls tools.
    pub text: String,
    /// The tools that it calls. What [`FinishReason::Length`] cuts off is left out.
    pub tool_calls: Vec<ToolCall>,
    /// Why it ends.
    pub finish_reason: FinishReason,
    /// Tokens, as the enclave counted them.
    pub usage: Usage,
    /// How likely its tokens were, if that was asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// What the enclave signed for this request and this answer.
    pub receipt: ReceiptBundle,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<ChunkError>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u64,
    delta: Delta,
    finish_reason: Option<FinishReason>,
    logprobs: Option<Logprobs>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    tool_calls: Option<Vec<Piece>>,
}

#[derive(Deserialize)]
struct Logprobs {
    content: Option<Vec<TokenLogprob>>,
}

#[derive(Deserialize)]
struct ChunkError {
    message: String,
    code: Option<String>,
}

/// An answer as it comes. Dropping it cancels the request.
#[expect(missing_debug_implementations, reason = "answers must not be printable by accident")]
pub struct ChatStream {
    body: AnswerBody,
    lines: Events,
    ready: VecDeque<ChatEvent>,
    calls: Calls,
    complete: bool,
}

/// For fuzzing.
pub(crate) fn is_chunk(event: &[u8]) -> bool {
    serde_json::from_slice::<Chunk>(event).is_ok()
}

impl From<String> for FinishReason {
    fn from(text: String) -> Self {
        match text.as_str() {
            "stop" => Self::Stop,
            "length" => Self::Length,
            "tool_calls" => Self::ToolCalls,
            _ => Self::Other(text),
        }
    }
}

impl FinishReason {
    /// As the OpenAI API and receipts write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::Other(text) => text,
        }
    }
}

impl AttestedSession {
    /// Asks, and returns the answer as a stream. Dropping the stream cancels the request.
    ///
    /// # Errors
    /// As [`AttestedSession::request`], and [`Error::Api`].
    pub async fn chat(&self, request: &ChatRequest) -> Result<ChatStream, Error> {
        ChatStream::of(self.post(ChatRequest::PATH, &request.json()?).await?).await
    }

    /// Asks, and returns the whole answer once its receipt was verified. Dropping the future cancels the request.
    ///
    /// # Errors
    /// As [`AttestedSession::chat`] and [`ChatStream::next`].
    pub async fn complete(&self, request: &ChatRequest) -> Result<ChatAnswer, Error> {
        self.chat(request).await?.collect().await
    }
}

impl ChatStream {
    pub(crate) async fn of(answer: Answer) -> Result<Self, Error> {
        if answer.status != StatusCode::OK {
            return Err(answer.into_error().await);
        }
        let (lines, ready, calls) = Default::default();
        Ok(Self { body: answer.body, lines, ready, calls, complete: false })
    }

    /// The next part; `None` after the end, once the receipt was verified. What came before that is what an enclave said that was verified,
    /// but may be cut.
    ///
    /// # Errors
    /// [`Error::Api`] when the enclave reports a failure, [`Error::BadAnswer`] when the answer breaks off or is not one,
    /// [`Error::Receipt`] when it is not what the enclave signed, [`Error::Timeout`], [`Error::Misuse`] when several answers were asked for.
    pub async fn next(&mut self) -> Result<Option<ChatEvent>, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let Some(bytes) = self.body.next().await? else {
                return if self.complete {
                    Ok(None)
                } else {
                    Err(Error::BadAnswer("it broke off before its end"))
                };
            };
            let events =
                self.lines.push(&bytes).map_err(|_too_long| Error::BadAnswer("a line is too long"))?;
            for data in events {
                self.take(&data)?;
            }
        }
    }

    /// What is left of it, once its receipt was verified.
    ///
    /// # Errors
    /// As [`ChatStream::next`].
    pub async fn collect(mut self) -> Result<ChatAnswer, Error> {
        let (mut text, mut tool_calls, mut logprobs) = (String::new(), Vec::new(), Vec::new());
        let (mut finish_reason, mut usage) = (None, None);
        while let Some(event) = self.next().await? {
            match event {
                ChatEvent::Text(more) => text.push_str(&more),
                ChatEvent::Logprobs(more) => logprobs.extend(more),
                ChatEvent::ToolCall(call) => tool_calls.push(call),
                ChatEvent::Finished(reason) => finish_reason = Some(reason),
                ChatEvent::Usage(tokens) => usage = Some(tokens),
            }
            if text.len() > MAX_TEXT {
                return Err(Error::BadAnswer("it is too long"));
            }
        }
        let (Some(finish_reason), Some(usage), Some(receipt)) =
            (finish_reason, usage, self.receipt().cloned())
        else {
            return Err(Error::BadAnswer("it does not say why it ends, or how long it is"));
        };
        Ok(ChatAnswer { text, tool_calls, finish_reason, usage, logprobs, receipt })
    }

    /// The receipt, after the end: it was verified.
    #[must_use]
    pub fn receipt(&self) -> Option<&ReceiptBundle> {
        self.body.receipt()
    }

    fn take(&mut self, data: &[u8]) -> Result<(), Error> {
        if data == b"[DONE]" {
            self.complete = true;
            return Ok(());
        }
        let chunk: Chunk =
            serde_json::from_slice(data).map_err(|_not_json| Error::BadAnswer("not a chunk of an answer"))?;
        if let Some(ChunkError { message, code }) = chunk.error {
            return Err(Error::Api { status: 200, message, code });
        }
        for choice in chunk.choices {
            self.take_choice(choice)?;
        }
        self.ready.extend(chunk.usage.map(ChatEvent::Usage));
        Ok(())
    }

    fn take_choice(&mut self, choice: Choice) -> Result<(), Error> {
        if choice.index > 0 {
            let message = "this is one of several answers (`n`): ask for them with Client::post";
            return Err(Error::Misuse(message.to_owned()));
        }
        self.ready.extend(choice.delta.content.filter(|text| !text.is_empty()).map(ChatEvent::Text));
        self.ready.extend(choice.logprobs.and_then(|scored| scored.content).map(ChatEvent::Logprobs));
        for piece in choice.delta.tool_calls.into_iter().flatten() {
            let complete = self.calls.add(piece).ok_or(Error::BadAnswer("a piece of no call"))?;
            self.ready.extend(complete.map(ChatEvent::ToolCall));
            if self.calls.open_len() > MAX_TEXT {
                return Err(Error::BadAnswer("it is too long"));
            }
        }
        if let Some(reason) = choice.finish_reason {
            let last = self.calls.end().filter(|call| reason != FinishReason::Length || call.is_whole());
            self.ready.extend(last.map(ChatEvent::ToolCall));
            self.ready.push_back(ChatEvent::Finished(reason));
        }
        Ok(())
    }
}

impl ChatAnswer {
    /// The answer as a turn of the conversation, with its calls. Behind it come their results: [`Message::result`].
    #[must_use]
    pub fn message(&self) -> Message {
        Message::calls(self.text.as_str(), self.tool_calls.iter().cloned())
    }
}
