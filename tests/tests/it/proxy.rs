//! `cocoon proxy`: the OpenAI API for programs on this machine, with verified enclaves behind it.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use cocoon_tests::http1::{Reply, ask};
use cocoon_tests::programs::{EnclaveProcess, Program, binary, cocoon, contains};
use cocoon_tests::recorder::Recorder;
use serde_json::{Value, json};

/// Nothing that occurs by chance.
const CANARY: &str = "kalahari-obelisk-5519";

struct Proxy {
    program: Program,
    address: String,
}

impl Proxy {
    fn start(upstreams: &[&str], policy: &Path, more: &[&str]) -> Self {
        let mut command = Command::new(binary("cocoon"));
        command.args(["proxy", "--listen", "127.0.0.1:0", "--policy"]).arg(policy).args(more);
        upstreams.iter().for_each(|upstream| {
            command.args(["--upstream", upstream]);
        });
        let mut program = Program::start(&mut command);
        let ready = |line: &str| Some(line.strip_prefix("ready http://")?.strip_suffix("/v1")?.to_owned());
        let address = program.wait_for("ready", ready);
        Self { program, address }
    }

    fn post(&self, path: &str, body: &Value) -> Reply {
        ask(&self.address, "POST", path, &[("Content-Type", "application/json")], &body.to_string())
    }

    fn get(&self, path: &str) -> Reply {
        ask(&self.address, "GET", path, &[], "")
    }

    fn model(&self) -> String {
        self.get("/v1/models").json()["data"][0]["id"].as_str().unwrap().to_owned()
    }
}

fn question(model: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut body = json!({
        "model": model, "temperature": 0, "max_tokens": 8,
        "messages": [{ "role": "user", "content": format!("What is a rainbow? {CANARY}") }],
    });
    change(&mut body);
    body
}

fn written(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn an_app_gets_its_answers_and_receipts_that_hold() {
    let enclave = EnclaveProcess::start(&[]);
    let policy = written(&enclave.policy_text());
    let receipts = tempfile::tempdir().unwrap();
    let dir = receipts.path().join("kept");
    let proxy = Proxy::start(&[&enclave.address], policy.path(), &["--receipts", dir.to_str().unwrap()]);
    let model = proxy.model();
    assert_eq!(proxy.get(&format!("/v1/models/{model}")).json()["id"], model.as_str());

    let whole = proxy.post("/v1/chat/completions", &question(&model, |_| ()));
    let answer = whole.json();
    assert_eq!((whole.status, &answer["object"]), (200, &"chat.completion".into()), "{answer}");
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();

    let streamed = proxy.post("/v1/chat/completions", &question(&model, |body| body["stream"] = json!(true)));
    assert_eq!(streamed.headers["content-type"], "text/event-stream");
    let events = streamed.events();
    assert_eq!(events.last().unwrap(), "[DONE]");
    let piece = |event: &String| {
        let event: Value = serde_json::from_str(event).ok()?;
        event["choices"][0]["delta"]["content"].as_str().map(str::to_owned)
    };
    assert_eq!(events.iter().filter_map(piece).collect::<String>(), text);

    let saved = receipts.path().join("session");
    let (address, policy) = (enclave.address.as_str(), policy.path().to_str().unwrap());
    assert!(
        cocoon(&["verify", address, "--policy", policy, "--save", saved.to_str().unwrap()]).status.success()
    );
    for (number, reply) in (1..).zip([&whole, &streamed]) {
        let file = dir.join(format!("{}.receipt", reply.headers["cocoon-receipt-id"]));
        let body = receipts.path().join("body");
        std::fs::write(&body, &reply.body).unwrap();
        let (file, body) = (file.to_str().unwrap(), body.to_str().unwrap());
        let verify = |more: &[&str]| {
            cocoon(
                &[&["receipt", "verify", file, "--session", saved.to_str().unwrap(), "--json"], more]
                    .concat(),
            )
        };
        let out = verify(&["--response", body]);
        let result: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!((out.status.code(), &result["accepted"]), (Some(0), &json!(true)), "{result}");
        assert_eq!(
            (&result["receipt"]["completion_tokens"], &result["receipt"]["finish_reason"]),
            (&json!(8), &json!("length"))
        );
        assert_eq!(result["receipt"]["sequence"], number);
        // Another answer, or another request, is not what was signed.
        assert_eq!(verify(&["--response", policy]).status.code(), Some(1));
        assert_eq!(verify(&["--request", policy]).status.code(), Some(1));
    }
    assert_eq!(cocoon(&["receipt", "verify", saved.to_str().unwrap()]).status.code(), Some(1), "no receipt");
    assert_eq!(cocoon(&["receipt", "verify", "/nowhere"]).status.code(), Some(2));
    let output = proxy.program.output();
    assert!(!output.contains(CANARY) && !output.contains(text), "{output}");

    // What has no receipt names none.
    let kept = std::fs::read_dir(&dir).unwrap().count();
    for stream in [true, false] {
        let hot = question(&model, |body| (body["temperature"], body["stream"]) = (json!(9), json!(stream)));
        let refused = proxy.post("/v1/chat/completions", &hot);
        assert_eq!((refused.status, refused.headers.get("cocoon-receipt-id")), (400, None));
    }
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), kept);

    // An answer whose receipt is lost is none.
    std::fs::remove_dir_all(&dir).unwrap();
    let lost = proxy.post("/v1/chat/completions", &question(&model, |_| ()));
    assert_eq!((lost.status, lost.headers.get("cocoon-receipt-id")), (500, None));
    assert_eq!(lost.json()["error"]["code"], "receipt_not_kept");
    let lost = proxy.post("/v1/chat/completions", &question(&model, |body| body["stream"] = json!(true)));
    let last: Value = serde_json::from_str(lost.events().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "receipt_not_kept");
}

