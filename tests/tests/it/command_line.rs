//! `cocoon`: what others call it for.

use std::io::Write;
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

/// Runs `cocoon` with this on its standard input.
fn cocoon_told(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(binary("cocoon"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn chat_as_json_has_the_documented_shape_and_a_receipt() {
    let enclave = EnclaveProcess::start(&[]);
    let (policy, dir) = (enclave.policy(), tempfile::tempdir().unwrap());
    let receipt = dir.path().join("receipt");
    let receipt = receipt.to_str().unwrap();
    let common = ["chat", &enclave.address, "--policy", &policy, "--max-tokens", "8", "--temperature", "0"];
    let ask = |more: &[&str]| {
        let output = cocoon(&[&common[..], &["What is a rainbow?", "--json"], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        json(&output)
    };
    let answer = ask(&["--receipt", receipt]);
    assert!(answer["text"].as_str().unwrap().contains("rainbow"), "{answer}");
    assert_eq!(
        (&answer["finish_reason"], &answer["usage"]["completion_tokens"]),
        (&"length".into(), &8.into())
    );
    assert_eq!(answer["receipt"]["id"].as_str().unwrap().len(), 64);
    let verified = json(&cocoon(&["receipt", "verify", receipt, "--json"]));
    assert_eq!(verified["accepted"], true);
    for field in ["statement", "request", "response", "model", "prompt_tokens", "sequence", "finish_reason"] {
        assert_eq!(verified["receipt"][field], answer["receipt"][field], "{field}");
    }
    let told = ask(&["--system", "You answer in French."]);
    assert_ne!(told["usage"]["prompt_tokens"], answer["usage"]["prompt_tokens"]);
}

#[test]
fn a_conversation_remembers_until_it_starts_over() {
    let enclave = EnclaveProcess::start(&[]);
    let policy = enclave.policy();
    let common = [
        "chat",
        &enclave.address,
        "--policy",
        &policy,
        "--max-tokens",
        "8",
        "--temperature",
        "0",
        "--interactive",
    ];
    let talk = |input: &str| {
        let output = cocoon_told(&common, input);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        (String::from_utf8(output.stdout.clone()).unwrap(), stderr(&output))
    };
    let lines = |text: &str| text.lines().filter(|line| !line.is_empty()).count();
    let question = "What is a rainbow?";
    let (said, notes) =
        talk(&format!("{question}\n\nAnd why?\n/help\n/nothing\n/new\n{question}\n/quit\nnot asked\n"));
    assert!(notes.contains("/new") && notes.contains("no such command"), "{notes}");
    let (alone, _) = talk(&format!("{question}\n"));
    assert!(lines(&alone) > 0 && said.starts_with(&alone) && said.ends_with(&alone), "{said:?}, {alone:?}");
    // The second question was asked with the first one and its answer before it.
    let (without, _) = talk("And why?\n");
    let middle = &said[alone.len()..said.len() - alone.len()];
    assert!(!middle.is_empty() && middle != without, "{middle:?}");
    // What goes wrong with one question does not end the conversation; nor does it stay in it.
    let long = "rainbow ".repeat(9000);
    let (said, notes) = talk(&format!("{long}\n{question}\n"));
    assert!(said == alone && notes.contains("cocoon: the enclave answers 400"), "{notes}");
    assert!(!notes.contains("rainbow rainbow"));
}

#[test]
fn ctrl_c_stops_the_answer_and_not_the_program() {
    let enclave = EnclaveProcess::start(&[]);
    let mut child = Command::new(binary("cocoon"))
        .args(["chat", &enclave.address, "--policy", &enclave.policy(), "--interactive"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    stdin.write_all(b"Write a very long story about a lighthouse.\n").unwrap();
    // It speaks.
    std::io::Read::read_exact(&mut stdout, &mut [0; 8]).unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let rest = std::thread::spawn(move || std::io::read_to_string(stdout).unwrap());
    let mut notes = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("(stopped)") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut notes, &mut line).unwrap() > 0, "it ended");
    }
    assert!(child.try_wait().unwrap().is_none(), "it ended");
    stdin.write_all(b"/new\n/help\n").unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
    assert!(std::io::read_to_string(notes).unwrap().contains("/help"));
    rest.join().unwrap();
}

#[test]
fn colours_are_for_terminals_or_by_request() {
    let evidence = cocoon_tests::repository().join("docs/examples/policy.toml");
    let broken = ["inspect", "bundle", evidence.to_str().unwrap()];
    let has = |output: &Output| output.stdout.contains(&0x1b) || output.stderr.contains(&0x1b);
    assert!(!has(&cocoon(&broken)) && !has(&cocoon(&["--help"])));
    assert!(has(&cocoon(&[&broken[..], &["--color", "always"]].concat())));
    assert!(has(&cocoon(&["--color=always", "--help"])) && has(&cocoon(&["--color=always", "verfy"])));
    assert!(!has(&cocoon(&["--color=never", "verfy"])));
    assert_eq!(cocoon(&["--color", "pink", "verify"]).status.code(), Some(2));
}

#[test]
fn mistakes_are_met_with_what_was_meant() {
    assert!(stderr(&cocoon(&["verfy"])).contains("'verify'"));
    assert!(stderr(&cocoon(&["verify", "enclave:1", "--polcy", "x"])).contains("'--policy'"));
}

#[test]
fn completions_and_man_pages_know_every_command() {
    for (shell, mark) in [("bash", "complete -F"), ("zsh", "#compdef cocoon"), ("fish", "complete -c cocoon")]
    {
        let script = String::from_utf8(cocoon(&["completions", shell]).stdout).unwrap();
        assert!(script.contains(mark), "{shell}");
        for word in ["chat", "embed", "verify", "proxy", "receipt", "inspect", "max-tokens"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
    let bash = cocoon(&["completions", "bash"]).stdout;
    let checked = Command::new("bash").arg("-n").arg("/dev/stdin").stdin(Stdio::piped()).spawn();
    if let Ok(mut checked) = checked {
        checked.stdin.take().unwrap().write_all(&bash).unwrap();
        assert!(checked.wait().unwrap().success(), "bash does not understand it");
    }
    let dir = tempfile::tempdir().unwrap();
    let man = dir.path().join("man1");
    assert!(cocoon(&["man", man.to_str().unwrap()]).status.success());
    for (page, says) in [
        ("cocoon.1", "Exit codes"),
        ("cocoon-chat.1", "interactive"),
        ("cocoon-embed.1", "vectors"),
        ("cocoon-receipt-verify.1", "session"),
        ("cocoon-inspect-snp.1", "report"),
    ] {
        assert!(std::fs::read_to_string(man.join(page)).unwrap().contains(says), "{page}");
    }
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(cocoon(&["man", file.to_str().unwrap()]).status.code(), Some(2));
}

#[test]
fn policies_come_as_json_too() {
    let init = json(&cocoon(&["policy", "init", "--json"]));
    assert_eq!(init["policy"], cocoon_attestation::policy::init(0));
    let policy = cocoon_tests::repository().join("docs/examples/policy.toml");
    let explained = json(&cocoon(&["policy", "explain", policy.to_str().unwrap(), "--json"]));
    let shown = cocoon(&["policy", "explain", policy.to_str().unwrap()]);
    assert!(explained["accepts"].as_array().unwrap().len() > 3);
    let lines =
        explained["accepts"].as_array().unwrap().iter().map(|line| format!("{}\n", line.as_str().unwrap()));
    assert_eq!(lines.collect::<String>().into_bytes(), shown.stdout);
}
