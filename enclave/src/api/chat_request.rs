//! `POST /v1/chat/completions`: from JSON to a request for the engine.

use cocoon_inference::{GenerateRequest, Message, Role, SecretString};
use serde_json::Value;
use zeroize::Zeroizing;

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
    sampling(&mut object, &mut generate)?;
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

/// Everything that says how tokens are chosen. The engine checks the ranges.
fn sampling(object: &mut Object, generate: &mut GenerateRequest) -> Result<(), ApiError> {
    for (name, field) in [
        ("temperature", &mut generate.temperature),
        ("top_p", &mut generate.top_p),
        ("min_p", &mut generate.min_p),
        ("presence_penalty", &mut generate.presence_penalty),
        ("frequency_penalty", &mut generate.frequency_penalty),
        ("repetition_penalty", &mut generate.repetition_penalty),
    ] {
        if let Some(value) = ratio(object, name)? {
            *field = value;
        }
    }
    generate.top_k = top_k(object)?;
    generate.logit_bias = logit_bias(object)?;
    generate.logprobs = object.flag("logprobs")?.unwrap_or(false);
    // What does not fit is too many all the same.
    let top_logprobs = object.count("top_logprobs")?.unwrap_or(0);
    generate.top_logprobs = usize::try_from(top_logprobs).unwrap_or(usize::MAX);
    Ok(())
}

/// A number of tokens; 0 and -1 mean all, as vLLM's clients write it.
fn top_k(object: &mut Object) -> Result<Option<usize>, ApiError> {
    let Some(value) = object.take("top_k") else { return Ok(None) };
    if matches!(value.as_i64(), Some(0 | -1)) {
        return Ok(None);
    }
    let k = value.as_u64().ok_or_else(|| object.wrong("top_k", "must be a whole number, or -1 for all"))?;
    Ok(Some(usize::try_from(k).unwrap_or(usize::MAX)))
}

/// An object of token ids, in decimal, with numbers.
fn logit_bias(object: &mut Object) -> Result<Zeroizing<Vec<(u32, f32)>>, ApiError> {
    const PROBLEM: &str = "must be an object of token ids with numbers";
    let mut biases = Zeroizing::new(Vec::new());
    let Some(value) = object.take("logit_bias") else { return Ok(biases) };
    let Value::Object(entries) = value else { return Err(object.wrong("logit_bias", PROBLEM)) };
    biases.reserve_exact(entries.len());
    for (id, bias) in &entries {
        // Written in one way only, so that no token is there twice.
        let id: Option<u32> = id.parse().ok().filter(|parsed: &u32| parsed.to_string() == *id);
        let Some((id, bias)) = id.zip(bias.as_f64()) else {
            return Err(object.wrong("logit_bias", PROBLEM));
        };
        biases.push((id, narrow(bias)));
    }
    Ok(biases)
}

/// Any 64-bit integer, negative ones too.
fn seed(object: &mut Object) -> Result<Option<u64>, ApiError> {
    let to_seed = |value: Value| value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
    object
        .take("seed")
        .map(|v| to_seed(v).ok_or_else(|| object.wrong("seed", "must be a whole number")))
        .transpose()
}

fn ratio(object: &mut Object, name: &str) -> Result<Option<f32>, ApiError> {
    Ok(object.number(name)?.map(narrow))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a temperature has few digits, and what is out of range stays out of range"
)]
fn narrow(number: f64) -> f32 {
    number as f32
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
        "response_format" => value.get("type").and_then(Value::as_str) == Some("text"),
        "tools" => value.as_array().is_some_and(Vec::is_empty),
        _ => value.as_bool() == Some(false),
    };
    for name in ["n", "response_format", "tools", "store"] {
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
    fn everything_that_says_how_tokens_are_chosen_is_read() {
        let request = json!({
            "model": "m", "messages": [], "temperature": 0.5, "top_p": 0.25, "top_k": 40, "min_p": 0.125,
            "presence_penalty": -1, "frequency_penalty": 1.5, "repetition_penalty": 1.25,
            "logit_bias": { "0": -100, "4294967295": 0.5 }, "logprobs": true, "top_logprobs": 3,
        });
        let read = parse_json(&request).ok().unwrap().generate;
        assert_eq!((read.temperature, read.top_p, read.top_k, read.min_p), (0.5, 0.25, Some(40), 0.125));
        let penalties = (read.presence_penalty, read.frequency_penalty, read.repetition_penalty);
        assert_eq!(penalties, (-1.0, 1.5, 1.25));
        assert_eq!(*read.logit_bias, [(0, -100.0), (u32::MAX, 0.5)]);
        assert_eq!((read.logprobs, read.top_logprobs), (true, 3));
        for all in [json!(0), json!(-1), Value::Null] {
            let request = json!({ "model": "m", "messages": [], "top_k": all });
            assert_eq!(parse_json(&request).ok().unwrap().generate.top_k, None);
        }
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
        is("logprobs", json!(1), "logprobs", "invalid_value");
        is("top_logprobs", json!("secret"), "top_logprobs", "invalid_value");
        is("top_logprobs", json!(-1), "top_logprobs", "invalid_value");
        is("top_k", json!(-2), "top_k", "invalid_value");
        is("top_k", json!(1.5), "top_k", "invalid_value");
        for name in ["min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"] {
            is(name, json!("secret"), name, "invalid_value");
        }
        for bias in [
            json!([1]),
            json!({ "secret": 1 }),
            json!({ "1": "secret" }),
            json!({ "-1": 1 }),
            json!({ "4294967296": 1 }),
            json!({ "01": 1 }),
            json!({ "+1": 1 }),
            json!({ "1": null }),
        ] {
            is("logit_bias", bias, "logit_bias", "invalid_value");
        }
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
