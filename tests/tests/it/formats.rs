//! What the API promises of formats, tools, several answers and the other endpoints, with the real model.

use bytes::Bytes;
use cocoon_client::{AttestedSession, Policy, connect};
use cocoon_tests::programs::EnclaveProcess;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

async fn post(session: &AttestedSession, path: &str, body: &Value) -> (u16, String) {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("https://enclave{path}"))
        .header(cocoon_attestation::wire::PAD_HEADER, "0")
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap();
    let response = session.request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn ask(session: &AttestedSession, path: &str, body: &Value) -> Value {
    let (status, text) = post(session, path, body).await;
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// The JSON of all events of a stream, and the lines that clients pass over.
async fn stream(session: &AttestedSession, path: &str, body: &Value) -> (Vec<Value>, Vec<String>) {
    let mut body = body.clone();
    body["stream"] = json!(true);
    let (status, text) = post(session, path, &body).await;
    assert_eq!(status, 200, "{text}");
    let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    let comments = text.lines().filter(|line| line.starts_with(':')).map(str::to_owned);
    (data.map(|data| serde_json::from_str(data).unwrap()).collect(), comments.collect())
}

/// An enclave, a session with it and the name of its model.
async fn start(flags: &[&str]) -> (EnclaveProcess, AttestedSession, String) {
    let enclave = EnclaveProcess::start(flags);
    let policy = Policy::from_toml(&enclave.policy_text()).unwrap();
    let session = connect(&enclave.address, policy).await.unwrap();
    let model = session.models().await.unwrap().remove(0).id;
    (enclave, session, model)
}

const CHAT: &str = "/v1/chat/completions";

fn chat(model: &str, fields: Value) -> Value {
    let mut body = json!({
        "model": model, "temperature": 0, "max_tokens": 60,
        "messages": [{ "role": "user", "content": "What is the weather in Paris? Answer in JSON." }],
    });
    fields.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
    body
}

fn city() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["city", "degrees"],
        "properties": { "city": { "enum": ["Paris", "Rome"] }, "degrees": { "type": "integer", "minimum": -9, "maximum": 40 } },
    })
}

fn tool(name: &str) -> Value {
    json!({ "type": "function", "function": { "name": name, "description": "About a city", "parameters": city() } })
}

