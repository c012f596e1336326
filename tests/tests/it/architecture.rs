//! `docs/architecture.md` as tests: who may depend on whom, what is in which binary.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use cocoon_tests::programs::{binary, contains, target_dir};
use cocoon_tests::repository;
use serde_json::Value;

type Graph = BTreeMap<String, BTreeSet<String>>;

/// What a crate must not reach, directly or through others. Dependencies for tests do not count.
const FORBIDDEN: [(&str, &[&str]); 7] = [
    (
        "cocoon-attestation",
        &[
            "tokio",
            "hyper",
            "rustls",
            "cocoon-channel",
            "cocoon-client",
            "cocoon-enclave",
            "cocoon-host",
            "cocoon-inference",
            "cocoon-measurements",
        ],
    ),
    (
        "cocoon-channel",
        &[
            "hyper",
            "cocoon-client",
            "cocoon-enclave",
            "cocoon-host",
            "cocoon-inference",
            "cocoon-measurements",
        ],
    ),
    (
        "cocoon-inference",
        &[
            "tokio",
            "hyper",
            "rustls",
            "cocoon-attestation",
            "cocoon-channel",
            "cocoon-client",
            "cocoon-enclave",
            "cocoon-host",
        ],
    ),
    ("cocoon-enclave", &["cocoon-host", "cocoon-client", "cocoon-measurements"]),
    (
        "cocoon-host",
        &[
            "cocoon-inference",
            "cocoon-enclave",
            "cocoon-client",
            "cocoon-channel",
            "cocoon-measurements",
            "aes-gcm",
            "chacha20poly1305",
            "rsa",
            "sev",
            "libcrux-ml-kem",
        ],
    ),
    ("cocoon-client", &["cocoon-enclave", "cocoon-host", "cocoon-measurements", "cocoon-inference"]),
    ("cocoon-measurements", &["cocoon-enclave", "cocoon-host", "cocoon-client", "tokio"]),
];

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--offline",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Normal dependencies of every package, by name.
fn graph(metadata: &Value) -> Graph {
    let names: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["id"].as_str().unwrap(), p["name"].as_str().unwrap()))
        .collect();
    let is_normal =
        |dep: &&Value| dep["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null());
    let mut graph = Graph::new();
    for node in metadata["resolve"]["nodes"].as_array().unwrap() {
        let deps = node["deps"].as_array().unwrap().iter().filter(is_normal);
        let deps = deps.map(|dep| names[dep["pkg"].as_str().unwrap()].to_owned());
        graph.entry(names[node["id"].as_str().unwrap()].to_owned()).or_default().extend(deps);
    }
    graph
}

fn reaches(graph: &Graph, from: &str) -> BTreeSet<String> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(name) = open.pop() {
        for next in graph.get(&name).into_iter().flatten() {
            if seen.insert(next.clone()) {
                open.push(next.clone());
            }
        }
    }
    seen
}

fn violations(graph: &Graph) -> Vec<String> {
    let mut out = Vec::new();
    for (from, forbidden) in FORBIDDEN {
        let reached = reaches(graph, from);
        out.extend(forbidden.iter().filter(|to| reached.contains(**to)).map(|to| format!("{from} -> {to}")));
    }
    for (from, deps) in graph {
        out.extend(deps.contains("cocoon-tests").then(|| format!("{from} -> cocoon-tests")));
    }
    out
}

#[test]
fn dependencies_go_the_right_way() {
    let graph = graph(&metadata());
    for (name, _) in FORBIDDEN {
        assert!(graph.contains_key(name), "{name} is gone: this test checks nothing");
    }
    assert_eq!(violations(&graph), Vec::<String>::new());
}

#[test]
fn a_wrong_dependency_would_be_found() {
    let good = graph(&metadata());
    for (from, to, found) in [
        ("cocoon-host", "cocoon-inference", "cocoon-host -> cocoon-inference"),
        ("cocoon-host", "cocoon-channel", "cocoon-host -> libcrux-ml-kem"),
        ("cocoon-attestation", "tokio", "cocoon-attestation -> tokio"),
        ("cocoon-client", "cocoon-tests", "cocoon-client -> cocoon-tests"),
    ] {
        let mut bad = good.clone();
        bad.get_mut(from).unwrap().insert(to.to_owned());
        assert!(violations(&bad).contains(&found.to_owned()), "{from} -> {to} was not found");
    }
}

