//! The digest of a program as UEFI firmware measures it.
//!
//! Source: Microsoft, "Windows Authenticode Portable Executable Signature Format", "Calculating the PE Image Hash", as the TCG PC
//! Client Platform Firmware Profile takes it: all bytes but the checksum, the entry of the certificate table and the table itself.

use super::{Error, sha384};
use crate::bytes::Bytes;

/// Windows' limit, which kernels have no part of.
const MAX_SECTIONS: usize = 96;

/// SHA-384 of `program`, a PE file such as a Linux kernel with its EFI stub.
///
/// # Errors
/// [`Error::Malformed`] for what is no PE file, or one whose sections overlap or lie outside.
pub fn digest(program: &[u8]) -> Result<[u8; 48], Error> {
    let malformed = |why: &str| {
        Error::malformed("kernel", format!("{why}; expected a kernel that UEFI can start (vmlinuz)"))
    };
    let headers = Headers::parse(program).ok_or_else(|| malformed("it is no PE file"))?;
    let sections =
        headers.sections(program).ok_or_else(|| malformed("its PE sections overlap or lie outside of it"))?;
    parts(program, &headers, &sections)
        .map(|parts| sha384(&parts))
        .ok_or_else(|| malformed("its PE headers or certificates lie outside of it"))
}

struct Headers {
    /// Where the checksum is.
    checksum: usize,
    /// Where the entry of the certificate table is, if there are that many entries.
    certificates: Option<usize>,
    /// Where section headers begin, and how many there are.
    table: (usize, usize),
    /// `SizeOfHeaders`.
    len: usize,
}

impl Headers {
    fn parse(program: &[u8]) -> Option<Self> {
        let bytes = Bytes(program);
        let pe = bytes.array(0).filter(|magic| magic == b"MZ").and_then(|_| bytes.size(0x3c))?;
        bytes.array(pe).filter(|magic| magic == b"PE\0\0")?;
        let count = usize::from(bytes.u16(pe.checked_add(6)?)?);
        let optional = pe.checked_add(24)?;
        let optional_len = usize::from(bytes.u16(pe.checked_add(20)?)?);
        // PE32 and PE32+ differ in the fields before the directories.
        let directories = match bytes.u16(optional)? {
            0x10b => optional.checked_add(96)?,
            0x20b => optional.checked_add(112)?,
            _ => return None,
        };
        let entries = bytes.u32(directories.checked_sub(4)?)?;
        let certificates = directories.checked_add(4 * 8)?;
        let table = optional.checked_add(optional_len)?;
        let has_certificates = entries > 4;
        let fits = !has_certificates || certificates.checked_add(8)? <= table;
        (count <= MAX_SECTIONS && fits).then_some(Self {
            checksum: optional.checked_add(64)?,
            certificates: has_certificates.then_some(certificates),
            table: (table, count),
            len: bytes.size(optional.checked_add(60)?)?,
        })
    }

    /// Contents of the sections in the order of the file; they may not overlap.
    fn sections<'a>(&self, program: &'a [u8]) -> Option<Vec<&'a [u8]>> {
        let (start, count) = self.table;
        let headers = Bytes(program).slice(start, count.checked_mul(40)?)?;
        let mut places = Vec::new();
        for header in headers.chunks_exact(40).map(Bytes) {
            places.push((header.size(20)?, header.size(16)?));
        }
        places.retain(|(_, len)| *len > 0);
        places.sort_unstable();
        let mut end = self.len;
        let mut out = Vec::new();
        for (at, len) in places {
            if at < end {
                return None;
            }
            out.push(Bytes(program).slice(at, len)?);
            end = at.checked_add(len)?;
        }
        Some(out)
    }
}

/// What is hashed: headers, sections, what is behind them without the certificates.
fn parts<'a>(program: &'a [u8], headers: &Headers, sections: &[&'a [u8]]) -> Option<Vec<&'a [u8]>> {
    let between = |from: usize, to: usize| program.get(from..to);
    let mut out = vec![between(0, headers.checksum)?];
    let behind_checksum = headers.checksum.checked_add(4)?;
    let mut certificates = 0;
    match headers.certificates {
        Some(entry) => {
            out.push(between(behind_checksum, entry)?);
            out.push(between(entry.checked_add(8)?, headers.len)?);
            certificates = Bytes(program).size(entry.checked_add(4)?)?;
        }
        None => out.push(between(behind_checksum, headers.len)?),
    }
    let hashed = sections.iter().try_fold(headers.len, |sum, section| sum.checked_add(section.len()))?;
    out.extend_from_slice(sections);
    // As firmware does it: what is left is counted, not looked up.
    out.push(between(hashed, program.len().checked_sub(certificates)?)?);
    Some(out)
}
