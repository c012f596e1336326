//! The examples of the SDK, as they are built.

use std::process::{Command, Output};

use cocoon_tests::programs::{EnclaveProcess, binary};

fn example(name: &str, args: &[&str]) -> Output {
    Command::new(binary(&format!("examples/{name}"))).args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn chat_prints_an_answer() {
    let enclave = EnclaveProcess::start(&[]);
    let said = stdout(&example("chat", &[&enclave.address, &enclave.policy(), "What is a rainbow?"]));
    assert!(said.to_lowercase().contains("rainbow") && said.contains(" of the answer, "), "{said}");
    let other = enclave.policy_with("vmpl = { exactly = 0 }", "vmpl = { exactly = 1 }");
    let refused = example("chat", &[&enclave.address, &other, "What is a rainbow?"]);
    assert!(!refused.status.success() && refused.stdout.is_empty());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("snp.vmpl"));
}

#[test]
fn stream_talks_with_whichever_enclave_can_be_used() {
    let enclave = EnclaveProcess::start(&[]);
    let said = stdout(&example("stream", &[&enclave.policy(), "127.0.0.1:1", &enclave.address]));
    assert!(said.contains("not used: 127.0.0.1:1: cannot reach"), "{said}");
    assert!(
        said.contains("> What is a rainbow?\n") && said.contains("> And what is a double one?\n"),
        "{said}"
    );
    assert_eq!(said.lines().filter(|line| line.starts_with("receipt: ")).count(), 2, "{said}");
}

#[test]
fn summarize_goes_through_a_text_that_is_longer_than_its_pieces() {
    let enclave = EnclaveProcess::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text");
    let paragraph = "The harbour of the old town has two piers. The longer one was built by the guild of \
                     fishers, and it is where the boats come in at night. In the morning the market opens.\n\n";
    std::fs::write(&text, paragraph.repeat(20)).unwrap();
    let (text, policy) = (text.to_str().unwrap(), enclave.policy());
    let output = example("summarize", &[&enclave.address, &policy, text, "400"]);
    let (said, steps) = (stdout(&output), String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(!said.trim().is_empty() && said.len() < 3600, "{said}");
    let rounds: Vec<&str> = steps.lines().filter(|line| line.ends_with("pieces")).collect();
    assert!(rounds.len() > 1 && rounds[0].ends_with("in 3 pieces"), "{steps}");
    assert!(!steps.contains("harbour"), "{steps}");
}
