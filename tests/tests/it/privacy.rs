//! A host that records everything learns nothing of what is said.

use cocoon_client::{AttestedSession, ChatEvent, ChatRequest, Policy, connect};
use cocoon_tests::programs::{HostProcess, contains, memory};
use cocoon_tests::recorder::Recorder;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Part of the prompt, and nothing that occurs by chance.
const CANARY: &str = "zanzibar-quixote-7243";

/// The answer to the same question, not streamed.
async fn whole_answer(session: &AttestedSession, model: &str) -> String {
    let body = serde_json::json!({
        "model": model, "temperature": 0, "max_tokens": 24, "messages": [{ "role": "user", "content": question() }],
    });
    let request = http::Request::post("https://enclave/v1/chat/completions")
        .header(cocoon_attestation::wire::PAD_HEADER, "0")
        .body(Full::new(bytes::Bytes::from(body.to_string())))
        .unwrap();
    let answer = session.request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    answer["choices"][0]["message"]["content"].as_str().unwrap().trim().to_owned()
}

fn question() -> String {
    format!("What is a rainbow? My secret word is {CANARY}.")
}

/// The control: this recorder finds what passes in the clear.
#[tokio::test(flavor = "multi_thread")]
async fn the_recorder_finds_what_is_not_encrypted() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let recorder = Recorder::start(listener.local_addr().unwrap().to_string()).await;
    let mut client = tokio::net::TcpStream::connect(recorder.address).await.unwrap();
    client.write_all(question().as_bytes()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let mut got = vec![0; question().len()];
    server.read_exact(&mut got).await.unwrap();
    assert!(contains(&recorder.recorded(), CANARY.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn prompt_and_answer_occur_nowhere_outside_of_the_enclave() {
    let host = HostProcess::start(&[]);
    let recorder = Recorder::start(host.address.clone()).await;
    let policy = Policy::from_toml(&std::fs::read_to_string(host.policy()).unwrap()).unwrap();
    let session = connect(&recorder.address.to_string(), policy).await.unwrap();
    let model = session.models().await.unwrap().remove(0).id;
    let mut request = ChatRequest::new(&model, question());
    (request.temperature, request.max_tokens) = (Some(0.0), Some(24));
    let mut answer = String::new();
    let mut stream = session.chat(&request).await.unwrap();
    while let Some(event) = stream.next().await.unwrap() {
        if let ChatEvent::Text(text) = event {
            answer.push_str(&text);
        }
    }
    let answer = answer.trim();
    assert!(answer.len() > 20, "the answer is too short to be looked for: {answer}");
    // The same answer in one piece: a stream is cut into tokens, so its text would not be found even in plain bytes.
    let whole = whole_answer(&session, &model).await;
    assert_eq!(whole, answer);
    // An error that is about the prompt must not show it either.
    let wrong = session.chat(&ChatRequest::new(CANARY, CANARY)).await.err().unwrap();
    assert!(!wrong.to_string().contains(CANARY), "{wrong}");

    let secrets = [
        CANARY.as_bytes(),
        answer.as_bytes(),
        b"What is a rainbow?",
        b"chat.completion",
        b"data: {",
        b"messages",
    ];
    let recorded = recorder.recorded();
    assert!(recorded.len() > 2000);
    let (log, memory) = (host.program.output(), memory(host.program.pid()));
    assert!(
        contains(&memory, b"SmolLM2-135M-Instruct"),
        "the host's memory was not read, so this shows nothing"
    );
    for secret in secrets {
        let shown = String::from_utf8_lossy(secret);
        assert!(!contains(&recorded, secret), "{shown} went over the wire");
        assert!(!contains(log.as_bytes(), secret), "{shown} is in a log");
        assert!(!contains(&memory, secret), "{shown} is in the host's memory");
    }
}