/// What `deny.toml` forbids among `packages`: crates, licences, sources. `cargo deny check` adds the advisories, which need a network.
fn denied(packages: &[Value]) -> Vec<String> {
    let rules: toml::Table =
        std::fs::read_to_string(repository().join("deny.toml")).unwrap().parse().unwrap();
    let banned: BTreeSet<&str> = rules["bans"]["deny"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["crate"].as_str().unwrap())
        .collect();
    let allowed: BTreeSet<&str> = rules["licenses"]["allow"]
        .as_array()
        .unwrap()
        .iter()
        .map(|license| license.as_str().unwrap())
        .collect();
    assert!(banned.contains("openssl-sys") && allowed.contains("MIT"), "deny.toml lost its rules");
    let mut out = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let license = package["license"].as_str().unwrap_or("none");
        let expression = spdx::Expression::parse_mode(license, spdx::ParseMode::LAX);
        let is_allowed = expression
            .is_ok_and(|e| e.evaluate(|requirement| allowed.contains(requirement.to_string().as_str())));
        let source = package["source"].as_str();
        out.extend(banned.contains(name).then(|| format!("{name} is banned")));
        out.extend((!is_allowed).then(|| format!("{name}: licence {license} is not allowed")));
        out.extend(source.filter(|s| !s.starts_with("registry+")).map(|s| format!("{name} comes from {s}")));
    }
    out
}

#[test]
fn deny_toml_is_kept() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    assert_eq!(denied(packages), Vec::<String>::new());
    // The test of the test.
    let bad = |name: &str, license: &str, source: &str| serde_json::json!({ "name": name, "license": license, "source": source });
    let registry = "registry+https://example.org";
    for (package, found) in [
        (bad("openssl-sys", "MIT", registry), "openssl-sys is banned"),
        (bad("x", "AGPL-3.0-only", registry), "x: licence AGPL-3.0-only is not allowed"),
        (bad("x", "MIT AND GPL-2.0-only", registry), "x: licence MIT AND GPL-2.0-only is not allowed"),
        (bad("x", "MIT OR GPL-2.0-only", "git+https://example.org"), "x comes from git+https://example.org"),
    ] {
        assert_eq!(denied(&[package]), [found]);
    }
}

/// Texts that only a binary with that code has: symbols of a debug build, and string constants.
fn has(path: &Path, needle: &str) -> bool {
    let program = std::fs::read(path);
    let program = program.unwrap_or_else(|e| panic!("{}: {e}; scripts/test builds it", path.display()));
    contains(&program, needle.as_bytes())
}

#[test]
fn the_host_serves_no_tls_and_holds_nothing_of_the_channel() {
    let (host, client, enclave) = (binary("cocoon-host"), binary("cocoon"), binary("cocoon-enclave"));
    let server = "no server certificate chain resolved";
    for needle in [server, "cocoon_channel", "EXPERIMENTAL cocoon attest v1", "cocoon_inference"] {
        assert!(!has(&host, needle), "cocoon-host contains {needle}");
    }
    // The control: the needles are found where they belong.
    for needle in ["rustls", "cocoon_channel", "EXPERIMENTAL cocoon attest v1", "ring_core_0_17"] {
        assert!(has(&client, needle) && has(&enclave, needle), "{needle} is not found anywhere");
    }
    assert!(has(&enclave, server), "{server} is not found anywhere");
    assert!(has(&enclave, "cocoon_inference") && !has(&client, "cocoon_inference"));
}

/// Every file below the folder, by its name there, with its text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let root = repository().join(folder);
    let (mut folders, mut out) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                out.push((path.strip_prefix(&root).unwrap().to_owned(), text));
            }
        }
    }
    out
}

/// What parts of the host may name: the relay sees ciphertext and knows no key.
#[test]
fn only_the_fetcher_of_endorsements_knows_tls_and_evidence() {
    let mut seen = 0;
    for (name, text) in sources("host/src") {
        let tls = ["rustls::", "webpki_roots::"].iter().any(|needle| text.contains(needle));
        seen += u32::from(tls);
        assert!(!tls || name.starts_with("endorsements"), "{} uses TLS", name.display());
        // main.rs hands over the time.
        let types = text.contains("cocoon_attestation::") && name != Path::new("main.rs");
        assert!(!types || name.starts_with("endorsements"), "{} knows evidence", name.display());
        let appraises = ["appraisal::", "appraise(", "authenticate(", "SignatureCache"];
        assert!(!appraises.iter().any(|n| text.contains(n)), "{} appraises", name.display());
    }
    assert!(seen > 0, "no TLS was found anywhere");
}

