//! What is asked.

use std::collections::BTreeMap;

use serde::Serialize;
use zeroize::Zeroizing;

use super::tools::{ResponseFormat, Tool, ToolCall, ToolChoice};

/// A request for `POST /v1/chat/completions`.
///
/// What is `None` or empty is left to the enclave, whose values `docs/api.md` has; so are the limits.
#[derive(Clone, Serialize)]
#[expect(missing_debug_implementations, reason = "prompts must not be printable")]
pub struct ChatRequest {
    model: String,
    messages: Vec<Message>,
    /// Most tokens of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// 0 to 2; 0 always takes the most likely token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Among that many most likely tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Among the most likely tokens that together have this probability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Among tokens with at least this share of the most likely one's probability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    /// -2 to 2: against tokens that the answer has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f32>,
    /// -2 to 2: against tokens that the answer has, by how often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f32>,
    /// Above 0, at most 2: against tokens that prompt or answer have; 1 is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f32>,
    /// By token id: -100 to 100.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub logit_bias: BTreeMap<u32, f32>,
    /// The same seed gives the same answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The answer ends before the first of these texts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Ask for the probability of each token ([`super::ChatEvent::Logprobs`]).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub logprobs: bool,
    /// And for those of that many most likely ones at its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u8>,
    /// What the answer keeps to. Not together with tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<ResponseFormat>,
    /// Functions that the model may ask to call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    /// Whether it calls one, and which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice>,
    /// Whether it may ask for several calls at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    /// Fields that have no name here, as they are sent. Not `n`: for several answers there is [`crate::Client::post`].
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
    stream: bool,
    stream_options: StreamOptions,
}

/// One turn of a conversation.
#[derive(Clone, Serialize)]
#[expect(missing_debug_implementations, reason = "prompts must not be printable")]
pub struct Message {
    role: Role,
    content: Zeroizing<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<String>,
}

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Role {
    /// Whoever wrote the program that asks.
    System,
    /// Whoever asks.
    User,
    /// The model.
    Assistant,
    /// A tool that the model called: [`Message::result`].
    Tool,
}

#[derive(Clone, Serialize)]
struct StreamOptions {
    include_usage: bool,
}

impl Message {
    /// One turn.
    #[must_use]
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: Zeroizing::new(content.into()), tool_calls: Vec::new(), tool_call_id: None }
    }

    /// A turn of the model in which it called tools. The text may be empty. Of a whole answer: [`super::ChatAnswer::message`].
    #[must_use]
    pub fn calls(content: impl Into<String>, calls: impl IntoIterator<Item = ToolCall>) -> Self {
        Self { tool_calls: calls.into_iter().collect(), ..Self::new(Role::Assistant, content) }
    }

    /// What came of a call: its [`ToolCall::id`], and a text for the model.
    #[must_use]
    pub fn result(call: impl Into<String>, content: impl Into<String>) -> Self {
        Self { tool_call_id: Some(call.into()), ..Self::new(Role::Tool, content) }
    }

    /// Who says it.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// What is said.
    #[must_use]
    pub fn content(&self) -> &str {
        &self.content
    }
}

impl ChatRequest {
    /// Where it goes.
    pub(crate) const PATH: &str = "/v1/chat/completions";

    /// A conversation that starts with one message of the user.
    #[must_use]
    pub fn new(model: impl Into<String>, prompt: impl Into<String>) -> Self {
        Self::of(model, [Message::new(Role::User, prompt)])
    }

    /// A conversation.
    #[must_use]
    pub fn of(model: impl Into<String>, messages: impl IntoIterator<Item = Message>) -> Self {
        Self {
            model: model.into(),
            messages: messages.into_iter().collect(),
            max_tokens: None,
            temperature: None,
            top_k: None,
            top_p: None,
            min_p: None,
            presence_penalty: None,
            frequency_penalty: None,
            repetition_penalty: None,
            logit_bias: BTreeMap::new(),
            seed: None,
            stop: Vec::new(),
            logprobs: false,
            top_logprobs: None,
            response_format: None,
            tools: Vec::new(),
            tool_choice: None,
            parallel_tool_calls: None,
            more: serde_json::Map::new(),
            stream: true,
            stream_options: StreamOptions { include_usage: true },
        }
    }

    /// Adds a turn.
    pub fn push(&mut self, role: Role, content: impl Into<String>) -> &mut Self {
        self.messages.push(Message::new(role, content));
        self
    }

