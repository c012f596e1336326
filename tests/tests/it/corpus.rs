//! Evidence of real hardware, through the real program, with what a correct verifier says of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cocoon_tests::programs::binary;
use cocoon_tests::repository;
use serde_json::Value;

pub(crate) fn corpus() -> Option<PathBuf> {
    let dir = repository().parent()?.join("shared/evidence");
    if !dir.exists() {
        println!("skipped: no evidence corpus");
    }
    dir.exists().then_some(dir)
}

pub(crate) fn manifest(dir: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join("manifest.json")).unwrap()).unwrap()
}

/// A run of `cocoon inspect`: exit code and result.
pub(crate) fn inspect(args: &[String]) -> (i32, Value) {
    let Output { status, stdout, stderr } =
        Command::new(binary("cocoon")).arg("inspect").args(args).arg("--json").output().unwrap();
    let text = String::from_utf8_lossy(&stderr);
    let report = serde_json::from_slice(&stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}"));
    (status.code().unwrap(), report)
}

/// Status of a factor, `absent` without it.
fn status<'a>(report: &'a Value, name: &str) -> &'a str {
    let factors = report["factors"].as_array().unwrap();
    factors
        .iter()
        .find(|factor| factor["name"] == name)
        .map_or("absent", |factor| factor["status"].as_str().unwrap())
}

pub(crate) fn failed(report: &Value) -> Vec<&str> {
    let factors = report["factors"].as_array().unwrap().iter();
    factors
        .filter(|factor| factor["status"] == "fail")
        .map(|factor| factor["name"].as_str().unwrap())
        .collect()
}

/// The arguments for a case: its report with every certificate it comes with, at its time.
pub(crate) fn snp_args(dir: &Path, case: &Value) -> Vec<String> {
    let path = |key: &str| Some(dir.join(case["files"][key].as_str()?).display().to_string());
    let mut args = vec!["snp".to_owned(), "--report".to_owned(), path("report").unwrap()];
    for certificate in ["vcek", "vlek", "issuer", "ark"].into_iter().filter_map(path) {
        args.extend(["--cert".to_owned(), certificate]);
    }
    if let Some(at) = case["verify_at"].as_str() {
        args.extend(["--at".to_owned(), at.to_owned()]);
    }
    args
}

#[test]
fn every_snp_case_has_its_expected_outcome() {
    let Some(dir) = corpus().map(|dir| dir.join("snp")) else { return };
    let (mut authentic, mut accepted, mut refused) = (0, 0, 0);
    for case in manifest(&dir)["cases"].as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        let (code, report) = inspect(&snp_args(&dir, case));
        let valid = case["expected"]["crypto"] == "valid";
        assert_eq!(report["authentic"], valid, "{id}: {:?}", failed(&report));
        assert_eq!(code == 0, report["accepted"] == true, "{id}");
        if !valid {
            refused += 1;
            assert_eq!(report["accepted"], false, "{id}");
            continue;
        }
        authentic += 1;
        accepted += usize::from(report["accepted"] == true);
        let milan = id.starts_with("milan");
        assert_eq!(status(&report, "snp.product") == "fail", milan, "{id}");
        assert_eq!(status(&report, "snp.version") == "fail", id.contains("-v2-"), "{id}");
        assert_eq!(status(&report, "snp.vmpl") == "fail", id.contains("vmpl1"), "{id}");
        assert_eq!(status(&report, "snp.policy.debug") == "fail", id.contains("debug"), "{id}");
        assert_eq!(status(&report, "snp.signing_key") == "fail", id.contains("vlek"), "{id}");
        assert_eq!(report["accepted"] == true, !milan, "{id}: {:?}", failed(&report));
        claims_are_the_manifests(id, &report["claims"], case);
    }
    assert!(
        authentic >= 12 && accepted >= 4 && refused >= 6,
        "{authentic} {accepted} {refused}: is the corpus whole?"
    );
}

/// The arguments for one evaluation of a quote: endorsements and time.
fn tdx_args(dir: &Path, case: &Value, evaluation: &Value) -> Vec<String> {
    let quote = dir.join(case["files"]["quote"].as_str().unwrap()).display().to_string();
    let mut args = vec!["tdx".to_owned(), "--quote".to_owned(), quote];
    if let Some(set) = evaluation["collateral"].as_str() {
        args.extend(["--endorsements".to_owned(), dir.join("collateral").join(set).display().to_string()]);
    }
    args.extend(["--at".to_owned(), evaluation["verify_at"].as_str().unwrap().to_owned()]);
    args
}

