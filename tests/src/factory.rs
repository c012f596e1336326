//! Processors in AMD's shape whose every part a test can spoil: ARK, ASK and VCEK, and reports that the VCEK signs.
//!
//! The enclave's simulated platform drops the keys of its authorities; this one keeps them, and those of a second hierarchy.

use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

use cocoon_attestation::binding::{ChannelBinding, leaf_data, leaf_hash, report_data};
use cocoon_attestation::policy::SimulatedPolicy;
use cocoon_attestation::snp::{Endorsements, Product, Root};
use cocoon_attestation::wire::{
    AttestRequest, AttestResponse, EpochStatement, EvidenceItem, EvidenceSet, PrivacyFlags,
    SNP_REPORT_MEDIA_TYPE,
};
use cocoon_attestation::x509::Certificate;
use cocoon_attestation::{Digest, Endorsement, EndorsementKind, Measurement, UnixTime};
use der::asn1::{Any, BitString, ObjectIdentifier, OctetString, UtcTime};
use der::pem::LineEnding;
use der::{Decode, Encode};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PSS_SHA384, RsaKeyPair};
use rsa::pkcs8::{EncodePrivateKey, EncodePublicKey};
use x509_cert::certificate::{TbsCertificate, Version};
use x509_cert::crl::{CertificateList, RevokedCert, TbsCertList};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::BasicConstraints;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

use crate::enclave::{CONFIG, MODEL, now};

/// Basic constraints.
pub const BASIC_CONSTRAINTS: &str = "2.5.29.19";
/// hwID of AMD 57230 section 3.1.
pub const HARDWARE_ID: &str = "1.3.6.1.4.1.3704.1.4";
/// What the reports of this module measure.
pub const MEASUREMENT: Measurement = Measurement([0x4d; 48]);

/// Smaller than AMD's 4096, because a test generates them.
const RSA_BITS: usize = 2048;
const DAY: u64 = 24 * 3600;

const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// RSASSA-PSS-params: SHA-384, MGF1 with SHA-384, salt of 48 bytes (RFC 4055 section 3.1).
const PSS_PARAMS: &str = "3034a00f300d06096086480165030402020500a11c301a06092a864886f70d010108\
                          300d06096086480165030402020500a203020130";

/// The extension of a security version: 1 boot loader, 2 TEE, 3 SNP, 8 microcode, 9 FMC.
pub fn spl(part: u8) -> String {
    format!("1.3.6.1.4.1.3704.1.3.{part}")
}

/// An RSA key of this process, made when it is first used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// Signs ASKs.
    Ark,
    /// Signs VCEKs.
    Ask,
    /// The ARK's key of another hierarchy.
    OtherArk,
    /// The ASK's key of another hierarchy.
    OtherAsk,
}

struct RsaKey {
    signer: RsaKeyPair,
    spki: SubjectPublicKeyInfoOwned,
}

impl Authority {
    fn key(self) -> &'static RsaKey {
        static KEYS: [OnceLock<RsaKey>; 4] = [const { OnceLock::new() }; 4];
        KEYS[self as usize].get_or_init(|| {
            let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, RSA_BITS).unwrap();
            let spki = key.to_public_key().to_public_key_der().unwrap();
            RsaKey {
                signer: RsaKeyPair::from_pkcs8(key.to_pkcs8_der().unwrap().as_bytes()).unwrap(),
                spki: SubjectPublicKeyInfoOwned::from_der(spki.as_bytes()).unwrap(),
            }
        })
    }

    /// Its SubjectPublicKeyInfo.
    pub fn spki(self) -> SubjectPublicKeyInfoOwned {
        self.key().spki.clone()
    }

    fn sign(self, message: &[u8]) -> Vec<u8> {
        let signer = &self.key().signer;
        let mut signature = vec![0; signer.public().modulus_len()];
        signer.sign(&RSA_PSS_SHA384, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    }
}

