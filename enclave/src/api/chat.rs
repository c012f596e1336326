//! Answers of `POST /v1/chat/completions`.

use bytes::Bytes;
use cocoon_inference::{FinishReason, TokenLogprobs};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::calls::{Calls, Part};
use super::error::ApiError;
use super::logprobs;
use super::respond::{done, event};
use super::tools::Callable;
use super::wanted::{Answer, Head, Outcome, Piece, Writer, finish_reason};

/// How chats are written.
pub(crate) struct Chat {
    include_usage: bool,
    with_logprobs: bool,
    /// What may be called.
    callable: Option<Callable>,
    /// One for each answer of a stream.
    streams: Vec<Stream>,
}

#[derive(Default)]
struct Stream {
    calls: Option<Calls>,
    /// Of tokens whose text is held back.
    untold: Vec<TokenLogprobs>,
}

impl Chat {
    pub(crate) fn new(
        include_usage: bool,
        with_logprobs: bool,
        callable: Option<Callable>,
        choices: usize,
    ) -> Self {
        let stream = || Stream { calls: callable.as_ref().map(Calls::new), untold: Vec::new() };
        let streams = (0..choices).map(|_| stream()).collect();
        Self { include_usage, with_logprobs, callable, streams }
    }

    fn message(&self, head: &Head, choice: usize, answer: &Answer) -> (Value, &'static str) {
        let Some(mut calls) = self.callable.as_ref().map(Calls::new) else {
            let message = json!({ "role": "assistant", "content": *answer.text });
            return (message, finish_reason(answer.reason));
        };
        let mut parts = calls.push(&answer.text);
        parts.extend(calls.finish());
        let mut content = Zeroizing::new(String::with_capacity(answer.text.len()));
        let mut made: Vec<Value> = Vec::new();
        for part in parts {
            match part {
                Part::Text(text) => content.push_str(&text),
                Part::Call { index, name } => {
                    let function = json!({ "name": name, "arguments": "" });
                    made.push(json!({ "id": call_id(head, choice, index), "type": "function", "function": function }));
                }
                Part::Arguments { text, .. } => {
                    if let Some(call) = made.last_mut() {
                        call["function"]["arguments"] = (*text).clone().into();
                    }
                }
            }
        }
        let told = reason(answer.reason, &calls);
        if made.is_empty() {
            return (json!({ "role": "assistant", "content": *content }), told);
        }
        let content = if content.is_empty() { Value::Null } else { (*content).clone().into() };
        (json!({ "role": "assistant", "content": content, "tool_calls": made }), told)
    }
}

/// The same in a stream and in a whole answer.
fn call_id(head: &Head, choice: usize, index: usize) -> String {
    let random: String = head.id.chars().take(24).collect();
    format!("call_{random}{choice:x}{index:02x}")
}

fn reason(reason: FinishReason, calls: &Calls) -> &'static str {
    if calls.made() > 0 && reason == FinishReason::Stop { "tool_calls" } else { finish_reason(reason) }
}

/// `usage` of chats and continued texts.
pub(super) fn usage(outcome: &Outcome) -> Value {
    let Outcome { prompt_tokens, completion_tokens, .. } = *outcome;
    let total = prompt_tokens + completion_tokens;
    json!({ "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total })
}

fn chunk(head: &Head, choices: &Value, usage: Option<&Value>) -> Bytes {
    let Head { id, created, model } = head;
    let mut chunk = json!({
        "id": format!("chatcmpl-{id}"), "object": "chat.completion.chunk", "created": created, "model": model,
        "choices": choices,
    });
    if let Some(usage) = usage {
        chunk["usage"] = usage.clone();
    }
    event(&chunk)
}

fn delta(head: &Head, choice: usize, delta: &Value, scored: &[TokenLogprobs], reason: Option<&str>) -> Bytes {
    let logprobs = (!scored.is_empty()).then(|| logprobs::of(scored));
    let choice = json!({ "index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": reason });
    chunk(head, &json!([choice]), None)
}

/// What a part of an answer adds to the message.
fn change(head: &Head, choice: usize, part: &Part) -> Value {
    match part {
        Part::Text(text) => json!({ "content": **text }),
        Part::Call { index, name } => {
            let (id, function) = (call_id(head, choice, *index), json!({ "name": name, "arguments": "" }));
            json!({ "tool_calls": [{ "index": index, "id": id, "type": "function", "function": function }] })
        }
        Part::Arguments { index, text } => {
            json!({ "tool_calls": [{ "index": index, "function": { "arguments": **text } }] })
        }
    }
}

impl Stream {
    /// Chunks for parts; the first has what is to be told of tokens.
    fn chunks(&mut self, head: &Head, choice: usize, parts: &[Part]) -> Vec<Bytes> {
        let chunk = |part: &Part| {
            let scored = std::mem::take(&mut self.untold);
            delta(head, choice, &change(head, choice, part), &scored, None)
        };
        parts.iter().map(chunk).collect()
    }
}

impl Writer for Chat {
    fn begin(&mut self, head: &Head) -> Vec<Bytes> {
        let first = json!({ "role": "assistant", "content": "" });
        (0..self.streams.len()).map(|choice| delta(head, choice, &first, &[], None)).collect()
    }

    fn piece(&mut self, head: &Head, choice: usize, piece: Piece) -> Vec<Bytes> {
        let Some(stream) = self.streams.get_mut(choice) else { return Vec::new() };
        let Some(calls) = &mut stream.calls else {
            return vec![delta(
                head,
                choice,
                &json!({ "content": piece.text.expose() }),
                &piece.logprobs,
                None,
            )];
        };
        let parts = calls.push(piece.text.expose());
        stream.untold.extend(piece.logprobs);
        stream.chunks(head, choice, &parts)
    }

    fn finish(&mut self, head: &Head, choice: usize, why: FinishReason) -> (Vec<Bytes>, &'static str) {
        let Some(stream) = self.streams.get_mut(choice) else { return (Vec::new(), finish_reason(why)) };
        let rest = stream.calls.as_mut().map(Calls::finish).unwrap_or_default();
        let told = stream.calls.as_ref().map_or_else(|| finish_reason(why), |calls| reason(why, calls));
        let mut chunks = stream.chunks(head, choice, &rest);
        chunks.push(delta(head, choice, &json!({}), &std::mem::take(&mut stream.untold), Some(told)));
        (chunks, told)
    }

    fn end(&mut self, head: &Head, outcome: &Outcome) -> Vec<Bytes> {
        let usage = self.include_usage.then(|| chunk(head, &json!([]), Some(&usage(outcome))));
        usage.into_iter().chain([done()]).collect()
    }

    fn fail(&mut self, _: &Head, error: &ApiError) -> Vec<Bytes> {
        vec![event(&error.json())]
    }

    fn whole(&mut self, head: &Head, answers: &[Answer]) -> (Value, &'static str) {
        let mut first = None;
        let mut choices = Vec::new();
        for (index, answer) in answers.iter().enumerate() {
            let (message, told) = self.message(head, index, answer);
            first = first.or(Some(told));
            choices.push(json!({
                "index": index, "message": message,
                "logprobs": self.with_logprobs.then(|| logprobs::of(&answer.logprobs)), "finish_reason": told,
            }));
        }
        let Head { id, created, model } = head;
        let whole = json!({
            "id": format!("chatcmpl-{id}"), "object": "chat.completion", "created": created, "model": model, "choices": choices,
        });
        (whole, first.unwrap_or_default())
    }

    fn with_outcome(&self, mut whole: Value, outcome: &Outcome) -> Value {
        whole["usage"] = usage(outcome);
        whole
    }
}
