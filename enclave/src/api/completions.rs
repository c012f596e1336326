//! `POST /v1/completions`: a text is continued, without the chat template.

use bytes::Bytes;
use cocoon_inference::{FinishReason, GenerateRequest, SecretString};
use serde_json::{Value, json};

use super::chat::usage;
use super::error::ApiError;
use super::fields;
use super::json::{Object, wipe};
use super::respond::{done, event};
use super::wanted::{Answer, Head, Outcome, Piece, Wanted, Writer, finish_reason};

/// As the OpenAI API has it, for this endpoint only.
const MAX_TOKENS: usize = 16;

/// Reads a request.
pub(crate) fn parse(body: &[u8]) -> Result<Wanted, ApiError> {
    read(Object::parse(body)?)
}

/// The same, of a body that was parsed.
pub(super) fn read(mut object: Object) -> Result<Wanted, ApiError> {
    let model = object.required_text("model")?.expose().to_owned();
    let mut generate = GenerateRequest::continuing(prompt(&mut object)?);
    generate.max_tokens = Some(fields::tokens(&mut object, "max_tokens")?.unwrap_or(MAX_TOKENS));
    fields::common(&mut object, &mut generate)?;
    let choices = fields::choices(&mut object)?;
    let stream = object.flag("stream")?.unwrap_or(false);
    let include_usage = fields::stream_options(&mut object, stream)?;
    fields::neutral(&mut object, &[("echo", json!(false)), ("suffix", json!("")), ("best_of", json!(1))])?;
    if object.has("logprobs") {
        let message = "is not supported here; POST /v1/chat/completions tells them";
        return Err(object.wrong("logprobs", message).code("unsupported_parameter"));
    }
    object.finish()?;
    let writer = Box::new(Completion { include_usage });
    Ok(Wanted { model, generate, rules: None, choices, stream, names: &[("messages", "prompt")], writer })
}

/// A text, or an array of one.
fn prompt(object: &mut Object) -> Result<SecretString, ApiError> {
    let mut value = match object.take("prompt") {
        None => return Err(object.wrong("prompt", "is required").code("missing_required_parameter")),
        Some(Value::Array(mut items)) if items.len() == 1 => items.swap_remove(0),
        Some(value) => value,
    };
    match value {
        Value::String(text) => Ok(text.into()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            wipe(&mut value);
            Err(object.wrong("prompt", "must be a string or an array of one string; tokens are not taken"))
        }
    }
}

/// How continued texts are written.
struct Completion {
    include_usage: bool,
}

fn answer(head: &Head, choices: &Value) -> Value {
    let Head { id, created, model } = head;
    json!({
        "id": format!("cmpl-{id}"), "object": "text_completion", "created": created, "model": model, "choices": choices,
    })
}

fn choice(index: usize, text: &str, reason: Option<&str>) -> Value {
    json!({ "index": index, "text": text, "logprobs": null, "finish_reason": reason })
}

impl Writer for Completion {
    fn begin(&mut self, _: &Head) -> Vec<Bytes> {
        Vec::new()
    }

    fn piece(&mut self, head: &Head, index: usize, piece: Piece) -> Vec<Bytes> {
        vec![event(&answer(head, &json!([choice(index, piece.text.expose(), None)])))]
    }

    fn finish(&mut self, head: &Head, index: usize, reason: FinishReason) -> (Vec<Bytes>, &'static str) {
        let told = finish_reason(reason);
        (vec![event(&answer(head, &json!([choice(index, "", Some(told))])))], told)
    }

    fn end(&mut self, head: &Head, outcome: &Outcome) -> Vec<Bytes> {
        let usage = self.include_usage.then(|| event(&self.with_outcome(answer(head, &json!([])), outcome)));
        usage.into_iter().chain([done()]).collect()
    }

    fn fail(&mut self, _: &Head, error: &ApiError) -> Vec<Bytes> {
        vec![event(&error.json())]
    }

    fn whole(&mut self, head: &Head, answers: &[Answer]) -> (Value, &'static str) {
        let told = |answer: &Answer| finish_reason(answer.reason);
        let choices: Vec<_> =
            answers.iter().enumerate().map(|(i, a)| choice(i, &a.text, Some(told(a)))).collect();
        (answer(head, &choices.into()), answers.first().map(told).unwrap_or_default())
    }

    fn with_outcome(&self, mut whole: Value, outcome: &Outcome) -> Value {
        whole["usage"] = usage(outcome);
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(change: impl FnOnce(&mut Value)) -> Result<Wanted, ApiError> {
        let mut body = json!({ "model": "m", "prompt": "secret words" });
        change(&mut body);
        parse(body.to_string().as_bytes())
    }

    #[test]
    fn reads_what_openai_clients_send() {
        let wanted = parsed(|b| {
            (b["prompt"], b["n"], b["stream"], b["stop"]) = (json!(["a"]), json!(8), json!(true), json!("x"));
            (b["echo"], b["suffix"], b["best_of"]) = (json!(false), Value::Null, json!(1));
        });
        let wanted = wanted.ok().unwrap();
        assert_eq!((wanted.choices, wanted.stream, wanted.generate.max_tokens), (8, true, Some(16)));
        assert!(wanted.generate.text.unwrap().expose() == "a" && wanted.generate.messages.is_empty());
    }

    #[test]
    fn names_the_field_that_is_wrong() {
        for (name, value, code) in [
            ("model", Value::Null, "missing_required_parameter"),
            ("prompt", Value::Null, "missing_required_parameter"),
            ("prompt", json!(["secret", "secret"]), "invalid_value"),
            ("prompt", json!([1, 2]), "invalid_value"),
            ("prompt", json!({ "secret": 1 }), "invalid_value"),
            ("echo", json!(true), "unsupported_value"),
            ("suffix", json!("secret"), "unsupported_value"),
            ("best_of", json!(2), "unsupported_value"),
            ("logprobs", json!(3), "unsupported_parameter"),
            ("messages", json!(["secret"]), "unsupported_parameter"),
            ("tools", json!([]), "unsupported_parameter"),
            ("n", json!(9), "invalid_value"),
            ("max_tokens", json!("secret"), "invalid_value"),
        ] {
            let error = parsed(|b| b[name] = value).err().unwrap().json();
            assert_eq!((&error["error"]["param"], &error["error"]["code"]), (&name.into(), &code.into()));
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
