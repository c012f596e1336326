//! `cocoon`: what others call it for.

use std::process::{Command, Output, Stdio};

use cocoon_attestation::wire::AttestResponse;
use cocoon_tests::programs::{EnclaveProcess, binary, cocoon};
use serde_json::Value;

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stdout)))
}

#[test]
fn verify_has_the_documented_shape_and_exit_codes() {
    let enclave = EnclaveProcess::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("response.cbor");
    let accepted = cocoon(&[
        "verify",
        &enclave.address,
        "--policy",
        &enclave.policy(),
        "--json",
        "--save",
        saved.to_str().unwrap(),
    ]);
    assert_eq!(accepted.status.code(), Some(0), "{}", stderr(&accepted));
    let result = json(&accepted);
    assert_eq!((&result["platform"], &result["product"]), (&"snp".into(), &"Genoa".into()));
    assert_eq!((&result["authentic"], &result["accepted"]), (&true.into(), &true.into()));
    for factor in result["factors"].as_array().unwrap() {
        assert!(factor["name"].is_string());
        assert!(["pass", "unchecked"].contains(&factor["status"].as_str().unwrap()), "{factor}");
    }
    let claims = &result["claims"];
    for (name, length) in [("measurement", 96), ("report_data", 128), ("host_data", 64), ("chip_id", 128)] {
        assert_eq!(claims[name].as_str().unwrap().len(), length, "{name}");
    }
    assert_eq!(
        (claims["version"].as_u64(), claims["vmpl"].as_u64(), claims["policy"].as_str()),
        (Some(3), Some(0), Some("0x30000"))
    );
    assert!(claims["reported_tcb"]["microcode"].is_u64());
    AttestResponse::decode(&std::fs::read(saved).unwrap()).unwrap();

    let measurement = claims["measurement"].as_str().unwrap();
    let other = enclave.policy_with(measurement, &"ab".repeat(48));
    let rejected = cocoon(&["verify", &enclave.address, "--policy", &other, "--json"]);
    assert_eq!(rejected.status.code(), Some(1));
    let result = json(&rejected);
    assert_eq!((&result["authentic"], &result["accepted"]), (&true.into(), &false.into()));
    let failed: Vec<&Value> =
        result["factors"].as_array().unwrap().iter().filter(|f| f["status"] == "fail").collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(
        (&failed[0]["name"], &failed[0]["got"], &failed[0]["want"]),
        (&"snp.measurement".into(), &measurement.into(), &"ab".repeat(48).into())
    );
    assert!(failed[0]["help"].is_string());
    assert_eq!(stderr(&rejected).lines().count(), 1, "one line of error: {}", stderr(&rejected));
}

#[test]
fn a_rejected_enclave_gets_no_prompt_and_the_user_every_reason() {
    let enclave = EnclaveProcess::start(&[]);
    let other = enclave.policy_with("vmpl = { exactly = 0 }", "vmpl = { exactly = 1 }");
    let rejected = cocoon(&["chat", &enclave.address, "hello", "--policy", &other]);
    assert_eq!((rejected.status.code(), rejected.stdout.as_slice()), (Some(1), &b""[..]));
    assert!(
        stderr(&rejected).contains("snp.vmpl") && stderr(&rejected).contains("wanted: 1"),
        "{}",
        stderr(&rejected)
    );
}

#[test]
fn chat_streams_an_answer_from_argument_or_standard_input() {
    let enclave = EnclaveProcess::start(&[]);
    let policy = enclave.policy();
    let common = ["--policy", policy.as_str(), "--temperature", "0", "--max-tokens", "12", "--seed", "1"];
    let asked = cocoon(&[&["chat", &enclave.address, "What is a rainbow?"], &common[..]].concat());
    assert_eq!(asked.status.code(), Some(0), "{}", stderr(&asked));
    assert!(
        String::from_utf8_lossy(&asked.stdout).contains("rainbow"),
        "{}",
        String::from_utf8_lossy(&asked.stdout)
    );
    assert!(stderr(&asked).contains("SIMULATED"), "{}", stderr(&asked));

    let mut piped = std::process::Command::new(cocoon_tests::programs::binary("cocoon"));
    piped
        .args(["chat", &enclave.address])
        .args(common)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = piped.stderr(std::process::Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"What is a rainbow?").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, asked.stdout, "the same question, the same answer");

    let unknown = cocoon(&[&["chat", &enclave.address, "hello", "--model", "gpt-5"], &common[..]].concat());
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("not served here"), "{}", stderr(&unknown));
}

