//! TD quotes, versions 4 and 5 (Intel TDX DCAP, "Quote Generation Library and Quote Verification Library",
//! appendix A). Little-endian.

use super::enclave::{ENCLAVE_REPORT_LEN, EnclaveReport};
use super::pck::Pck;
use crate::reader::Reader;
use crate::x509::Certificate;
use crate::{Digest, Error, Measurement};

/// Quotes have about 5 KiB; some services pad them with zeros to 8000 bytes.
const MAX_QUOTE_LEN: usize = 16 * 1024;

/// ECDSA with P-256 and SHA-256, the only attestation key that the TD quoting enclave has.
const ATTESTATION_KEY_TYPE: u16 = 2;

/// TEE types of the header.
const TEE_SGX: u32 = 0;
const TEE_TDX: u32 = 0x81;

/// Intel's quoting enclave.
const QE_VENDOR: [u8; 16] =
    [0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07];

/// Body types of version 5, with their lengths in bytes.
const TD_10: (u16, u32) = (2, 584);
const TD_15: (u16, u32) = (3, 648);

/// Certification data: the quoting enclave's report and what certifies it, and in that the PCK chain as PEM.
const CERTIFICATION_QE_REPORT: u16 = 6;
const CERTIFICATION_PCK_CHAIN: u16 = 5;

/// PCK, its issuer, root: exactly what Intel's libraries put there.
const PCK_CHAIN_LEN: usize = 3;

const WHAT: &str = "TDX quote";

/// A parsed quote. Nothing in it is authentic before [`super::authenticate`].
#[derive(Clone, Debug)]
pub struct Quote {
    /// Version of the structure: 4 or 5.
    pub version: u16,
    /// TEE type: 0x81, TDX.
    pub tee_type: u32,
    /// What the quoting enclave's owner chose; Intel's puts an identifier of the platform into the first 16 bytes.
    pub user_data: [u8; 20],
    /// The TD report.
    pub body: TdReport,
    /// Report of the enclave that made the quote.
    pub qe_report: EnclaveReport,
    /// The key that certifies the quoting enclave, with what Intel says in it about the platform.
    pub pck: Pck,
    pub(super) seal: Seal,
}

/// The signed part, and what signs it.
#[derive(Clone, Debug)]
pub(super) struct Seal {
    /// Header and body as received.
    pub(super) signed: Vec<u8>,
    /// By the attestation key over `signed`: r || s.
    pub(super) signature: [u8; 64],
    /// The attestation key: x || y.
    pub(super) attestation_key: [u8; 64],
    /// The quoting enclave's report as received.
    pub(super) qe_report: [u8; ENCLAVE_REPORT_LEN],
    /// By the PCK over `qe_report`: r || s.
    pub(super) qe_signature: [u8; 64],
    /// What the quoting enclave hashed together with the attestation key.
    pub(super) qe_auth_data: Vec<u8>,
    /// Issuer of the PCK certificate.
    pub(super) pck_issuer: Certificate,
    /// The root that the platform names, DER. Trust comes from the pinned one alone, with which it is compared.
    pub(super) named_root: Vec<u8>,
}

/// TDREPORT as quoted (Intel TDX Module ABI, TDINFO_STRUCT and TEE_TCB_INFO).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdReport {
    /// TEE_TCB_SVN: security versions of the TDX module when the TD was launched.
    pub tee_tcb_svn: [u8; 16],
    /// MRSEAM: measurement of the TDX module.
    pub mr_seam: Measurement,
    /// MRSIGNERSEAM: who signed the module; all zero for Intel.
    pub mr_signer_seam: Measurement,
    /// SEAMATTRIBUTES: all zero for a production module.
    pub seam_attributes: [u8; 8],
    /// ATTRIBUTES of the TD.
    pub td_attributes: u64,
    /// XFAM: processor state that the TD may use.
    pub xfam: u64,
    /// MRTD: measurement of what was loaded at launch.
    pub mr_td: Measurement,
    /// MRCONFIGID: what the host gave at launch, not about the software.
    pub mr_config_id: Measurement,
    /// MROWNER: software-defined identifier of the owner.
    pub mr_owner: Measurement,
    /// MROWNERCONFIG: software-defined configuration by the owner.
    pub mr_owner_config: Measurement,
    /// RTMR0 to RTMR3: measurements that the guest extended.
    pub rtmr: [Measurement; 4],
    /// REPORTDATA: what the guest asked to be signed.
    pub report_data: [u8; 64],
    /// What only a TD report 1.5 has.
    pub td_15: Option<Td15>,
}

