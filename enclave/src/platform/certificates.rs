//! The certificate table that a host gives its SNP guests: parsed as what it is, bytes of the adversary.
//!
//! Source: AMD 56421 (GHCB), section "SNP Extended Guest Request", and the Linux tools that fill it: entries of GUID (16 bytes, in the
//! order in which it is written), offset and length (4 bytes each, little-endian), up to an entry that is all zero; the offsets count
//! from the beginning of the table.

use cocoon_attestation::x509::{Certificate, RevocationList};
use cocoon_attestation::{Endorsement, EndorsementKind};

use super::tsm::MAX_AUX;

/// Five kinds of AMD's are known, clouds add one or two.
const MAX_ENTRIES: usize = 16;

/// A revocation list of AMD's has less than 1 KiB, a certificate less than 2 KiB.
const MAX_ITEM: usize = 16 * 1024;

const ENTRY_LEN: usize = 24;

/// What is stapled. The ARK is not: clients have it, and take none from a peer.
const KNOWN: [([u8; 16], EndorsementKind); 4] = [
    (*b"\x63\xda\x75\x8d\xe6\x64\x45\x64\xad\xc5\xf4\xb9\x3b\xe8\xac\xcd", EndorsementKind::AmdCertificate), // VCEK
    (*b"\xa8\x07\x4b\xc2\xa2\x5a\x48\x3e\xaa\xe6\x39\xc0\x45\xa0\xb8\xa1", EndorsementKind::AmdCertificate), // VLEK
    (*b"\x4a\xb7\xb3\x79\xbb\xac\x4f\xe4\xa0\x2f\x05\xae\xf3\x27\xc7\x82", EndorsementKind::AmdCertificate), // ASK
    (*b"\x92\xf8\x1b\xc3\x58\x11\x4d\x3d\x97\xff\xd1\x9f\x88\xdc\x67\xea", EndorsementKind::AmdCrl), // CRL
];

/// The table is none. Nothing of it is used then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host's certificate table is malformed")]
pub struct BadTable;

struct Entry {
    guid: [u8; 16],
    offset: usize,
    len: usize,
}

/// The endorsements in `table`. Nobody has verified who signed them. A table that is empty or all zero has none.
///
/// # Errors
/// [`BadTable`] for a table that does not end, has more than 16 entries, one kind twice, ranges that overlap or lie outside, and for
/// contents that are neither certificates nor revocation lists.
pub fn parse_table(table: &[u8]) -> Result<Vec<Endorsement>, BadTable> {
    if table.len() > MAX_AUX {
        return Err(BadTable);
    }
    if table.is_empty() {
        return Ok(Vec::new());
    }
    let entries = entries(table)?;
    check_ranges(&entries, table.len())?;
    let mut out = Vec::new();
    for Entry { guid, offset, len } in &entries {
        let Some((_, kind)) = KNOWN.iter().find(|(known, _)| known == guid) else { continue };
        let bytes = table.get(*offset..offset.saturating_add(*len)).ok_or(BadTable)?;
        out.push(Endorsement { kind: *kind, bytes: content(*kind, bytes)? });
    }
    Ok(out)
}

/// Up to the entry that is all zero.
fn entries(table: &[u8]) -> Result<Vec<Entry>, BadTable> {
    let mut out: Vec<Entry> = Vec::new();
    for raw in table.chunks_exact(ENTRY_LEN) {
        let (guid, range) = raw.split_first_chunk::<16>().ok_or(BadTable)?;
        if *guid == [0; 16] {
            return if range.iter().all(|byte| *byte == 0) { Ok(out) } else { Err(BadTable) };
        }
        if out.len() == MAX_ENTRIES || out.iter().any(|entry| entry.guid == *guid) {
            return Err(BadTable);
        }
        let (offset, len) = range.split_first_chunk::<4>().ok_or(BadTable)?;
        let number = |bytes: [u8; 4]| usize::try_from(u32::from_le_bytes(bytes)).map_err(|_narrow| BadTable);
        let len = number(len.try_into().map_err(|_length| BadTable)?)?;
        out.push(Entry { guid: *guid, offset: number(*offset)?, len });
    }
    Err(BadTable)
}

/// Every range lies behind the entries and inside the table, and no two overlap.
fn check_ranges(entries: &[Entry], table_len: usize) -> Result<(), BadTable> {
    let mut ranges: Vec<(usize, usize)> = entries.iter().map(|entry| (entry.offset, entry.len)).collect();
    ranges.sort_unstable();
    let mut free = entries.len().saturating_add(1).saturating_mul(ENTRY_LEN);
    for (offset, len) in ranges {
        let end = offset.checked_add(len).ok_or(BadTable)?;
        if len == 0 || len > MAX_ITEM || offset < free || end > table_len {
            return Err(BadTable);
        }
        free = end;
    }
    Ok(())
}

/// DER, whatever the host gives.
fn content(kind: EndorsementKind, bytes: &[u8]) -> Result<Vec<u8>, BadTable> {
    if kind == EndorsementKind::AmdCrl {
        RevocationList::from_pem_or_der(bytes).map_err(|_malformed| BadTable)?;
        return Ok(bytes.to_vec());
    }
    let certificate = Certificate::from_pem_or_der(bytes).map_err(|_malformed| BadTable)?;
    Ok(certificate.der().to_vec())
}
