//! The host's certificate table.

use cocoon_attestation::{Endorsement, EndorsementKind};

use super::corpus;
use crate::platform::certificates::{BadTable, parse_table};
use crate::platform::tsm::MAX_AUX;

pub(super) const VCEK: &str = "63da758de6644564adc5f4b93be8accd";
const VLEK: &str = "a8074bc2a25a483eaae639c045a0b8a1";
pub(super) const ASK: &str = "4ab7b379bbac4fe4a02f05aef327c782";
pub(super) const ARK: &str = "c0b406a4a803495297433fb6014cd0ae";
const CRL: &str = "92f81bc358114d3d97ffd19f88dc67ea";
/// Of a cloud, for something else.
const OTHER: &str = "ecae0c0f950246b18a2ca9eaa2cd5f97";

/// A table as hosts make it.
pub(super) fn table(items: &[(&str, &[u8])]) -> Vec<u8> {
    let mut offset = (items.len() + 1) * 24;
    let (mut head, mut tail) = (Vec::new(), Vec::new());
    for (guid, bytes) in items {
        head.extend(hex::decode(guid).unwrap());
        head.extend(u32::try_from(offset).unwrap().to_le_bytes());
        head.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
        tail.extend_from_slice(bytes);
        offset += bytes.len();
    }
    head.extend([0; 24]);
    [head, tail].concat()
}

#[test]
fn what_amd_signed_becomes_endorsements() {
    let (Some(vcek), Some(ask), Some(ark), Some(crl)) = (
        corpus("snp/genoa-v3-vcek-azure/vcek.der"),
        corpus("snp/genoa-v3-vcek-azure/ask.der"),
        corpus("snp/genoa-v3-vcek-azure/ark.der"),
        corpus("snp/crl/ark_genoa_2024-10.der"),
    ) else {
        return;
    };
    let whole = table(&[(VCEK, &vcek), (ARK, &ark), (OTHER, b"something"), (ASK, &ask), (CRL, &crl)]);
    let certificate =
        |bytes: &[u8]| Endorsement { kind: EndorsementKind::AmdCertificate, bytes: bytes.to_vec() };
    let list = Endorsement { kind: EndorsementKind::AmdCrl, bytes: crl.clone() };
    let want = vec![certificate(&vcek), certificate(&ask), list];
    assert_eq!(parse_table(&whole), Ok(want.clone()), "all but the root, which clients have");
    // The kernel gives whole pages.
    let padded = [whole.clone(), vec![0; 4096]].concat();
    assert_eq!(parse_table(&padded), Ok(want));
    // PEM becomes DER.
    let pem = cocoon_attestation::x509::Certificate::from_der(&vcek).unwrap().to_pem();
    assert_eq!(parse_table(&table(&[(VCEK, pem.as_bytes())])), Ok(vec![certificate(&vcek)]));
    for len in 1..whole.len() {
        assert_eq!(parse_table(&whole[..len]), Err(BadTable), "cut at {len}");
    }
    // The same certificate twice, under two names.
    assert_eq!(parse_table(&table(&[(VCEK, &vcek), (VLEK, &vcek)])).unwrap().len(), 2);
}

#[test]
fn no_table_and_an_empty_one_have_nothing() {
    for table in [&[][..], &[0; 24], &[0; 4096]] {
        assert_eq!(parse_table(table), Ok(Vec::new()));
    }
    assert_eq!(parse_table(&table(&[(OTHER, b"something")])), Ok(Vec::new()));
}

/// One entry with this range, and `len` bytes in all.
fn with_range(offset: u32, length: u32, len: usize) -> Vec<u8> {
    let mut out = hex::decode(OTHER).unwrap();
    out.extend(offset.to_le_bytes());
    out.extend(length.to_le_bytes());
    out.resize(len, 0);
    out
}

#[test]
fn refuses_what_is_no_table() {
    let refused = |table: &[u8], why: &str| assert_eq!(parse_table(table), Err(BadTable), "{why}");
    assert!(parse_table(&with_range(48, 52, 100)).is_ok());
    refused(&with_range(48, 53, 100), "over the end");
    refused(&with_range(47, 1, 100), "inside the entries");
    refused(&with_range(0, 100, 100), "the table itself");
    refused(&with_range(48, 0, 100), "empty");
    refused(&with_range(u32::MAX, 1, 100), "far away");
    refused(&with_range(u32::MAX, u32::MAX, 100), "an end that overflows");
    refused(&with_range(48, 16 * 1024 + 1, 60 * 1024), "too long for a certificate");
    refused(&vec![0; MAX_AUX + 1], "too long");
    refused(&[0; 23], "too short for an entry");
    refused(&with_range(48, 1, 48)[..24], "no end");
    let mut end = vec![0; 24];
    end[20] = 1;
    refused(&end, "an end that is not zero");
    refused(&table(&[(OTHER, b"a"), (OTHER, b"b")]), "one kind twice");
    refused(&table(&[(VCEK, b"no certificate")]), "no certificate");
    refused(&table(&[(CRL, b"no list")]), "no revocation list");
    // Seventeen kinds; sixteen are fine.
    let guids: Vec<String> = (1..=17_u8).map(|n| hex::encode([n; 16])).collect();
    let items: Vec<(&str, &[u8])> = guids.iter().map(|guid| (guid.as_str(), &b"x"[..])).collect();
    assert!(parse_table(&table(&items[..16])).is_ok());
    refused(&table(&items), "too many");
    // Two entries over the same bytes.
    let mut twice = table(&[(OTHER, b"aaaa"), (ARK, b"bbbb")]);
    twice.copy_within(16..20, 40);
    refused(&twice, "ranges that overlap");
}
