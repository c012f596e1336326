//! The guest's side of a simulated processor that is outside the VM (`processor`).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use cocoon_attestation::EndorsementBundle;
use cocoon_attestation::wire::{EvidenceItem, SNP_REPORT_MEDIA_TYPE};

use super::super::{Attester, NoReport, PlatformEvidence};
use crate::attest::ReportData;

/// Name of the guest's port, `name=` of QEMU's virtserialport.
pub const PORT_NAME: &str = "cocoon.processor";

/// A report has 1184 bytes, three certificates some thousand.
const MAX_PART: u32 = 64 * 1024;

/// A software AMD-SP at the other end of a port.
#[derive(Debug)]
pub struct RemoteProcessor(Mutex<File>);

impl RemoteProcessor {
    /// Opens the port.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(port: &Path) -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).open(port).map(|file| Self(Mutex::new(file)))
    }
}

impl Attester for RemoteProcessor {
    fn attest(&self, data: &ReportData) -> Result<PlatformEvidence, NoReport> {
        let mut port = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (report, bundle) = ask(&mut *port, data.bytes()).map_err(|_io| NoReport)?;
        let endorsements = EndorsementBundle::decode(&bundle).map_err(|_malformed| NoReport)?.0;
        let item = EvidenceItem { media_type: SNP_REPORT_MEDIA_TYPE.to_owned(), bytes: report };
        Ok(PlatformEvidence { item, endorsements })
    }
}

fn ask(port: &mut (impl Read + Write), report_data: &[u8; 64]) -> io::Result<(Vec<u8>, Vec<u8>)> {
    port.write_all(report_data)?;
    Ok((part(port)?, part(port)?))
}

fn part(port: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    port.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > MAX_PART {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length as usize];
    port.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_a_limit_and_an_end() {
        let answer = |length: u32, body: &[u8]| [&length.to_be_bytes()[..], body].concat();
        assert_eq!(part(&mut &*answer(3, b"abc")).unwrap(), b"abc");
        assert!(part(&mut &*answer(4, b"abc")).is_err());
        assert!(part(&mut &*answer(MAX_PART, &vec![0; MAX_PART as usize])).is_ok());
        assert!(part(&mut &*answer(MAX_PART + 1, &vec![0; MAX_PART as usize + 1])).is_err());
    }
}