/// A P-384 key of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chip {
    /// The processor's.
    Genuine,
    /// Another processor's.
    Other,
}

impl Chip {
    fn key(self) -> &'static EcdsaKeyPair {
        static KEYS: [OnceLock<EcdsaKeyPair>; 2] = [const { OnceLock::new() }; 2];
        KEYS[self as usize].get_or_init(|| {
            let (algorithm, random) = (&ECDSA_P384_SHA384_FIXED_SIGNING, SystemRandom::new());
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
            EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap()
        })
    }

    /// Its SubjectPublicKeyInfo.
    pub fn spki(self) -> SubjectPublicKeyInfoOwned {
        let parameters = Some(Any::encode_from(&SECP384R1).unwrap());
        SubjectPublicKeyInfoOwned {
            algorithm: AlgorithmIdentifierOwned { oid: EC_PUBLIC_KEY, parameters },
            subject_public_key: BitString::from_bytes(self.key().public_key().as_ref()).unwrap(),
        }
    }
}

fn pss() -> AlgorithmIdentifierOwned {
    let params = hex::decode(PSS_PARAMS).unwrap();
    AlgorithmIdentifierOwned { oid: RSASSA_PSS, parameters: Some(Any::from_der(&params).unwrap()) }
}

fn time(seconds: u64) -> Time {
    Time::UtcTime(UtcTime::from_unix_duration(Duration::from_secs(seconds)).unwrap())
}

/// A revocation list before it is signed.
#[derive(Clone, Debug)]
pub struct RevocationTemplate {
    /// Distinguished name of the issuer.
    pub issuer: &'static str,
    /// Whose signature it gets.
    pub signed_by: Authority,
    /// thisUpdate.
    pub this_update: u64,
    /// nextUpdate.
    pub next_update: Option<u64>,
    /// Serial numbers, all revoked when the list was made.
    pub revoked: Vec<u8>,
}

impl RevocationTemplate {
    /// The list, DER.
    pub fn issue(&self) -> Vec<u8> {
        let revoked = self.revoked.iter().map(|serial| RevokedCert {
            serial_number: SerialNumber::new(&[*serial]).unwrap(),
            revocation_date: time(self.this_update),
            crl_entry_extensions: None,
        });
        let tbs_cert_list = TbsCertList {
            version: Version::V2,
            signature: pss(),
            issuer: Name::from_str(self.issuer).unwrap(),
            this_update: time(self.this_update),
            next_update: self.next_update.map(time),
            revoked_certificates: (!self.revoked.is_empty()).then(|| revoked.collect()),
            crl_extensions: None,
        };
        let signature = self.signed_by.sign(&tbs_cert_list.to_der().unwrap());
        let signature = BitString::from_bytes(&signature).unwrap();
        CertificateList { tbs_cert_list, signature_algorithm: pss(), signature }.to_der().unwrap()
    }
}

/// What a certificate will say, and who will sign it.
#[derive(Clone, Debug)]
pub struct Template {
    /// Distinguished name of the subject.
    pub subject: &'static str,
    /// Distinguished name of the issuer.
    pub issuer: &'static str,
    /// The subject's key.
    pub spki: SubjectPublicKeyInfoOwned,
    /// Whose signature it gets.
    pub signed_by: Authority,
    /// First second of validity.
    pub not_before: u64,
    /// Last second of validity.
    pub not_after: u64,
    /// Object identifier and content of each extension, in order.
    pub extensions: Vec<(String, Vec<u8>)>,
}

