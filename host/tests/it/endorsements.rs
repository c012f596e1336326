//! `cocoon-host endorsements` against stand-ins of the vendors' services that serve captured answers, well and badly.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use cocoon_attestation::{Endorsement, EndorsementBundle, EndorsementKind as Kind};
use serde_json::Value;
use tempfile::TempDir;

fn evidence() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/evidence");
    if !dir.exists() {
        println!("skipped: no evidence corpus");
    }
    dir.exists().then_some(dir)
}

/// What a stand-in says to one request.
#[derive(Clone)]
enum Reply {
    Ok(Vec<(&'static str, String)>, Vec<u8>),
    Status(u16, Vec<(&'static str, String)>),
    /// Closes in the middle of the body.
    CutOff,
    /// Says nothing.
    Silence,
    Huge,
}

fn ok(body: impl Into<Vec<u8>>) -> Reply {
    Reply::Ok(Vec::new(), body.into())
}

/// A service. Replies by path and query; the last of several is repeated. What it has no reply for is 404.
struct Service {
    url: String,
    log: Arc<Mutex<Vec<String>>>,
    replies: Arc<Mutex<HashMap<String, Vec<Reply>>>>,
}

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let replies: Arc<Mutex<HashMap<String, Vec<Reply>>>> = Arc::default();
        let (own_log, own_replies) = (log.clone(), replies.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, replies) = (own_log.clone(), own_replies.clone());
                thread::spawn(move || drop(serve(stream, &log, &replies)));
            }
        });
        Self { url, log, replies }
    }

    fn says(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        self.replies.lock().unwrap().insert(path.to_owned(), replies.into_iter().collect());
    }

    fn requests(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

fn serve(
    stream: TcpStream,
    log: &Mutex<Vec<String>>,
    replies: &Mutex<HashMap<String, Vec<Reply>>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line)?;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    // An OCSP request is known by the serial number in it.
    let key = if body.is_empty() { path } else { format!("{path} {}", hex(&body)) };
    log.lock().unwrap().push(key.clone());
    let reply = {
        let mut replies = replies.lock().unwrap();
        let found =
            replies.iter_mut().find(|(k, _)| **k == key || (k.starts_with("/ ") && key.contains(&k[2..])));
        found.map(|(_, all)| if all.len() > 1 { all.remove(0) } else { all[0].clone() })
    };
    let mut stream = stream;
    match reply.unwrap_or(Reply::Status(404, Vec::new())) {
        Reply::Ok(headers, body) => {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n", body.len())?;
            for (name, value) in headers {
                write!(stream, "{name}: {value}\r\n")?;
            }
            stream.write_all(b"\r\n")?;
            stream.write_all(&body)
        }
        Reply::Status(status, headers) => {
            write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\n")?;
            for (name, value) in headers {
                write!(stream, "{name}: {value}\r\n")?;
            }
            stream.write_all(b"\r\n")
        }
        Reply::CutOff => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc"),
        Reply::Silence => {
            let _closed = reader.read(&mut [0]);
            Ok(())
        }
        Reply::Huge => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\n")?;
            stream.write_all(&vec![b'x'; 2_000_000])
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn percent_encoded(text: &[u8]) -> String {
    text.iter().map(|byte| format!("%{byte:02X}")).collect()
}

/// A host with a cache of its own, whose vendors are all one stand-in.
struct Host {
    service: Service,
    folder: TempDir,
}

/// Exit code, stdout and stderr.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Host {
    fn new() -> Self {
        Self { service: Service::start(), folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cocoon-host"));
        command.arg("endorsements").args(arguments).arg("--cache").arg(self.path("cache"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    fn fetch_command(&self, at: &str, arguments: &[&str]) -> Command {
        let mut command = self.command(&["fetch", "--at", at, "--json", "--timeout", "1", "--attempts", "3"]);
        command.args(["--retry-delay", "1"]).args(arguments).arg("--out").arg(self.path("bundle"));
        for vendor in ["--amd-kds", "--intel-pcs", "--intel-certificates", "--nvidia-rim", "--nvidia-ocsp"] {
            command.args([vendor, &self.service.url]);
        }
        command
    }

    fn fetch(&self, at: &str, arguments: &[&str]) -> Ran {
        let output = self.fetch_command(at, arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    fn bundle(&self) -> Vec<Endorsement> {
        EndorsementBundle::decode(&std::fs::read(self.path("bundle")).unwrap()).unwrap().0
    }
}

impl Ran {
    #[track_caller]
    fn done(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }

    #[track_caller]
    fn failed(&self, code: i32, why: &str) {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        assert!(self.stderr.contains(why) && self.stderr.starts_with("error: "), "{}", self.stderr);
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
    }
}

/// Genoa at a time when its revocation list of 2024 is good.
struct Amd {
    host: Host,
    report: String,
    vcek: String,
    list: Vec<u8>,
}

const AMD_TIME: &str = "2025-03-01T00:00:00Z";
const CRL: &str = "/vcek/v1/Genoa/crl";

impl Amd {
    fn new() -> Option<Self> {
        let dir = evidence()?.join("snp");
        let case = dir.join("genoa-v3-vcek-tinfoil");
        let report = std::fs::read(case.join("report.bin")).unwrap();
        let (chip, tcb) = (hex(&report[0x1a0..0x1e0]), &report[0x180..0x188]);
        let vcek = format!(
            "/vcek/v1/Genoa/{chip}?blSPL={:02}&teeSPL={:02}&snpSPL={:02}&ucodeSPL={:02}",
            tcb[0], tcb[1], tcb[6], tcb[7]
        );
        let host = Host::new();
        let read = |path: PathBuf| std::fs::read(path).unwrap();
        let list = read(dir.join("crl/ark_genoa_2024-10.der"));
        host.service.says(&vcek, [ok(read(case.join("vcek.der")))]);
        host.service.says("/vcek/v1/Genoa/cert_chain", [ok(read(case.join("cert_chain.pem")))]);
        host.service.says(CRL, [ok(list.clone())]);
        Some(Self { host, report: case.join("report.bin").display().to_string(), vcek, list })
    }

    fn fetch(&self, at: &str) -> Ran {
        self.host.fetch(at, &["--snp-report", &self.report])
    }
}

#[test]
fn amd_is_asked_once_for_each_thing_and_the_cache_answers_then() {
    let Some(amd) = Amd::new() else { return };
    let done = amd.fetch(AMD_TIME).done();
    assert_eq!((&done["endorsements"], &done["requests"]), (&3.into(), &3.into()));
    assert_eq!(amd.host.service.requests(), [&amd.vcek, "/vcek/v1/Genoa/cert_chain", CRL]);
    let kinds: Vec<Kind> = amd.host.bundle().iter().map(|item| item.kind).collect();
    assert_eq!(kinds, [Kind::AmdCertificate, Kind::AmdCertificate, Kind::AmdCrl]);
    assert_eq!(amd.fetch(AMD_TIME).done()["requests"], 0);
    assert_eq!(amd.host.fetch(AMD_TIME, &["--snp-report", &amd.report, "--offline"]).done()["requests"], 0);
}

#[test]
fn two_at_once_ask_once() {
    let Some(amd) = Amd::new() else { return };
    let start = || amd.host.fetch_command(AMD_TIME, &["--snp-report", &amd.report]).spawn().unwrap();
    for mut child in [start(), start()] {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(amd.host.service.requests().len(), 3);
}

#[test]
fn a_service_that_is_busy_is_asked_again() {
    let Some(amd) = Amd::new() else { return };
    let list = ok(amd.list.clone());
    let wait = || vec![("retry-after", "1".to_owned())];
    for first in [Reply::Status(429, wait()), Reply::Status(500, Vec::new()), Reply::CutOff, Reply::Silence] {
        amd.host.service.says(CRL, [first.clone(), first, list.clone()]);
        let _fresh = std::fs::remove_dir_all(amd.host.path("cache"));
        assert_eq!(amd.fetch(AMD_TIME).done()["requests"], 5);
    }
    amd.host.service.says(CRL, [Reply::Status(503, Vec::new())]);
    let _fresh = std::fs::remove_dir_all(amd.host.path("cache"));
    amd.fetch(AMD_TIME).failed(2, "503 Service Unavailable, 3 times");
    amd.host.service.says(CRL, [Reply::Status(429, vec![("retry-after", "3600".to_owned())])]);
    amd.fetch(AMD_TIME).failed(1, "asks to wait longer");
}

#[test]
fn answers_that_are_not_what_was_asked_for_are_refused() {
    let Some(amd) = Amd::new() else { return };
    let dir = evidence().unwrap().join("snp");
    let other = std::fs::read(dir.join("genoa-v5-vcek/vcek.der")).unwrap();
    let milan = std::fs::read(dir.join("crl/ark_milan_2025-05.der")).unwrap();
    let old = std::fs::read(dir.join("crl/ark_genoa_2022-10.der")).unwrap();
    let refused = |path: &str, reply: Reply, why: &str| {
        let good = amd.host.service.replies.lock().unwrap()[path].clone();
        amd.host.service.says(path, [reply]);
        let _fresh = std::fs::remove_dir_all(amd.host.path("cache"));
        amd.fetch(AMD_TIME).failed(1, why);
        amd.host.service.says(path, good);
    };
    refused(&amd.vcek, ok(other), "no amd-certificate of VCEK Genoa");
    refused(&amd.vcek, ok("<html>"), "not an endorsement");
    refused(&amd.vcek, Reply::Status(404, Vec::new()), "does not know");
    refused(CRL, ok(milan), "no amd-crl of ARK-Genoa");
    refused(CRL, ok(old), "expired at");
    refused(CRL, Reply::Huge, "more than 1048576 bytes");
    refused(CRL, Reply::Status(302, vec![("location", "https://example.com/".to_owned())]), "redirections");
    refused(CRL, ok(Vec::new()), "not an endorsement");
}

#[test]
fn what_is_in_the_cache_outlives_the_service_and_older_answers() {
    let Some(amd) = Amd::new() else { return };
    amd.fetch(AMD_TIME).done();
    // Within its last week the list is asked for again.
    let item = amd.host.bundle().into_iter().find(|item| item.kind == Kind::AmdCrl).unwrap();
    let end = item.about().unwrap().not_after;
    let near = cocoon_attestation::UnixTime(end.0 - 3600).to_string();
    let over = cocoon_attestation::UnixTime(end.0 + 1).to_string();
    amd.host.service.says(CRL, [Reply::Status(500, Vec::new())]);
    let done = amd.fetch(&near).done();
    assert!(done["warnings"][0].as_str().unwrap().contains("good until"), "{done}");
    amd.fetch(&over).failed(2, "500");
    let listed = amd.host.run(&["list", "--at", &near]);
    assert!(listed.stderr.contains("amd-crl of ARK-Genoa expires at"), "{}", listed.stderr);
    let listed = amd.host.run(&["list", "--at", &over, "--json"]);
    assert!(listed.stderr.contains("amd-crl of ARK-Genoa expired at"), "{}", listed.stderr);
    let rows: Value = serde_json::from_str(&listed.stdout).unwrap();
    let states: Vec<&Value> =
        rows["endorsements"].as_array().unwrap().iter().map(|row| &row["state"]).collect();
    assert_eq!((states.len(), states[2]), (3, &Value::from("expired")));
}

#[test]
fn a_damaged_file_is_named_and_fetched_anew() {
    let Some(amd) = Amd::new() else { return };
    amd.fetch(AMD_TIME).done();
    let files = std::fs::read_dir(amd.host.path("cache")).unwrap().map(|entry| entry.unwrap().path());
    let list = files.into_iter().find(|path| path.display().to_string().contains("amd-crl")).unwrap();
    std::fs::write(&list, b"damaged").unwrap();
    assert!(amd.host.run(&["list"]).stderr.contains("damaged"));
    assert_eq!(amd.fetch(AMD_TIME).done()["requests"], 1);
    assert!(!amd.host.run(&["list", "--at", AMD_TIME]).stderr.contains("damaged"));
}

#[test]
fn intel_serves_documents_with_their_chains() {
    let Some(root) = evidence() else { return };
    let (host, set) = (Host::new(), root.join("tdx/collateral/00806f-2025-06"));
    let read = |name: &str| std::fs::read(set.join(name)).unwrap();
    let with = |body: &str, header, chain: &str| {
        Reply::Ok(vec![(header, percent_encoded(&read(chain)))], read(body))
    };
    let says = |path: &str, reply: Reply| host.service.says(path, [reply]);
    let tcb = "/tdx/certification/v4/tcb?fmspc=00806f050000";
    says(tcb, with("tcb_info.json", "TCB-Info-Issuer-Chain", "tcb_signing_chain.pem"));
    says(
        "/tdx/certification/v4/qe/identity",
        with("qe_identity.json", "SGX-Enclave-Identity-Issuer-Chain", "tcb_signing_chain.pem"),
    );
    says(
        "/sgx/certification/v4/pckcrl?ca=platform&encoding=der",
        with("pck.crl.der", "SGX-PCK-CRL-Issuer-Chain", "pck_crl_issuer_chain.pem"),
    );
    says("/IntelSGXRootCA.der", ok(read("root_ca.crl.der")));
    let quote = root.join("tdx/v4-00806f-gcp/quote.bin").display().to_string();
    let fetch = || host.fetch("2025-06-10T00:00:00Z", &["--tdx-quote", &quote]);
    let done = fetch().done();
    assert_eq!(
        (&done["endorsements"], &done["requests"]),
        (&6.into(), &4.into()),
        "{:?}",
        host.service.requests()
    );
    // What the enclave would staple is what Intel served, to the byte.
    for (kind, name) in [(Kind::IntelTcbInfo, "tcb_info.json"), (Kind::IntelPckCrl, "pck.crl.der")] {
        assert!(host.bundle().contains(&Endorsement { kind, bytes: read(name) }));
    }
    let _fresh = std::fs::remove_dir_all(host.path("cache"));
    says(tcb, ok(read("tcb_info.json")));
    fetch().failed(1, "the header TCB-Info-Issuer-Chain is missing");
    let other = std::fs::read(root.join("tdx/collateral/b0c06f-2025-06/tcb_info.json")).unwrap();
    let chain = percent_encoded(&read("tcb_signing_chain.pem"));
    says(tcb, Reply::Ok(vec![("TCB-Info-Issuer-Chain", chain)], other));
    fetch().failed(1, "no intel-tcb-info of 00806f050000");
}

#[test]
fn nvidia_serves_manifests_and_says_whether_their_signers_are_good() {
    let Some(root) = evidence() else { return };
    let (host, dir) = (Host::new(), root.join("nvidia"));
    let case = dir.join("h100-550.90.07-e2e");
    let ids = ["NV_GPU_DRIVER_GH100_550.90.07", "NV_GPU_VBIOS_1010_0200_882_96009F0001"];
    let base64 = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
    let served = |rim: &[u8], digest: String| {
        ok(serde_json::json!({ "id": "x", "rim": base64(rim), "sha256": digest }).to_string())
    };
    for id in ids {
        let rim = std::fs::read(case.join(format!("{id}.swidtag"))).unwrap();
        let digest = cocoon_attestation::Digest::of(&rim).to_string();
        host.service.says(&format!("/v1/rim/{id}"), [served(&rim, digest)]);
    }
    for entry in std::fs::read_dir(dir.join("ocsp")).unwrap() {
        let response = std::fs::read(entry.unwrap().path()).unwrap();
        let item = Endorsement { kind: Kind::NvidiaOcsp, bytes: response.clone() };
        let subject = item.about().unwrap().subject;
        host.service.says(&format!("/ {}", subject.trim_start_matches("certificate ")), [ok(response)]);
    }
    let file = |name: &str| case.join(name).display().to_string();
    let (report, chain) = (file("report.bin"), file("chain.pem"));
    let fetch = |at| host.fetch(at, &["--gpu-report", &report, "--gpu-chain", &chain]);
    // The responses of the corpus are of different days: those about the device answer first, and then those about the signers are not there yet.
    let ran = fetch("2025-08-21T12:00:00Z");
    assert_eq!(host.service.requests()[0], format!("/v1/rim/{}", ids[0]));
    assert!(
        host.service.requests().iter().any(|request| request.starts_with("/ 30")),
        "{:?}",
        host.service.requests()
    );
    assert!(ran.code == 0 || ran.stderr.contains("OCSP response about"), "{}", ran.stderr);
    let rim = std::fs::read(case.join(format!("{}.swidtag", ids[0]))).unwrap();
    let _fresh = std::fs::remove_dir_all(host.path("cache"));
    host.service.says(&format!("/v1/rim/{}", ids[0]), [served(&rim, "0".repeat(64))]);
    fetch("2025-08-21T12:00:00Z").failed(1, "another digest");
}

#[test]
fn files_are_imported_by_what_they_hold() {
    let Some(root) = evidence() else { return };
    let host = Host::new();
    let set = root.join("tdx/collateral/00806f-2025-06").display().to_string();
    let vlek = root.join("snp/milan-v3-vlek-vmpl1/vlek.der").display().to_string();
    let ran = host.run(&["import", &set, &vlek]);
    assert_eq!((ran.code, ran.stdout.trim()), (0, "7 imported"), "{}", ran.stderr);
    let quote = root.join("tdx/v4-00806f-gcp/quote.bin").display().to_string();
    let done = host.fetch("2025-06-10T00:00:00Z", &["--tdx-quote", &quote, "--offline"]).done();
    assert_eq!((&done["endorsements"], &done["requests"]), (&6.into(), &0.into()));
    let bundle = host.path("bundle").display().to_string();
    let other = Host::new();
    assert_eq!(other.run(&["import", &bundle]).stdout.trim(), "6 imported");
    host.run(&["import", &quote]).failed(1, "not an endorsement of a kind that is known");
    host.run(&["import", "/nonexistent"]).failed(2, "/nonexistent");
}

#[test]
fn wrong_usage_says_what_to_do() {
    let host = Host::new();
    host.fetch(AMD_TIME, &[]).failed(2, "say what the endorsements are for");
    host.fetch(AMD_TIME, &["--gpu-report", "r"]).failed(2, "--gpu-chain");
    host.fetch(AMD_TIME, &["--snp-report", "/nonexistent"]).failed(2, "/nonexistent");
    let Some(root) = evidence() else { return };
    let v2 = root.join("snp/milan-v2-vcek/report.bin").display().to_string();
    host.fetch(AMD_TIME, &["--snp-report", &v2]).failed(1, "--product Milan");
    host.fetch(AMD_TIME, &["--snp-report", &v2, "--product", "Milan", "--offline"]).failed(2, "--offline");
    assert!(host.service.requests().is_empty());
}
