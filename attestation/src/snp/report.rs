//! ATTESTATION_REPORT, versions 2 to 5 (AMD 56860, table 23). Little-endian.

use super::product::Product;
use super::tcb::TcbVersion;
use crate::crypto::SignatureScheme;
use crate::reader::Reader;
use crate::x509::Certificate;
use crate::{Error, Measurement};

/// Length of a report in bytes.
pub const REPORT_LEN: usize = 1184;

/// The signature is over the bytes before it.
const SIGNED_LEN: usize = 0x2a0;

/// r and s have 72 bytes of room each, of which P-384 uses 48.
const SCALAR_ROOM: usize = 72;
const SCALAR_LEN: usize = 48;

/// ECDSA P-384 with SHA-384, the only algorithm of the ABI.
const SIGNATURE_ALGORITHM: u32 = 1;

/// A parsed report, with the bytes it came from.
#[derive(Clone, PartialEq, Eq)]
pub struct Report {
    raw: [u8; REPORT_LEN],
    /// Version of the structure: 2 to 5.
    pub version: u32,
    /// GUEST_SVN from the ID block.
    pub guest_svn: u32,
    /// Guest policy bits.
    pub policy: u64,
    /// From the ID block.
    pub family_id: [u8; 16],
    /// From the ID block.
    pub image_id: [u8; 16],
    /// Privilege level that asked for the report.
    pub vmpl: u32,
    /// TCB that runs now.
    pub current_tcb: TcbVersion,
    /// Platform configuration bits.
    pub platform_info: u64,
    /// AUTHOR_KEY_EN, MASK_CHIP_KEY, SIGNING_KEY.
    pub flags: u32,
    /// What the guest asked to be signed.
    pub report_data: [u8; 64],
    /// Launch digest.
    pub measurement: Measurement,
    /// What the host gave at launch.
    pub host_data: [u8; 32],
    /// SHA-384 of the key that signed the ID block.
    pub id_key_digest: [u8; 48],
    /// SHA-384 of the key that certified the ID key.
    pub author_key_digest: [u8; 48],
    /// TCB that the signing key was derived from.
    pub reported_tcb: TcbVersion,
    /// CPUID family, model and stepping; version 2 has none.
    pub cpuid: Option<[u8; 3]>,
    /// Identifier of the chip.
    pub chip_id: [u8; 64],
    /// TCB that cannot be rolled back.
    pub committed_tcb: TcbVersion,
    /// TCB at launch.
    pub launch_tcb: TcbVersion,
    /// Mitigations in force at launch and now, as bit vectors; from version 5 on.
    pub mitigations: Option<[u64; 2]>,
}

/// Which key signed a report (SIGNING_KEY).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningKey {
    /// Versioned chip endorsement key: of one chip.
    Vcek,
    /// Versioned loaded endorsement key: of one cloud provider.
    Vlek,
}

impl SigningKey {
    /// AMD's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vcek => "VCEK",
            Self::Vlek => "VLEK",
        }
    }
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (version, vmpl, measurement) = (&self.version, &self.vmpl, &self.measurement);
        f.debug_struct("Report")
            .field("version", version)
            .field("vmpl", vmpl)
            .field("measurement", measurement)
            .finish()
    }
}

const WHAT: &str = "SNP report";

