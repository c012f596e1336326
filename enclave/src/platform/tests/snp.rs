//! SNP over configfs-tsm.

use cocoon_attestation::EndorsementKind;
use cocoon_attestation::wire::SNP_REPORT_MEDIA_TYPE;

use super::certificates::{ARK, ASK, VCEK, table};
use super::kernel::FakeKernel;
use super::{corpus, log};
use crate::attest::ReportData;
use crate::platform::{Attester, NoReport, SnpAttester};

#[test]
fn a_genuine_report_and_what_it_is_verified_with() {
    let dir = "snp/genoa-v3-vcek-azure";
    let read = |name| corpus(&format!("{dir}/{name}"));
    let (Some(report), Some(vcek), Some(ask), Some(ark)) =
        (read("report.bin"), read("vcek.der"), read("ask.der"), read("ark.der"))
    else {
        return;
    };
    let certificates = table(&[(VCEK, &vcek), (ASK, &ask), (ARK, &ark)]);
    let kernel = FakeKernel::new("sev_guest", &report, Some(&certificates));
    let (events, lines) = log();
    let attester = SnpAttester::tsm(kernel.tsm(), events);
    let evidence = attester.attest(&ReportData::for_test(3)).unwrap();
    assert_eq!((evidence.item.media_type.as_str(), &evidence.item.bytes), (SNP_REPORT_MEDIA_TYPE, &report));
    let kinds: Vec<_> = evidence.endorsements.iter().map(|e| e.kind).collect();
    assert_eq!(kinds, [EndorsementKind::AmdCertificate; 2]);
    assert_eq!(lines(), "");
    // A table that is none costs the certificates, not the report.
    kernel.change(|b| b.auxblob = Some(certificates[..100].to_vec()));
    let evidence = attester.attest(&ReportData::for_test(3)).unwrap();
    assert_eq!((evidence.item.bytes, evidence.endorsements), (report, Vec::new()));
    assert!(lines().contains("certificate_table_dropped"));
}

#[test]
fn what_is_no_report_is_none_and_says_why() {
    for (len, failure, reason) in [
        (1183, 0, "\"reason\":\"malformed\""),
        (1185, 0, "\"reason\":\"malformed\""),
        (20_000, 0, "\"reason\":\"too_long\""),
        (1184, 5, "\"reason\":\"io\",\"errno\":5"),
    ] {
        let kernel = FakeKernel::new("sev_guest", &vec![1; len], None);
        kernel.change(|b| b.failures = (u32::from(failure > 0), failure));
        let (events, lines) = log();
        let attester = SnpAttester::tsm(kernel.tsm(), events);
        assert_eq!(attester.attest(&ReportData::for_test(3)).err(), Some(NoReport));
        assert!(lines().contains(reason), "{}", lines());
    }
}

#[test]
fn a_machine_that_became_another() {
    let kernel = FakeKernel::new("tdx_guest", &[1; 1184], None);
    let (events, lines) = log();
    let attester = SnpAttester::tsm(kernel.tsm(), events);
    assert!(attester.attest(&ReportData::for_test(3)).is_err());
    assert!(lines().contains("\"reason\":\"provider\""), "{}", lines());
}

#[test]
fn a_device_that_is_none() {
    let (events, lines) = log();
    let attester = SnpAttester::device("/dev/null".into(), events.clone());
    assert!(attester.attest(&ReportData::for_test(3)).is_err());
    let attester = SnpAttester::device("/nowhere".into(), events);
    assert!(attester.attest(&ReportData::for_test(3)).is_err());
    assert!(lines().contains("\"errno\":25") && lines().contains("\"errno\":2"), "{}", lines());
}
