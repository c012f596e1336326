//! `POST /v1/responses`, for text: nothing is stored, so nothing can be referred to.

use bytes::Bytes;
use cocoon_inference::{FinishReason, GenerateRequest, Message, Role, Rules, SecretString};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::error::ApiError;
use super::fields;
use super::format::{self, Asked};
use super::json::{Object, wipe};
use super::respond::named_event;
use super::wanted::{Answer, Head, Outcome, Piece, Wanted, Writer, finish_reason};

/// What is called otherwise in chats.
const NAMES: [(&str, &str); 2] = [("messages", "input"), ("max_tokens", "max_output_tokens")];

/// Reads a request.
pub(crate) fn parse(body: &[u8]) -> Result<Wanted, ApiError> {
    read(Object::parse(body)?)
}

/// The same, of a body that was parsed.
pub(super) fn read(mut object: Object) -> Result<Wanted, ApiError> {
    let model = object.required_text("model")?.expose().to_owned();
    let mut messages = Vec::new();
    if let Some(instructions) = object.text("instructions")? {
        messages.push(Message::new(Role::System, instructions));
    }
    messages.extend(input(&mut object)?);
    let mut generate = GenerateRequest::new(messages);
    generate.max_tokens = fields::tokens(&mut object, "max_output_tokens")?;
    fields::common(&mut object, &mut generate)?;
    let rules = format::text_format(&mut object)?;
    let stream = object.flag("stream")?.unwrap_or(false);
    if object.has("previous_response_id") {
        let message = "is not supported: nothing is stored here; send the whole conversation as input";
        return Err(object.wrong("previous_response_id", message).code("unsupported_parameter"));
    }
    object.flag("parallel_tool_calls")?; // there are no tools
    let nothing = [
        ("store", json!(false)),
        ("background", json!(false)),
        ("tools", json!([])),
        ("tool_choice", json!("auto")),
        ("include", json!([])),
        ("metadata", json!({})),
        ("truncation", json!("disabled")),
        ("service_tier", json!("auto")),
    ];
    fields::neutral(&mut object, &nothing)?;
    object.finish()?;
    let writer = Box::new(Response::new(&generate, rules.as_ref()));
    Ok(Wanted { model, generate, rules, choices: 1, stream, names: &NAMES, writer })
}

/// A text of the user, or messages.
fn input(object: &mut Object) -> Result<Vec<Message>, ApiError> {
    match object.take("input") {
        None => Err(object.wrong("input", "is required").code("missing_required_parameter")),
        Some(Value::String(text)) => Ok(vec![Message::new(Role::User, text)]),
        Some(Value::Array(items)) => {
            items.into_iter().enumerate().map(|(i, item)| message(item, format!("input[{i}]"))).collect()
        }
        Some(mut other) => {
            wipe(&mut other);
            Err(object.wrong("input", "must be a string or an array of messages"))
        }
    }
}

/// A message of a client, or one that an earlier response brought.
fn message(item: Value, path: String) -> Result<Message, ApiError> {
    let mut object = Object::from_value(item, path)?;
    if object.text("type")?.is_some_and(|kind| kind.expose() != "message") {
        return Err(object.wrong("type", "must be message: this endpoint takes nothing else"));
    }
    let role = match object.required_text("role")?.expose() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        _ => return Err(object.wrong("role", "must be system, developer, user or assistant")),
    };
    object.text("id")?;
    object.text("status")?;
    let content = fields::content(&mut object, &["input_text", "output_text"])?;
    object.finish()?;
    Ok(Message::new(role, content))
}

/// How a response is written.
struct Response {
    temperature: f32,
    top_p: f32,
    max_output_tokens: Option<usize>,
    format: &'static str,
    /// Events so far.
    sequence: u64,
    text: Zeroizing<String>,
    reason: FinishReason,
}

impl Response {
    fn new(generate: &GenerateRequest, rules: Option<&Asked>) -> Self {
        let format = match rules.map(|asked| &asked.rules) {
            Some(Rules::Object) => "json_object",
            Some(Rules::Schema(_) | Rules::Calls { .. }) => "json_schema",
            None => "text",
        };
        Self {
            temperature: generate.temperature,
            top_p: generate.top_p,
            max_output_tokens: generate.max_tokens,
            format,
            sequence: 0,
            text: Zeroizing::default(),
            reason: FinishReason::Stop,
        }
    }