fn check_city(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap();
    assert!(["Paris", "Rome"].contains(&value["city"].as_str().unwrap()), "{text}");
    assert!((-9..=40).contains(&value["degrees"].as_i64().unwrap()), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_keep_to_the_format_that_was_asked_for() {
    let (_enclave, session, model) = start(&[]).await;
    let named = json!({ "name": "city", "schema": city(), "strict": true });
    let format = json!({ "response_format": { "type": "json_schema", "json_schema": named } });
    for temperature in [0.0, 1.5] {
        let mut body = chat(&model, format.clone());
        (body["temperature"], body["seed"]) = (json!(temperature), json!(5));
        let answer = ask(&session, CHAT, &body).await;
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
        check_city(text);
        let (chunks, _) = stream(&session, CHAT, &body).await;
        let pieces = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
        assert_eq!(pieces.collect::<String>(), text);
    }
    let object = json!({ "response_format": { "type": "json_object" }, "max_tokens": 400 });
    let answer = ask(&session, CHAT, &chat(&model, object)).await;
    let choice = &answer["choices"][0];
    if choice["finish_reason"] == "stop" {
        assert!(
            serde_json::from_str::<Value>(choice["message"]["content"].as_str().unwrap())
                .unwrap()
                .is_object()
        );
    }
    let mut cut = chat(&model, format);
    cut["max_tokens"] = json!(2);
    assert_eq!(ask(&session, CHAT, &cut).await["choices"][0]["finish_reason"], "length");

    let bad = json!({ "name": "x", "schema": { "type": "object", "not": {}, "title": "secret" } });
    let bad = chat(&model, json!({ "response_format": { "type": "json_schema", "json_schema": bad } }));
    let (status, error) = post(&session, CHAT, &bad).await;
    let error: Value = serde_json::from_str(&error).unwrap();
    let error = &error["error"];
    assert_eq!(
        (status, &error["code"], &error["param"]),
        (400, &"invalid_json_schema".into(), &"response_format".into())
    );
    assert!(error["message"].as_str().unwrap().contains("`not`") && !error.to_string().contains("secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_demanded_are_made_whole_and_streamed() {
    let (_enclave, session, model) = start(&[]).await;
    let tools = json!([tool("weather"), tool("population")]);
    let named = json!({ "type": "function", "function": { "name": "population" } });
    for (choice, parallel) in
        [(json!("required"), json!(false)), (json!("required"), json!(true)), (named, Value::Null)]
    {
        let fields = json!({ "tools": tools, "tool_choice": choice, "parallel_tool_calls": parallel, "max_tokens": 300 });
        let body = chat(&model, fields);
        let answer = ask(&session, CHAT, &body).await;
        let first = &answer["choices"][0];
        let calls = first["message"]["tool_calls"].as_array().unwrap();
        assert!(first["message"]["content"].is_null(), "{first}");
        let mut ids = std::collections::BTreeSet::new();
        // The last of several may have been cut off.
        let whole = if first["finish_reason"] == "length" { calls.len() - 1 } else { calls.len() };
        for call in calls.iter().take(whole) {
            check_city(call["function"]["arguments"].as_str().unwrap());
            assert!(ids.insert(call["id"].as_str().unwrap()) && call["type"] == "function");
            let name = call["function"]["name"].as_str().unwrap();
            assert!(name == "population" || (choice == "required" && name == "weather"));
        }
        if parallel != json!(true) {
            assert_eq!((calls.len(), &first["finish_reason"]), (1, &"tool_calls".into()));
        }
        let (chunks, _) = stream(&session, CHAT, &body).await;
        let mut streamed: Vec<(Value, String)> = Vec::new();
        for delta in chunks.iter().flat_map(|c| c["choices"][0]["delta"]["tool_calls"].as_array()).flatten() {
            let index = usize::try_from(delta["index"].as_u64().unwrap()).unwrap();
            if index == streamed.len() {
                assert!(delta["id"].as_str().unwrap().starts_with("call_"));
                streamed.push((delta["function"]["name"].clone(), String::new()));
            }
            streamed[index].1.push_str(delta["function"]["arguments"].as_str().unwrap());
        }
        let same = calls.iter().map(|call| {
            (call["function"]["name"].clone(), call["function"]["arguments"].as_str().unwrap().to_owned())
        });
        assert_eq!(streamed, same.collect::<Vec<_>>());
        assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], first["finish_reason"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_on_behind_calls_and_results() {
    let (_enclave, session, model) = start(&[]).await;
    let body = chat(
        &model,
        json!({ "tools": [tool("weather")], "tool_choice": "required", "parallel_tool_calls": false }),
    );
    let answer = ask(&session, CHAT, &body).await;
    let called = answer["choices"][0]["message"].clone();
    let id = called["tool_calls"][0]["id"].clone();
    let mut next = body.clone();
    next["tool_choice"] = json!("auto");
    let messages = next["messages"].as_array_mut().unwrap();
    messages.extend([called, json!({ "role": "tool", "tool_call_id": id, "content": "19 degrees, sunny" })]);
    let answered = ask(&session, CHAT, &next).await;
    let more = answered["usage"]["prompt_tokens"].as_u64().unwrap()
        - answer["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!((20..200).contains(&more), "call and result are in the prompt: {more}");
    let message = &answered["choices"][0]["message"];
    assert!(message["content"].is_string() || message["tool_calls"].is_array());
    next["tool_choice"] = json!("none");
    let without = ask(&session, CHAT, &next).await;
    assert!(without["usage"]["prompt_tokens"].as_u64() < answered["usage"]["prompt_tokens"].as_u64());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_answers_have_seeds_of_their_own() {
    let (_enclave, session, model) = start(&[]).await;
    let body = |n: u64| chat(&model, json!({ "n": n, "temperature": 1.2, "seed": 11, "max_tokens": 12 }));
    let three = ask(&session, CHAT, &body(3)).await;
    let text = |choice: &Value| choice["message"]["content"].as_str().unwrap().to_owned();
    let texts: Vec<_> = three["choices"].as_array().unwrap().iter().map(text).collect();
    assert!(texts.len() == 3 && texts[0] != texts[1] && texts[1] != texts[2]);
    let one = ask(&session, CHAT, &body(1)).await;
    assert_eq!(text(&one["choices"][0]), texts[0]);
    assert_eq!(three["usage"]["prompt_tokens"], one["usage"]["prompt_tokens"]);
    assert!(three["usage"]["completion_tokens"].as_u64() > one["usage"]["completion_tokens"].as_u64());
    let (chunks, _) = stream(&session, CHAT, &body(3)).await;
    let mut streamed = vec![String::new(); 3];
    for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()) {
        let index = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
        streamed[index].push_str(choice["delta"]["content"].as_str().unwrap_or_default());
    }
    assert_eq!(streamed, texts);
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_continued_without_a_template() {
    let (_enclave, session, model) = start(&[]).await;
    let path = "/v1/completions";
    let body =
        json!({ "model": model, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 6 });
    let answer = ask(&session, path, &body).await;
    assert_eq!(
        (&answer["object"], &answer["choices"][0]["finish_reason"]),
        (&"text_completion".into(), &"length".into())
    );
    let text = answer["choices"][0]["text"].as_str().unwrap();
    assert!(text.contains("Paris"), "{text}");
    let (status, error) =
        post(&session, path, &json!({ "model": model, "prompt": "word ".repeat(20_000) })).await;
    let error: Value = serde_json::from_str(&error).unwrap();
    assert_eq!((status, &error["error"]["param"]), (400, &"prompt".into()), "{error}");
    let (chunks, _) = stream(&session, path, &body).await;
    assert_eq!(chunks.iter().filter_map(|c| c["choices"][0]["text"].as_str()).collect::<String>(), text);
    let count = ask(&session, "/v1/tokens/count", &body).await;
    assert_eq!(count, json!({ "object": "token_count", "prompt_tokens": answer["usage"]["prompt_tokens"] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_are_openais_typed_events() {
    let (_enclave, session, model) = start(&[]).await;
    let path = "/v1/responses";
    let body = json!({ "model": model, "input": "What is a rainbow?", "instructions": "Be brief.", "temperature": 0, "max_output_tokens": 12 });
    let whole = ask(&session, path, &body).await;
    assert_eq!((&whole["object"], &whole["status"]), (&"response".into(), &"incomplete".into()));
    assert_eq!(whole["incomplete_details"]["reason"], "max_output_tokens");
    let text = whole["output"][0]["content"][0]["text"].as_str().unwrap();
    let usage = &whole["usage"];
    assert_eq!(usage["output_tokens"], 12);
    let count = ask(&session, "/v1/tokens/count", &body).await;
    assert_eq!(count["prompt_tokens"], usage["input_tokens"]);

    let (events, _) = stream(&session, path, &body).await;
    let mut kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.incomplete",
        ]
    );
    assert!(events.iter().zip(0..).all(|(event, number)| event["sequence_number"] == number));
    assert_eq!(events.iter().filter_map(|event| event["delta"].as_str()).collect::<String>(), text);
    let last = &events.last().unwrap()["response"];
    assert_eq!((&last["usage"], &last["output"][0]["content"]), (usage, &whole["output"][0]["content"]));

    let schema = json!({ "format": { "type": "json_schema", "name": "city", "schema": city() } });
    let mut next = body;
    (next["text"], next["max_output_tokens"]) = (schema, json!(60));
    // What came out goes in again.
    next["input"] = json!([{ "role": "user", "content": "What is a rainbow?" }, whole["output"][0], { "role": "user", "content": "And Paris?" }]);
    let next = ask(&session, path, &next).await;
    assert_eq!(next["status"], "completed");
    check_city(next["output"][0]["content"][0]["text"].as_str().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn long_prompts_say_in_a_stream_how_far_they_are() {
    let (_enclave, session, model) = start(&["--step-tokens", "128"]).await;
    let words = "many words ".repeat(200);
    let body = chat(&model, json!({ "messages": [{ "role": "user", "content": words }], "max_tokens": 1 }));
    let count = ask(&session, "/v1/tokens/count", &body).await["prompt_tokens"].as_u64().unwrap();
    let (_, comments) = stream(&session, CHAT, &body).await;
    let steps = (1..).map(|n| n * 128).take_while(|read| *read < count);
    assert_eq!(comments, steps.map(|read| format!(": prefill {read}/{count}")).collect::<Vec<_>>());
    let (_, none) = stream(&session, CHAT, &chat(&model, json!({ "max_tokens": 1 }))).await;
    assert_eq!(none, Vec::<String>::new());
}