impl Template {
    /// The certificate, DER.
    pub fn issue(&self) -> Vec<u8> {
        let algorithm = pss();
        let extension = |(oid, content): &(String, Vec<u8>)| Extension {
            extn_id: ObjectIdentifier::new(oid).unwrap(),
            critical: oid == BASIC_CONSTRAINTS,
            extn_value: OctetString::new(content.as_slice()).unwrap(),
        };
        let tbs_certificate = TbsCertificate {
            version: Version::V3,
            serial_number: SerialNumber::new(&[1]).unwrap(),
            signature: algorithm.clone(),
            issuer: Name::from_str(self.issuer).unwrap(),
            validity: Validity { not_before: time(self.not_before), not_after: time(self.not_after) },
            subject: Name::from_str(self.subject).unwrap(),
            subject_public_key_info: self.spki.clone(),
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(self.extensions.iter().map(extension).collect()),
        };
        let signature = self.signed_by.sign(&tbs_certificate.to_der().unwrap());
        let signature = BitString::from_bytes(&signature).unwrap();
        let certificate =
            x509_cert::Certificate { tbs_certificate, signature_algorithm: algorithm, signature };
        certificate.to_der().unwrap()
    }

    /// Replaces the content of an extension.
    pub fn set(&mut self, oid: &str, content: Vec<u8>) {
        let place = self.extensions.iter_mut().find(|(known, _)| known == oid);
        place.expect("the template has this extension").1 = content;
    }

    /// Leaves an extension out.
    pub fn remove(&mut self, oid: &str) {
        let before = self.extensions.len();
        self.extensions.retain(|(known, _)| known != oid);
        assert_ne!(self.extensions.len(), before, "the template has no {oid}");
    }

    /// Adds an extension, whether there is one of that kind or not.
    pub fn add(&mut self, oid: &str, content: Vec<u8>) {
        self.extensions.push((oid.to_owned(), content));
    }
}

/// Content of basic constraints.
pub fn basic_constraints(ca: bool) -> Vec<u8> {
    BasicConstraints { ca, path_len_constraint: None }.to_der().unwrap()
}

/// An ATTESTATION_REPORT before it is signed: offsets are those of AMD 56860, table 23.
#[derive(Clone, Debug)]
pub struct ReportTemplate {
    bytes: Vec<u8>,
    /// Whose signature it gets.
    pub signed_by: Chip,
}

/// Offsets of fields.
pub mod offset {
    /// VERSION, u32.
    pub const VERSION: usize = 0x00;
    /// POLICY, u64.
    pub const POLICY: usize = 0x08;
    /// SIGNATURE_ALGO, u32.
    pub const ALGORITHM: usize = 0x34;
    /// CURRENT_TCB, u64.
    pub const CURRENT_TCB: usize = 0x38;
    /// REPORT_DATA, 64 bytes.
    pub const REPORT_DATA: usize = 0x50;
    /// MEASUREMENT, 48 bytes.
    pub const MEASUREMENT: usize = 0x90;
    /// REPORTED_TCB, u64.
    pub const REPORTED_TCB: usize = 0x180;
    /// PLATFORM_INFO, u64.
    pub const PLATFORM_INFO: usize = 0x40;
    /// AUTHOR_KEY_EN, MASK_CHIP_KEY, SIGNING_KEY, u32.
    pub const FLAGS: usize = 0x48;
    /// COMMITTED_TCB, u64.
    pub const COMMITTED_TCB: usize = 0x1e0;
    /// LAUNCH_TCB, u64.
    pub const LAUNCH_TCB: usize = 0x1f0;
    /// CPUID family, model, stepping.
    pub const CPUID: usize = 0x188;
    /// CHIP_ID, 64 bytes.
    pub const CHIP_ID: usize = 0x1a0;
    /// Signature: r, then s, 72 bytes each.
    pub const SIGNATURE: usize = 0x2a0;
}

impl ReportTemplate {
    /// Writes a field.
    pub fn set(&mut self, at: usize, content: &[u8]) {
        self.bytes[at..at + content.len()].copy_from_slice(content);
    }