#[test]
fn errors_are_openais() {
    let enclave = EnclaveProcess::start(&[]);
    let policy = written(&enclave.policy_text());
    let proxy = Proxy::start(&[&enclave.address], policy.path(), &["--no-padding"]);
    let model = proxy.model();
    let is = |reply: Reply, status: u16, kind: &str, code: &str| {
        let error = reply.json()["error"].clone();
        assert!(error["message"].is_string(), "{error}");
        assert_eq!(
            (reply.status, &error["type"], &error["code"]),
            (status, &kind.into(), &code.into()),
            "{error}"
        );
        assert!(!error.to_string().contains(CANARY));
    };
    let invalid = "invalid_request_error";
    is(proxy.post("/v1/chat/completions", &question("no-such", |_| ())), 404, invalid, "model_not_found");
    is(proxy.get("/v1/models/no-such"), 404, invalid, "model_not_found");
    is(proxy.get("/"), 404, invalid, "unknown_url");
    is(proxy.post("/v1/no-such", &question(&model, |_| ())), 404, invalid, "unknown_url");
    let hot = question(&model, |body| body["temperature"] = json!("hot"));
    is(proxy.post("/v1/chat/completions", &hot), 400, invalid, "invalid_value");
    let raw = |headers: &[(&str, &str)], body: &str| {
        ask(&proxy.address, "POST", "/v1/chat/completions", headers, body)
    };
    is(raw(&[], "{"), 400, invalid, "invalid_json");
    is(raw(&[("Host", "evil.example")], "{}"), 403, invalid, "not_from_here");
    is(raw(&[("Origin", "https://evil.example")], "{}"), 403, invalid, "not_from_here");
    is(raw(&[], &" ".repeat((2 << 20) + 1)), 413, invalid, "too_large");
    let mut cut = std::net::TcpStream::connect(&proxy.address).unwrap();
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nHost: {}\r\nContent-Length: 9", proxy.address);
    cut.write_all(format!("{head}\r\n\r\n{{").as_bytes()).unwrap();
    cut.shutdown(std::net::Shutdown::Write).unwrap();
    let mut said = String::new();
    cut.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("\"incomplete_body\""), "{said}");
}

#[test]
fn with_a_token_only_those_who_know_it() {
    let enclave = EnclaveProcess::start(&[]);
    let (policy, token) = (written(&enclave.policy_text()), written("0123456789abcdef\n"));
    let token = token.path().to_str().unwrap();
    let proxy = Proxy::start(&[&enclave.address], policy.path(), &["--token-file", token]);
    let get = |headers: &[(&str, &str)]| ask(&proxy.address, "GET", "/v1/models", headers, "");
    for wrong in
        [&[][..], &[("Authorization", "Bearer 0123456789abcdeg")], &[("Authorization", "0123456789abcdef")]]
    {
        let refused = get(wrong);
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (401, &"invalid_api_key".into()));
    }
    assert_eq!(get(&[("Authorization", "Bearer 0123456789abcdef"), ("Host", "box.example")]).status, 200);

    let policy = policy.path().to_str().unwrap();
    let refused = |args: &[&str]| {
        let out = cocoon(&[&["proxy", "--upstream", &enclave.address, "--policy", policy], args].concat());
        assert_eq!(out.status.code(), Some(2));
        String::from_utf8(out.stderr).unwrap()
    };
    assert!(refused(&["--listen", "0.0.0.0:0"]).contains("--token-file"));
    let short = written("short");
    assert!(refused(&["--token-file", short.path().to_str().unwrap()]).contains("at least 16"));
}

