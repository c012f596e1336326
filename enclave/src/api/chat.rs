//! Answers: from the engine's events to the OpenAI API.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use cocoon_inference::{FailureKind, FinishReason, GenerateEvent, SecretString, TokenLogprobs};
use http::{Response, StatusCode};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use zeroize::Zeroizing;

use super::account::{Account, Outcome};
use super::chat_request::ChatRequest;
use super::error::ApiError;
use super::logprobs;
use super::respond::{Body, done, event, event_stream, json_response};
use crate::Enclave;

/// Prompts that are being rendered and split into tokens at once.
static PREPARING: Semaphore = Semaphore::const_new(2);

pub(super) async fn answer(
    enclave: &Arc<Enclave>,
    wanted: ChatRequest,
    deadline: Instant,
    account: Account,
) -> Result<Response<Body>, ApiError> {
    let head = Head::new(enclave, wanted.model)?;
    let (stream, include_usage, with_logprobs) =
        (wanted.stream, wanted.include_usage, wanted.generate.logprobs);
    // At most as many events as the answer has tokens wait here for a slow client.
    let (sender, receiver) = mpsc::unbounded_channel();
    let sink = move |event: GenerateEvent| {
        let gone = if matches!(event, GenerateEvent::Working) {
            sender.is_closed()
        } else {
            sender.send(event).is_err()
        };
        if gone { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let mut generate = wanted.generate;
    generate.deadline = Some(deadline);
    let enclave = enclave.clone();
    // Rendering and splitting a long prompt takes many milliseconds of computing: not on the threads that serve connections, and
    // not so often at once that reports and answers wait for it.
    let internal = || ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the engine failed");
    let turn = PREPARING.acquire().await.map_err(|_closed| internal())?;
    let submitted = tokio::task::spawn_blocking(move || {
        enclave.model.served().map(|served| served.engine.submit(generate, Box::new(sink)))
    });
    let submitted = submitted.await;
    drop(turn);
    submitted.map_err(|_panicked| internal())?.ok_or_else(internal)??;
    if stream {
        return Ok(streamed(head, receiver, include_usage, account));
    }
    collected(&head, receiver, with_logprobs, &account).await
}

/// What every chunk of an answer says.
struct Head {
    id: String,
    created: u64,
    model: String,
}

impl Head {
    fn new(enclave: &Enclave, model: String) -> Result<Self, ApiError> {
        let mut id = [0; 16];
        SystemRandom::new()
            .fill(&mut id)
            .map_err(|_none| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "no random bytes"))?;
        Ok(Self { id: format!("chatcmpl-{}", hex::encode(id)), created: enclave.node.now().0, model })
    }

    fn chunk(&self, choices: &Value, usage: &Value) -> Bytes {
        let Self { id, created, model } = self;
        let mut chunk = json!({
            "id": id, "object": "chat.completion.chunk", "created": created, "model": model, "choices": choices,
        });
        if !usage.is_null() {
            chunk["usage"] = usage.clone();
        }
        event(&chunk)
    }

    fn delta(&self, delta: &Value, logprobs: Option<&Value>, finish_reason: Option<&str>) -> Bytes {
        let choice =
            json!({ "index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason });
        self.chunk(&json!([choice]), &Value::Null)
    }
}

fn usage(prompt: usize, completion: usize) -> Value {
    json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion })
}

fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

fn failure(kind: FailureKind) -> ApiError {
    match kind {
        FailureKind::Deadline => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the answer took longer than this enclave allows")
                .code("deadline_exceeded")
        }
        FailureKind::Stopping => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the enclave is stopping")
            .code("stopping")
            .retry_after(1),
        FailureKind::NoAllowedToken => {
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "the format that was asked for allows no answer")
                .code("no_allowed_token")
        }
        FailureKind::Internal | _ => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the engine failed"),
    }
}

