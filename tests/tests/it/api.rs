//! The OpenAI API inside the channel: errors are of OpenAI's shape and name the field; no value comes back in one.

use bytes::Bytes;
use cocoon_attestation::wire::{AttestRequest, FrameKind, PAD_HEADER};
use cocoon_channel::frames::{read_frame, write_frame};
use cocoon_channel::session::Session;
use cocoon_client::{AttestedSession, Policy, connect};
use cocoon_tests::enclave::InProcess;
use cocoon_tests::programs::EnclaveProcess;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;

async fn call(session: &AttestedSession, method: Method, path: &str, body: impl Into<Bytes>) -> (u16, Bytes) {
    let request = Request::builder()
        .method(method)
        .uri(format!("https://enclave{path}"))
        .header(PAD_HEADER, "0")
        .body(Full::new(body.into()))
        .unwrap();
    let response = session.request(request).await.unwrap();
    let status = response.status().as_u16();
    (status, response.into_body().collect().await.unwrap().to_bytes())
}

async fn chat(session: &AttestedSession, body: &Value) -> (u16, Value) {
    let (status, body) = call(session, Method::POST, "/v1/chat/completions", body.to_string()).await;
    (status, serde_json::from_slice(&body).unwrap())
}

async fn session(enclave: &EnclaveProcess) -> AttestedSession {
    connect(&enclave.address, Policy::from_toml(&enclave.policy_text()).unwrap()).await.unwrap()
}

