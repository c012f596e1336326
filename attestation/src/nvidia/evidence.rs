//! How a GPU's evidence travels: report, certificates, and what its nonce was made from.

use super::spdm::Report;
use crate::Error;
use crate::cbor::{self, Fields, Value};
use crate::x509::Certificate;

/// Media type of [`GpuEvidence`] in an evidence collection.
pub const NVIDIA_GPU_MEDIA_TYPE: &str = "application/vnd.cocoon.nvidia-gpu";

/// A report of 5 KiB and five certificates of 1 KiB.
const MAX_LEN: usize = 32 * 1024;
/// Chains have 5.
const MAX_CERTIFICATES: usize = 8;

const WHAT: &str = "GPU evidence";

/// The evidence of one GPU. Parsed; nothing in it is authentic before [`super::authenticate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuEvidence {
    /// What the nonce of the report must be derived from, see [`crate::binding::gpu_nonce`]. All zero for a report from a file.
    pub x: [u8; 32],
    /// What the GPU signed.
    pub report: Report,
    /// Leaf first; the root may be left out.
    pub chain: Vec<Certificate>,
}

impl GpuEvidence {
    /// From what NVIDIA's driver returns: the report, and the chain as PEM or one certificate as DER.
    ///
    /// # Errors
    /// `Malformed`: as [`Report::parse`] and [`Certificate::list_from_pem_or_der`], and for more than 8 certificates.
    pub fn from_parts(report: &[u8], chain: &[u8]) -> Result<Self, Error> {
        let chain = Certificate::list_from_pem_or_der(chain, MAX_CERTIFICATES)?;
        Ok(Self { x: [0; 32], report: Report::parse(report)?, chain })
    }

    /// Deterministic CBOR: `{ 0: 1, 1: x bstr32, 2: request || response, 3: [+ certificate DER, leaf first] }`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let chain = self.chain.iter().map(|certificate| cbor::bytes(certificate.der())).collect();
        cbor::encode(&cbor::map([
            (0, cbor::uint(1)),
            (1, cbor::bytes(&self.x)),
            (2, cbor::bytes(&self.report.to_bytes())),
            (3, Value::Array(chain)),
        ]))
    }

    /// Reads what [`GpuEvidence::encode`] writes.
    ///
    /// # Errors
    /// `Malformed` for anything else, such as no certificate or more than 8.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields::decode(WHAT, bytes, MAX_LEN)?;
        fields.version(&cbor::uint(1))?;
        let x = fields.required(1)?.array()?;
        let report = Report::parse(&fields.required(2)?.bytes()?)?;
        let chain = fields.required(3)?.items(MAX_CERTIFICATES)?;
        fields.finish()?;
        if chain.is_empty() {
            return Err(Error::malformed(WHAT, "no certificate"));
        }
        let chain =
            chain.into_iter().map(|item| Certificate::from_der(&item.bytes()?)).collect::<Result<_, _>>()?;
        Ok(Self { x, report, chain })
    }
}
