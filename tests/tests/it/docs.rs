//! What the documents say is so.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cocoon_tests::enclave::InProcess;
use cocoon_tests::programs::binary;
use cocoon_tests::repository;

fn documents() -> Vec<PathBuf> {
    let root = repository();
    let mut out: Vec<PathBuf> =
        ["README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root.join(name)).into();
    for entry in std::fs::read_dir(root.join("docs")).unwrap() {
        let path = entry.unwrap().path();
        out.extend(path.extension().is_some_and(|e| e == "md").then_some(path));
    }
    out
}

/// Targets of Markdown links that are not web addresses or anchors.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    targets
        .filter(|t| !t.contains("://") && !t.starts_with('#'))
        .map(|t| t.split('#').next().unwrap().to_owned())
        .collect()
}

#[test]
fn links_lead_somewhere() {
    let mut count = 0;
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for link in links(&text) {
            let target = document.parent().unwrap_or(Path::new("/")).join(&link);
            assert!(target.exists(), "{}: {link} is not there", document.display());
            count += 1;
        }
    }
    assert!(count > 10, "only {count} links were found");
}

/// Names of factors that the code can report: string literals with a dot after a known prefix.
fn factors_in_code() -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let mut folders = vec![repository().join("attestation/src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() && !entry.ends_with("tests") {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs")
                && !entry.ends_with("explain.rs")
            {
                files.push(entry);
            }
        }
    }
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let literals = text.split('"').skip(1).step_by(2);
        let is_factor = |l: &&str| {
            let known = [
                "snp.",
                "tdx.",
                "nvidia.",
                "channel.",
                "epoch.",
                "claims.",
                "platform.",
                "privacy.",
                "evidence.",
                "release.",
            ]
            .iter()
            .any(|p| l.starts_with(p));
            known && l.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '_')
        };
        out.extend(literals.filter(is_factor).map(str::to_owned));
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn every_factor_is_documented_and_every_documented_factor_exists() {
    let text = std::fs::read_to_string(repository().join("docs/factors.md")).unwrap();
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned());
    let (documented, in_code): (BTreeSet<String>, _) = (rows.collect(), factors_in_code());
    assert_eq!(documented, in_code);
    let enclave = InProcess::start(None).await;
    let session = cocoon_client::connect(&enclave.address, enclave.policy()).await.unwrap();
    for factor in &session.result().report().factors {
        assert!(documented.contains(factor.name), "{} is not documented", factor.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_shows_what_is_printed() {
    let text = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let shown: BTreeSet<(String, String)> = text
        .lines()
        .filter(|line| line.starts_with("pass ") || line.starts_with("unchecked "))
        .map(|line| line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>())
        .map(|words| (words[0].clone(), words[1].clone()))
        .collect();
    let enclave = InProcess::start(None).await;
    let session = cocoon_client::connect(&enclave.address, enclave.policy()).await.unwrap();
    let report = session.result();
    let printed = report.report().factors.iter().map(|factor| {
        let status = serde_json::to_value(factor.status).unwrap().as_str().unwrap().to_owned();
        (status, factor.name.to_owned())
    });
    let printed: BTreeSet<_> = printed.collect();
    let invented: Vec<_> = shown.difference(&printed).collect();
    assert!(invented.is_empty() && shown.len() > 15, "{invented:?} of {}", shown.len());
}

#[test]
fn examples_are_policies() {
    for entry in std::fs::read_dir(repository().join("docs/examples")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        cocoon_client::Policy::from_toml(&text).unwrap();
    }
    let init = std::fs::read_to_string(repository().join("docs/examples/policy.toml")).unwrap();
    assert_eq!(init, cocoon_attestation::policy::init(0), "write it with `cocoon policy init`");
}

#[test]
fn every_event_of_the_enclave_is_documented() {
    let source = std::fs::read_to_string(repository().join("enclave/src/events.rs")).unwrap();
    let read = |name: &str| std::fs::read_to_string(repository().join(name)).unwrap();
    // Those of the boot are with the image.
    let text = read("docs/operating.md") + &read("docs/image.md");
    let mut seen = 0;
    for name in ["Event", "BootStep", "Failure", "EpochFault", "AttesterFault", "Refusal"] {
        let body =
            source.split_once(&format!("pub enum {name} {{\n")).unwrap().1.split_once("\n}").unwrap().0;
        // Variants are what begins with a capital letter four spaces in.
        let variants = body.lines().filter_map(|line| line.strip_prefix("    "));
        for variant in variants.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase())) {
            let word: String = variant.chars().take_while(char::is_ascii_alphanumeric).collect();
            let mut snake = String::new();
            for (at, letter) in word.char_indices() {
                if letter.is_ascii_uppercase() && at > 0 {
                    snake.push('_');
                }
                snake.push(letter.to_ascii_lowercase());
            }
            assert!(text.contains(&format!("`{snake}`")), "docs/operating.md says nothing of `{snake}`");
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}

fn is_flag(word: &str) -> bool {
    word.strip_prefix("--").is_some_and(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()))
}

#[test]
fn flags_in_the_documents_exist() {
    let help = |program: &str, command: &[&str]| {
        let output =
            std::process::Command::new(binary(program)).args(command).arg("--help").output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let all = [
        help("cocoon", &[]),
        help("cocoon", &["chat"]),
        help("cocoon", &["embed"]),
        help("cocoon", &["completions"]),
        help("cocoon", &["man"]),
        help("cocoon", &["verify"]),
        help("cocoon", &["proxy"]),
        help("cocoon", &["receipt", "verify"]),
        help("cocoon", &["inspect", "bundle"]),
        help("cocoon", &["inspect", "snp"]),
        help("cocoon", &["inspect", "tdx"]),
        help("cocoon", &["inspect", "nvidia"]),
        help("cocoon", &["policy", "init"]),
        help("cocoon", &["policy", "explain"]),
        help("cocoon-host", &["run"]),
        help("cocoon-host", &["relay"]),
        help("cocoon-host", &["doctor"]),
        help("cocoon-host", &["endorsements", "fetch"]),
        help("cocoon-measure", &["image", "build"]),
        help("cocoon-measure", &["image", "lock"]),
        help("cocoon-measure", &["image", "verify"]),
        help("cocoon-measure", &["id-block", "create"]),
        help("cocoon-measure", &["predict", "policy"]),
        help("cocoon-measure", &["predict", "host-data"]),
        help("cocoon-sim-processor", &["serve"]),
        help("cocoon-enclave", &["bench"]),
        help("cocoon-measure", &["predict", "snp"]),
        help("cocoon-measure", &["predict", "tdx"]),
        help("cocoon-measure", &["explain"]),
        help("cocoon-measure", &["model", "digest"]),
        help("cocoon-measure", &["floors", "sign"]),
        help("cocoon-measure", &["floors", "verify"]),
        help("cocoon-measure", &["release", "create"]),
        help("cocoon-measure", &["release", "sign"]),
        help("cocoon-measure", &["release", "verify"]),
        help("cocoon-measure", &["release", "show"]),
        help("cocoon-measure", &["rebuild", "attest"]),
        help("cocoon-measure", &["rebuild", "verify"]),
        help("cocoon-measure", &["log", "init"]),
        help("cocoon-measure", &["log", "append"]),
        help("cocoon-measure", &["log", "verify"]),
        help("cocoon-measure", &["log", "cosign"]),
        help("cocoon-enclave", &[]),
        std::fs::read_to_string(repository().join("scripts/demo")).unwrap(),
        std::fs::read_to_string(repository().join("scripts/image")).unwrap(),
        std::fs::read_to_string(repository().join("scripts/bench")).unwrap(),
    ]
    .concat();
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        let code = text.split('`').filter(|piece| piece.contains("cocoon"));
        for word in code.flat_map(str::split_whitespace).filter(|word| is_flag(word)) {
            let flag = word
                .trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '-')
                .split('=')
                .next()
                .unwrap();
            assert!(all.contains(flag), "{}: {flag} is no flag of any program", document.display());
        }
    }
}
