//! The reader of configfs-tsm.

use std::process::Command;

use super::kernel::FakeKernel;
use crate::attest::ReportData;
use crate::platform::files::{Files, Kernel};
use crate::platform::tsm::{Aux, MAX_AUX, MAX_REPORT, Provider, TsmError, TsmReport};

const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const EINTR: i32 = 4;
const EIO: i32 = 5;
const EINVAL: i32 = 22;
const ENXIO: i32 = 6;

fn ask(kernel: &std::sync::Arc<FakeKernel>) -> Result<TsmReport, TsmError> {
    let report = kernel.tsm().report(Provider::SevGuest, &ReportData::for_test(0x42));
    assert_eq!(kernel.left_behind(), 0, "a request was not removed");
    report
}

fn refused(kernel: &std::sync::Arc<FakeKernel>) -> String {
    ask(kernel).unwrap_err().to_string()
}

fn snp() -> std::sync::Arc<FakeKernel> {
    FakeKernel::new("sev_guest", b"report", Some(b"certificates"))
}

#[test]
fn a_report_with_what_was_asked() {
    let kernel = snp();
    assert_eq!(kernel.tsm().provider().unwrap(), Some(Provider::SevGuest));
    let report = ask(&kernel).unwrap();
    assert_eq!((report.outblob, report.aux), (b"report".to_vec(), Aux::Bytes(b"certificates".to_vec())));
    let written = kernel.written();
    assert_eq!(
        written,
        [("privlevel".to_owned(), b"0".to_vec()), ("inblob".to_owned(), vec![0x42; 64])],
        "privilege level 0 over all 64 bytes, each with one write"
    );
}

#[test]
fn attributes_that_are_not_there() {
    let kernel = FakeKernel::new("tdx_guest", b"quote", None);
    let report = kernel.tsm().report(Provider::TdxGuest, &ReportData::for_test(1)).unwrap();
    assert_eq!((report.outblob, report.aux), (b"quote".to_vec(), Aux::Absent));
    assert_eq!(kernel.written().len(), 1, "only inblob");
    // A kernel that has no privilege levels for SNP either.
    let kernel = snp();
    kernel.change(|b| (b.privlevel, b.auxblob) = (false, Some(Vec::new())));
    assert_eq!(ask(&kernel).unwrap().aux, Aux::Absent);
}

#[test]
fn another_writer_is_noticed_and_waited_for() {
    let kernel = snp();
    kernel.change(|b| b.intruders = 3);
    assert_eq!(ask(&kernel).unwrap().outblob, b"report", "the fourth attempt is undisturbed");
    kernel.change(|b| b.intruders = 4);
    assert!(matches!(ask(&kernel), Err(TsmError::Conflict)));
    // Between outblob and the end.
    kernel.change(|b| (b.intruders, b.late_intruders) = (0, 1));
    assert_eq!(ask(&kernel).unwrap().outblob, b"report");
    // A generation that does not move: our write was lost.
    kernel.change(|b| b.generation = Some("0\n".into()));
    assert!(matches!(ask(&kernel), Err(TsmError::Conflict)));
    for senseless in ["", "x", "-1", "99999999999999999999999"] {
        kernel.change(|b| b.generation = Some(senseless.into()));
        assert!(refused(&kernel).contains("generation"), "{senseless}");
    }
}

#[test]
fn a_kernel_that_is_busy_is_asked_again() {
    let kernel = snp();
    for errno in [EBUSY, EINTR, 11] {
        kernel.change(|b| b.failures = (3, errno));
        assert!(ask(&kernel).is_ok(), "{errno}");
        kernel.change(|b| b.failures = (4, errno));
        assert!(refused(&kernel).contains("outblob"), "{errno}");
    }
    kernel.change(|b| b.failures = (1, EIO));
    assert!(refused(&kernel).contains("outblob"), "a failure that does not pass is not tried again");
    assert!(ask(&kernel).is_ok());
}

#[test]
fn other_providers_are_named() {
    let kernel = snp();
    let other = kernel.tsm().report(Provider::TdxGuest, &ReportData::for_test(1)).unwrap_err();
    assert!(other.to_string().contains("belongs to sev_guest, not to tdx_guest"), "{other}");
    kernel.change(|b| b.provider = "arm_cca_guest\n".into());
    assert!(refused(&kernel).contains("arm_cca_guest"));
    kernel.change(|b| b.provider = "x".repeat(65));
    assert!(refused(&kernel).contains("longer than 64 bytes"));
    kernel.change(|b| b.provider = "\u{1b}[2J".into());
    assert!(!refused(&kernel).contains('\u{1b}'), "escape sequences do not reach a terminal");
    kernel.change(|b| b.mkdir = Some(ENXIO));
    assert!(matches!(ask(&kernel), Err(TsmError::NoProvider)));
    assert!(matches!(FakeKernel::bare().tsm().provider(), Ok(None)));
}

#[test]
fn what_the_kernel_refuses_is_named() {
    let kernel = snp();
    for (attribute, errno) in [("inblob", EINVAL), ("privlevel", EINVAL)] {
        kernel.change(|b| b.write = Some((attribute, errno)));
        let error = refused(&kernel);
        assert!(error.contains(attribute) && error.contains("Invalid argument"), "{error}");
    }
    kernel.change(|b| b.mkdir = Some(EACCES));
    let error = refused(&kernel);
    assert!(error.contains("mkdir") && error.contains("Permission denied"), "{error}");
}

#[test]
fn sizes() {
    let kernel = snp();
    kernel.change(|b| b.outblob = vec![1; MAX_REPORT]);
    assert_eq!(ask(&kernel).unwrap().outblob.len(), MAX_REPORT);
    kernel.change(|b| b.outblob = vec![1; MAX_REPORT + 1]);
    assert!(refused(&kernel).contains("outblob is longer than 16384 bytes"));
    kernel.change(|b| b.outblob = Vec::new());
    assert!(refused(&kernel).contains("outblob is empty"));
    kernel.change(|b| (b.outblob, b.auxblob) = (vec![1], Some(vec![1; MAX_AUX])));
    assert_eq!(ask(&kernel).unwrap().aux, Aux::Bytes(vec![1; MAX_AUX]));
    // The host's certificates are no reason to have no report.
    kernel.change(|b| b.auxblob = Some(vec![1; MAX_AUX + 1]));
    assert_eq!(ask(&kernel).unwrap().aux, Aux::Unusable);
}

#[test]
fn short_reads_are_put_together() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("outblob");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || {
            let mut file = std::fs::OpenOptions::new().write(true).open(pipe).unwrap();
            for byte in 0..10_u8 {
                std::io::Write::write_all(&mut file, &[byte; 100]).unwrap();
                std::thread::yield_now();
            }
        }
    });
    let bytes = Kernel.read(&pipe, 1000).unwrap();
    writer.join().unwrap();
    assert_eq!(bytes.len(), 1000);
    assert!(bytes.chunks(100).zip(0..).all(|(chunk, byte)| chunk == [byte; 100]));
}