/// The arguments for a GPU's report: chain, manifests, nonce and time.
fn nvidia_args(dir: &Path, case: &Value) -> Vec<String> {
    let mut args = vec!["nvidia".to_owned()];
    for (flag, key) in
        [("--report", "report"), ("--chain", "chain_pem"), ("--rim", "driver_rim"), ("--rim", "vbios_rim")]
    {
        if let Some(file) = case["files"][key].as_str() {
            args.extend([flag.to_owned(), dir.join(file).display().to_string()]);
        }
    }
    let nonce = case["nonce"].as_str().or(case["report"]["nonce"].as_str()).unwrap();
    let at = case["verify_at"].as_str().unwrap();
    args.extend(["--nonce", nonce, "--at", at].map(str::to_owned));
    args
}

#[test]
fn every_nvidia_case_has_its_expected_outcome() {
    let Some(dir) = corpus().map(|dir| dir.join("nvidia")) else { return };
    let (mut whole, mut refused) = (0, 0);
    for case in manifest(&dir)["cases"].as_array().unwrap() {
        let (id, expected) = (case["id"].as_str().unwrap(), &case["expected"]);
        let (code, report) = inspect(&nvidia_args(&dir, case));
        assert_eq!(
            report["authentic"] == true,
            expected["evidence"] == "valid",
            "{id}: {:?}",
            failed(&report)
        );
        assert_eq!(code == 0, report["accepted"] == true, "{id}");
        assert_eq!(status(&report, "nvidia.nonce"), "pass", "{id}");
        let (rims, measurements) = (expected["rims"].as_str().unwrap(), expected["measurements"].as_str());
        let rim = if rims.starts_with("invalid") {
            "fail"
        } else if rims == "valid" {
            "pass"
        } else {
            "unchecked"
        };
        assert_eq!(status(&report, "nvidia.rim"), rim, "{id}");
        let compared =
            measurements.map_or("unchecked", |m| if m.starts_with("match") { "pass" } else { "fail" });
        assert_eq!(status(&report, "nvidia.measurements"), compared, "{id}");
        if expected["end_to_end"] == true {
            assert!(report["accepted"] == true, "{id}: {:?}", failed(&report));
            whole += 1;
        }
        refused += usize::from(code == 1);
    }
    assert!(whole >= 1 && refused >= 5, "{whole} {refused}: is the corpus whole?");
}

#[test]
fn a_nonce_that_another_asked_for_is_refused() {
    let Some(dir) = corpus().map(|dir| dir.join("nvidia")) else { return };
    let manifest = manifest(&dir);
    let mut args = nvidia_args(&dir, &manifest["cases"][0]);
    let at = args.iter().position(|arg| arg == "--nonce").unwrap();
    args[at + 1] = "ab".repeat(32);
    let (code, report) = inspect(&args);
    assert_eq!((code, failed(&report)), (1, vec!["nvidia.nonce"]));
    assert_eq!(report["authentic"], true);
}

/// A row of `docs/evidence.md`.
fn row(id: &str, at: &Value, args: &[String]) -> String {
    let (_, report) = inspect(args);
    let yes = |key: &str| if report[key] == true { "yes" } else { "no" };
    let failed = failed(&report).iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let at = at.as_str().map_or("any", |at| at.split('T').next().unwrap());
    let product = report["product"].as_str().unwrap();
    format!("| {id} | {at} | {product} | {} | {} | {failed} |", yes("authentic"), yes("accepted"))
}

/// Every case of the corpus, as the program judges it now.
fn rows(dir: &Path) -> Vec<String> {
    let (snp, tdx) = (dir.join("snp"), dir.join("tdx"));
    let mut rows = Vec::new();
    for case in manifest(&snp)["cases"].as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        rows.push(row(&format!("snp/{id}"), &case["verify_at"], &snp_args(&snp, case)));
    }
    for case in manifest(&tdx)["cases"].as_array().unwrap() {
        for evaluation in case["evaluations"].as_array().unwrap() {
            let id = format!("tdx/{}", case["id"].as_str().unwrap());
            rows.push(row(&id, &evaluation["verify_at"], &tdx_args(&tdx, case, evaluation)));
        }
    }
    let nvidia = dir.join("nvidia");
    for case in manifest(&nvidia)["cases"].as_array().unwrap() {
        let id = format!("nvidia/{}", case["id"].as_str().unwrap());
        rows.push(row(&id, &case["verify_at"], &nvidia_args(&nvidia, case)));
    }
    rows
}

