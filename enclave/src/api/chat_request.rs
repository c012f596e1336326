//! `POST /v1/chat/completions`: from JSON to a request for the engine.

use cocoon_inference::GenerateRequest;
use serde_json::json;

use super::chat::Chat;
use super::error::ApiError;
use super::json::Object;
use super::wanted::Wanted;
use super::{fields, format, messages, tools};

/// Reads a request. Fields that this version does not offer are refused by name, unless their value asks for nothing.
pub(crate) fn parse(body: &[u8]) -> Result<Wanted, ApiError> {
    read(Object::parse(body)?)
}

/// The same, of a body that was parsed.
pub(super) fn read(mut object: Object) -> Result<Wanted, ApiError> {
    let model = object.required_text("model")?.expose().to_owned();
    let mut generate = GenerateRequest::new(messages::messages(&mut object)?);
    generate.max_tokens = max_tokens(&mut object)?;
    fields::common(&mut object, &mut generate)?;
    generate.logprobs = object.flag("logprobs")?.unwrap_or(false);
    // What does not fit is too many all the same.
    let top_logprobs = object.count("top_logprobs")?.unwrap_or(0);
    generate.top_logprobs = usize::try_from(top_logprobs).unwrap_or(usize::MAX);
    let choices = fields::choices(&mut object)?;
    let format = format::response_format(&mut object)?;
    let (callable, demanded) = tools::read(&mut object, &mut generate)?;
    if format.is_some() && callable.is_some() {
        return Err(object.wrong("response_format", "goes with tools only if tool_choice is none"));
    }
    let stream = object.flag("stream")?.unwrap_or(false);
    let include_usage = fields::stream_options(&mut object, stream)?;
    fields::neutral(&mut object, &[("store", json!(false))])?;
    object.finish()?;
    let writer = Chat::new(include_usage, generate.logprobs, callable, choices);
    let rules = format.or(demanded);
    Ok(Wanted { model, generate, rules, choices, stream, names: &[], writer: Box::new(writer) })
}

fn max_tokens(object: &mut Object) -> Result<Option<usize>, ApiError> {
    let old = fields::tokens(object, "max_tokens")?;
    let new = fields::tokens(object, "max_completion_tokens")?;
    if old.is_some() && new.is_some() && old != new {
        return Err(object.wrong("max_tokens", "contradicts max_completion_tokens; give one of them"));
    }
    Ok(new.or(old))
}

#[cfg(test)]
mod tests {
    use super::super::messages::MAX_ID;
    use super::*;
    use cocoon_inference::{Role, Rules};
    use serde_json::Value;

