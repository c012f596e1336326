//! A host that records everything learns nothing of what is said.

use cocoon_client::{ChatEvent, ChatRequest, Policy, connect};
use cocoon_tests::programs::{HostProcess, contains, memory};
use cocoon_tests::recorder::Recorder;

/// Part of the prompt, and nothing that occurs by chance.
const CANARY: &str = "zanzibar-quixote-7243";

#[tokio::test(flavor = "multi_thread")]
async fn prompt_and_answer_occur_nowhere_outside_of_the_enclave() {
    let host = HostProcess::start(&[]);
    let recorder = Recorder::start(host.address.clone()).await;
    let policy = Policy::from_toml(&std::fs::read_to_string(host.policy()).unwrap()).unwrap();
    let session = connect(&recorder.address.to_string(), policy).await.unwrap();
    let model = session.models().await.unwrap().remove(0);
    let mut request = ChatRequest::new(&model, format!("What is a rainbow? My secret word is {CANARY}."));
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
    // An error that is about the prompt must not show it either.
    let wrong = session.chat(&ChatRequest::new(CANARY, CANARY)).await.unwrap_err();
    assert!(!wrong.to_string().contains(CANARY), "{wrong}");

    let secrets = [CANARY.as_bytes(), answer.as_bytes(), b"What is a rainbow?"];
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