/// What a TD report 1.5 has in addition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Td15 {
    /// TEE_TCB_SVN_2: security versions of the module that runs now; it can be updated under a running TD.
    pub tee_tcb_svn_2: [u8; 16],
    /// MRSERVICETD: hash over the service TDs that are bound to this one; all zero without.
    pub mr_service_td: Measurement,
}

impl Quote {
    /// Parses a quote. Zero bytes after its end are ignored, because services pad quotes: they are no part of
    /// [`Quote::identity`].
    ///
    /// # Errors
    /// `Malformed` for anything but one quote of version 4 or 5 of a TD by Intel's quoting enclave, with the PCK chain in it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_QUOTE_LEN {
            return Err(Error::malformed(
                WHAT,
                format!("{} bytes, at most {MAX_QUOTE_LEN} are allowed", bytes.len()),
            ));
        }
        let mut r = Reader::new(WHAT, bytes);
        let (version, tee_type, user_data) = header(&mut r)?;
        let is_15 = match version {
            4 => false,
            _ => body_descriptor(&mut r)?,
        };
        let body = TdReport::read(&mut r, is_15)?;
        let signed = bytes.get(..bytes.len().saturating_sub(r.len())).unwrap_or_default().to_vec();
        let len = length(&mut r)?;
        let signature_data = r.take(len)?;
        let padding = r.len();
        r.zeros(padding, "what follows the signature data")?;
        let (pck, qe_report, seal) = Seal::parse(signature_data, signed)?;
        Ok(Self { version, tee_type, user_data, body, qe_report, pck, seal })
    }

    /// Header and body as received: what the attestation key signs.
    #[must_use]
    pub fn signed(&self) -> &[u8] {
        &self.seal.signed
    }

    /// SHA-256 of [`Quote::signed`]. The bytes of a quote are not an identity: padding, the text around the certificates, and
    /// each ECDSA signature have several forms.
    #[must_use]
    pub fn identity(&self) -> Digest {
        Digest::of(&self.seal.signed)
    }
}

/// 48 bytes. Version 3 and TEE type 0 are SGX.
fn header(r: &mut Reader<'_>) -> Result<(u16, u32, [u8; 20]), Error> {
    let refuse = |why: String| Err(Error::malformed(WHAT, why));
    let version = r.u16_le()?;
    if version == 3 {
        return refuse("version 3 is an SGX quote; TD quotes have version 4 or 5".to_owned());
    }
    if version != 4 && version != 5 {
        return refuse(format!("version {version}; 4 and 5 are supported"));
    }
    let key_type = r.u16_le()?;
    if key_type != ATTESTATION_KEY_TYPE {
        return refuse(format!("attestation key type {key_type}, expected 2 (ECDSA P-256)"));
    }
    let tee_type = r.u32_le()?;
    if tee_type == TEE_SGX {
        return refuse("TEE type 0 is an SGX enclave, expected 0x81 (TDX)".to_owned());
    }
    if tee_type != TEE_TDX {
        return refuse(format!("TEE type {tee_type:#x}, expected 0x81 (TDX)"));
    }
    r.zeros(4, "reserved field at 0x08")?;
    if r.array::<16>()? != QE_VENDOR {
        return refuse("not by Intel's quoting enclave".to_owned());
    }
    Ok((version, tee_type, r.array()?))
}

