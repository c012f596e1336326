//! `POST /v1/chat/completions`: from JSON to a request for the engine.

use cocoon_inference::{GenerateRequest, Message, Role, SecretString};
use serde_json::Value;

use super::error::ApiError;
use super::json::Object;

/// What a client asked for.
pub(crate) struct ChatRequest {
    pub(crate) model: String,
    pub(crate) generate: GenerateRequest,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
}

/// Reads a request. Fields that this version does not offer are refused by name, unless their value asks for nothing.
pub(crate) fn parse(body: &[u8]) -> Result<ChatRequest, ApiError> {
    let mut object = Object::parse(body)?;
    let model = object.required_text("model")?.expose().to_owned();
    let mut generate = GenerateRequest::new(messages(&mut object)?);
    generate.max_tokens = max_tokens(&mut object)?;
    generate.stop = stop(&mut object)?;
    generate.seed = seed(&mut object)?;
    if let Some(temperature) = ratio(&mut object, "temperature")? {
        generate.temperature = temperature;
    }
    if let Some(top_p) = ratio(&mut object, "top_p")? {
        generate.top_p = top_p;
    }
    let stream = object.flag("stream")?.unwrap_or(false);
    let include_usage = stream_options(&mut object, stream)?;
    // A name for the end user: allowed, and used for nothing.
    object.text("user")?;
    neutral(&mut object)?;
    object.finish()?;
    Ok(ChatRequest { model, generate, stream, include_usage })
}

fn messages(object: &mut Object) -> Result<Vec<Message>, ApiError> {
    let missing = || ApiError::invalid("messages", "is required").code("missing_required_parameter");
    let items = object.array("messages")?.ok_or_else(missing)?;
    items.into_iter().enumerate().map(|(i, item)| message(item, format!("messages[{i}]"))).collect()
}

fn message(item: Value, path: String) -> Result<Message, ApiError> {
    let mut object = Object::from_value(item, path)?;
    let role = match object.required_text("role")?.expose() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        _ => return Err(object.wrong("role", "must be system, developer, user or assistant")),
    };
    let content = content(&mut object)?;
    object.finish()?;
    Ok(Message { role, content })
}

/// A text, or an array of parts of type `text`.
fn content(object: &mut Object) -> Result<SecretString, ApiError> {
    let parts = match object.take("content") {
        Some(Value::String(text)) => return Ok(text.into()),
        Some(Value::Array(parts)) => parts,
        _ => return Err(object.wrong("content", "must be a string or an array of text parts")),
    };
    let path = object.path_of("content");
    let mut texts = Vec::new();
    for (i, part) in parts.into_iter().enumerate() {
        let mut part = Object::from_value(part, format!("{path}[{i}]"))?;
        if part.required_text("type")?.expose() != "text" {
            return Err(part.wrong("type", "must be text: this model takes nothing else"));
        }
        texts.push(part.required_text("text")?);
        part.finish()?;
    }
    let mut whole = String::with_capacity(texts.iter().map(SecretString::len).sum());
    texts.iter().for_each(|text| whole.push_str(text.expose()));
    Ok(whole.into())
}

fn max_tokens(object: &mut Object) -> Result<Option<usize>, ApiError> {
    let old = object.count("max_tokens")?;
    let new = object.count("max_completion_tokens")?;
    if old.is_some() && new.is_some() && old != new {
        return Err(object.wrong("max_tokens", "contradicts max_completion_tokens; give one of them"));
    }
    let max = new.or(old).map(usize::try_from).transpose();
    max.map_err(|_too_large| object.wrong("max_tokens", "is too large"))
}

fn stop(object: &mut Object) -> Result<Vec<SecretString>, ApiError> {
    match object.take("stop") {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.into()]),
        Some(Value::Array(items)) => items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(text.into()),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    Err(object.wrong("stop", "must be a string or an array of strings"))
                }
            })
            .collect(),
        Some(_) => Err(object.wrong("stop", "must be a string or an array of strings")),
    }
}

/// Any 64-bit integer, negative ones too.
fn seed(object: &mut Object) -> Result<Option<u64>, ApiError> {
    let to_seed = |value: Value| value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
    object
        .take("seed")
        .map(|v| to_seed(v).ok_or_else(|| object.wrong("seed", "must be a whole number")))
        .transpose()
}

/// The engine checks the range.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a temperature has few digits, and what is out of range stays out of range"
)]
fn ratio(object: &mut Object, name: &str) -> Result<Option<f32>, ApiError> {
    Ok(object.number(name)?.map(|number| number as f32))
}

fn stream_options(object: &mut Object, stream: bool) -> Result<bool, ApiError> {
    let Some(value) = object.take("stream_options") else { return Ok(false) };
    if !stream {
        return Err(object.wrong("stream_options", "goes with stream: true only"));
    }
    let mut options = Object::from_value(value, "stream_options".to_owned())?;
    let include_usage = options.flag("include_usage")?.unwrap_or(false);
    options.finish()?;
    Ok(include_usage)
}

