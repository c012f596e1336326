//! ARK, ASK and VCEK in AMD's shape: RSA-4096 with PSS above, P-384 with AMD's extensions below.

use std::str::FromStr;
use std::time::Duration;

use cocoon_attestation::UnixTime;
use der::asn1::{Any, BitString, ObjectIdentifier, OctetString, UtcTime};
use der::{Decode, Encode};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PSS_SHA384, RsaKeyPair};
use rsa::pkcs8::{EncodePrivateKey, EncodePublicKey};
use rsa::rand_core::{CryptoRng, Error as RandError, RngCore};
use x509_cert::certificate::{Certificate, TbsCertificate, Version};
use x509_cert::crl::{CertificateList, TbsCertList};
use x509_cert::ext::Extension;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};
use zeroize::Zeroizing;

use super::report::TCB;

/// As AMD's.
const RSA_BITS: usize = 4096;
const DAY: u64 = 24 * 3600;
/// As long as a VCEK is valid. UTCTime ends in 2049.
const LIFETIME: u64 = 7 * 365 * DAY;

const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// RSASSA-PSS-params: SHA-384, MGF1 with SHA-384, salt of 48 bytes (RFC 4055 section 3.1).
const PSS_PARAMS: [u8; 54] = [
    0x30, 0x34, 0xa0, 0x0f, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02,
    0x05, 0x00, 0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08,
    0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0xa2, 0x03,
    0x02, 0x01, 0x30,
];

/// A key could not be generated or a certificate not be built.
#[derive(Debug)]
pub(super) struct CaError;

impl From<der::Error> for CaError {
    fn from(_: der::Error) -> Self {
        Self
    }
}

/// Keys (PKCS#8) and certificates (DER) of a simulated processor.
pub(super) struct Hierarchy {
    pub(super) ark: Vec<u8>,
    pub(super) ask: Vec<u8>,
    /// Revocation list of the ARK: empty, and for as long as everything else.
    pub(super) crl: Vec<u8>,
    pub(super) vcek: Vec<u8>,
    pub(super) vcek_key: Zeroizing<Vec<u8>>,
    pub(super) chip_id: [u8; 64],
}

impl Hierarchy {
    /// Generates everything. The keys of ARK and ASK are dropped: nobody, not even the developer, can add a chip to this root.
    pub(super) fn generate(now: UnixTime) -> Result<Self, CaError> {
        let (ark_key, ask_key) = std::thread::scope(|scope| {
            let other = scope.spawn(rsa_key);
            let ark = rsa_key();
            (ark, other.join().unwrap_or(Err(CaError)))
        });
        let (ark_key, ask_key) = (ark_key?, ask_key?);
        let vcek_key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_no_random| CaError)?;
        let vcek_key = Zeroizing::new(vcek_key.as_ref().to_vec());
        let mut chip_id = [0; 64];
        SystemRandom::new().fill(&mut chip_id).map_err(|_no_random| CaError)?;

        let ark =
            Subject { name: "CN=ARK-Simulated,O=Cocoon simulated platform", spki: rsa_spki(&ark_key)?, now };
        let ask =
            Subject { name: "CN=SEV-Simulated,O=Cocoon simulated platform", spki: rsa_spki(&ask_key)?, now };
        let spki = p384_spki(&vcek_key)?;
        let vcek = Subject { name: "CN=SEV-VCEK,O=Cocoon simulated platform", spki, now };
        Ok(Self {
            vcek: vcek.issue(&ask, &ask_key, vcek_extensions(&chip_id)?)?,
            ask: ask.issue(&ark, &ark_key, authority()?)?,
            crl: revocation_list(&ark, &ark_key)?,
            ark: ark.issue(&ark, &ark_key, authority()?)?,
            vcek_key,
            chip_id,
        })
    }
}

/// A list that revokes nothing: the Verifier wants one, as for hardware.
fn revocation_list(ark: &Subject, key: &rsa::RsaPrivateKey) -> Result<Vec<u8>, CaError> {
    let validity = ark.validity()?;
    let tbs_cert_list = TbsCertList {
        version: Version::V2,
        signature: pss()?,
        issuer: Name::from_str(ark.name)?,
        this_update: validity.not_before,
        next_update: Some(validity.not_after),
        revoked_certificates: None,
        crl_extensions: None,
    };
    let signature = BitString::from_bytes(&pss_sign(key, &tbs_cert_list.to_der()?)?)?;
    Ok(CertificateList { tbs_cert_list, signature_algorithm: pss()?, signature }.to_der()?)
}

fn pss() -> Result<AlgorithmIdentifierOwned, CaError> {
    Ok(AlgorithmIdentifierOwned { oid: RSASSA_PSS, parameters: Some(Any::from_der(&PSS_PARAMS)?) })
}

struct Subject {
    name: &'static str,
    spki: SubjectPublicKeyInfoOwned,
    now: UnixTime,
}