    fn event(&mut self, name: &str, mut fields: Value) -> Bytes {
        fields["type"] = name.into();
        fields["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        let event = named_event(name, &fields);
        wipe(&mut fields);
        event
    }

    /// The response; its texts are not repeated in it but for the answer.
    fn response(&self, head: &Head, status: &str, output: &Value) -> Value {
        let details = (status == "incomplete").then(|| json!({ "reason": "max_output_tokens" }));
        json!({
            "id": format!("resp_{}", head.id), "object": "response", "created_at": head.created, "status": status,
            "error": null, "incomplete_details": details, "instructions": null,
            "max_output_tokens": self.max_output_tokens, "model": head.model, "output": output,
            "parallel_tool_calls": true, "previous_response_id": null, "store": false,
            "temperature": self.temperature, "text": { "format": { "type": self.format } }, "tool_choice": "auto",
            "tools": [], "top_p": self.top_p, "truncation": "disabled", "usage": null, "metadata": {},
        })
    }

    fn status(&self) -> &'static str {
        match self.reason {
            FinishReason::Stop => "completed",
            FinishReason::Length => "incomplete",
        }
    }

    fn message(&self, head: &Head, status: &str, content: &Value) -> Value {
        json!({ "id": item_id(head), "type": "message", "status": status, "role": "assistant", "content": content })
    }

    fn done_message(&self, head: &Head) -> Value {
        self.message(head, self.status(), &json!([part(&self.text)]))
    }
}

fn item_id(head: &Head) -> String {
    format!("msg_{}", head.id)
}

fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [] })
}

/// Fields of an event about the text.
fn about(head: &Head, name: &str, value: impl Into<Value>) -> Value {
    let mut fields = json!({ "item_id": item_id(head), "output_index": 0, "content_index": 0 });
    fields[name] = value.into();
    fields
}

impl Writer for Response {
    fn begin(&mut self, head: &Head) -> Vec<Bytes> {
        let response = json!({ "response": self.response(head, "in_progress", &json!([])) });
        let item = self.message(head, "in_progress", &json!([]));
        vec![
            self.event("response.created", response.clone()),
            self.event("response.in_progress", response),
            self.event("response.output_item.added", json!({ "output_index": 0, "item": item })),
            self.event("response.content_part.added", about(head, "part", part(""))),
        ]
    }

    fn piece(&mut self, head: &Head, _: usize, piece: Piece) -> Vec<Bytes> {
        append(&mut self.text, &piece.text);
        let mut fields = about(head, "delta", piece.text.expose());
        fields["logprobs"] = json!([]);
        vec![self.event("response.output_text.delta", fields)]
    }

    fn finish(&mut self, head: &Head, _: usize, reason: FinishReason) -> (Vec<Bytes>, &'static str) {
        self.reason = reason;
        let mut text = about(head, "text", self.text.as_str());
        text["logprobs"] = json!([]);
        let item = self.done_message(head);
        let part = about(head, "part", part(&self.text));
        let events = vec![
            self.event("response.output_text.done", text),
            self.event("response.content_part.done", part),
            self.event("response.output_item.done", json!({ "output_index": 0, "item": item })),
        ];
        (events, finish_reason(reason))
    }

    fn end(&mut self, head: &Head, outcome: &Outcome) -> Vec<Bytes> {
        let whole = self.response(head, self.status(), &json!([self.done_message(head)]));
        let whole = self.with_outcome(whole, outcome);
        let name = match self.reason {
            FinishReason::Stop => "response.completed",
            FinishReason::Length => "response.incomplete",
        };
        vec![self.event(name, json!({ "response": whole }))]
    }

    fn fail(&mut self, head: &Head, error: &ApiError) -> Vec<Bytes> {
        let mut response = self.response(head, "failed", &json!([]));
        let error = &error.json()["error"];
        let code = if error["code"].is_null() { &error["type"] } else { &error["code"] };
        response["error"] = json!({ "code": code, "message": error["message"] });
        vec![self.event("response.failed", json!({ "response": response }))]
    }

    fn whole(&mut self, head: &Head, answers: &[Answer]) -> (Value, &'static str) {
        if let Some(answer) = answers.first() {
            self.text = answer.text.clone();
            self.reason = answer.reason;
        }
        let whole = self.response(head, self.status(), &json!([self.done_message(head)]));
        (whole, finish_reason(self.reason))
    }

