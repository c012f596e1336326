//! The report of an SGX enclave, here the TD quoting enclave (Intel SDM volume 3D, table 38-21, REPORT). Little-endian.

use crate::Error;
use crate::reader::Reader;

/// Length in bytes.
pub(super) const ENCLAVE_REPORT_LEN: usize = 384;

const WHAT: &str = "report of the quoting enclave";

/// What is appraised of the report of the quoting enclave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnclaveReport {
    /// MISCSELECT, as the bytes of the report.
    pub misc_select: [u8; 4],
    /// ATTRIBUTES.
    pub attributes: [u8; 16],
    /// MRENCLAVE: measurement. Intel's identity of the quoting enclave does not name it.
    pub mr_enclave: [u8; 32],
    /// MRSIGNER: SHA-256 of the key that signed the enclave.
    pub mr_signer: [u8; 32],
    /// ISVPRODID.
    pub isv_prod_id: u16,
    /// ISVSVN: its security version.
    pub isv_svn: u16,
    /// REPORTDATA: SHA-256 over attestation key and authentication data, then 32 zero bytes.
    pub report_data: [u8; 64],
}

impl EnclaveReport {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::new(WHAT, bytes);
        r.take(16)?; // CPUSVN: the PCK certificate names the TCB.
        let misc_select = r.array()?;
        r.zeros(12, "reserved field at 0x14")?;
        r.take(16)?; // ISVEXTPRODID
        let attributes = r.array()?;
        let mr_enclave = r.array()?;
        r.zeros(32, "reserved field at 0x60")?;
        let mr_signer = r.array()?;
        r.zeros(32, "reserved field at 0xa0")?;
        r.take(64)?; // CONFIGID
        let (isv_prod_id, isv_svn) = (r.u16_le()?, r.u16_le()?);
        r.take(2)?; // CONFIGSVN
        r.zeros(42, "reserved field at 0x106")?;
        r.take(16)?; // ISVFAMILYID
        let report_data = r.array()?;
        r.finish()?;
        Ok(Self { misc_select, attributes, mr_enclave, mr_signer, isv_prod_id, isv_svn, report_data })
    }
}
