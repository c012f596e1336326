//! OpenAI's own client libraries, unmodified, against `cocoon proxy`: `tests/openai`. `scripts/openai` installs them.

use std::path::PathBuf;
use std::process::Command;

use cocoon_tests::programs::{EnclaveProcess, Program, binary, target_dir};
use cocoon_tests::repository;

/// Says what a run was worth, so that nobody takes a skipped test for a passed one.
fn say(text: &str) {
    println!("{text}");
}

fn installed(path: &str) -> Option<PathBuf> {
    let path = target_dir().join("../openai").join(path);
    if path.exists() {
        return Some(path.canonicalize().unwrap());
    }
    say("skipped: no client library, see scripts/openai");
    None
}

/// Runs a program that finds the API at `OPENAI_BASE_URL`, which `cocoon proxy` with these flags serves.
fn run(command: &mut Command, flags_of_proxy: &[&str]) {
    let tiny = repository().join("tests/vectors/embedding/tiny");
    let flags = ["--model", tiny.to_str().unwrap(), "--model-name", "smol", "--model-name", "tiny"];
    let enclave = EnclaveProcess::start(&flags);
    let policy = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(policy.path(), enclave.policy_text()).unwrap();
    let mut proxy = Command::new(binary("cocoon"));
    proxy.args(["proxy", "--listen", "127.0.0.1:0", "--upstream", &enclave.address]).args(flags_of_proxy);
    let mut proxy = Program::start(proxy.arg("--policy").arg(policy.path()));
    let url = proxy.wait_for("ready", |line| line.strip_prefix("ready ").map(str::to_owned));
    let output = command.env("OPENAI_BASE_URL", &url).env("OPENAI_API_KEY", "unused").output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{text}\n{}", proxy.output());
    say(&text);
}

#[test]
fn the_python_library_works() {
    let Some(python) = installed("python/bin") else { return };
    let mut python = Command::new(python.join("python"));
    run(python.arg(repository().join("tests/openai/library.py")), &["--no-padding"]);
}

/// Padded, as answers are by default.
#[test]
fn the_javascript_library_works() {
    let Some(modules) = installed("node_modules") else { return };
    // A module finds libraries beside itself only.
    let script = modules.parent().unwrap().join("library.mjs");
    std::fs::copy(repository().join("tests/openai/library.mjs"), &script).unwrap();
    run(Command::new("node").args(["--test", "--test-reporter", "spec"]).arg(script), &[]);
}

/// `llm`, with the base URL in its own configuration, as docs/proxy.md shows it.
#[test]
fn llm_works() {
    let Some(python) = installed("python/bin") else { return };
    run(Command::new("sh").arg(repository().join("tests/openai/llm.sh")).arg(python.join("llm")), &[]);
}