    /// The report with its signature.
    pub fn sign(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let (signed, rest) = bytes.split_at_mut(offset::SIGNATURE);
        let signature = self.signed_by.key().sign(&SystemRandom::new(), signed).unwrap();
        let (r, s) = signature.as_ref().split_at(48);
        for (scalar, at) in [(r, 0), (s, 72)] {
            let little_endian: Vec<u8> = scalar.iter().rev().copied().collect();
            rest[at..at + 48].copy_from_slice(&little_endian);
        }
        bytes
    }
}

/// A processor as it should be, until a test changes it.
#[derive(Clone, Debug)]
pub struct Processor {
    /// The root.
    pub ark: Template,
    /// The authority below it.
    pub ask: Template,
    /// The certificate of the key that signs reports.
    pub vcek: Template,
    /// Revocation list of the root.
    pub crl: RevocationTemplate,
    /// What it says when asked.
    pub report: ReportTemplate,
}

const ARK_NAME: &str = "CN=ARK-Factory,O=Test";
const ASK_NAME: &str = "CN=SEV-Factory,O=Test";
const VCEK_NAME: &str = "CN=SEV-VCEK,O=Test";

impl Processor {
    /// A genuine one of this product.
    pub fn of(product: Product) -> Self {
        let Shape { cpuid, tcb, spls, chip_id_len } = shape(product);
        let chip_id: Vec<u8> = (1..=chip_id_len).collect();
        let mut report = ReportTemplate { bytes: vec![0; 1184], signed_by: Chip::Genuine };
        report.set(offset::VERSION, &[3]);
        report.set(offset::POLICY, &0x3_0000u64.to_le_bytes());
        report.set(offset::ALGORITHM, &[1]);
        report.set(offset::CURRENT_TCB, &tcb);
        report.set(offset::MEASUREMENT, &MEASUREMENT.0);
        report.set(offset::REPORTED_TCB, &tcb);
        report.set(offset::COMMITTED_TCB, &tcb);
        report.set(offset::LAUNCH_TCB, &tcb);
        report.set(offset::PLATFORM_INFO, &[0x24]);
        report.set(offset::CPUID, &cpuid);
        report.set(offset::CHIP_ID, &chip_id);
        let mut extensions: Vec<_> =
            spls.iter().map(|(n, value)| (spl(*n), value.to_der().unwrap())).collect();
        extensions.push((HARDWARE_ID.to_owned(), chip_id));
        let authority = vec![(BASIC_CONSTRAINTS.to_owned(), basic_constraints(true))];
        let certificate = |subject, issuer, spki, signed_by, extensions| {
            let (not_before, not_after) = (now().0 - DAY, now().0 + DAY);
            Template { subject, issuer, spki, signed_by, not_before, not_after, extensions }
        };
        use Authority::{Ark, Ask};
        Self {
            ark: certificate(ARK_NAME, ARK_NAME, Ark.spki(), Ark, authority.clone()),
            ask: certificate(ASK_NAME, ARK_NAME, Ask.spki(), Ark, authority),
            vcek: certificate(VCEK_NAME, ASK_NAME, Chip::Genuine.spki(), Ask, extensions),
            crl: RevocationTemplate {
                issuer: ARK_NAME,
                signed_by: Ark,
                this_update: now().0 - DAY,
                next_update: Some(now().0 + DAY),
                revoked: Vec::new(),
            },
            report,
        }
    }

    /// The same names, other keys: what somebody who wants to pass for this one makes.
    pub fn of_another_hierarchy(product: Product) -> Self {
        let mut forged = Self::of(product);
        (forged.ark.spki, forged.ark.signed_by) = (Authority::OtherArk.spki(), Authority::OtherArk);
        (forged.ask.spki, forged.ask.signed_by) = (Authority::OtherAsk.spki(), Authority::OtherArk);
        forged.vcek.signed_by = Authority::OtherAsk;
        forged.crl.signed_by = Authority::OtherArk;
        forged
    }

