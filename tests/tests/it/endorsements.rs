//! What `cocoon-host endorsements` writes is what `cocoon inspect` needs, for each vendor.

use std::path::Path;
use std::process::Command;

use cocoon_tests::programs::binary;
use serde_json::Value;

use crate::corpus::{corpus, failed, inspect};

/// Files into a new cache, and the bundle for this evidence out of it.
fn bundle(dir: &Path, files: &[String], evidence: &[&str], at: &str) -> String {
    let host = |args: &[&str]| {
        let mut command = Command::new(binary("cocoon-host"));
        let output = command.arg("endorsements").args(args).arg("--cache").arg(dir.join("cache")).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    host(&[&["import"], &files[..]].concat());
    let out = dir.join("bundle").display().to_string();
    host(&[&["fetch", "--offline", "--at", at, "--out", &out], evidence].concat());
    out
}

fn status<'a>(report: &'a Value, name: &str) -> &'a Value {
    let factor = report["factors"].as_array().unwrap().iter().find(|factor| factor["name"] == name);
    &factor.unwrap_or_else(|| panic!("no {name}"))["status"]
}

#[test]
fn a_bundle_for_a_processor_of_amd() {
    let Some(root) = corpus() else { return };
    let (dir, at) = (tempfile::tempdir().unwrap(), "2025-03-01T00:00:00Z");
    let file = |name: &str| root.join("snp").join(name).display().to_string();
    let report = file("genoa-v3-vcek-azure/report.bin");
    let files =
        ["genoa-v3-vcek-azure/vcek.der", "genoa-v3-vcek-azure/cert_chain.pem", "crl/ark_genoa_2024-10.der"];
    let bundle = bundle(dir.path(), &files.map(file), &["--snp-report", &report], at);
    let (_code, result) =
        inspect(&["snp", "--report", &report, "--endorsements", &bundle, "--at", at].map(String::from));
    assert_eq!(result["authentic"], true, "{:?}", failed(&result));
    for name in ["snp.signature", "snp.chain", "snp.crl"] {
        assert_eq!(status(&result, name), "pass", "{name}");
    }
}

#[test]
fn a_bundle_for_a_trust_domain() {
    let Some(root) = corpus() else { return };
    let (dir, at) = (tempfile::tempdir().unwrap(), "2025-06-10T00:00:00Z");
    let file = |name: &str| root.join("tdx").join(name).display().to_string();
    let quote = file("v4-00806f-gcp/quote.bin");
    let bundle = bundle(dir.path(), &[file("collateral/00806f-2025-06")], &["--tdx-quote", &quote], at);
    let args = |endorsements: &str| {
        ["tdx", "--quote", &quote, "--endorsements", endorsements, "--at", at].map(String::from)
    };
    let (code, result) = inspect(&args(&bundle));
    assert_eq!((code, result.clone()), inspect(&args(&file("collateral/00806f-2025-06"))));
    assert_eq!(result["authentic"], true, "{:?}", failed(&result));
}

#[test]
fn a_bundle_for_a_gpu() {
    let Some(root) = corpus() else { return };
    let (dir, at) = (tempfile::tempdir().unwrap(), "2025-06-20T12:00:00Z");
    let file = |name: &str| root.join("nvidia/h100-550.90.07-e2e").join(name).display().to_string();
    let (report, chain) = (file("report.bin"), file("chain.pem"));
    let rims =
        ["NV_GPU_DRIVER_GH100_550.90.07.swidtag", "NV_GPU_VBIOS_1010_0200_882_96009F0001.swidtag"].map(file);
    let mut given: Vec<String> = rims.to_vec();
    for entry in std::fs::read_dir(root.join("nvidia/ocsp")).unwrap() {
        given.push(entry.unwrap().path().display().to_string());
    }
    let bundle = bundle(dir.path(), &given, &["--gpu-report", &report, "--gpu-chain", &chain], at);
    let (_code, result) = inspect(
        &["nvidia", "--report", &report, "--chain", &chain, "--endorsements", &bundle, "--at", at]
            .map(String::from),
    );
    // The responses of the corpus are of different days: those about the signers of the manifests are not valid yet.
    assert_eq!(failed(&result), ["nvidia.ocsp"]);
    for name in ["nvidia.signature", "nvidia.rim", "nvidia.measurements"] {
        assert_eq!(status(&result, name), "pass", "{name}");
    }
}

#[test]
fn a_bundle_that_is_none_is_malformed_evidence_of_each_kind() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file").display().to_string();
    std::fs::write(&file, b"no bundle").unwrap();
    for (kind, args) in [
        ("snp", vec!["--report", &file]),
        ("tdx", vec!["--quote", &file]),
        ("nvidia", vec!["--report", &file, "--chain", &file]),
    ] {
        let args: Vec<&str> = [&[kind], &args[..], &["--endorsements", &file]].concat();
        let (code, result) = inspect(&args.into_iter().map(String::from).collect::<Vec<_>>());
        assert_eq!((code, &result["authentic"]), (1, &Value::Bool(false)), "{result}");
    }
}