#[test]
fn chat_waits_for_a_model_that_is_loading() {
    let model = cocoon_tests::model();
    let digest = std::process::Command::new(cocoon_tests::programs::binary("cocoon-measure"))
        .args(["model", "digest", model.to_str().unwrap()])
        .output()
        .unwrap();
    let digest = String::from_utf8(digest.stdout).unwrap();
    // The digest is configured, so clients can verify and wait before the file was read.
    let enclave = EnclaveProcess::start_loading(&["--model-digest", digest.trim()]);
    let policy = enclave.policy();
    let asked =
        cocoon(&["chat", &enclave.address, "What is a rainbow?", "--policy", &policy, "--max-tokens", "4"]);
    assert_eq!(asked.status.code(), Some(0), "{}", stderr(&asked));
    assert!(!asked.stdout.is_empty());
}

#[test]
fn a_model_folder_is_served_under_the_digest_that_is_printed() {
    let folder = cocoon_tests::repository().join("tests/vectors/huggingface/gemma3");
    let digest = std::process::Command::new(cocoon_tests::programs::binary("cocoon-measure"))
        .args(["model", "digest", folder.to_str().unwrap()])
        .output()
        .unwrap();
    let digest = String::from_utf8(digest.stdout).unwrap();
    // It refuses any other.
    let enclave = EnclaveProcess::start_loading_of(&folder, &["--model-digest", digest.trim()]);
    let policy = enclave.policy();
    let asked = cocoon(&["chat", &enclave.address, "Hello", "--policy", &policy, "--max-tokens", "4"]);
    assert_eq!(asked.status.code(), Some(0), "{}", stderr(&asked));
}

#[test]
fn what_could_not_be_told_is_exit_2() {
    let dir = tempfile::tempdir().unwrap();
    let policy = cocoon_tests::repository().join("docs/examples/policy.toml");
    let policy = policy.to_str().unwrap();
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let bad = dir.path().join("bad.toml");
    std::fs::write(&bad, "version = 1\ntypo = 2\n").unwrap();
    let cases: [(&[&str], &str); 5] = [
        (&["verify", &closed, "--policy", policy], "cannot reach"),
        (&["verify", &closed, "--policy", "/nowhere.toml"], "--policy"),
        (&["verify", &closed, "--policy", bad.to_str().unwrap()], "typo"),
        (&["verify", "no-port", "--policy", policy], "HOST:PORT"),
        (&["frobnicate"], "frobnicate"),
    ];
    for (args, expected) in cases {
        let output = cocoon(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn a_server_of_another_kind_is_not_an_enclave() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 512];
            let _read = std::io::Read::read(&mut stream, &mut request);
            let _gone = std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let policy = cocoon_tests::repository().join("docs/examples/policy.toml");
    let output = cocoon(&["verify", &address, "--policy", policy.to_str().unwrap(), "--json"]);
    let result = json(&output);
    assert_eq!(
        (&result["authentic"], &result["factors"][0]["name"]),
        (&false.into(), &"channel.protocol".into())
    );
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("not a Cocoon enclave"), "{}", stderr(&output));
}

#[test]
fn the_engine_can_be_measured_without_network() {
    let bench = |arguments: &[&str]| {
        Command::new(binary("cocoon-enclave"))
            .arg("bench")
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let file = cocoon_tests::model();
    let few =
        ["--prefill", "8", "--decode", "2", "--threads", "1", "--batch", "1,3", "--context", "16", "--json"];
    let measured = bench(&[&["--model", file.to_str().unwrap()], &few[..]].concat());
    assert_eq!(measured.status.code(), Some(0), "{}", stderr(&measured));
    let text = String::from_utf8(measured.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    for (line, batch) in lines.iter().zip([1, 3]) {
        assert_eq!(
            (&line["threads"], &line["batch"], &line["context"]),
            (&1.into(), &batch.into(), &24.into())
        );
        for key in [
            "prefill_tokens_per_s",
            "decode_tokens_per_s",
            "bytes_moved_per_token",
            "memory_bandwidth_bytes_per_s",
        ] {
            assert!(line[key].as_f64().unwrap() > 0.0, "{key}: {line}");
        }
    }
    for (arguments, says) in [
        (&["--model", "/nowhere.gguf"][..], "/nowhere.gguf"),
        (&["--random", "gpt-5"], "llama-3.1-8b"),
        (&["--random", "smollm2-135m", "--encoding", "q4_k"], "blocks"),
        (&["--model", file.to_str().unwrap(), "--context", "9000"], "8192"),
        (&[], "--model"),
    ] {
        let refused = bench(arguments);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&refused).contains(says), "{arguments:?}: {}", stderr(&refused));
    }
}