/// Type and size, which version 5 has before the body. Whether it is a TD report 1.5.
fn body_descriptor(r: &mut Reader<'_>) -> Result<bool, Error> {
    let descriptor = (r.u16_le()?, r.u32_le()?);
    if descriptor != TD_10 && descriptor != TD_15 {
        let (kind, len) = descriptor;
        return Err(Error::malformed(
            WHAT,
            format!(
                "body of type {kind} with {len} bytes; type 2 with 584 and type 3 with 648 are supported"
            ),
        ));
    }
    Ok(descriptor == TD_15)
}

impl TdReport {
    fn read(r: &mut Reader<'_>, is_15: bool) -> Result<Self, Error> {
        Ok(Self {
            tee_tcb_svn: r.array()?,
            mr_seam: measurement(r)?,
            mr_signer_seam: measurement(r)?,
            seam_attributes: r.array()?,
            td_attributes: r.u64_le()?,
            xfam: r.u64_le()?,
            mr_td: measurement(r)?,
            mr_config_id: measurement(r)?,
            mr_owner: measurement(r)?,
            mr_owner_config: measurement(r)?,
            rtmr: [measurement(r)?, measurement(r)?, measurement(r)?, measurement(r)?],
            report_data: r.array()?,
            td_15: if is_15 {
                Some(Td15 { tee_tcb_svn_2: r.array()?, mr_service_td: measurement(r)? })
            } else {
                None
            },
        })
    }
}

fn measurement(r: &mut Reader<'_>) -> Result<Measurement, Error> {
    r.array().map(Measurement)
}

impl Seal {
    /// ECDSA 256-bit quote signature data (appendix A), all of `bytes`.
    fn parse(bytes: &[u8], signed: Vec<u8>) -> Result<(Pck, EnclaveReport, Self), Error> {
        let mut r = Reader::new(WHAT, bytes);
        let (signature, attestation_key) = (r.array()?, r.array()?);
        let mut inner = certification(&mut r, CERTIFICATION_QE_REPORT)?;
        r.finish()?;
        let qe_report = inner.array()?;
        let qe_signature = inner.array()?;
        let auth_len = usize::from(inner.u16_le()?);
        let qe_auth_data = inner.take(auth_len)?.to_vec();
        let mut chain = certification(&mut inner, CERTIFICATION_PCK_CHAIN)?;
        inner.finish()?;
        let certificates = Certificate::ders_of_pem(chain.rest(), PCK_CHAIN_LEN)?;
        let [pck, pck_issuer, named_root] = <[_; PCK_CHAIN_LEN]>::try_from(certificates).map_err(|few| {
            Error::malformed(WHAT, format!("{} certificates instead of PCK, issuer and root", few.len()))
        })?;
        let (pck, pck_issuer) = (Certificate::from_der(&pck)?, Certificate::from_der(&pck_issuer)?);
        let seal = Self {
            signed,
            signature,
            attestation_key,
            qe_report,
            qe_signature,
            qe_auth_data,
            pck_issuer,
            named_root,
        };
        Ok((Pck::from_certificate(pck)?, EnclaveReport::parse(&qe_report)?, seal))
    }
}

/// Type, length, and that many bytes.
fn certification<'a>(r: &mut Reader<'a>, expected: u16) -> Result<Reader<'a>, Error> {
    let kind = r.u16_le()?;
    if kind != expected {
        return Err(Error::malformed(
            WHAT,
            format!("certification data of type {kind}, expected {expected}"),
        ));
    }
    let len = length(r)?;
    Ok(Reader::new(WHAT, r.take(len)?))
}

fn length(r: &mut Reader<'_>) -> Result<usize, Error> {
    r.u32_le().map(|len| usize::try_from(len).unwrap_or(usize::MAX))
}
