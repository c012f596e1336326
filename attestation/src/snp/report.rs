//! ATTESTATION_REPORT, versions 3 to 5 (AMD 56860, table 23). Little-endian.

use super::chain::Product;
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

/// Security versions of the firmware parts, as the 8 bytes of the report. Their meaning depends on the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcbVersion(pub [u8; 8]);

impl TcbVersion {
    /// `(boot loader, TEE, SNP, microcode)`; Turin and later have another order, with FMC first.
    #[must_use]
    pub fn parts(self, product: Product) -> [u8; 4] {
        let [b0, b1, b2, b3, _, _, b6, b7] = self.0;
        match product {
            Product::Milan | Product::Genoa => [b0, b1, b6, b7],
            Product::Turin => [b1, b2, b3, b7],
        }
    }

    /// The FMC version, which only Turin and later have.
    #[must_use]
    pub fn fmc(self, product: Product) -> Option<u8> {
        let [fmc, ..] = self.0;
        (product == Product::Turin).then_some(fmc)
    }
}

/// A parsed report, with the bytes it came from.
#[derive(Clone, PartialEq, Eq)]
pub struct Report {
    raw: [u8; REPORT_LEN],
    /// Version of the structure: 3, 4 or 5.
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
    /// CPUID family, model and stepping.
    pub cpuid: [u8; 3],
    /// Identifier of the chip.
    pub chip_id: [u8; 64],
    /// TCB that cannot be rolled back.
    pub committed_tcb: TcbVersion,
    /// TCB at launch.
    pub launch_tcb: TcbVersion,
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
        let mut r = Reader::new(WHAT, &raw);
        let version = r.u32_le()?;
        if !(3..=5).contains(&version) {
            return Err(Error::malformed(WHAT, format!("version {version}; 3, 4 and 5 are supported")));
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
            cpuid: r.array()?,
            chip_id: {
                r.zeros(21, "reserved field at 0x18b")?;
                r.array()?
            },
            committed_tcb: TcbVersion(r.array()?),
            launch_tcb: {
                firmware_builds(&mut r)?;
                TcbVersion(r.array()?)
            },
        };
        report.check_tail(r)?;
        Ok(report)
    }

    /// Mitigation vectors (version 5), reserved bytes, signature.
    fn check_tail(&self, mut r: Reader<'_>) -> Result<(), Error> {
        if self.version >= 5 {
            skip(&mut r, 16)?;
        } else {
            r.zeros(16, "reserved field at 0x1f8")?;
        }
        r.zeros(152, "reserved field at 0x208")?;
        for scalar in ["r", "s"] {
            skip(&mut r, SCALAR_LEN)?;
            r.zeros(
                SCALAR_ROOM.saturating_sub(SCALAR_LEN),
                &format!("the padding of the signature's {scalar}"),
            )?;
        }
        r.zeros(368, "reserved field after the signature")?;
        r.finish()
    }

    /// The bytes as they were received.
    #[must_use]
    pub fn raw(&self) -> &[u8; REPORT_LEN] {
        &self.raw
    }

    /// POLICY bit 19: the host may read the guest's memory.
    #[must_use]
    pub fn debug_allowed(&self) -> bool {
        self.policy >> 19 & 1 == 1
    }

    /// The product, by CPUID family and model; `None` for a processor that this version does not know.
    #[must_use]
    pub fn product(&self) -> Option<Product> {
        match self.cpuid {
            [0x19, 0x00..=0x0f, _] => Some(Product::Milan),
            [0x19, 0x10..=0x1f | 0xa0..=0xaf, _] => Some(Product::Genoa),
            [0x1a, 0x00..=0x1f, _] => Some(Product::Turin),
            _ => None,
        }
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

/// CURRENT and COMMITTED build, minor, major, each with a reserved byte.
fn firmware_builds(r: &mut Reader<'_>) -> Result<(), Error> {
    for _ in 0..2 {
        skip(r, 3)?;
        r.zeros(1, "reserved byte of a firmware build")?;
    }
    Ok(())
}
