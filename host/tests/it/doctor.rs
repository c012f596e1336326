//! `cocoon-host doctor` on the machine that runs the tests, and what the manual says of it.

use std::{collections::BTreeSet, path::Path, process::Command};

use cocoon_host::doctor::NAMES;

fn doctor(more: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cocoon-host"));
    let output = command.arg("doctor").args(more).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn file(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Whether KVM offers a TEE here; then this machine is fit for most of it, and the tests below say nothing.
fn has_tee() -> bool {
    ["kvm_amd/parameters/sev_snp", "kvm_intel/parameters/tdx"]
        .iter()
        .any(|name| matches!(file(&format!("/sys/module/{name}")).trim(), "Y" | "1"))
}

#[test]
fn this_machine_is_told_the_truth() {
    if has_tee() {
        return;
    }
    let (code, stdout, stderr) = doctor(&["--json"]);
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["ok"], false);
    let check = |name: &str| {
        let checks = report["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
    };
    let cpu = file("/proc/cpuinfo");
    let virtualizes = cpu.split_ascii_whitespace().any(|flag| flag == "svm" || flag == "vmx");
    let hardware = check("kvm.hardware");
    assert_eq!(hardware["status"] == "pass", virtualizes, "{hardware}");
    if !virtualizes && Path::new("/dev/kvm").exists() {
        assert!(hardware["found"].as_str().unwrap().contains("software KVM"), "{hardware}");
    }
    assert_eq!(check("kvm.tee")["status"], "fail");
    for check in report["checks"].as_array().unwrap() {
        assert_eq!(check["fix"].is_null(), check["status"] == "pass", "{check}");
        assert!(NAMES.contains(&check["name"].as_str().unwrap()), "{check}");
    }
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn the_table_has_columns_and_a_fix_for_everything_that_fails() {
    if has_tee() {
        return;
    }
    let (code, stdout, stderr) = doctor(&["--tee", "snp"]);
    assert_eq!(code, Some(1));
    let mut lines = stdout.lines();
    let column = lines.next().unwrap().find("found").unwrap();
    let mut failed = 0;
    while let Some(line) = lines.next() {
        if line.starts_with("NOT FIT for snp: ") {
            assert!(line.ends_with(&format!(" {failed} fail")), "{line}");
            assert!(stderr.contains(&format!("error: {failed} checks failed")), "{stderr}");
            return;
        }
        assert_eq!(line.as_bytes()[column - 1], b' ', "{line}");
        if line.starts_with("FAIL") {
            failed += 1;
            assert!(lines.next().unwrap()[column..].starts_with("wanted: "));
            assert!(lines.next().unwrap()[column..].starts_with('('));
        }
    }
    panic!("no verdict: {stdout}");
}

#[test]
fn a_missing_qemu_is_named() {
    let (code, stdout, _) = doctor(&["--tee", "sim", "--qemu", "/nonexistent/qemu"]);
    assert_eq!(code, Some(1));
    let line = stdout.lines().find(|line| line.starts_with("FAIL")).unwrap();
    assert!(line.contains("qemu.version") && line.contains("/nonexistent/qemu"), "{line}");
}

#[test]
fn wrong_usage_could_not_tell() {
    for more in [&["--tee", "sgx"][..], &["--gpu", "41:00.0"], &["--listen", "x"], &["--memory", "1"]] {
        let (code, stdout, stderr) = doctor(more);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{more:?}: {stderr}");
    }
}

#[test]
fn the_manual_lists_every_check() {
    let manual = file(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating.md"));
    let section = manual.split_once("\n## Doctor\n").unwrap().1.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0));
    assert_eq!(rows.collect::<BTreeSet<_>>(), BTreeSet::from(NAMES));
}
