use std::collections::BTreeMap;

use cocoon_attestation::Measurement;
use cocoon_attestation::wire::{AttestResponse, EvidenceItem, EvidenceSet, SNP_REPORT_MEDIA_TYPE};

use crate::explain::evidence::{Measured, Registers};

/// A report of version 3 that says nothing but its measurement.
fn report() -> Vec<u8> {
    let mut report = vec![0; cocoon_attestation::snp::REPORT_LEN];
    (report[0], report[0x34]) = (3, 1);
    report[0x0a] = 2;
    report[0x90..0xc0].fill(9);
    report
}

fn response(label: &str, media_type: &str) -> Vec<u8> {
    let item = EvidenceItem { media_type: media_type.to_owned(), bytes: report() };
    let evidence = EvidenceSet(BTreeMap::from([(label.to_owned(), item)])).encode();
    let response = AttestResponse {
        statement: vec![],
        evidence,
        index: 0,
        size: 1,
        path: vec![],
        endorsements: vec![],
        release: None,
    };
    response.encode()
}

#[test]
fn measurements_as_text() {
    let hex = "ab".repeat(48);
    let value = Measurement([0xab; 48]);
    assert_eq!(Measured::from_text(&hex).unwrap(), Some(Measured::Snp(value)));
    let tdx = |text: &str| Measured::from_text(text).unwrap();
    let one = Registers { rtmr1: Some(value), ..Registers::default() };
    assert_eq!(tdx(&format!("rtmr1={hex}")), Some(Measured::Tdx(one)));
    let two = Registers { mr_td: Some(value), rtmr2: Some(value), rtmr1: None };
    assert_eq!(tdx(&format!("mrtd={hex},rtmr2={hex}")), Some(Measured::Tdx(two)));
    for path in ["image", "../some/a=b", "abcd", "", &"xy".repeat(48)] {
        assert_eq!(tdx(path), None, "{path} is the name of a file");
    }
    let refused = |text: &str| Measured::from_text(text).unwrap_err().to_string();
    assert!(refused(&format!("rtmr0={hex}")).contains("\"rtmr0\" is no register"));
    assert!(refused("rtmr1=ab").contains("rtmr1: expected 96 hex digits"));
    assert!(refused(&format!("rtmr1={hex},{hex}")).contains("expected 96 hex digits"));
    assert!(refused(&format!("rtmr1={hex},rtmr1={hex}")).contains("rtmr1 is there twice"));
    let other = Registers { mr_td: Some(value), ..Registers::default() };
    assert_eq!(Registers::differing(&two, &other), Registers { rtmr2: Some(value), ..Registers::default() });
}

#[test]
fn measurements_in_evidence() {
    let want = Measured::Snp(Measurement([9; 48]));
    assert_eq!(Measured::from_evidence(&report()).unwrap(), want);
    assert_eq!(Measured::from_evidence(&response("cpu", SNP_REPORT_MEDIA_TYPE)).unwrap(), want);
    let refused = |bytes: &[u8]| Measured::from_evidence(bytes).unwrap_err().to_string();
    assert!(refused(&response("gpu0", SNP_REPORT_MEDIA_TYPE)).contains("no evidence of a CPU"));
    assert!(refused(&response("cpu", "text/plain")).contains("neither SEV-SNP nor TDX"));
    for wrong in [&b""[..], b"text", &report()[1..], &[0xff; 1184]] {
        refused(wrong);
    }
}

/// A quote of real hardware, where it is at hand.
#[test]
fn measurements_in_a_quote() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/evidence/tdx/v4-b0c06f/quote.bin");
    let Ok(quote) = std::fs::read(path) else {
        println!("skipped: no evidence corpus");
        return;
    };
    let body = cocoon_attestation::tdx::Quote::parse(&quote).unwrap().body;
    let want = Registers { mr_td: Some(body.mr_td), rtmr1: Some(body.rtmr[1]), rtmr2: Some(body.rtmr[2]) };
    assert_eq!(Measured::from_evidence(&quote).unwrap(), Measured::Tdx(want));
}