    fn with_outcome(&self, mut whole: Value, outcome: &Outcome) -> Value {
        let Outcome { prompt_tokens: input, completion_tokens: output, .. } = *outcome;
        whole["usage"] = json!({
            "input_tokens": input, "input_tokens_details": { "cached_tokens": 0 },
            "output_tokens": output, "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": input + output,
        });
        whole
    }
}

/// Appends without leaving a copy of the old buffer behind.
fn append(to: &mut Zeroizing<String>, text: &SecretString) {
    if to.len() + text.len() > to.capacity() {
        let mut grown = Zeroizing::new(String::with_capacity((2 * (to.len() + text.len())).max(1024)));
        grown.push_str(to);
        *to = grown;
    }
    to.push_str(text.expose());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(change: impl FnOnce(&mut Value)) -> Result<Wanted, ApiError> {
        let mut body = json!({ "model": "m", "input": "secret words" });
        change(&mut body);
        parse(body.to_string().as_bytes())
    }

    #[test]
    fn reads_what_openai_clients_send() {
        let wanted = parsed(|b| {
            (b["instructions"], b["max_output_tokens"], b["stream"]) =
                (json!("be brief"), json!(5), json!(true));
            (b["temperature"], b["top_p"], b["store"]) = (json!(0.5), json!(0.25), json!(false));
            b["text"] = json!({ "format": { "type": "json_object" } });
            b["input"] = json!([
                { "role": "user", "content": "a" },
                { "type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
                  "content": [{ "type": "output_text", "text": "b", "annotations": [] }] },
                { "role": "user", "content": [{ "type": "input_text", "text": "c" }] },
            ]);
        });
        let wanted = wanted.ok().unwrap();
        let texts: Vec<_> = wanted.generate.messages.iter().map(|m| (m.role, m.content.expose())).collect();
        use Role::{Assistant, System, User};
        assert_eq!(texts, [(System, "be brief"), (User, "a"), (Assistant, "b"), (User, "c")]);
        assert_eq!((wanted.generate.max_tokens, wanted.stream), (Some(5), true));
        assert!(matches!(wanted.rules.unwrap().rules, Rules::Object));
    }

    #[test]
    fn names_the_field_that_is_wrong() {
        let item = |value: Value| json!([value]);
        for (name, value, param, code) in [
            ("model", Value::Null, "model", "missing_required_parameter"),
            ("input", Value::Null, "input", "missing_required_parameter"),
            ("input", json!(1), "input", "invalid_value"),
            ("input", json!(["secret"]), "input[0]", "invalid_value"),
            ("input", item(json!({ "type": "function_call_output" })), "input[0].type", "invalid_value"),
            ("input", item(json!({ "role": "secret" })), "input[0].role", "invalid_value"),
            ("input", item(json!({ "role": "user" })), "input[0].content", "invalid_value"),
            (
                "input",
                item(json!({ "role": "user", "content": [{ "type": "input_image" }] })),
                "input[0].content[0].type",
                "invalid_value",
            ),
            ("instructions", json!(1), "instructions", "invalid_value"),
            ("max_output_tokens", json!("secret"), "max_output_tokens", "invalid_value"),
            ("previous_response_id", json!("secret"), "previous_response_id", "unsupported_parameter"),
            ("store", json!(true), "store", "unsupported_value"),
            ("background", json!(true), "background", "unsupported_value"),
            ("tools", json!([{ "secret": 1 }]), "tools", "unsupported_value"),
            ("conversation", json!("secret"), "conversation", "unsupported_parameter"),
            ("text", json!({ "verbosity": "secret" }), "text.verbosity", "unsupported_parameter"),
            ("text", json!({ "format": { "type": "secret" } }), "text.format.type", "invalid_value"),
            (
                "text",
                json!({ "format": { "type": "json_schema", "name": "a" } }),
                "text.format.schema",
                "missing_required_parameter",
            ),
            ("n", json!(2), "n", "unsupported_parameter"),
        ] {
            let error = parsed(|b| b[name] = value).err().unwrap().json();
            assert_eq!(
                (&error["error"]["param"], &error["error"]["code"]),
                (&param.into(), &code.into()),
                "{error}"
            );
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
