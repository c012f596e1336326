//! Many hosts behind one address: `host/haproxy` with HAProxy itself, `host/kubernetes` by its words.

use std::process::Command;

use cocoon_tests::http1::ask;
use cocoon_tests::programs::{EnclaveProcess, Program, binary};
use cocoon_tests::repository;
use serde_json::json;

/// Clients go on while one of two enclaves dies.
#[test]
fn behind_haproxy_clients_go_on_when_an_enclave_dies() {
    if Command::new("haproxy").arg("-v").output().is_err() {
        println!("skipped: no haproxy (Debian package haproxy)");
        return;
    }
    let (mut first, second) = (EnclaveProcess::start(&[]), EnclaveProcess::start(&[]));
    let address = free_address();
    let mut haproxy = Command::new("haproxy");
    haproxy.arg("-db").arg("-f").arg(repository().join("host/haproxy/haproxy.cfg"));
    haproxy.env("COCOON_LISTEN", &address).env("ENCLAVE_1", &first.address).env("ENCLAVE_2", &second.address);
    let _haproxy = Program::start(&mut haproxy);
    let policy = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(policy.path(), first.policy_text()).unwrap();
    let proxies: Vec<(Program, String)> = (0..4).map(|_| proxy(&address, policy.path())).collect();
    let all_answer = || proxies.iter().map(|(_, proxy)| status(proxy)).collect::<Vec<_>>();
    assert_eq!(all_answer(), [200; 4]);
    let reports = |enclave: &EnclaveProcess| enclave.program.events("report").len();
    assert!(reports(&first) > 0 && reports(&second) > 0, "one enclave has all connections");
    first.program.terminate();
    first.program.wait();
    // HAProxy notices within seconds; until then a client is told to come back.
    let start = std::time::Instant::now();
    while all_answer() != [200; 4] {
        assert!(start.elapsed() < cocoon_tests::programs::PATIENCE, "clients do not go on");
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    assert_eq!(all_answer(), [200; 4]);
}

/// A port that nobody has now.
fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn proxy(upstream: &str, policy: &std::path::Path) -> (Program, String) {
    // HAProxy may not listen yet.
    let start = std::time::Instant::now();
    while std::net::TcpStream::connect(upstream).is_err() {
        assert!(start.elapsed() < cocoon_tests::programs::PATIENCE);
    }
    let mut command = Command::new(binary("cocoon"));
    command.args(["proxy", "--listen", "127.0.0.1:0", "--no-padding", "--upstream", upstream, "--policy"]);
    let mut program = Program::start(command.arg(policy));
    let ready = |line: &str| Some(line.strip_prefix("ready http://")?.strip_suffix("/v1")?.to_owned());
    let address = program.wait_for("ready", ready);
    (program, address)
}

fn status(proxy: &str) -> u16 {
    let models = ask(proxy, "GET", "/v1/models", &[], "");
    if models.status != 200 {
        return models.status;
    }
    let model = models.json()["data"][0]["id"].clone();
    let body =
        json!({ "model": model, "max_tokens": 2, "messages": [{ "role": "user", "content": "hello" }] });
    ask(proxy, "POST", "/v1/chat/completions", &[], &body.to_string()).status
}

/// The flags of the manifest exist, and what it marks is all that is to be changed.
#[test]
fn the_kubernetes_manifest_starts_a_host_that_there_is() {
    let text = std::fs::read_to_string(repository().join("host/kubernetes/cocoon.yaml")).unwrap();
    let help = Command::new(binary("cocoon-host")).args(["run", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let flags: Vec<&str> =
        text.lines().filter_map(|line| line.trim().strip_prefix("- --")?.split('=').next()).collect();
    assert!(flags.len() >= 6);
    for flag in flags {
        assert!(help.contains(&format!("--{flag}")), "--{flag}");
    }
}
