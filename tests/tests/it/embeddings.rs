//! Vectors of texts: a second model in the enclave, with the vectors that transformers computes.

use std::io::Write;
use std::process::{Command, Stdio};

use bytes::Bytes;
use cocoon_client::{AttestedSession, Client, ModelKind, Policy, ReceiptBundle, connect};
use cocoon_tests::programs::{EnclaveProcess, binary, cocoon, event};
use cocoon_tests::repository;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower_service::Service;

/// The largest difference of a number from what transformers computes.
const NEAR: f64 = 1e-4;

/// An enclave with the usual model, and a tiny one for embeddings.
async fn enclave() -> (EnclaveProcess, AttestedSession) {
    let tiny = repository().join("tests/vectors/embedding/tiny");
    let flags = ["--model", tiny.to_str().unwrap(), "--model-name", "smol", "--model-name", "tiny"];
    let enclave = EnclaveProcess::start(&flags);
    let policy = Policy::from_toml(&enclave.policy_text()).unwrap();
    let session = connect(&enclave.address, policy).await.unwrap();
    (enclave, session)
}

pub(crate) struct Answered {
    status: u16,
    pub(crate) body: Value,
    pub(crate) receipt: Option<ReceiptBundle>,
}

/// Asks, padded.
pub(crate) async fn ask(session: &AttestedSession, path: &str, body: &Value) -> Answered {
    let request = Request::builder().method(Method::POST).uri(format!("https://enclave{path}"));
    let request = request.body(Full::<Bytes>::from(body.to_string())).unwrap();
    let mut response = session.clone().call(request).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(frame) = response.body_mut().frame().await {
        bytes.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    let receipt = response.body().receipt().cloned();
    Answered { status: response.status().as_u16(), body: serde_json::from_slice(&bytes).unwrap(), receipt }
}

/// Texts, and the vectors that transformers makes of them, in millionths.
fn vectors() -> Vec<(String, usize, Vec<f64>)> {
    let file = std::fs::read(repository().join("tests/vectors/embedding/tiny.json")).unwrap();
    let all: Vec<Value> = serde_json::from_slice(&file).unwrap();
    let vector = |item: &Value| {
        item["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() / 1e6).collect()
    };
    let of = |item: &Value| {
        let tokens = usize::try_from(item["tokens"].as_u64().unwrap()).unwrap();
        (item["text"].as_str().unwrap().to_owned(), tokens, vector(item))
    };
    // The API takes no empty text.
    all.iter().map(of).filter(|(text, ..)| !text.is_empty()).collect()
}

fn near(got: &[f64], wanted: &[f64]) -> bool {
    got.len() == wanted.len() && got.iter().zip(wanted).all(|(a, b)| (a - b).abs() < NEAR)
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_are_those_of_transformers_with_a_receipt() {
    let (_enclave, session) = enclave().await;
    let wanted = vectors();
    let texts: Vec<_> = wanted.iter().map(|(text, ..)| text.as_str()).collect();
    let answered = ask(&session, "/v1/embeddings", &json!({ "model": "tiny", "input": texts })).await;
    assert_eq!((answered.status, &answered.body["object"]), (200, &json!("list")));
    let data = answered.body["data"].as_array().unwrap();
    for (index, (item, (text, _, vector))) in data.iter().zip(&wanted).enumerate() {
        assert_eq!((&item["object"], &item["index"]), (&json!("embedding"), &json!(index)));
        assert!(near(&numbers(&item["embedding"]), vector), "{text}");
    }
    let tokens: usize = wanted.iter().map(|(_, tokens, _)| tokens).sum();
    assert_eq!(answered.body["usage"], json!({ "prompt_tokens": tokens, "total_tokens": tokens }));
    let bundle = answered.receipt.unwrap();
    let receipt = bundle.signed.verify(&bundle.statement).unwrap();
    let stated = session.result().statement().models.clone();
    assert_eq!(
        (receipt.prompt_tokens, receipt.completion_tokens, receipt.model),
        (tokens as u64, 0, stated[1])
    );
    assert_eq!(receipt.finish_reason, "embedded");
    let counted = ask(&session, "/v1/tokens/count", &json!({ "model": "tiny", "input": texts })).await;
    assert_eq!(counted.body["prompt_tokens"], tokens);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_gives_vectors_with_a_receipt() {
    let (enclave, session) = enclave().await;
    let policy = Policy::from_toml(&enclave.policy_text()).unwrap();
    let client = Client::builder().policy(policy).endpoint(&enclave.address).connect().await.unwrap();
    let wanted = vectors();
    let texts: Vec<_> = wanted.iter().map(|(text, ..)| text.as_str()).collect();
    let whole = client.embed("tiny", &texts).await.ok().unwrap();
    for (got, (text, _, vector)) in whole.vectors.iter().zip(&wanted) {
        let got: Vec<_> = got.iter().map(|x| f64::from(*x)).collect();
        assert!(near(&got, vector), "{text}");
    }
    let receipt = whole.receipt.signed.verify(&whole.receipt.statement).unwrap();
    assert_eq!((receipt.prompt_tokens, whole.vectors.len()), (whole.prompt_tokens, texts.len()));
    let same = session.embed("tiny", &texts[..1]).await.ok().unwrap();
    assert_eq!(same.vectors[0], whole.vectors[0]);
    let refused = session.embed("smol", &texts).await.err().unwrap();
    assert!(refused.to_string().contains("makes no vectors"), "{refused}");
}

/// More than a second of cells: they come at once.
#[tokio::test(flavor = "multi_thread")]
async fn many_vectors_come_in_one_answer() {
    let (_enclave, session) = enclave().await;
    let texts = vec!["many words"; 1500];
    let start = std::time::Instant::now();
    let answered = ask(&session, "/v1/embeddings", &json!({ "model": "tiny", "input": texts })).await;
    assert!(answered.body.to_string().len() > 400_000 && answered.receipt.is_some());
    assert_eq!(answered.body["data"].as_array().unwrap().len(), 1500);
    assert_eq!(answered.body["data"][7]["embedding"], answered.body["data"][1499]["embedding"]);
    // A cell a tick would take 40 s at least.
    println!("took {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_by_name() {
    let (_enclave, session) = enclave().await;
    let chat = json!({ "model": "tiny", "messages": [{ "role": "user", "content": "secret words" }] });
    for (path, body, param, code, message) in [
        (
            "/v1/embeddings",
            json!({ "model": "smol", "input": "secret words" }),
            "model",
            "unsupported_value",
            "writes text",
        ),
        ("/v1/chat/completions", chat, "model", "unsupported_value", "POST /v1/embeddings"),
        (
            "/v1/embeddings",
            json!({ "model": "none", "input": "secret words" }),
            "model",
            "model_not_found",
            "GET /v1/models",
        ),
        (
            "/v1/embeddings",
            json!({ "model": "tiny", "input": "secret words", "dimensions": 8 }),
            "dimensions",
            "invalid_value",
            "32 dimensions",
        ),
        (
            "/v1/embeddings",
            json!({ "model": "tiny", "input": ["a", "secret words ".repeat(300)] }),
            "input",
            "context_length_exceeded",
            "text 1 has",
        ),
        (
            "/v1/embeddings",
            json!({ "model": "tiny", "input": [7] }),
            "input",
            "invalid_value",
            "must be text",
        ),
    ] {
        let refused = ask(&session, path, &body).await;
        let error = &refused.body["error"];
        assert_eq!((&error["param"], &error["code"]), (&json!(param), &json!(code)), "{error}");
        let said = error["message"].as_str().unwrap();
        assert!(said.contains(message) && !said.contains("secret words"), "{said}");
        assert!(refused.receipt.is_none() && (400..500).contains(&refused.status));
    }
}

/// What asks for the first model, means the first that it can talk to.
#[test]
fn a_first_model_for_vectors_is_not_asked_to_chat() {
    let tiny = repository().join("tests/vectors/embedding/tiny");
    let smol = cocoon_tests::model();
    let flags = ["--model", smol.to_str().unwrap(), "--model-name", "tiny", "--model-name", "smol"];
    let mut enclave = EnclaveProcess::start_loading_of(&tiny, &flags);
    enclave.program.wait_for("ready", |line| event(line, "ready"));
    let (address, policy) = (enclave.address.as_str(), enclave.policy());
    let said = cocoon(&["chat", address, "What is a rainbow?", "--policy", &policy, "--max-tokens", "4"]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let example = binary("examples/chat");
    let said = Command::new(example).args([address, &policy, "What is a rainbow?"]).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn the_command_prints_a_vector_a_line() {
    let tiny = repository().join("tests/vectors/embedding/tiny");
    let flags = ["--model", tiny.to_str().unwrap(), "--model-name", "smol", "--model-name", "tiny"];
    let enclave = EnclaveProcess::start(&flags);
    let (address, policy) = (enclave.address.as_str(), enclave.policy());
    let mut wanted = vectors();
    wanted.retain(|(text, ..)| !text.contains(char::is_control) && !text.starts_with('-'));
    let texts: Vec<_> = wanted.iter().map(|(text, ..)| text.as_str()).collect();
    let common = ["embed", address, "--policy", &policy];
    let of_arguments = cocoon(&[&common[..], &texts].concat());
    assert!(of_arguments.status.success(), "{}", String::from_utf8_lossy(&of_arguments.stderr));
    let lines = String::from_utf8(of_arguments.stdout).unwrap();
    assert_eq!(lines.lines().count(), texts.len());
    for (line, (text, _, vector)) in lines.lines().zip(&wanted) {
        assert!(near(&numbers(&serde_json::from_str(line).unwrap()), vector), "{text}");
    }
    let mut command = Command::new(binary("cocoon"));
    command.args(common).args(["--model", "tiny", "--json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(texts.join("\n").as_bytes()).unwrap();
    let whole: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    let vectors: Vec<_> = whole["vectors"].as_array().unwrap().iter().map(|v| format!("{v}\n")).collect();
    assert_eq!(vectors.concat(), lines);
    assert_eq!(whole["receipt"]["prompt_tokens"], whole["usage"]["prompt_tokens"]);
    let nothing = cocoon(&common);
    assert_eq!(nothing.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_says_what_models_are_for() {
    let (_enclave, session) = enclave().await;
    let models = session.models().await.unwrap();
    let kinds: Vec<_> = models.into_iter().map(|model| (model.id, model.kind, model.dimensions)).collect();
    let wanted = [("smol", ModelKind::Chat, None), ("tiny", ModelKind::Embedding, Some(32))];
    assert_eq!(kinds, wanted.map(|(id, kind, dimensions)| (id.to_owned(), kind, dimensions)));
}

/// One request has as many places as the enclave allows; the next ones wait, and more are refused.
#[tokio::test(flavor = "multi_thread")]
async fn too_many_at_once_are_told_to_come_back() {
    let tiny = repository().join("tests/vectors/embedding/tiny");
    let limits = ["--max-running", "1", "--max-waiting", "1"];
    let mut enclave =
        EnclaveProcess::start_loading_of(&tiny, &[&limits[..], &["--model-name", "tiny"]].concat());
    enclave.program.wait_for("ready", |line| event(line, "ready"));
    let policy = Policy::from_toml(&enclave.policy_text()).unwrap();
    let session = connect(&enclave.address, policy).await.unwrap();
    let body = json!({ "model": "tiny", "input": vec!["a ".repeat(60); 800] });
    let all: Vec<_> = (0..12)
        .map(|_| {
            let (session, body) = (session.clone(), body.clone());
            tokio::spawn(async move { ask(&session, "/v1/embeddings", &body).await.status })
        })
        .collect();
    let mut statuses = Vec::new();
    for one in all {
        statuses.push(one.await.unwrap());
    }
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
}