/// Fields that many clients send with the value that means nothing; any other value is refused by name.
fn neutral(object: &mut Object) -> Result<(), ApiError> {
    let asks_for_nothing = |name: &str, value: &Value| match name {
        "n" => value.as_u64() == Some(1),
        "presence_penalty" | "frequency_penalty" => value.as_f64() == Some(0.0),
        "response_format" => value.get("type").and_then(Value::as_str) == Some("text"),
        "tools" => value.as_array().is_some_and(Vec::is_empty),
        _ => value.as_bool() == Some(false),
    };
    for name in
        ["n", "presence_penalty", "frequency_penalty", "response_format", "tools", "logprobs", "store"]
    {
        if let Some(value) = object.take(name)
            && !asks_for_nothing(name, &value)
        {
            return Err(object.wrong(name, "is not supported with this value").code("unsupported_value"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse_json(value: &Value) -> Result<ChatRequest, ApiError> {
        parse(value.to_string().as_bytes())
    }

    /// `(param, code)` of the error for a good request with `name` set to `value`.
    fn refused(name: &str, value: Value) -> (String, String) {
        let mut request =
            json!({ "model": "m", "messages": [{ "role": "user", "content": "secret words" }] });
        request[name] = value;
        let Err(error) = parse_json(&request) else { panic!("{name} was accepted") };
        let error = error.json();
        assert!(!error.to_string().contains("secret"), "{error}");
        let text = |key: &str| error["error"][key].as_str().unwrap_or_default().to_owned();
        (text("param"), text("code"))
    }

    #[test]
    fn reads_what_openai_clients_send() {
        let request = json!({
            "model": "m", "stream": true, "stream_options": { "include_usage": true }, "user": "u", "n": 1,
            "temperature": 0, "top_p": 0.5, "seed": -1, "stop": "END", "max_completion_tokens": 5, "logprobs": false,
            "presence_penalty": 0.0, "frequency_penalty": 0, "response_format": { "type": "text" }, "tools": [], "store": null,
            "messages": [
                { "role": "developer", "content": "be brief" },
                { "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] },
            ],
        });
        let parsed = parse_json(&request).ok().unwrap();
        assert!(parsed.stream && parsed.include_usage);
        assert_eq!((parsed.generate.max_tokens, parsed.generate.seed), (Some(5), Some(u64::MAX)));
        assert!(parsed.generate.temperature == 0.0 && parsed.generate.stop.len() == 1);
        assert_eq!(parsed.generate.messages[0].role, Role::System);
        assert_eq!(parsed.generate.messages[1].content.expose(), "ab");
    }

    #[test]
    fn names_the_field_that_is_wrong() {
        let is = |name: &str, value: Value, param: &str, code: &str| {
            assert_eq!(refused(name, value), (param.to_owned(), code.to_owned()));
        };
        is("model", Value::Null, "model", "missing_required_parameter");
        is("model", json!(1), "model", "invalid_value");
        is("messages", Value::Null, "messages", "missing_required_parameter");
        is("messages", json!("secret"), "messages", "invalid_value");
        is("messages", json!(["secret"]), "messages[0]", "invalid_value");
        is("messages", json!([{ "content": "secret" }]), "messages[0].role", "missing_required_parameter");
        is("messages", json!([{ "role": "secret", "content": "" }]), "messages[0].role", "invalid_value");
        is("messages", json!([{ "role": "user" }]), "messages[0].content", "invalid_value");
        is("messages", json!([{ "role": "user", "content": 1 }]), "messages[0].content", "invalid_value");
        is(
            "messages",
            json!([{ "role": "user", "content": "secret", "name": "secret" }]),
            "messages[0].name",
            "unsupported_parameter",
        );
        let image = json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": "secret" }] }]);
        is("messages", image, "messages[0].content[0].type", "invalid_value");
        is("temperature", json!("secret"), "temperature", "invalid_value");
        is("top_p", json!([]), "top_p", "invalid_value");
        is("seed", json!(1.5), "seed", "invalid_value");
        is("max_tokens", json!(-1), "max_tokens", "invalid_value");
        is("stop", json!([1]), "stop", "invalid_value");
        is("stop", json!(1), "stop", "invalid_value");
        is("stream", json!("yes"), "stream", "invalid_value");
        is("stream_options", json!({}), "stream_options", "invalid_value");
        is("user", json!(1), "user", "invalid_value");
        is("n", json!(2), "n", "unsupported_value");
        is("logprobs", json!(true), "logprobs", "unsupported_value");
        is("tools", json!([{ "secret": 1 }]), "tools", "unsupported_value");
        is("response_format", json!({ "type": "json_object" }), "response_format", "unsupported_value");
        is("best_of", json!(1), "best_of", "unsupported_parameter");
    }

    #[test]
    fn contradictions_are_refused() {
        let both = json!({ "model": "m", "messages": [], "max_tokens": 1, "max_completion_tokens": 2 });
        assert_eq!(parse_json(&both).err().unwrap().json()["error"]["param"], "max_tokens");
    }

    #[test]
    fn what_is_not_json_is_refused_without_quoting_it() {
        for body in [&b""[..], b"secret", b"{\"secret", b"[1]", b"\xff", b"null"] {
            let error = parse(body).err().unwrap().json().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }
}
