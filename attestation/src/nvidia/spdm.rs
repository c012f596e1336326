//! The measurement report of a GPU: an SPDM 1.1 GET_MEASUREMENTS request and the MEASUREMENTS response to it.
//!
//! Source: DMTF DSP0274 version 1.1, tables 42 to 48. Integers are little-endian.

use super::opaque::Opaque;
use crate::Error;
use crate::crypto::SignatureScheme;
use crate::reader::Reader;

/// Reports of today's GPUs are below 5 KiB.
const MAX_LEN: usize = 16 * 1024;

/// r and s of P-384.
const SIGNATURE_LEN: usize = 96;

/// SHA-384.
const DIGEST_LEN: usize = 48;

const SPDM_1_1: u8 = 0x11;
const GET_MEASUREMENTS: u8 = 0xe0;
const MEASUREMENTS: u8 = 0x60;
/// Param1 of the request: a signature is asked for.
const SIGNED: u8 = 1;
/// Param2 of the request: every measurement.
const ALL: u8 = 0xff;
/// MeasurementSpecification: bit 0, DMTF.
const DMTF: u8 = 1;
/// DMTFSpecMeasurementValueType: the largest that is a digest of something (3: firmware configuration). Bit 7 would mean a raw value.
const MAX_VALUE_TYPE: u8 = 3;

const WHAT: &str = "GPU report";

/// A parsed report. Nothing in it is authentic before [`super::authenticate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What the verifier asked with (32 bytes).
    pub nonce: [u8; 32],
    /// What the GPU added (32 bytes). Says nothing to a verifier.
    pub responder_nonce: [u8; 32],
    /// In the order of the report, their indices ascending from 1 without gaps.
    pub measurements: Vec<[u8; DIGEST_LEN]>,
    /// What NVIDIA adds: versions, board, FWID.
    pub opaque: Opaque,
    /// Request and response but for the signature.
    signed: Vec<u8>,
    signature: [u8; SIGNATURE_LEN],
}

impl Report {
    /// Parses request and response, one after the other.
    ///
    /// # Errors
    /// `Malformed` for anything but exactly one signed request for all measurements and its response.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_LEN {
            return Err(Error::malformed(
                WHAT,
                format!("{} bytes, at most {MAX_LEN} are allowed", bytes.len()),
            ));
        }
        let mut r = Reader::new(WHAT, bytes);
        let nonce = request(&mut r)?;
        let measurements = blocks(&mut r)?;
        let responder_nonce = r.array()?;
        let opaque_len = usize::from(r.u16_le()?);
        let opaque = Opaque::parse(r.take(opaque_len)?)?;
        let signature = r.array()?;
        r.finish()?;
        let signed = bytes.strip_suffix(&signature).unwrap_or_default().to_vec();
        Ok(Self { nonce, responder_nonce, measurements, opaque, signed, signature })
    }

    /// The bytes that were parsed.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.signed.as_slice(), &self.signature].concat()
    }

    /// Whether `key` (uncompressed P-384 point) signed the report.
    pub(super) fn is_signed_by(&self, key: &[u8]) -> bool {
        SignatureScheme::EcdsaP384Sha384Fixed.verify(key, &self.signed, &self.signature)
    }

    /// The measurement that a RIM calls `index`: RIMs count from 0, the report from 1.
    pub(super) fn measurement(&self, index: u8) -> Option<&[u8; DIGEST_LEN]> {
        self.measurements.get(usize::from(index))
    }
}

fn expect(r: &mut Reader<'_>, want: u8, field: &str) -> Result<(), Error> {
    let got = r.u8()?;
    if got == want {
        return Ok(());
    }
    Err(Error::malformed(WHAT, format!("{field} is {got:#04x}, expected {want:#04x}")))
}

/// DSP0274 table 42: 37 bytes. Returns the nonce.
fn request(r: &mut Reader<'_>) -> Result<[u8; 32], Error> {
    expect(r, SPDM_1_1, "version of the request")?;
    expect(r, GET_MEASUREMENTS, "code of the request")?;
    expect(r, SIGNED, "param1 of the request")?;
    expect(r, ALL, "param2 of the request")?;
    let nonce = r.array()?;
    expect(r, 0, "slot of the request")?;
    Ok(nonce)
}

/// DSP0274 tables 44 to 47: the response up to its nonce.
fn blocks(r: &mut Reader<'_>) -> Result<Vec<[u8; DIGEST_LEN]>, Error> {
    expect(r, SPDM_1_1, "version of the response")?;
    expect(r, MEASUREMENTS, "code of the response")?;
    // Only a request for the number of indices has it.
    expect(r, 0, "param1 of the response")?;
    expect(r, 0, "slot of the response")?;
    let count = r.u8()?;
    let len = usize::try_from(r.u24_le()?).unwrap_or(usize::MAX);
    let mut record = Reader::new("measurement record of a GPU report", r.take(len)?);
    let blocks = (1..=count).map(|index| block(&mut record, index)).collect::<Result<_, _>>()?;
    record.finish()?;
    Ok(blocks)
}

/// DSP0274 tables 46 and 47.
fn block(r: &mut Reader<'_>, index: u8) -> Result<[u8; DIGEST_LEN], Error> {
    expect(r, index, "index of a measurement block")?;
    expect(r, DMTF, "specification of a measurement")?;
    let size = usize::from(r.u16_le()?);
    let value_type = r.u8()?;
    if value_type > MAX_VALUE_TYPE {
        return Err(Error::malformed(WHAT, format!("measurement {index} has the type {value_type:#04x}")));
    }
    let value_size = usize::from(r.u16_le()?);
    if value_size != DIGEST_LEN || size != DIGEST_LEN.saturating_add(3) {
        return Err(Error::malformed(WHAT, format!("measurement {index} is not a SHA-384 digest")));
    }
    r.array()
}
