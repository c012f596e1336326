//! Binary structures cut at each of their bytes, with the lengths around the cut mended so that the cut itself is what is found.

use crate::nvidia::Report as GpuReport;
use crate::nvidia::tests::factory::Factory;
use crate::snp::{REPORT_LEN, Report};
use crate::tdx::tests::factory::Case;
use crate::tdx::tests::spec_id;
use crate::tdx::{EnclaveReport, EventLog, Quote};
use crate::wire::samples::{good, hello};
use crate::wire::{ClientHelloFault, FrameHeader, check_client_hello};

/// The 4 bytes at `at` as a little-endian length.
fn length(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()).try_into().unwrap()
}

/// `bytes` up to `at`, then `inner` with its length in front.
fn wrap(bytes: &[u8], at: usize, inner: &[u8]) -> Vec<u8> {
    [&bytes[..at], &u32::try_from(inner.len()).unwrap().to_le_bytes(), inner].concat()
}

#[test]
fn quotes() {
    const SIGNATURE_AND_KEY: usize = 128;
    for version in [4, 5] {
        let case = Case::new(version);
        let quote = case.quote();
        Quote::parse(&quote).unwrap();
        let at = case.header.len() + case.descriptor.len() + case.body.len();
        for len in 0..at + 4 {
            assert!(Quote::parse(&quote[..len]).is_err(), "{len}");
        }
        // The signature data, and in it the quoting enclave's report with all that certifies it.
        let data = &quote[at + 4..];
        let outer = SIGNATURE_AND_KEY + 2;
        let inner = &data[outer + 4..];
        assert_eq!(length(data, outer), inner.len());
        for len in 0..outer + 4 {
            assert!(Quote::parse(&wrap(&quote, at, &data[..len])).is_err(), "{len}");
        }
        for len in 0..inner.len() - 100 {
            let data = wrap(data, outer, &inner[..len]);
            assert!(Quote::parse(&wrap(&quote, at, &data)).is_err(), "{len}");
        }
        // Longer than it says, and what follows.
        assert!(Quote::parse(&wrap(&quote, at, &[data, &[0]].concat())).is_err());
        let longer = wrap(data, outer, &[inner, &[1]].concat());
        assert!(Quote::parse(&wrap(&quote, at, &longer)).is_err());
    }
}

#[test]
fn reports() {
    let mut report = [0; REPORT_LEN];
    (report[0], report[0x34]) = (5, 1);
    Report::parse(&report).unwrap();
    let enclave = Case::new(5).qe_report;
    EnclaveReport::parse(&enclave).unwrap();
    for len in 0..report.len() {
        assert!(
            Report::parse(&report[..len]).is_err() && Report::read(&report[..len], report).is_err(),
            "{len}"
        );
    }
    assert!(EnclaveReport::parse(&[&enclave[..], &[0]].concat()).is_err());
    for len in 0..enclave.len() {
        assert!(EnclaveReport::parse(&enclave[..len]).is_err(), "{len}");
    }
    let gpu = Factory::new().report(|_| {});
    for len in 0..gpu.len() {
        assert!(GpuReport::parse(&gpu[..len]).is_err(), "{len}");
    }
    // The record of measurements: 3 bytes of length after the request (37 bytes) and 5 bytes of the response.
    let record = usize::from(u16::from_le_bytes([gpu[42], gpu[43]]));
    for len in 0..record {
        let short = u16::try_from(len).unwrap().to_le_bytes();
        let cut = [&gpu[..42], &short, &gpu[44..45 + len], &gpu[45 + record..]].concat();
        assert!(GpuReport::parse(&cut).is_err(), "{len}");
    }
}

#[test]
fn event_logs() {
    let head = spec_id(&[(0x0c, 48)]);
    assert!(EventLog::parse(&head).is_ok());
    let (at, id) = (28, &head[32..]);
    for len in 0..id.len() {
        assert!(EventLog::parse(&wrap(&head, at, &id[..len])).is_err(), "{len}");
        assert!(EventLog::parse(&head[..len]).is_err(), "{len}");
    }
}

#[test]
fn client_hellos() {
    let hello = hello(&good());
    assert_eq!(check_client_hello(&hello), Ok(()));
    for len in 0..hello.len() - 4 {
        let short = u16::try_from(len).unwrap().to_be_bytes();
        let cut = [&[1, 0], &short[..], &hello[4..4 + len]].concat();
        assert_eq!(check_client_hello(&cut), Err(ClientHelloFault::NotTls), "{len}");
    }
    // Extensions that end within one.
    let extensions = hello.len() - usize::from(u16::from_be_bytes([hello[45], hello[46]]));
    for len in 1..hello.len() - extensions {
        let body = [
            &hello[4..extensions - 2],
            &u16::try_from(len).unwrap().to_be_bytes(),
            &hello[extensions..extensions + len],
        ]
        .concat();
        let cut = [&[1, 0], &u16::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat();
        assert!(check_client_hello(&cut).is_err(), "{len}");
    }
    // A session identifier that is longer than everything, and what follows the extensions.
    let mut long = hello.clone();
    long[38] = 255;
    assert_eq!(check_client_hello(&long), Err(ClientHelloFault::NotTls));
    let body = [&hello[4..], &[0]].concat();
    let followed = [&[1, 0], &u16::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat();
    assert_eq!(check_client_hello(&followed), Err(ClientHelloFault::NotTls));
    assert!(FrameHeader::parse([0, 0, 0, 0, 9]).is_err());
}

/// Intel's documents, `{"tcbInfo":{..},"signature":".."}`, cut or without one of their parts.
#[test]
fn documents() {
    let case = Case::new(5);
    let whole = case.signed_tcb_info();
    assert!(crate::tdx::about_tcb_info(&whole).is_ok());
    for len in 0..whole.len() {
        assert!(crate::tdx::about_tcb_info(&whole[..len]).is_err(), "{len}");
        let mended = [&whole[..len], b"\"}"].concat();
        assert!(len == whole.len() - 2 || crate::tdx::about_tcb_info(&mended).is_err(), "{len}");
    }
}