    /// The conversation so far.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The conversation so far, to change it.
    pub fn messages_mut(&mut self) -> &mut Vec<Message> {
        &mut self.messages
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn sent(request: &ChatRequest) -> Value {
        serde_json::from_slice(&request.json().unwrap()).unwrap()
    }

    #[test]
    fn what_is_not_said_is_not_sent() {
        let mut sent = sent(&ChatRequest::new("m", "Hello"));
        assert_eq!(sent["messages"], json!([{ "role": "user", "content": "Hello" }]));
        let mut fields: Vec<String> = sent.as_object_mut().unwrap().keys().cloned().collect();
        fields.sort(); // their order is the JSON library's business
        assert_eq!(fields, ["messages", "model", "stream", "stream_options"]);
    }

    #[test]
    fn what_is_said_is_sent_as_it_is_written() {
        let mut request = ChatRequest::of("m", [Message::new(Role::System, "Be short.")]);
        request.push(Role::User, "Hello").push(Role::Assistant, "Hi.").push(Role::User, "Bye");
        (request.temperature, request.top_p, request.seed) = (Some(0.7), Some(0.95), Some(1 << 60));
        request.logit_bias.insert(17, -100.0);
        request.stop.push("END".to_owned());
        (request.logprobs, request.top_logprobs) = (true, Some(3));
        request.more.insert("user".to_owned(), "me".into());
        let text = String::from_utf8(request.json().unwrap().to_vec()).unwrap();
        assert!(text.contains("\"temperature\":0.7,") && text.contains("\"top_p\":0.95"), "{text}");
        let sent = sent(&request);
        let roles: Vec<&Value> =
            sent["messages"].as_array().unwrap().iter().map(|message| &message["role"]).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user"]);
        assert_eq!((&sent["logit_bias"], &sent["stop"]), (&json!({ "17": -100.0 }), &json!(["END"])));
        assert_eq!((&sent["seed"], &sent["user"]), (&json!(1_u64 << 60), &json!("me")));
        assert_eq!((&sent["logprobs"], &sent["top_logprobs"]), (&json!(true), &json!(3)));
    }

    #[test]
    fn tools_and_formats_are_written_in_openais_shape() {
        let schema = json!({ "type": "object", "properties": {} });
        let mut request = ChatRequest::new("m", "What is the weather?");
        request.tools =
            vec![Tool::new("weather", "Of today", schema.clone()), Tool::new("f", "", schema.clone())];
        request.tool_choice = Some(ToolChoice::Function("weather".to_owned()));
        request.parallel_tool_calls = Some(false);
        let called = Message::calls("", [ToolCall::new("call_1", "weather", "{}")]);
        request.messages_mut().extend([called, Message::result("call_1", "rain")]);
        let tools = sent(&request);
        let function = |function: Value| json!({ "type": "function", "function": function });
        assert_eq!(
            tools["tools"],
            json!([
                function(json!({ "name": "weather", "description": "Of today", "parameters": schema })),
                function(json!({ "name": "f", "parameters": schema })),
            ])
        );
        assert_eq!(tools["tool_choice"], function(json!({ "name": "weather" })));
        assert_eq!(tools["parallel_tool_calls"], json!(false));
        let mut call = function(json!({ "name": "weather", "arguments": "{}" }));
        call["id"] = json!("call_1");
        assert_eq!(tools["messages"][1], json!({ "role": "assistant", "content": "", "tool_calls": [call] }));
        assert_eq!(
            tools["messages"][2],
            json!({ "role": "tool", "content": "rain", "tool_call_id": "call_1" })
        );
        for (choice, text) in
            [(ToolChoice::Auto, "auto"), (ToolChoice::None, "none"), (ToolChoice::Required, "required")]
        {
            request.tool_choice = Some(choice);
            assert_eq!(sent(&request)["tool_choice"], text);
        }
        let named = json!({ "name": "x", "schema": schema.clone(), "strict": true });
        for (format, wanted) in [
            (ResponseFormat::Text, json!({ "type": "text" })),
            (ResponseFormat::JsonObject, json!({ "type": "json_object" })),
            (
                ResponseFormat::JsonSchema { name: "x".to_owned(), schema },
                json!({ "type": "json_schema", "json_schema": named }),
            ),
        ] {
            request.response_format = Some(format);
            assert_eq!(sent(&request)["response_format"], wanted);
        }
    }
}