/// Appraisal is a function of what it is given: no network, no files, no clock, no environment.
#[test]
fn the_verifier_reaches_for_nothing() {
    let reaches = |text: &str| {
        let mine = text.split("#[cfg(test)]").next().unwrap_or_default();
        let outside =
            ["std::net", "std::fs", "std::process", "std::env", "std::os", "SystemTime", "Instant::"];
        outside.into_iter().find(|needle| mine.contains(needle))
    };
    let files = sources("attestation/src");
    for (name, text) in files.iter().filter(|(name, _)| !name.iter().any(|part| part == "tests")) {
        assert_eq!(reaches(text), None, "{}", name.display());
    }
    assert!(files.len() > 60 && sources("client/src").iter().any(|(_, text)| reaches(text).is_some()));
}

#[test]
fn an_enclave_without_the_feature_has_no_simulated_platform() {
    let [with, without] =
        ["with-sim", "without-sim"].map(|folder| target_dir().join(folder).join("cocoon-enclave"));
    // Texts, which remain when symbols are stripped.
    for needle in ["Cocoon simulated platform", "sim_generating", "vcek.key"] {
        assert!(!has(&without, needle), "the enclave without `sim` contains {needle}");
        assert!(has(&with, needle), "{needle} is not found anywhere");
    }
}

#[test]
fn no_unsafe_code_in_our_crates() {
    for (name, _) in FORBIDDEN {
        let dir = match name {
            "cocoon-channel" => "attestation/channel".to_owned(),
            "cocoon-inference" => "enclave/inference".to_owned(),
            other => other.trim_start_matches("cocoon-").to_owned(),
        };
        let text = std::fs::read_to_string(repository().join(dir).join("src/lib.rs")).unwrap();
        let level = if matches!(name, "cocoon-enclave" | "cocoon-inference") { "deny" } else { "forbid" };
        assert!(text.contains(&format!("#![{level}(unsafe_code)]")), "{name} does not {level} unsafe code");
    }
}

/// Where the enclave calls into the kernel and into NVIDIA's libraries, uses vector instructions, and shares work among threads.
const UNSAFE: [&str; 10] = [
    "enclave/inference/src/cpu/pool.rs",
    "enclave/inference/src/cpu/scheduling.rs",
    "enclave/inference/src/cpu/simd/avx2.rs",
    "enclave/inference/src/cpu/simd/avx512.rs",
    "enclave/inference/src/cpu/simd/mod.rs",
    "enclave/inference/src/cuda/device.rs",
    "enclave/inference/src/cuda/gemm.rs",
    "enclave/src/init/network.rs",
    "enclave/src/platform/device.rs",
    "enclave/src/platform/nvidia/library.rs",
];

#[test]
fn unsafe_code_of_the_enclave_is_where_it_is_known_to_be() {
    let roots = ["enclave/src", "enclave/inference/src"].map(|root| repository().join(root));
    let (mut folders, mut found) = (Vec::from(roots), BTreeSet::new());
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read_to_string(&path).unwrap().contains("expect(unsafe_code") {
                found.insert(path.strip_prefix(repository()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    assert_eq!(found, BTreeSet::from(UNSAFE.map(str::to_owned)));
}

/// Features of one program's own build, as images are made: not those that other programs of the workspace add.
#[test]
fn no_end_of_the_channel_has_an_older_tls() {
    for package in ["cocoon-enclave", "cocoon-client"] {
        let tree = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--offline",
                "--locked",
                "--edges",
                "normal,features",
                "--prefix",
                "none",
                "--package",
                package,
            ])
            .current_dir(repository())
            .output()
            .unwrap();
        let tree = String::from_utf8(tree.stdout).unwrap();
        assert!(tree.contains("rustls feature \"ring\""), "{package}: {tree}");
        assert!(!tree.contains("feature \"tls12\""), "{package}");
    }
}
