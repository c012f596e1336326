//! SNP evidence of the corpus against the library: synthetic vectors under their own roots, and every byte of every genuine sample.

use std::collections::HashSet;
use std::io::Write;
use std::process::{Command, Stdio};

use cocoon_attestation::appraisal::inspect;
use cocoon_attestation::policy::{Policy, init_simulated};
use cocoon_attestation::result::{Report as Outcome, Status};
use cocoon_attestation::snp::{Endorsements, REPORT_LEN, Report};
use cocoon_attestation::x509::Certificate;
use cocoon_attestation::{Context, Missing, SignatureCache, UnixTime};
use serde_json::Value;

use super::corpus::{corpus, manifest};

fn base64(text: &str) -> Vec<u8> {
    let pem = format!("-----BEGIN X-----\n{}\n-----END X-----\n", in_lines(text));
    der::pem::decode_vec(pem.as_bytes()).unwrap().1
}

fn in_lines(text: &str) -> String {
    text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect::<Vec<_>>().join("\n")
}

fn gunzip(compressed: &[u8]) -> Vec<u8> {
    let mut gzip =
        Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    gzip.stdin.take().unwrap().write_all(compressed).unwrap();
    gzip.wait_with_output().unwrap().stdout
}

fn failed(report: &Outcome) -> Vec<&'static str> {
    report.factors.iter().filter(|f| f.status == Status::Fail).map(|f| f.name).collect()
}

/// What the publisher of the vectors calls it, as our factor.
fn factor_of(code: &str) -> &'static str {
    match code {
        "GUEST_POLICY_DEBUG_SET" => "snp.policy.debug",
        "GUEST_POLICY_MIGRATE_MA_SET" => "snp.policy.migrate_ma",
        "GUEST_POLICY_RESERVED_BIT_SET" => "snp.policy.reserved",
        "VCEK_HWID_MISMATCH" => "snp.hwid",
        "VCEK_TCB_MISMATCH" => "snp.vcek_tcb",
        other => panic!("{other} has no factor yet"),
    }
}

#[test]
fn synthetic_vectors_have_their_outcome() {
    let Some(root) = corpus() else { return };
    let dir = root.join("snp/synthetic");
    let cases = manifest(&dir);
    for case in cases["cases"].as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        let read = |name: &str| std::fs::read(dir.join(id).join(name)).unwrap();
        let input: Value = serde_json::from_slice(&read("input.json")).unwrap();
        let text = |key: &str| input[key].as_str().unwrap();
        let report = gunzip(&base64(text("attestation_doc_b64")));
        let policy = Policy::from_toml(&init_simulated(text("amd_root_ca_pem"))).unwrap();
        let certificates = [base64(text("vcek_der_b64")), text("ask_pem").as_bytes().to_vec()];
        let certificates = certificates.iter().map(|bytes| Certificate::from_pem_or_der(bytes).unwrap());
        let given = Endorsements::new(certificates.collect(), Vec::new()).unwrap();
        let signatures = SignatureCache::new();
        let now = UnixTime(input["expiration_check_date_unix"].as_u64().unwrap());
        let ctx = Context { now, missing: Missing::Unchecked, signatures: &signatures };
        let out = inspect::snp(&report, given, &policy, None, ctx);
        assert_eq!(out.accepted, case["expected"]["accepted"].as_bool().unwrap(), "{id}: {:?}", failed(&out));
        let code = &case["expected"]["rejection"]["code"];
        let code = code.as_str().or_else(|| code[0].as_str());
        let Some(code) = code else { continue };
        assert_eq!(failed(&out), [factor_of(code)], "{id}");
    }
}

/// A genuine report with its certificates, at a time when all is well.
struct Sample {
    id: String,
    report: Vec<u8>,
    certificates: Vec<Vec<u8>>,
    now: UnixTime,
}

fn genuine() -> Vec<Sample> {
    let Some(root) = corpus() else { return Vec::new() };
    let dir = root.join("snp");
    let cases = manifest(&dir);
    let valid = cases["cases"].as_array().unwrap().iter().filter(|c| c["expected"]["crypto"] == "valid");
    let sample = |case: &Value| {
        let file = |key: &str| Some(std::fs::read(dir.join(case["files"][key].as_str()?)).unwrap());
        Sample {
            id: case["id"].as_str().unwrap().to_owned(),
            report: file("report").unwrap(),
            certificates: ["vcek", "vlek", "issuer"].into_iter().filter_map(file).collect(),
            now: case["verify_at"].as_str().unwrap().parse().unwrap(),
        }
    };
    valid.map(sample).collect()
}

impl Sample {
    fn is_authentic(&self, policy: &Policy, signatures: &SignatureCache) -> bool {
        let certificates: Result<Vec<_>, _> =
            self.certificates.iter().map(|bytes| Certificate::from_pem_or_der(bytes)).collect();
        let Ok(certificates) = certificates else { return false };
        let given = Endorsements::new(certificates, Vec::new()).unwrap();
        let ctx = Context { now: self.now, missing: Missing::Unchecked, signatures };
        inspect::snp(&self.report, given, policy, None, ctx).authentic
    }
}

fn turned(bytes: &[u8], n: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[n] ^= 1 << (n % 8);
    bytes
}

#[test]
fn no_turned_bit_of_a_genuine_report_is_authentic() {
    let policy = Policy::strict().unwrap();
    for sample in genuine() {
        let signatures = SignatureCache::new();
        assert!(sample.is_authentic(&policy, &signatures), "{}", sample.id);
        for n in 0..sample.report.len() {
            let report = turned(&sample.report, n);
            let spoiled = Sample {
                report,
                certificates: sample.certificates.clone(),
                id: String::new(),
                now: sample.now,
            };
            assert!(!spoiled.is_authentic(&policy, &signatures), "{}: byte {n:#x}", sample.id);
        }
    }
}

#[test]
fn no_part_of_a_genuine_report_is_one() {
    for sample in genuine() {
        assert_eq!(sample.report.len(), REPORT_LEN);
        for len in 0..sample.report.len() {
            assert!(Report::parse(&sample.report[..len]).is_err(), "{}: {len} bytes", sample.id);
        }
        assert!(Report::parse(&[&sample.report[..], &[0]].concat()).is_err());
    }
}

/// DER only: PEM has several spellings of the same certificate.
#[test]
fn no_turned_bit_of_a_genuine_certificate_is_authentic() {
    let policy = Policy::strict().unwrap();
    let mut seen = HashSet::new();
    for sample in genuine() {
        let signatures = SignatureCache::new();
        for (which, der) in sample.certificates.iter().enumerate() {
            if der[0] != 0x30 || !seen.insert(der.clone()) {
                continue;
            }
            for n in 0..der.len() {
                let mut certificates = sample.certificates.clone();
                certificates[which] = turned(der, n);
                let spoiled = Sample {
                    certificates,
                    report: sample.report.clone(),
                    id: String::new(),
                    now: sample.now,
                };
                assert!(!spoiled.is_authentic(&policy, &signatures), "{}: byte {n} of {which}", sample.id);
            }
        }
    }
}
