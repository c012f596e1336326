//! Endorsements from a file.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cocoon_attestation::wire::EvidenceItem;
use cocoon_attestation::{Endorsement, EndorsementBundle, EndorsementKind};

use super::log;
use crate::attest::ReportData;
use crate::platform::stapled::EndorsementFileError;
use crate::platform::{Attester, EndorsementFile, NoReport, PlatformEvidence, Stapled};

fn item(kind: EndorsementKind, bytes: &[u8]) -> Endorsement {
    Endorsement { kind, bytes: bytes.to_vec() }
}

fn crl(bytes: &[u8]) -> Endorsement {
    item(EndorsementKind::AmdCrl, bytes)
}

/// Hardware that knows one endorsement.
struct Hardware;

impl Attester for Hardware {
    fn attest(&self, _: &ReportData) -> Result<PlatformEvidence, NoReport> {
        let item = EvidenceItem { media_type: "x".into(), bytes: vec![1] };
        Ok(PlatformEvidence { item, endorsements: vec![crl(b"own")] })
    }
}

#[test]
fn the_platforms_own_come_first_and_nothing_comes_twice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bundle");
    let rim = item(EndorsementKind::NvidiaRim, b"own");
    let bundle = EndorsementBundle(vec![crl(b"a"), rim.clone(), crl(b"own"), crl(b"a")]);
    std::fs::write(&path, bundle.encode()).unwrap();
    let (events, lines) = log();
    let file = Arc::new(EndorsementFile::open(&path, &events).unwrap());
    let evidence = Stapled::new(Arc::new(Hardware), file).attest(&ReportData::for_test(1)).unwrap();
    assert_eq!(evidence.endorsements, [crl(b"own"), crl(b"a"), rim]);
    assert!(lines().contains("{\"event\":\"endorsements_read\",\"items\":4}"), "{}", lines());
}

#[test]
fn a_file_that_cannot_be_used_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bundle");
    let (events, _) = log();
    let refused = |want: &str| {
        let error = EndorsementFile::open(&path, &events).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(want) && text.contains("bundle"), "{text}");
        error
    };
    assert!(matches!(refused("No such file"), EndorsementFileError::Io { .. }));
    std::fs::write(&path, b"not a bundle").unwrap();
    assert!(matches!(refused("malformed"), EndorsementFileError::Malformed { .. }));
    // A bundle may have 1 MiB. More is not even read, whatever it is.
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(1 << 40).unwrap();
    refused("1048577 bytes");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    refused("directory");
}

#[test]
fn it_is_read_again_when_it_changes_and_for_every_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bundle");
    let write = |content: &[u8], age: u64| {
        std::fs::write(&path, content).unwrap();
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 - age);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    };
    let bundle = |bytes: &[u8]| EndorsementBundle(vec![crl(bytes)]).encode();
    write(&bundle(b"1"), 50);
    let (events, lines) = log();
    let file = EndorsementFile::open(&path, &events).unwrap();
    let now = |epoch| {
        file.refresh(epoch, &events);
        file.items().to_vec()
    };
    // The same modification time: not looked at before the next epoch.
    write(&bundle(b"2"), 50);
    assert_eq!(now(0), [crl(b"1")]);
    assert_eq!(now(1), [crl(b"2")]);
    write(&bundle(b"3"), 40);
    assert_eq!(now(1), [crl(b"3")]);
    // What is malformed or gone changes nothing, and is told once.
    write(b"half a bund", 30);
    assert_eq!(now(1), [crl(b"3")]);
    assert_eq!(now(1), [crl(b"3")]);
    assert_eq!(lines().matches("endorsements_unusable").count(), 1, "{}", lines());
    std::fs::remove_file(&path).unwrap();
    assert_eq!(now(1), [crl(b"3")]);
    assert_eq!(lines().matches("endorsements_unusable").count(), 2);
    write(&bundle(b"4"), 20);
    assert_eq!(now(1), [crl(b"4")]);
}
