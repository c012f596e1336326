//! Reports of real processors, with what a correct verifier says of them.

use std::path::{Path, PathBuf};

use cocoon_attestation::UnixTime;
use cocoon_attestation::snp::{Chain, Product, Report, Root};
use cocoon_tests::repository;
use serde_json::Value;

fn corpus() -> Option<PathBuf> {
    let dir = repository().parent()?.join("shared/evidence/snp");
    if !dir.exists() {
        println!("skipped: no evidence corpus");
    }
    dir.exists().then_some(dir)
}

fn seconds(rfc3339: &str) -> UnixTime {
    let output = std::process::Command::new("date").args(["-u", "+%s", "-d", rfc3339]).output().unwrap();
    UnixTime(String::from_utf8(output.stdout).unwrap().trim().parse().unwrap())
}

/// `Some(authentic)`, or `None` for a version that is refused before that.
fn verdict(dir: &Path, case: &Value) -> Option<bool> {
    let file = |key: &str| Some(std::fs::read(dir.join(case["files"][key].as_str()?)).unwrap());
    let report = Report::parse(&file("report")?).ok()?;
    let given: Vec<Vec<u8>> =
        [file("vcek").or_else(|| file("vlek")), file("issuer")].into_iter().flatten().collect();
    let given: Vec<&[u8]> = given.iter().map(Vec::as_slice).collect();
    let root = Root::Amd(vec![Product::Milan, Product::Genoa, Product::Turin]);
    let Ok(chain) = Chain::find(&report, &given, &root) else { return Some(false) };
    let at = seconds(case["verify_at"].as_str()?);
    let whole = chain.faults(at).is_empty() && report.is_signed_by(&chain.vcek);
    Some(whole && chain.is_of_chip(&report) && chain.is_of_tcb(&report))
}

#[test]
fn genuine_reports_are_authentic_and_altered_ones_are_not() {
    let Some(dir) = corpus() else { return };
    let manifest: Value = serde_json::from_slice(&std::fs::read(dir.join("manifest.json")).unwrap()).unwrap();
    let (mut accepted, mut refused) = (0, 0);
    for case in manifest["cases"].as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        if case["files"]["vlek"].is_string() {
            continue; // A VLEK has no chip: its own rows come with the whole SNP appraisal.
        }
        match (case["expected"]["crypto"].as_str().unwrap(), verdict(&dir, case)) {
            ("valid", Some(authentic)) => {
                assert!(authentic, "{id}");
                accepted += 1;
            }
            ("valid", None) => assert!(id.contains("v2"), "{id} was not parsed"),
            (_, authentic) => {
                assert_ne!(authentic, Some(true), "{id}");
                refused += 1;
            }
        }
    }
    assert!(accepted >= 6 && refused >= 5, "{accepted} accepted, {refused} refused: is the corpus whole?");
}