#[test]
fn the_table_of_all_cases_is_true() {
    let Some(dir) = corpus() else { return };
    let text = std::fs::read_to_string(repository().join("docs/evidence.md")).unwrap();
    let is_row =
        |line: &&str| ["| snp/", "| tdx/", "| nvidia/"].iter().any(|platform| line.starts_with(platform));
    let documented: Vec<_> = text.lines().filter(is_row).collect();
    let rows = rows(&dir);
    assert_eq!(documented, rows, "the rows that are true:\n{}", rows.join("\n"));
}

/// What is claimed is what the manifest's author parsed.
fn claims_are_the_manifests(id: &str, claims: &Value, case: &Value) {
    let want = &case["report"];
    assert_eq!(claims["version"], want["report_version"], "{id}");
    for key in ["vmpl", "policy", "measurement", "report_data", "host_data", "platform_info", "guest_svn"] {
        assert_eq!(claims[key], want[key], "{id}: {key}");
    }
    for (ours, theirs) in [("bootloader", "bl"), ("tee", "tee"), ("snp", "snp"), ("microcode", "ucode")] {
        assert_eq!(claims["reported_tcb"][ours], want["reported_tcb"][theirs], "{id}: {ours}");
    }
}

#[test]
fn every_tdx_case_has_its_expected_outcome() {
    let Some(dir) = corpus().map(|dir| dir.join("tdx")) else { return };
    let manifest = manifest(&dir);
    let (mut accepted, mut refused) = (0, 0);
    for case in manifest["cases"].as_array().unwrap() {
        for evaluation in case["evaluations"].as_array().unwrap() {
            let id = format!("{} at {}", case["id"], evaluation["verify_at"]);
            let (code, report) = inspect(&tdx_args(&dir, case, evaluation));
            let expected = &evaluation["expected"];
            let valid = expected["crypto"] == "valid";
            assert_eq!(report["authentic"], valid, "{id}: {:?}", failed(&report));
            let accept = expected["default_policy"].as_str().unwrap().starts_with("accept");
            assert_eq!(code == 0, report["accepted"] == true, "{id}");
            assert_eq!(report["accepted"] == true, accept, "{id}: {:?}", failed(&report));
            (accepted, refused) = (accepted + usize::from(accept), refused + usize::from(!accept));
            if let Some(status) = expected["tcb_status"].as_str().filter(|_| valid) {
                let got = report["claims"]["tcb_status"].as_str().unwrap();
                assert!(got == status || status.starts_with("none"), "{id}: {got}");
            }
        }
    }
    assert!(accepted >= 5 && refused >= 9, "{accepted} {refused}: is the corpus whole?");
}

#[test]
fn a_revoked_key_is_named_with_its_date_and_an_old_list_with_its_end() {
    let Some(dir) = corpus().map(|dir| dir.join("snp")) else { return };
    let manifest = manifest(&dir);
    let case = |id: &str| {
        manifest["cases"].as_array().unwrap().iter().find(|case| case["id"] == id).unwrap().clone()
    };
    let with = |id: &str, crl: &str| {
        let mut args = snp_args(&dir, &case(id));
        args.extend(["--crl".to_owned(), dir.join("crl").join(crl).display().to_string()]);
        let (_, report) = inspect(&args);
        let factors = report["factors"].as_array().unwrap();
        let factor = factors.iter().find(|factor| factor["name"] == "snp.crl").unwrap();
        (factor["status"].as_str().unwrap().to_owned(), factor["got"].as_str().unwrap().to_owned())
    };
    let (status, got) = with("genoa-revoked-ask", "ark_genoa_2024-10.der");
    assert!(status == "fail" && got.contains("SEV-Genoa was revoked at 2022-10-31T12:00:00Z"), "{got}");
    assert_eq!(with("milan-v3-vcek-azure", "ark_milan_2025-05.der").0, "pass");
    let (status, got) = with("genoa-v5-vcek", "ark_genoa_2024-10.der");
    assert!(status == "fail" && got.contains("expired at 2025-11-03T01:00:00Z"), "{got}");
    let (status, got) = with("genoa-v5-vcek", "ark_milan_2025-05.der");
    assert!(status == "fail" && got.contains("no revocation list of ARK-Genoa"), "{got}");
}