    /// Its root, as a policy names it.
    pub fn root(&self) -> Root {
        Root::InsecureSimulated(Box::new(Certificate::from_der(&self.ark.issue()).unwrap()))
    }

    /// What is stapled for it.
    pub fn stapled(&self) -> Vec<Endorsement> {
        let certificate = |bytes| Endorsement { kind: EndorsementKind::AmdCertificate, bytes };
        let crl = Endorsement { kind: EndorsementKind::AmdCrl, bytes: self.crl.issue() };
        vec![certificate(self.vcek.issue()), certificate(self.ask.issue()), crl]
    }

    /// The same for the Verifier.
    pub fn endorsements(&self) -> Endorsements {
        Endorsements::from_stapled(&self.stapled()).unwrap()
    }

    /// A policy that accepts it.
    pub fn policy(&self) -> String {
        let root_pem = der::pem::encode_string("CERTIFICATE", LineEnding::LF, &self.ark.issue()).unwrap();
        let policy = SimulatedPolicy {
            root_pem: &root_pem,
            measurement: MEASUREMENT,
            models: &[MODEL],
            config: CONFIG,
        };
        policy.to_toml()
    }

    /// A genuine response to `request` on the session `channel`, in a batch of one. `change` spoils the statement before it is
    /// signed.
    pub fn respond(
        &self,
        channel: &ChannelBinding,
        request: &[u8],
        change: impl FnOnce(&mut EpochStatement),
    ) -> AttestResponse {
        let mut statement = statement(channel.spki);
        change(&mut statement);
        let statement = statement.encode();
        let leaf = leaf_hash(&leaf_data(channel, request));
        let mode = AttestRequest::decode(request).unwrap().mode;
        let mut report = self.report.clone();
        report.set(offset::REPORT_DATA, &report_data(mode, &statement, leaf, 1));
        let item = EvidenceItem { media_type: SNP_REPORT_MEDIA_TYPE.to_owned(), bytes: report.sign() };
        AttestResponse {
            statement,
            evidence: EvidenceSet::cpu(item).encode(),
            index: 0,
            size: 1,
            path: Vec::new(),
            endorsements: self.stapled(),
            release: None,
        }
    }
}

/// What differs between products.
struct Shape {
    cpuid: [u8; 3],
    /// As in the report.
    tcb: [u8; 8],
    /// Security versions in the VCEK, by the number of their extension.
    spls: Vec<(u8, u8)>,
    chip_id_len: u8,
}

fn shape(product: Product) -> Shape {
    // Boot loader, TEE, SNP, microcode.
    let mut spls = vec![(1, 10), (2, 1), (3, 23), (8, 200)];
    let tcb = [10, 1, 0, 0, 0, 0, 23, 200];
    match product {
        Product::Milan => Shape { cpuid: [0x19, 0x01, 1], tcb, spls, chip_id_len: 64 },
        Product::Genoa => Shape { cpuid: [0x19, 0x11, 1], tcb, spls, chip_id_len: 64 },
        Product::Turin => {
            // The FMC, which comes first in the report.
            spls.push((9, 5));
            let tcb = [5, 10, 1, 23, 0, 0, 0, 200];
            Shape { cpuid: [0x1a, 0x02, 1], tcb, spls, chip_id_len: 8 }
        }
        other => panic!("the factory has no {other:?}"),
    }
}

fn statement(spki: Digest) -> EpochStatement {
    EpochStatement {
        boot_id: [1; 16],
        epoch: 0,
        not_before: now(),
        not_after: UnixTime(now().0 + 3600),
        node_id: Digest([5; 32]),
        spki,
        receipt_key: [7; 32],
        gpu_evidence: None,
        gpu_ids: Vec::new(),
        gpu_mode: "none".to_owned(),
        models: vec![MODEL],
        config: CONFIG,
        release: Digest([0; 32]),
        privacy: PrivacyFlags { padding: 1, content_logged: 0, shared_prefix_cache: 0 },
    }
}
