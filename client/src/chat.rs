//! Chat completions, streamed.

use std::collections::VecDeque;

use cocoon_attestation::receipt::ReceiptBundle;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::answer::AnswerBody;
use crate::error::Error;
use crate::session::AttestedSession;
use crate::sse::Events;

/// A request for `POST /v1/chat/completions`.
#[derive(Clone, Serialize)]
#[expect(missing_debug_implementations, reason = "prompts must not be printable")]
pub struct ChatRequest {
    model: String,
    messages: Vec<Message>,
    /// Most tokens of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// 0 always takes the most likely token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// The same seed gives the same answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    stream: bool,
    stream_options: StreamOptions,
}

#[derive(Clone, Serialize)]
struct Message {
    role: &'static str,
    content: Zeroizing<String>,
}

#[derive(Clone, Serialize)]
struct StreamOptions {
    include_usage: bool,
}

impl ChatRequest {
    /// A conversation that starts with one message of the user.
    #[must_use]
    pub fn new(model: impl Into<String>, prompt: impl Into<String>) -> Self {
        let content = Zeroizing::new(prompt.into());
        Self {
            model: model.into(),
            messages: vec![Message { role: "user", content }],
            max_tokens: None,
            temperature: None,
            seed: None,
            stream: true,
            stream_options: StreamOptions { include_usage: true },
        }
    }
}

/// A part of an answer.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_debug_implementations, reason = "answers must not be printable by accident")]
pub enum ChatEvent {
    /// More text.
    Text(String),
    /// The answer is complete, for the reason that OpenAI's `finish_reason` gives.
    Finished(String),
    /// Tokens, after the end.
    Usage(Usage),
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: u64,
    /// Of the answer.
    pub completion_tokens: u64,
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
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
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
    complete: bool,
}

impl AttestedSession {
    /// Asks, and returns the answer as a stream.
    ///
    /// # Errors
    /// As [`AttestedSession::request`], and [`Error::Api`].
    pub async fn chat(&self, request: &ChatRequest) -> Result<ChatStream, Error> {
        let body = Zeroizing::new(serde_json::to_vec(request).map_err(|e| Error::Misuse(e.to_string()))?);
        let answer = self.post("/v1/chat/completions", &body).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.into_error().await);
        }
        let (lines, ready) = (Events::default(), VecDeque::new());
        Ok(ChatStream { body: answer.body, lines, ready, complete: false })
    }
}

impl ChatStream {
    /// The next part; `None` after the end, once the receipt was verified.
    ///
    /// # Errors
    /// [`Error::Api`] when the enclave reports a failure, [`Error::BadAnswer`] when the answer breaks off or is not one,
    /// [`Error::Receipt`] when it is not what the enclave signed.
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

    /// The receipt, after the end.
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
            self.ready.extend(choice.delta.content.filter(|text| !text.is_empty()).map(ChatEvent::Text));
            self.ready.extend(choice.finish_reason.map(ChatEvent::Finished));
        }
        self.ready.extend(chunk.usage.map(ChatEvent::Usage));
        Ok(())
    }
}