/// An enclave that is replaced by another one while the proxy runs: nothing is sent to it.
#[tokio::test(flavor = "multi_thread")]
async fn an_enclave_that_is_not_accepted_gets_no_byte_of_a_prompt() {
    let enclave = EnclaveProcess::start(&[]);
    let policy = written(&enclave.policy_text());
    let other = EnclaveProcess::start(&["--max-running", "3"]); // another configuration
    let recorder = Recorder::start(other.address.clone()).await;
    let relay = Relay::start(&enclave.address);
    let proxy = Proxy::start(&[&relay.address], policy.path(), &[]);
    let model = proxy.model();
    assert_eq!(proxy.post("/v1/chat/completions", &question(&model, |_| ())).status, 200);

    relay.lead_to(&recorder.address.to_string());
    // The very next request: a connection that broke unnoticed is made anew, and what answers there is verified first.
    let refused = proxy.post("/v1/chat/completions", &question(&model, |_| ()));
    let error = refused.json()["error"].clone();
    assert_eq!((refused.status, &error["code"]), (503, &"no_verified_enclave".into()), "{error}");
    assert_eq!(error["upstreams"][0]["failed_factors"], json!(["claims.config"]), "{error}");
    assert!(refused.headers.contains_key("retry-after"));
    let attestation = proxy.get("/.well-known/cocoon/attestation").json();
    assert_eq!(attestation["upstreams"][0]["usable"], false);
    assert_eq!(attestation["upstreams"][0]["result"]["accepted"], false);
    // It was asked for evidence and nothing else: TLS ended in the enclave, so ask it, too.
    let (log, bytes) = (other.program.output(), recorder.recorded());
    assert!(bytes.len() > 1000 && !contains(&bytes, CANARY.as_bytes()));
    assert_eq!(other.program.events("report").len(), 1, "{log}");
    assert!(!contains(&cocoon_tests::programs::memory(other.program.pid()), CANARY.as_bytes()));
}

/// The model may be one of those that the refused enclave has: nobody can tell.
#[test]
fn a_model_that_only_a_refused_enclave_may_have_is_answered_with_its_factors() {
    let (good, other) = (EnclaveProcess::start(&[]), EnclaveProcess::start(&["--max-running", "3"]));
    let policy = written(&good.policy_text());
    let proxy = Proxy::start(&[&good.address, &other.address], policy.path(), &["--no-padding"]);
    let model = proxy.model();
    assert_eq!(proxy.post("/v1/chat/completions", &question(&model, |_| ())).status, 200);
    let refused = proxy.post("/v1/chat/completions", &question("no-such", |_| ()));
    let error = refused.json()["error"].clone();
    assert_eq!((refused.status, &error["code"]), (503, &"no_verified_enclave".into()), "{error}");
    let upstreams = error["upstreams"].as_array().unwrap();
    assert_eq!(
        upstreams.iter().map(|upstream| &upstream["failed_factors"]).collect::<Vec<_>>(),
        [&json!([]), &json!(["claims.config"])]
    );
    assert!(upstreams[0]["message"].as_str().unwrap().contains("does not serve this model"), "{error}");
}

/// One that accepts connections and says nothing is not waited for: that would take 20 s.
#[test]
fn a_silent_upstream_holds_nobody_up() {
    let enclave = EnclaveProcess::start(&[]);
    let policy = written(&enclave.policy_text());
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = (silent.local_addr().unwrap().to_string(), silent);
    let start = std::time::Instant::now();
    let proxy = Proxy::start(&[&silent.0, &enclave.address], policy.path(), &["--no-padding"]);
    let model = proxy.model();
    assert_eq!(proxy.post("/v1/chat/completions", &question(&model, |_| ())).status, 200);
    assert!(start.elapsed() < std::time::Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn when_one_enclave_dies_others_answer() {
    let (mut first, second) = (EnclaveProcess::start(&[]), EnclaveProcess::start(&[]));
    let policy = written(&first.policy_text());
    let proxy = Proxy::start(&[&first.address, &second.address], policy.path(), &["--no-padding"]);
    let model = proxy.model();
    let attestation = || proxy.get("/.well-known/cocoon/attestation").json();
    assert!(attestation()["upstreams"].as_array().unwrap().iter().all(|upstream| upstream["usable"] == true));
    first.program.terminate();
    first.program.wait();
    for _ in 0..3 {
        let reply = proxy.post("/v1/chat/completions", &question(&model, |_| ()));
        assert_eq!(reply.status, 200, "{}", reply.json());
    }
    assert_eq!(attestation()["upstreams"][0]["usable"], false);
}

/// Bytes to and from an address that changes.
struct Relay {
    address: String,
    target: std::sync::Arc<std::sync::Mutex<String>>,
    connections: std::sync::Arc<std::sync::Mutex<Vec<std::net::TcpStream>>>,
}

impl Relay {
    fn start(target: &str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let target = std::sync::Arc::new(std::sync::Mutex::new(target.to_owned()));
        let connections: std::sync::Arc<std::sync::Mutex<Vec<std::net::TcpStream>>> =
            std::sync::Arc::default();
        let (led, kept) = (target.clone(), connections.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let target = led.lock().unwrap().clone();
                let Ok(server) = std::net::TcpStream::connect(target) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    kept.lock().unwrap().push(from.try_clone().unwrap());
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                }
            }
        });
        Self { address, target, connections }
    }

    /// Ends all connections; new ones lead elsewhere.
    fn lead_to(&self, target: &str) {
        *self.target.lock().unwrap() = target.to_owned();
        for connection in self.connections.lock().unwrap().drain(..) {
            let _closed = connection.shutdown(std::net::Shutdown::Both);
        }
    }
}