    fn parse_json(value: &Value) -> Result<Wanted, ApiError> {
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
        assert!(parsed.stream);
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
        is("n", json!(0), "n", "invalid_value");
        is("n", json!(9), "n", "invalid_value");
        is("n", json!("secret"), "n", "invalid_value");
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
        is("store", json!(true), "store", "unsupported_value");
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

    #[test]
    fn formats_are_read_and_what_is_wrong_with_them_is_named() {
        let is = |value: Value, param: &str, code: &str| {
            assert_eq!(refused("response_format", value), (param.to_owned(), code.to_owned()));
        };
        let schema = |value: Value| json!({ "type": "json_schema", "json_schema": value });
        is(json!("secret"), "response_format", "invalid_value");
        is(json!({}), "response_format.type", "missing_required_parameter");
        is(json!({ "type": "secret" }), "response_format.type", "invalid_value");
        is(json!({ "type": "text", "other": 1 }), "response_format.other", "unsupported_parameter");
        is(json!({ "type": "json_schema" }), "response_format.json_schema", "missing_required_parameter");
        is(schema(json!("secret")), "response_format.json_schema", "invalid_value");
        is(schema(json!({ "schema": {} })), "response_format.json_schema.name", "missing_required_parameter");
        is(
            schema(json!({ "name": "a b", "schema": {} })),
            "response_format.json_schema.name",
            "invalid_value",
        );
        is(
            schema(json!({ "name": "a" })),
            "response_format.json_schema.schema",
            "missing_required_parameter",
        );
        is(
            schema(json!({ "name": "a", "schema": "secret" })),
            "response_format.json_schema.schema",
            "invalid_value",
        );
        is(
            schema(json!({ "name": "a", "schema": {}, "strict": "secret" })),
            "response_format.json_schema.strict",
            "invalid_value",
        );
        is(
            schema(json!({ "name": "a", "schema": {}, "other": 1 })),
            "response_format.json_schema.other",
            "unsupported_parameter",
        );
        let rules = |format: Value| {
            let request = json!({ "model": "m", "messages": [], "response_format": format });
            parse_json(&request).ok().unwrap().rules.map(|asked| asked.rules)
        };
        assert!(rules(json!({ "type": "text" })).is_none());
        assert!(matches!(rules(json!({ "type": "json_object" })), Some(Rules::Object)));
        let named =
            json!({ "name": "a", "schema": { "type": "object" }, "strict": true, "description": "d" });
        assert!(matches!(rules(schema(named)), Some(Rules::Schema(_))));
    }

    fn weather() -> Value {
        json!({ "type": "function", "function": { "name": "weather", "parameters": { "type": "object" } } })
    }

    #[test]
    fn tools_are_read_and_what_is_wrong_with_them_is_named() {
        let is = |value: Value, param: &str, code: &str| {
            assert_eq!(refused("tools", value), (param.to_owned(), code.to_owned()));
        };
        let function = |value: Value| json!([{ "type": "function", "function": value }]);
        is(json!("secret"), "tools", "invalid_value");
        is(json!(["secret"]), "tools[0]", "invalid_value");
        is(json!([{ "other": 1 }]), "tools[0].type", "missing_required_parameter");
        is(json!([{ "type": "secret" }]), "tools[0].type", "invalid_value");
        is(json!([{ "type": "function" }]), "tools[0].function", "missing_required_parameter");
        is(function(json!({})), "tools[0].function.name", "missing_required_parameter");
        is(function(json!({ "name": "secret!" })), "tools[0].function.name", "invalid_value");
        is(
            function(json!({ "name": "a", "description": 1 })),
            "tools[0].function.description",
            "invalid_value",
        );
        is(
            function(json!({ "name": "a", "parameters": [] })),
            "tools[0].function.parameters",
            "invalid_value",
        );
        is(function(json!({ "name": "a", "strict": 1 })), "tools[0].function.strict", "invalid_value");
        is(function(json!({ "name": "a", "other": 1 })), "tools[0].function.other", "unsupported_parameter");
        is(json!([weather(), weather()]), "tools[1].function.name", "invalid_value");
        for (name, value, param) in [
            ("tool_choice", json!("required"), "tool_choice"),
            ("tool_choice", json!("secret"), "tool_choice"),
            ("tool_choice", json!(1), "tool_choice"),
            ("tool_choice", json!({ "type": "secret" }), "tool_choice.type"),
            (
                "tool_choice",
                json!({ "type": "function", "function": { "name": "secret" } }),
                "tool_choice.function.name",
            ),
            ("parallel_tool_calls", json!(true), "parallel_tool_calls"),
            ("parallel_tool_calls", json!("secret"), "parallel_tool_calls"),
        ] {
            assert_eq!(refused(name, value), (param.to_owned(), "invalid_value".to_owned()));
        }
    }

    #[test]
    fn who_may_be_called_follows_from_the_choice() {
        let read = |choice: Value, parallel: Value| {
            let request = json!({
                "model": "m", "messages": [], "tools": [weather()], "tool_choice": choice, "parallel_tool_calls": parallel,
            });
            let wanted = parse_json(&request).ok().unwrap();
            let several = wanted.rules.map(|asked| match asked.rules {
                Rules::Calls { tools, several } => (tools.len(), several),
                Rules::Object | Rules::Schema(_) => panic!("no calls"),
            });
            (wanted.generate.tools.len(), several)
        };
        assert_eq!(read(json!("none"), Value::Null), (0, None));
        assert_eq!(read(Value::Null, Value::Null), (1, None));
        assert_eq!(read(json!("auto"), Value::Null), (1, None));
        assert_eq!(read(json!("required"), Value::Null), (1, Some((1, true))));
        assert_eq!(read(json!("required"), json!(false)), (1, Some((1, false))));
        let named = json!({ "type": "function", "function": { "name": "weather" } });
        assert_eq!(read(named, Value::Null), (1, Some((1, false))));
        let both = json!({ "model": "m", "messages": [], "tools": [weather()], "response_format": { "type": "json_object" } });
        assert_eq!(parse_json(&both).err().unwrap().json()["error"]["param"], "response_format");
    }

    #[test]
    fn calls_and_results_are_read_and_what_is_wrong_with_them_is_named() {
        let call = |change: fn(&mut Value)| {
            let mut call =
                json!({ "id": "c", "type": "function", "function": { "name": "f", "arguments": "{}" } });
            change(&mut call);
            json!([{ "role": "assistant", "content": null, "tool_calls": [call] },
                   { "role": "tool", "tool_call_id": "c", "content": "result" }])
        };
        let request = json!({ "model": "m", "messages": call(|_| ()) });
        let messages = parse_json(&request).ok().unwrap().generate.messages;
        assert_eq!((messages[0].calls.len(), messages[1].role), (1, Role::Tool));
        let is = |messages: Value, param: &str, code: &str| {
            assert_eq!(refused("messages", messages), (param.to_owned(), code.to_owned()));
        };
        let at = "messages[0].tool_calls[0]";
        let missing = "missing_required_parameter";
        is(call(|c| c["id"] = Value::Null), &format!("{at}.id"), missing);
        is(call(|c| c["id"] = "x".repeat(MAX_ID + 1).into()), &format!("{at}.id"), "invalid_value");
        is(call(|c| c["type"] = json!("secret")), &format!("{at}.type"), "invalid_value");
        is(call(|c| c["function"] = Value::Null), &format!("{at}.function"), missing);
        is(
            call(|c| c["function"]["name"] = json!("secret!")),
            &format!("{at}.function.name"),
            "invalid_value",
        );
        is(call(|c| c["function"]["arguments"] = Value::Null), &format!("{at}.function.arguments"), missing);
        is(
            call(|c| c["function"]["other"] = json!(1)),
            &format!("{at}.function.other"),
            "unsupported_parameter",
        );
        is(call(|c| c["other"] = json!(1)), &format!("{at}.other"), "unsupported_parameter");
        is(call(|c| c["id"] = json!("other")), "messages[1].tool_call_id", "invalid_value");
        is(json!([{ "role": "tool", "content": "secret" }]), "messages[0].tool_call_id", missing);
        is(
            json!([{ "role": "user", "content": "a", "tool_calls": [] }]),
            "messages[0].tool_calls",
            "unsupported_parameter",
        );
        is(json!([{ "role": "assistant", "content": null }]), "messages[0].content", "invalid_value");
    }
}