impl Subject {
    fn validity(&self) -> Result<Validity, CaError> {
        let time = |seconds| UtcTime::from_unix_duration(Duration::from_secs(seconds)).map(Time::UtcTime);
        Ok(Validity {
            not_before: time(self.now.0.saturating_sub(DAY))?,
            not_after: time(self.now.0.saturating_add(LIFETIME))?,
        })
    }

    fn issue(
        &self,
        issuer: &Subject,
        key: &rsa::RsaPrivateKey,
        extensions: Vec<Extension>,
    ) -> Result<Vec<u8>, CaError> {
        let algorithm = pss()?;
        let tbs = TbsCertificate {
            version: Version::V3,
            serial_number: SerialNumber::new(&[1])?,
            signature: algorithm.clone(),
            issuer: Name::from_str(issuer.name)?,
            validity: self.validity()?,
            subject: Name::from_str(self.name)?,
            subject_public_key_info: self.spki.clone(),
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(extensions),
        };
        let signature = pss_sign(key, &tbs.to_der()?)?;
        let certificate = Certificate {
            tbs_certificate: tbs,
            signature_algorithm: algorithm,
            signature: BitString::from_bytes(&signature)?,
        };
        Ok(certificate.to_der()?)
    }
}

fn rsa_key() -> Result<rsa::RsaPrivateKey, CaError> {
    rsa::RsaPrivateKey::new(&mut RingRng, RSA_BITS).map_err(|_no_random| CaError)
}

fn pss_sign(key: &rsa::RsaPrivateKey, message: &[u8]) -> Result<Vec<u8>, CaError> {
    let pkcs8 = key.to_pkcs8_der().map_err(|_encoding| CaError)?;
    let key = RsaKeyPair::from_pkcs8(pkcs8.as_bytes()).map_err(|_rejected| CaError)?;
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PSS_SHA384, &SystemRandom::new(), message, &mut signature)
        .map_err(|_unspecified| CaError)?;
    Ok(signature)
}

fn rsa_spki(key: &rsa::RsaPrivateKey) -> Result<SubjectPublicKeyInfoOwned, CaError> {
    let document = key.to_public_key().to_public_key_der().map_err(|_encoding| CaError)?;
    Ok(SubjectPublicKeyInfoOwned::from_der(document.as_bytes())?)
}

fn p384_spki(pkcs8: &[u8]) -> Result<SubjectPublicKeyInfoOwned, CaError> {
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, pkcs8, &SystemRandom::new())
        .map_err(|_rejected| CaError)?;
    let algorithm =
        AlgorithmIdentifierOwned { oid: EC_PUBLIC_KEY, parameters: Some(Any::encode_from(&SECP384R1)?) };
    Ok(SubjectPublicKeyInfoOwned {
        algorithm,
        subject_public_key: BitString::from_bytes(key.public_key().as_ref())?,
    })
}

fn extension(oid: ObjectIdentifier, critical: bool, content: Vec<u8>) -> Result<Extension, CaError> {
    Ok(Extension { extn_id: oid, critical, extn_value: OctetString::new(content)? })
}

fn authority() -> Result<Vec<Extension>, CaError> {
    let content = x509_cert::ext::pkix::BasicConstraints { ca: true, path_len_constraint: None }.to_der()?;
    Ok(vec![extension(BASIC_CONSTRAINTS, true, content)?])
}

/// AMD 57230 section 3.1: SPLs as DER integers, hwID as raw bytes.
fn vcek_extensions(chip_id: &[u8; 64]) -> Result<Vec<Extension>, CaError> {
    let amd =
        |suffix: &str| ObjectIdentifier::new(&format!("1.3.6.1.4.1.3704.1.{suffix}")).map_err(|_oid| CaError);
    let [bootloader, tee, snp, microcode] = TCB;
    let spls = [("3.1", bootloader), ("3.2", tee), ("3.3", snp), ("3.8", microcode)];
    let mut out = vec![extension(amd("1")?, false, 1u8.to_der()?)?];
    for (suffix, spl) in spls {
        out.push(extension(amd(suffix)?, false, spl.to_der()?)?);
    }
    out.push(extension(amd("4")?, false, chip_id.to_vec())?);
    Ok(out)
}

/// ring's generator for the RSA crate, which is only asked for primes.
struct RingRng;

impl RngCore for RingRng {
    fn next_u32(&mut self) -> u32 {
        rsa::rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rsa::rand_core::impls::next_u64_via_fill(self)
    }

    #[expect(
        clippy::expect_used,
        reason = "the trait has no other way to say that there is no randomness; developers only"
    )]
    fn fill_bytes(&mut self, dest: &mut [u8]) {
        self.try_fill_bytes(dest).expect("the system has no randomness");
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), RandError> {
        SystemRandom::new().fill(dest).map_err(|_unspecified| RandError::new("no randomness"))
    }
}

impl CryptoRng for RingRng {}
