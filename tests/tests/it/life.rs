//! How an enclave starts, refuses to start, and ends.

use std::process::{Command, Output};

use cocoon_client::{ChatEvent, ChatRequest, Policy, connect};
use cocoon_tests::programs::{EnclaveProcess, HostProcess, binary, target_dir};
use cocoon_tests::{model, sim_state};

fn start_to_fail(enclave: &std::path::Path, args: &[&str]) -> Output {
    Command::new(enclave).args(["--listen", "127.0.0.1:0"]).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_missing_or_altered_model_is_refused_and_named() {
    let enclave = binary("cocoon-enclave");
    let (state, model) = (sim_state(), model());
    let (state, model) = (state.to_str().unwrap(), model.to_str().unwrap());
    let sim = ["--tee", "sim", "--sim-state", state];
    let missing = start_to_fail(&enclave, &[&sim[..], &["--model", "/nowhere.gguf"]].concat());
    assert_eq!(missing.status.code(), Some(2), "{}", stderr(&missing));
    assert!(stderr(&missing).contains("/nowhere.gguf"), "{}", stderr(&missing));

    let genuine = Command::new(binary("cocoon-measure")).args(["model", "digest", model]).output().unwrap();
    let genuine = String::from_utf8(genuine.stdout).unwrap().trim().to_owned();
    let dir = tempfile::tempdir().unwrap();
    let altered = dir.path().join("altered.gguf");
    let mut bytes = std::fs::read(model).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&altered, bytes).unwrap();
    let altered = altered.to_str().unwrap();
    let refused =
        start_to_fail(&enclave, &[&sim[..], &["--model", altered, "--model-digest", &genuine]].concat());
    let found = Command::new(binary("cocoon-measure")).args(["model", "digest", altered]).output().unwrap();
    let found = String::from_utf8(found.stdout).unwrap().trim().to_owned();
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    assert!(stderr(&refused).contains(&genuine) && stderr(&refused).contains(&found), "{}", stderr(&refused));
    assert!(String::from_utf8_lossy(&refused.stdout).contains("model_refused"));

    let garbage = dir.path().join("garbage.gguf");
    std::fs::write(&garbage, b"GGUF\x03\x00\x00\x00 and then nothing of use").unwrap();
    let unusable = start_to_fail(&enclave, &[&sim[..], &["--model", garbage.to_str().unwrap()]].concat());
    assert_eq!(unusable.status.code(), Some(1), "{}", stderr(&unusable));
    let found =
        Command::new(binary("cocoon-measure")).args(["model", "digest"]).arg(&garbage).output().unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    assert!(stderr(&unusable).contains(found.trim()), "{}", stderr(&unusable));
}

#[test]
fn the_release_build_has_no_simulated_platform() {
    let release = target_dir().join("without-sim/cocoon-enclave");
    assert!(release.exists(), "{} is missing: scripts/test builds it", release.display());
    let help = Command::new(&release).arg("--help").output().unwrap();
    let help = String::from_utf8_lossy(&help.stdout).to_lowercase();
    assert!(help.contains("--model") && !help.contains("sim"), "{help}");
    let model = model();
    let model = ["--model", model.to_str().unwrap()];
    let refused = start_to_fail(&release, &[&model[..], &["--tee", "sim"]].concat());
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    let refused = start_to_fail(&release, &model);
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("no TEE here"), "{}", stderr(&refused));
    // `auto` never falls back to the simulated platform, even where it is built in.
    let refused = start_to_fail(&binary("cocoon-enclave"), &model);
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_runs_when_the_host_stops_is_finished() {
    let mut host = HostProcess::start(&["--drain-timeout", "100"]);
    let policy = Policy::from_toml(&std::fs::read_to_string(host.policy()).unwrap()).unwrap();
    let session = connect(&host.address, policy).await.unwrap();
    let model = session.models().await.unwrap().remove(0).id;
    let mut request = ChatRequest::new(model, "Tell me a long story.");
    (request.temperature, request.max_tokens) = (Some(0.0), Some(40));
    let mut answer = session.chat(&request).await.unwrap();
    assert!(matches!(answer.next().await.unwrap(), Some(ChatEvent::Text(_))));
    host.program.terminate();
    let mut finished = false;
    while let Some(event) = answer.next().await.unwrap() {
        finished |= matches!(event, ChatEvent::Finished(_));
    }
    assert!(finished);
    drop((answer, session));
    let status = tokio::task::spawn_blocking(move || host.program.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn the_host_passes_its_limits_on() {
    let host = HostProcess::start(&["--drain-timeout", "77", "--max-connections", "33"]);
    let children =
        std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", host.program.pid())).unwrap();
    let child = children.split_whitespace().next().expect("the host has a child");
    let arguments = std::fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap().replace('\0', " ");
    assert!(
        arguments.contains("--drain-timeout 77") && arguments.contains("--max-connections 33"),
        "{arguments}"
    );
}

#[test]
fn an_enclave_ends_with_its_parent() {
    let mut host = HostProcess::start(&[]);
    let children =
        std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", host.program.pid())).unwrap();
    let child: i32 = children.split_whitespace().next().expect("the host has a child").parse().unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(host.program.pid().try_into().unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    host.program.wait();
    let start = std::time::Instant::now();
    let runs = || {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    while runs() {
        assert!(start.elapsed() < cocoon_tests::programs::PATIENCE, "the enclave outlives its host");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn connections_are_limited() {
    let mut enclave = EnclaveProcess::start(&["--max-connections", "2"]);
    let hold: Vec<_> = (0..2).map(|_| std::net::TcpStream::connect(&enclave.address).unwrap()).collect();
    let mut third = std::net::TcpStream::connect(&enclave.address).unwrap();
    assert_eq!(cocoon_tests::programs::read_all(&mut third), b"");
    enclave.program.wait_for("the event", |line| cocoon_tests::programs::event(line, "connection_limit"));
    drop(hold);
}