impl Report {
    /// Parses a report. Nothing in it is authentic before [`Report::is_signed_by`].
    ///
    /// # Errors
    /// `Malformed` for another length, an unknown version or algorithm, and reserved bytes that are not zero.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let raw: [u8; REPORT_LEN] = bytes.try_into().map_err(|_wrong_length| {
            Error::malformed(WHAT, format!("{} bytes, a report has {REPORT_LEN}", bytes.len()))
        })?;
        Self::read(&raw, raw)
    }

    /// The fields in `bytes`, which are those of `raw`.
    pub(crate) fn read(bytes: &[u8], raw: [u8; REPORT_LEN]) -> Result<Self, Error> {
        let mut r = Reader::new(WHAT, bytes);
        let version = r.u32_le()?;
        if !(2..=5).contains(&version) {
            return Err(Error::malformed(WHAT, format!("version {version}; 2 to 5 are supported")));
        }
        let guest_svn = r.u32_le()?;
        let policy = r.u64_le()?;
        let (family_id, image_id) = (r.array()?, r.array()?);
        let vmpl = r.u32_le()?;
        let algorithm = r.u32_le()?;
        if algorithm != SIGNATURE_ALGORITHM {
            return Err(Error::malformed(
                WHAT,
                format!("signature algorithm {algorithm}, expected 1 (P-384)"),
            ));
        }
        let current_tcb = TcbVersion(r.array()?);
        let platform_info = r.u64_le()?;
        let flags = r.u32_le()?;
        r.zeros(4, "reserved field at 0x4c")?;
        let report = Self {
            raw,
            version,
            guest_svn,
            policy,
            family_id,
            image_id,
            vmpl,
            current_tcb,
            platform_info,
            flags,
            report_data: r.array()?,
            measurement: Measurement(r.array()?),
            host_data: r.array()?,
            id_key_digest: r.array()?,
            author_key_digest: r.array()?,
            reported_tcb: {
                skip(&mut r, 64)?;
                TcbVersion(r.array()?)
            },
            cpuid: cpuid(&mut r, version)?,
            chip_id: {
                r.zeros(21, "reserved field at 0x18b")?;
                r.array()?
            },
            committed_tcb: TcbVersion(r.array()?),
            launch_tcb: {
                firmware_builds(&mut r)?;
                TcbVersion(r.array()?)
            },
            mitigations: mitigations(&mut r, version)?,
        };
        report.signing_key()?;
        check_tail(r)?;
        Ok(report)
    }

    /// The bytes as they were received.
    #[must_use]
    pub fn raw(&self) -> &[u8; REPORT_LEN] {
        &self.raw
    }

    /// Bit `n` of POLICY.
    #[must_use]
    pub fn policy_bit(&self, n: u32) -> u64 {
        self.policy.checked_shr(n).unwrap_or(0) & 1
    }

    /// Bit `n` of PLATFORM_INFO.
    #[must_use]
    pub fn platform_bit(&self, n: u32) -> u64 {
        self.platform_info.checked_shr(n).unwrap_or(0) & 1
    }

    /// MASK_CHIP_KEY: the report is not signed, or not by a key of the chip.
    #[must_use]
    pub fn chip_key_masked(&self) -> u64 {
        u64::from(self.flags >> 1 & 1)
    }

    /// AUTHOR_KEY_EN: the digest of the author key is present.
    #[must_use]
    pub fn author_key_enabled(&self) -> u64 {
        u64::from(self.flags & 1)
    }

    /// SIGNING_KEY.
    ///
    /// # Errors
    /// `Malformed` for "none" and for numbers and reserved bits that are not specified.
    pub fn signing_key(&self) -> Result<SigningKey, Error> {
        match self.flags >> 2 {
            0 => Ok(SigningKey::Vcek),
            1 => Ok(SigningKey::Vlek),
            7 => Err(Error::malformed(WHAT, "it is not signed (SIGNING_KEY 7)")),
            _ => Err(Error::malformed(
                WHAT,
                format!("flags {:#x} at 0x48 have bits that are not specified", self.flags),
            )),
        }
    }

    /// The product, by CPUID family and model; `None` for version 2 and for a processor that this crate does not know.
    #[must_use]
    pub fn product(&self) -> Option<Product> {
        self.cpuid.and_then(Product::of_cpuid)
    }

    /// Whether `key` signed the bytes 0x000..0x2a0 as received.
    #[must_use]
    pub fn is_signed_by(&self, key: &Certificate) -> bool {
        let mut r = Reader::new(WHAT, &self.raw);
        let (Ok(signed), Ok(scalar_r), Ok(scalar_s)) =
            (r.take(SIGNED_LEN), r.take(SCALAR_ROOM), r.take(SCALAR_ROOM))
        else {
            return false;
        };
        let big_endian = |scalar: &[u8]| scalar.iter().take(SCALAR_LEN).rev().copied().collect::<Vec<u8>>();
        let signature = [big_endian(scalar_r), big_endian(scalar_s)].concat();
        let scheme = SignatureScheme::EcdsaP384Sha384Fixed;
        key.key_for(scheme).is_some_and(|point| scheme.verify(point, signed, &signature))
    }
}

fn skip(r: &mut Reader<'_>, n: usize) -> Result<(), Error> {
    r.take(n).map(|_| ())
}

/// Reserved bytes and the room around the signature.
fn check_tail(mut r: Reader<'_>) -> Result<(), Error> {
    r.zeros(152, "reserved field at 0x208")?;
    for scalar in ["r", "s"] {
        skip(&mut r, SCALAR_LEN)?;
        r.zeros(SCALAR_ROOM.saturating_sub(SCALAR_LEN), &format!("the padding of the signature's {scalar}"))?;
    }
    r.zeros(368, "reserved field after the signature")?;
    r.finish()
}

fn cpuid(r: &mut Reader<'_>, version: u32) -> Result<Option<[u8; 3]>, Error> {
    if version >= 3 {
        return r.array().map(Some);
    }
    r.zeros(3, "reserved field at 0x188")?;
    Ok(None)
}

fn mitigations(r: &mut Reader<'_>, version: u32) -> Result<Option<[u64; 2]>, Error> {
    if version >= 5 {
        return Ok(Some([r.u64_le()?, r.u64_le()?]));
    }
    r.zeros(16, "reserved field at 0x1f8")?;
    Ok(None)
}

/// CURRENT and COMMITTED build, minor, major, each with a reserved byte.
fn firmware_builds(r: &mut Reader<'_>) -> Result<(), Error> {
    for _ in 0..2 {
        skip(r, 3)?;
        r.zeros(1, "reserved byte of a firmware build")?;
    }
    Ok(())
}
