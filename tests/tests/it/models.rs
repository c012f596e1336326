//! Several models in one enclave: each with its digest in S, its name in the API and in receipts.

use cocoon_client::{ChatRequest, Policy, connect};
use cocoon_tests::programs::{EnclaveProcess, HostProcess, binary};
use cocoon_tests::{repository, sim_state};
use std::process::Command;

/// A tiny random model, which writes nonsense.
fn tiny(family: &str) -> String {
    repository().join("tests/vectors/huggingface").join(family).to_str().unwrap().to_owned()
}

fn question(model: &str) -> ChatRequest {
    let mut request = ChatRequest::new(model, "What is a rainbow?");
    (request.temperature, request.max_tokens) = (Some(0.0), Some(4));
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answers_under_its_name_and_is_named_in_its_receipts() {
    let (one, other) = (tiny("llama"), tiny("qwen3"));
    let names = ["--model-name", "smol", "--model-name", "one", "--model-name", "other"];
    let host = HostProcess::start(&[&["--model", &one, "--model", &other], &names[..]].concat());
    let policy = Policy::from_toml(&std::fs::read_to_string(host.policy()).unwrap()).unwrap();
    let session = connect(&host.address, policy).await.unwrap().without_padding();
    let stated = session.result().statement().models.clone();
    let names: Vec<_> = session.models().await.unwrap().into_iter().map(|model| model.id).collect();
    assert_eq!(names, ["smol", "one", "other"]);
    assert_eq!(stated.len(), 3);
    // All at once: they take turns.
    let questions = ["smol", "one", "other"].map(question);
    let (a, b, c) = tokio::join!(
        session.complete(&questions[0]),
        session.complete(&questions[1]),
        session.complete(&questions[2])
    );
    for (answer, digest) in [a, b, c].into_iter().zip(stated) {
        let receipt = answer.unwrap().receipt;
        assert_eq!(receipt.signed.verify(&receipt.statement).unwrap().model, digest);
    }
    let nobody = session.complete(&question("nobody")).await.err().unwrap();
    assert!(nobody.to_string().contains("not served here"), "{nobody}");
}

#[tokio::test(flavor = "multi_thread")]
async fn digests_that_are_configured_are_stated_before_anything_is_read() {
    let (one, other) = (tiny("llama"), tiny("qwen3"));
    let digest = |model: &str| {
        let output =
            Command::new(binary("cocoon-measure")).args(["model", "digest", model]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let (first, second) = (digest(&one), digest(&other));
    let digests =
        ["--model-digest", &first, "--model-digest", &second, "--model-name", "a", "--model-name", "b"];
    let more = [&["--model", &other], &digests[..]].concat();
    let enclave = EnclaveProcess::start_loading_of(one.as_ref(), &more);
    let policy = Policy::from_toml(&enclave.policy_text()).unwrap();
    let session = connect(&enclave.address, policy).await.unwrap();
    assert_eq!(
        session.result().statement().models.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [first, second]
    );
}

/// The programs say what is wrong, and end.
#[test]
fn what_does_not_fit_together_is_refused() {
    let (one, other) = (tiny("llama"), tiny("qwen3"));
    let both = ["--model", &one, "--model", &other];
    let zeros = "0".repeat(64);
    for (flags, code, problem) in [
        (&["--model-name", "a"][..], 2, "--model-name is there 1 times and --model 2 times"),
        (&["--model-name", "a", "--model-name", "a"], 2, "--model-name says the same of two models"),
        (&["--model-digest", &zeros], 2, "--model-digest is there 1 times"),
        (&["--model", &one], 1, "two of the models are the same one"),
        (&[], 1, "two models call themselves the same"),
    ] {
        let mut enclave = Command::new(binary("cocoon-enclave"));
        enclave.args(["--tee", "sim", "--listen", "127.0.0.1:0", "--sim-state"]).arg(sim_state());
        let ended = enclave.args(both).args(flags).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(code), "{flags:?}: {said}");
        assert!(said.contains(problem), "{flags:?}: {said}");
    }
}
