//! Genuine SNP evidence, altered in every way that the corpus lists: refused where it should be.

use std::path::Path;

use cocoon_attestation::policy::strict;
use serde_json::Value;

use super::corpus::{corpus, failed, inspect, manifest, snp_args};

/// Applies one operation to the arguments of a case; files that change go to `scratch`.
fn apply(op: &Value, args: &mut Vec<String>, case: &Value, root: &Path, scratch: &Path) {
    let text = |key: &str| op[key].as_str().unwrap();
    let number = |key: &str| usize::try_from(op[key].as_u64().unwrap()).unwrap();
    let place = |args: &[String]| {
        let file = root.join("snp").join(case["files"][text("file")].as_str().unwrap()).display().to_string();
        let report = scratch.join("report").display().to_string();
        let at = args.iter().position(|arg| *arg == file || (text("file") == "report" && *arg == report));
        at.unwrap_or_else(|| panic!("{file} is not among the arguments"))
    };
    let edit = |args: &mut Vec<String>, change: &dyn Fn(&mut Vec<u8>)| {
        let at = place(args);
        let mut bytes = std::fs::read(&args[at]).unwrap();
        change(&mut bytes);
        let path = scratch.join(text("file"));
        std::fs::write(&path, bytes).unwrap();
        args[at] = path.display().to_string();
    };
    let hex = || hex::decode(text("hex")).unwrap();
    match text("op") {
        "xor" => edit(args, &|bytes| bytes[number("offset")] ^= u8::try_from(number("value")).unwrap()),
        "write" => edit(args, &|bytes| {
            let (at, new) = (number("offset"), hex());
            bytes[at..at + new.len()].copy_from_slice(&new);
        }),
        "truncate" => edit(args, &|bytes| bytes.truncate(number("length"))),
        "append" => edit(args, &|bytes| bytes.extend(hex())),
        "replace_file" => {
            let at = place(args);
            args[at] = root.join(text("with")).display().to_string();
        }
        "set_time" => {
            let at = args.iter().position(|arg| arg == "--at").unwrap();
            args[at + 1] = text("verify_at").to_owned();
        }
        "expect" => expect(op, args, scratch),
        other => panic!("unknown operation {other}"),
    }
}

/// What a relying party demands: REPORT_DATA by flag, the rest by policy.
fn expect(op: &Value, args: &mut Vec<String>, scratch: &Path) {
    if let Some(data) = op["report_data"].as_str() {
        args.extend(["--report-data".to_owned(), format!("{data:1<128}")]);
        return;
    }
    let replace = |row: &str, with: &str| {
        let text = strict();
        let line = text.lines().find(|line| line.starts_with(&format!("{row} = "))).unwrap().to_owned();
        text.replacen(&line, &format!("{row} = {with}"), 1)
    };
    let policy = match (op["measurement"].as_str(), op["min_tcb"]["bl"].as_u64()) {
        (Some(digest), _) => replace("measurement", &format!("{{ exactly = \"{digest}\" }}")),
        (None, Some(floor)) => {
            let parts = format!("{{ bootloader = {floor}, tee = 0, snp = 0, microcode = 0 }}");
            replace("tcb", &format!("{{ at_least = {{ Genoa = {parts} }} }}"))
        }
        (None, None) => panic!("unknown demand {op}"),
    };
    let path = scratch.join("policy.toml");
    std::fs::write(&path, policy).unwrap();
    args.extend(["--policy".to_owned(), path.display().to_string()]);
}

#[test]
fn every_alteration_of_genuine_reports_is_refused_where_it_should_be() {
    let Some(root) = corpus() else { return };
    let recipes: Value =
        serde_json::from_slice(&std::fs::read(root.join("invalid/recipes.json")).unwrap()).unwrap();
    let cases = manifest(&root.join("snp"));
    let mut count = 0;
    for recipe in recipes["recipes"].as_array().unwrap().iter().filter(|recipe| recipe["family"] == "snp") {
        let id = recipe["id"].as_str().unwrap();
        let case =
            cases["cases"].as_array().unwrap().iter().find(|case| case["id"] == recipe["base"]).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let mut args = snp_args(&root.join("snp"), case);
        for op in recipe["ops"].as_array().unwrap() {
            apply(op, &mut args, case, &root, scratch.path());
        }
        let (code, report) = inspect(&args);
        let (authentic, failed) = (report["authentic"] == true, failed(&report));
        match recipe["expected"].as_str().unwrap() {
            "valid" => assert!(authentic && code == 0, "{id}: {failed:?}"),
            "reject" => assert!(authentic && code == 1, "{id}: {failed:?}"),
            _ => assert!(!authentic && code == 1, "{id}: {failed:?}"),
        }
        let stops = recipe["fails_at"].as_str().unwrap();
        let factor = match stops {
            _ if stops.starts_with("nothing") => None,
            _ if stops.starts_with("parse") => Some("evidence.format"),
            _ if stops.starts_with("report signature") => Some("snp.signature"),
            _ if stops.starts_with("policy: report_data") => Some("evidence.report_data"),
            _ if stops.starts_with("policy: measurement") => Some("snp.measurement"),
            _ if stops.starts_with("policy: reported TCB") => Some("snp.tcb"),
            _ if stops.starts_with("policy: debug") => Some("snp.policy.debug"),
            _ => Some("snp.chain"),
        };
        // Reserved bytes are refused by the parser, before the signature over them is looked at.
        let stopped = failed == ["evidence.format"] || factor.is_none_or(|factor| failed.contains(&factor));
        assert!(stopped, "{id}: {factor:?} in {failed:?}");
        count += 1;
    }
    assert!(count > 30, "only {count} recipes: is the corpus whole?");
}