fn streamed(
    head: Head,
    mut events: mpsc::UnboundedReceiver<GenerateEvent>,
    include_usage: bool,
    account: Account,
) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut chunks = vec![head.delta(&json!({ "role": "assistant", "content": "" }), None, None)];
        loop {
            for chunk in chunks.drain(..) {
                if sender.send(chunk).await.is_err() {
                    return; // The client is gone; dropping `events` cancels the request.
                }
            }
            let next = tokio::select! {
                next = events.recv() => next,
                () = sender.closed() => return,
            };
            let Some(next) = next else { return };
            chunks = stream_chunks(&head, together(next, &mut events), include_usage, &account);
        }
    });
    event_stream(receiver)
}

/// An event, with the text of those that wait behind it: they came while the one before was on its way.
fn together(first: GenerateEvent, events: &mut mpsc::UnboundedReceiver<GenerateEvent>) -> Vec<GenerateEvent> {
    let mut all = vec![first];
    while let Ok(next) = events.try_recv() {
        match (all.last_mut(), next) {
            (
                Some(GenerateEvent::Text { text, completion_tokens, logprobs }),
                GenerateEvent::Text { text: more, completion_tokens: tokens, logprobs: scored },
            ) => {
                *text = SecretString::from([text.expose(), more.expose()].concat());
                *completion_tokens = tokens;
                logprobs.extend(scored);
            }
            (_, next) => all.push(next),
        }
    }
    all
}

fn stream_chunks(
    head: &Head,
    events: Vec<GenerateEvent>,
    include_usage: bool,
    account: &Account,
) -> Vec<Bytes> {
    let chunks = |event| chunks_of(head, event, include_usage, account);
    events.into_iter().flat_map(chunks).collect()
}

fn chunks_of(
    head: &Head,
    event_of_engine: GenerateEvent,
    include_usage: bool,
    account: &Account,
) -> Vec<Bytes> {
    match event_of_engine {
        GenerateEvent::Working => Vec::new(),
        GenerateEvent::Text { text, logprobs, .. } => {
            let logprobs = (!logprobs.is_empty()).then(|| logprobs::of(&logprobs));
            vec![head.delta(&json!({ "content": text.expose() }), logprobs.as_ref(), None)]
        }
        GenerateEvent::Finished { reason, prompt_tokens, completion_tokens } => {
            account.settle(Outcome {
                prompt_tokens,
                completion_tokens,
                finish_reason: finish_reason(reason),
            });
            let mut chunks = vec![head.delta(&json!({}), None, Some(finish_reason(reason)))];
            if include_usage {
                chunks.push(head.chunk(&json!([]), &usage(prompt_tokens, completion_tokens)));
            }
            chunks.push(done());
            chunks
        }
        GenerateEvent::Failed(kind) => vec![event(&failure(kind).json())],
    }
}

async fn collected(
    head: &Head,
    mut events: mpsc::UnboundedReceiver<GenerateEvent>,
    with_logprobs: bool,
    account: &Account,
) -> Result<Response<Body>, ApiError> {
    let mut pieces: Vec<SecretString> = Vec::new();
    let mut scored: Vec<TokenLogprobs> = Vec::new();
    loop {
        match events.recv().await {
            Some(GenerateEvent::Text { text, logprobs, .. }) => {
                pieces.push(text);
                scored.extend(logprobs);
            }
            Some(GenerateEvent::Working) => {}
            Some(GenerateEvent::Finished { reason, prompt_tokens, completion_tokens }) => {
                account.settle(Outcome {
                    prompt_tokens,
                    completion_tokens,
                    finish_reason: finish_reason(reason),
                });
                let mut content =
                    Zeroizing::new(String::with_capacity(pieces.iter().map(SecretString::len).sum()));
                pieces.iter().for_each(|piece| content.push_str(piece.expose()));
                let choice = json!({
                    "index": 0, "message": { "role": "assistant", "content": *content },
                    "logprobs": with_logprobs.then(|| logprobs::of(&scored)), "finish_reason": finish_reason(reason),
                });
                let Head { id, created, model } = head;
                let answer = json!({
                    "id": id, "object": "chat.completion", "created": created, "model": model,
                    "choices": [choice], "usage": usage(prompt_tokens, completion_tokens),
                });
                return Ok(json_response(StatusCode::OK, &answer));
            }
            Some(GenerateEvent::Failed(kind)) => return Err(failure(kind)),
            None => return Err(failure(FailureKind::Internal)),
        }
    }
}