fn request(model: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut body = json!({
        "model": model, "temperature": 0, "max_tokens": 8,
        "messages": [{ "role": "user", "content": "What is a rainbow?" }],
    });
    change(&mut body);
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_whole_and_streamed_are_the_same() {
    let enclave = EnclaveProcess::start(&[]);
    let session = session(&enclave).await;
    let (status, models) = call(&session, Method::GET, "/v1/models", "").await;
    let models: Value = serde_json::from_slice(&models).unwrap();
    assert_eq!((status, &models["object"]), (200, &"list".into()));
    assert_eq!(models["data"][0]["manifest_digest"], session.result().statement().models[0].to_string());
    let model = models["data"][0]["id"].as_str().unwrap();

    let (status, whole) = chat(&session, &request(model, |_| ())).await;
    assert_eq!((status, &whole["object"]), (200, &"chat.completion".into()), "{whole}");
    let choice = &whole["choices"][0];
    let text = choice["message"]["content"].as_str().unwrap();
    assert!(text.contains("rainbow"), "{text}");
    let usage = &whole["usage"];
    let count = |name: &str| usage[name].as_u64().unwrap();
    assert_eq!(count("prompt_tokens") + count("completion_tokens"), count("total_tokens"));

    let body = request(model, |b| {
        (b["stream"], b["stream_options"]) = (json!(true), json!({ "include_usage": true }))
    });
    let (status, stream) = call(&session, Method::POST, "/v1/chat/completions", body.to_string()).await;
    assert_eq!(status, 200);
    let stream = String::from_utf8(stream.to_vec()).unwrap();
    let events: Vec<&str> = stream.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(*done, "[DONE]");
    let chunks: Vec<Value> = chunks.iter().map(|chunk| serde_json::from_str(chunk).unwrap()).collect();
    let delta =
        |chunk: &Value| chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned();
    assert_eq!(chunks.iter().map(delta).collect::<String>(), text);
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(chunks[chunks.len() - 2]["choices"][0]["finish_reason"], choice["finish_reason"]);
    assert_eq!(&chunks[chunks.len() - 1]["usage"], usage);

    let stopped = request(model, |b| b["stop"] = json!(["rainbow"]));
    let (_, stopped) = chat(&session, &stopped).await;
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    assert_eq!(
        Some(stopped["choices"][0]["message"]["content"].as_str().unwrap()),
        text.split("rainbow").next()
    );
}

/// Tokens of a `logprobs` object: their bytes, and the likeliest in each place.
fn scored(logprobs: &Value) -> Vec<(Vec<u8>, f64, Value)> {
    let entries = logprobs["content"].as_array().unwrap().iter();
    let bytes = |entry: &Value| serde_json::from_value(entry["bytes"].clone()).unwrap();
    let entry = |e: &Value| (bytes(e), e["logprob"].as_f64().unwrap(), e["top_logprobs"].clone());
    entries.map(entry).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn logprobs_cover_the_text_whole_and_streamed() {
    let enclave = EnclaveProcess::start(&[]);
    let session = session(&enclave).await;
    let model = session.models().await.unwrap().remove(0).id;
    let with = |change: fn(&mut Value)| {
        request(&model, |b| {
            (b["logprobs"], b["top_logprobs"]) = (json!(true), json!(2));
            change(b);
        })
    };
    let (status, whole) = chat(&session, &with(|_| ())).await;
    let choice = &whole["choices"][0];
    assert_eq!(status, 200, "{whole}");
    let tokens = scored(&choice["logprobs"]);
    let text = choice["message"]["content"].as_str().unwrap();
    assert_eq!(tokens.iter().flat_map(|(bytes, ..)| bytes.clone()).collect::<Vec<u8>>(), text.as_bytes());
    for (bytes, logprob, top) in &tokens {
        assert!(*logprob <= 0.0 && top.as_array().unwrap().len() == 2);
        // Greedy: the chosen token is the likeliest.
        assert_eq!((&top[0]["bytes"], top[0]["logprob"].as_f64()), (&json!(bytes), Some(*logprob)));
    }

    let streamed = with(|b| b["stream"] = json!(true)).to_string();
    let (_, stream) = call(&session, Method::POST, "/v1/chat/completions", streamed).await;
    let stream = String::from_utf8(stream.to_vec()).unwrap();
    let events = stream.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    let chunks = events.filter_map(|event| serde_json::from_str::<Value>(event).ok());
    let logprobs = chunks.map(|chunk| chunk["choices"][0]["logprobs"].clone());
    let in_stream: Vec<_> = logprobs.filter(|l| !l.is_null()).flat_map(|l| scored(&l)).collect();
    assert_eq!(in_stream, tokens);

    // A penalty changes the answer.
    let (status, other) = chat(&session, &with(|b| b["repetition_penalty"] = json!(2))).await;
    assert_eq!(status, 200, "{other}");
    assert_ne!(other["choices"][0]["message"]["content"], choice["message"]["content"]);
    let (_, none) = chat(&session, &request(&model, |_| ())).await;
    assert!(none["choices"][0]["logprobs"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_name_the_field() {
    const SECRET: &str = "xyzzy-plugh";
    let enclave = EnclaveProcess::start(&[]);
    let session = session(&enclave).await;
    let model = session.models().await.unwrap().remove(0).id;
    let words = "word ".repeat(20_000) + SECRET;
    let cases = [
        (request("other", |_| ()), 404, "model", "model_not_found"),
        (request(&model, |b| b["temperature"] = json!(3)), 400, "temperature", "invalid_value"),
        (request(&model, |b| b["top_p"] = json!(0)), 400, "top_p", "invalid_value"),
        (request(&model, |b| b["top_k"] = json!("all")), 400, "top_k", "invalid_value"),
        (request(&model, |b| b["min_p"] = json!(1.5)), 400, "min_p", "invalid_value"),
        (request(&model, |b| b["presence_penalty"] = json!(2.5)), 400, "presence_penalty", "invalid_value"),
        (request(&model, |b| b["frequency_penalty"] = json!(-3)), 400, "frequency_penalty", "invalid_value"),
        (request(&model, |b| b["repetition_penalty"] = json!(0)), 400, "repetition_penalty", "invalid_value"),
        (request(&model, |b| b["logit_bias"] = json!({ "9": 101 })), 400, "logit_bias", "invalid_value"),
        (request(&model, |b| b["logit_bias"] = json!({ "999999": 1 })), 400, "logit_bias", "invalid_value"),
        (request(&model, |b| b["top_logprobs"] = json!(1)), 400, "top_logprobs", "invalid_value"),
        (
            request(&model, |b| (b["logprobs"], b["top_logprobs"]) = (json!(true), json!(21))),
            400,
            "top_logprobs",
            "invalid_value",
        ),
        (request(&model, |b| b["max_tokens"] = json!(0)), 400, "max_tokens", "invalid_value"),
        (request(&model, |b| b["max_tokens"] = json!(1_000_000)), 400, "messages", "context_length_exceeded"),
        (
            request(&model, |b| b["messages"][0]["content"] = json!(words)),
            400,
            "messages",
            "context_length_exceeded",
        ),
        (request(&model, |b| b["messages"] = json!([])), 400, "messages", "invalid_value"),
        (request(&model, |b| b["stop"] = json!([""])), 400, "stop", "invalid_value"),
        (
            request(&model, |b| b["tools"] = json!([{ "type": SECRET }])),
            400,
            "tools[0].type",
            "invalid_value",
        ),
        (request(&model, |b| b["suffix"] = json!(SECRET)), 400, "suffix", "unsupported_parameter"),
    ];
    for (body, status, param, code) in cases {
        let (got, error) = chat(&session, &body).await;
        let error = &error["error"];
        assert_eq!((got, &error["param"], &error["code"]), (status, &param.into(), &code.into()), "{error}");
        assert_eq!(error["type"], "invalid_request_error");
        assert!(!error.to_string().contains(SECRET), "{error}");
    }
    let overflow = request(&model, |b| b["max_tokens"] = json!(1_000_000));
    let message = chat(&session, &overflow).await.1["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("1000000") && (message.contains("2048") || message.contains("8192")),
        "both numbers: {message}"
    );

    for (method, path, body, status) in [
        (Method::POST, "/v1/chat/completions", Bytes::from_static(b"{nonsense"), 400),
        (Method::POST, "/v1/chat/completions", Bytes::from(vec![b' '; 2 * 1024 * 1024 + 1]), 413),
        (Method::GET, "/v1/chat/completions", Bytes::new(), 405),
        (Method::POST, "/v1/models", Bytes::new(), 405),
        (Method::GET, "/v1/nothing", Bytes::new(), 404),
        (Method::POST, "/.well-known/cocoon/attest", Bytes::from_static(b"garbage"), 400),
        (Method::POST, "/.well-known/cocoon/attest", Bytes::from(vec![0; 4097]), 413),
    ] {
        let (got, answer) = call(&session, method, path, body).await;
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(got, status, "{path}: {answer}");
        assert!(answer["error"]["message"].is_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_429_with_retry_after() {
    let enclave = EnclaveProcess::start(&["--max-running", "1", "--max-waiting", "1"]);
    let session = session(&enclave).await;
    let model = session.models().await.unwrap().remove(0).id;
    let long = request(&model, |b| (b["max_tokens"], b["stream"]) = (json!(1500), json!(true))).to_string();
    let mut running = Vec::new();
    let refused = loop {
        let request = Request::post("https://enclave/v1/chat/completions")
            .header(PAD_HEADER, "0")
            .body(Full::new(Bytes::from(long.clone())))
            .unwrap();
        let response = session.request(request).await.unwrap();
        if response.status() != 200 {
            break response;
        }
        running.push(response);
        assert!(running.len() < 10, "the queue is never full");
    };
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    // Those that were dropped make room.
    drop(running);
    let short = request(&model, |b| b["max_tokens"] = json!(1));
    let start = std::time::Instant::now();
    while chat(&session, &short).await.0 != 200 {
        assert!(start.elapsed() < cocoon_tests::programs::PATIENCE, "cancelled requests hold their places");
    }
}

/// A body that never comes.
struct HeldBack;

impl hyper::body::Body for HeldBack {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Pending
    }
}

/// HTTP/2 to the enclave at `address`, by a client that attests and does not verify.
async fn careless(address: &str) -> http2::SendRequest<HeldBack> {
    let session = Session::connect(TcpStream::connect(address).await.unwrap()).await.unwrap();
    let mut stream = session.stream();
    write_frame(&mut stream, FrameKind::AttestRequest, &AttestRequest::new([1; 32]).encode()).await.unwrap();
    read_frame(&mut stream, FrameKind::AttestResponse).await.unwrap();
    let (http, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    http
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_held_back_take_bounded_memory() {
    // 64 MiB may be on their way at once: 32 bodies of 2 MiB.
    let enclave = InProcess::start(None).await;
    let http = careless(&enclave.address).await;
    let announce = |mut http: http2::SendRequest<HeldBack>| async move {
        let request = Request::post("https://enclave/v1/chat/completions").header(PAD_HEADER, "0");
        let request = request.header("content-length", 2 * 1024 * 1024);
        http.send_request(request.body(HeldBack).unwrap()).await.unwrap()
    };
    let mut held: Vec<_> = (0..32).map(|_| tokio::spawn(announce(http.clone()))).collect();
    let start = std::time::Instant::now();
    let refused = loop {
        // Those before it may still be on their way to the enclave.
        let one_more = tokio::spawn(announce(http.clone()));
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        if one_more.is_finished() {
            break one_more.await.unwrap();
        }
        one_more.abort();
        assert!(start.elapsed() < cocoon_tests::programs::PATIENCE, "any number of bodies is accepted");
    };
    assert_eq!(refused.status(), 503);
    // Those that are given up make room again.
    held.drain(..).for_each(|task| task.abort());
    let session = connect(&enclave.address, enclave.policy()).await.unwrap();
    while chat(&session, &request("m", |_| ())).await.1["error"]["code"] == "busy" {
        assert!(start.elapsed() < cocoon_tests::programs::PATIENCE, "the room is not given back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_model_loads_the_enclave_says_so() {
    // An enclave in this process without a model: it stays loading.
    let enclave = InProcess::start(None).await;
    let session = connect(&enclave.address, enclave.policy()).await.unwrap();
    assert_eq!(session.model_status().await.unwrap().state, "loading");
    let (status, error) = chat(&session, &request("m", |_| ())).await;
    assert_eq!((status, &error["error"]["code"]), (503, &"model_loading".into()));
}
