//! A factory of TD quotes and endorsements under a test root. Everything of a [`Case`] can be changed before it is signed.
//!
//! It uses nothing but the crate's public interface, so that it can be copied to where whole bundles are tested.

use std::sync::OnceLock;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::x509::Certificate;
use crate::{Endorsement, EndorsementKind, UnixTime};

/// A P-256 key that signs certificates and everything else.
pub(crate) struct Key {
    pkcs8: Vec<u8>,
}

impl Key {
    pub(crate) fn new() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self { pkcs8: pkcs8.as_ref().to_vec() }
    }

    fn ring(&self) -> EcdsaKeyPair {
        let random = SystemRandom::new();
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.pkcs8, &random).unwrap()
    }

    fn rcgen(&self) -> KeyPair {
        KeyPair::try_from(self.pkcs8.as_slice()).unwrap()
    }

    /// x || y
    fn point(&self) -> Vec<u8> {
        self.ring().public_key().as_ref()[1..].to_vec()
    }

    /// r || s
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.ring().sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }
}

/// What a certificate says.
#[derive(Clone)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    /// First and last year.
    pub(crate) years: (i32, i32),
    pub(crate) serial: u8,
    pub(crate) authority: bool,
    /// Signed by a key that is not its issuer's.
    pub(crate) forged: bool,
}

/// What a revocation list says.
#[derive(Clone)]
pub(crate) struct List {
    pub(crate) years: (i32, i32),
    pub(crate) revoked: Vec<u8>,
    pub(crate) forged: bool,
}

/// Elements of the SGX extensions by their last arc, each with its value as DER.
pub(crate) type Elements = Vec<(u8, Vec<u8>)>;

/// One platform with its quote and endorsements. [`Case::new`] is accepted by the strict policy.
pub(crate) struct Case {
    pub(crate) root_key: Key,
    /// Made once: ECDSA signatures differ each time.
    root_der: OnceLock<Vec<u8>>,
    pub(crate) issuer_key: Key,
    pub(crate) pck_key: Key,
    pub(crate) signer_key: Key,
    pub(crate) attestation_key: Key,
    pub(crate) root: Subject,
    pub(crate) issuer: Subject,
    pub(crate) pck: Subject,
    pub(crate) signer: Subject,
    pub(crate) pck_list: List,
    pub(crate) root_list: List,
    /// Elements at the top, but 2 (TCB) and 7 (configuration).
    pub(crate) sgx: Elements,
    pub(crate) sgx_tcb: Elements,
    pub(crate) sgx_configuration: Elements,
    pub(crate) header: [u8; 48],
    pub(crate) descriptor: Vec<u8>,
    pub(crate) body: Vec<u8>,
    pub(crate) qe_report: [u8; 384],
    pub(crate) qe_auth_data: Vec<u8>,
    pub(crate) tcb_info: Value,
    pub(crate) qe_identity: Value,
}

/// Where fields of the body begin.
pub(crate) mod at {
    pub(crate) const TEE_TCB_SVN: usize = 0;
    pub(crate) const MR_SEAM: usize = 16;
    pub(crate) const MR_SIGNER_SEAM: usize = 64;
    pub(crate) const SEAM_ATTRIBUTES: usize = 112;
    pub(crate) const TD_ATTRIBUTES: usize = 120;
    pub(crate) const XFAM: usize = 128;
    pub(crate) const MR_TD: usize = 136;
    pub(crate) const MR_CONFIG_ID: usize = 184;
    pub(crate) const MR_OWNER: usize = 232;
    pub(crate) const MR_OWNER_CONFIG: usize = 280;
    pub(crate) const RTMR0: usize = 328;
    pub(crate) const TEE_TCB_SVN_2: usize = 584;
    pub(crate) const MR_SERVICE_TD: usize = 600;
}

impl Case {
    /// A current platform at [`Case::now`]; version 4 or 5.
    pub(crate) fn new(version: u8) -> Self {
        let subject =
            |name, serial, authority| Subject { name, years: (2020, 2040), serial, authority, forged: false };
        let list = List { years: (2026, 2027), revoked: Vec::new(), forged: false };
        let is_15 = version == 5;
        Self {
            root_key: Key::new(),
            root_der: OnceLock::new(),
            issuer_key: Key::new(),
            pck_key: Key::new(),
            signer_key: Key::new(),
            attestation_key: Key::new(),
            root: subject("Intel SGX Root CA", 1, true),
            issuer: subject("Intel SGX PCK Platform CA", 2, true),
            pck: subject("Intel SGX PCK Certificate", 3, false),
            signer: subject("Intel SGX TCB Signing", 4, false),
            pck_list: list.clone(),
            root_list: list,
            sgx: sgx(),
            sgx_tcb: (1..=16)
                .map(|n| (n, integer(7)))
                .chain([(17, integer(11)), (18, octets(&[7; 16]))])
                .collect(),
            sgx_configuration: vec![(1, vec![1, 1, 0xff]), (2, vec![1, 1, 0]), (3, vec![1, 1, 0xff])],
            header: header(version),
            descriptor: if is_15 { vec![3, 0, 0x88, 2, 0, 0] } else { Vec::new() },
            body: body(is_15),
            qe_report: qe_report(),
            qe_auth_data: (0..32).collect(),
            tcb_info: tcb_info(),
            qe_identity: qe_identity(),
        }
    }

    /// 2026-06-15
    pub(crate) fn now() -> UnixTime {
        UnixTime(1_781_481_600)
    }

    /// Writes into the body.
    pub(crate) fn set(&mut self, place: usize, bytes: &[u8]) {
        self.body[place..place + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn anchor(&self) -> Certificate {
        Certificate::from_der(&self.root_der()).unwrap()
    }

    fn root_der(&self) -> Vec<u8> {
        let make = || certificate(&self.root, &self.root_key, None, &self.root_key, None);
        self.root_der.get_or_init(make).clone()
    }

    pub(crate) fn issuer_der(&self) -> Vec<u8> {
        certificate(&self.issuer, &self.issuer_key, Some(&self.root), &self.root_key, None)
    }

    fn pck_der(&self) -> Vec<u8> {
        let sgx = self.sgx_extension();
        certificate(&self.pck, &self.pck_key, Some(&self.issuer), &self.issuer_key, Some(sgx))
    }

    fn signer_der(&self, signer: &Subject) -> Vec<u8> {
        certificate(signer, &self.signer_key, Some(&self.root), &self.root_key, None)
    }

    /// Content of the SGX extensions.
    fn sgx_extension(&self) -> Vec<u8> {
        let mut top = self.sgx.clone();
        top.push((2, sequence(&elements(&[2], &self.sgx_tcb))));
        top.push((7, sequence(&elements(&[7], &self.sgx_configuration))));
        sequence(&elements(&[], &top))
    }

    /// The certificates in the quote.
    pub(crate) fn pck_chain(&self) -> Vec<Vec<u8>> {
        vec![self.pck_der(), self.issuer_der(), self.root_der()]
    }

    /// The quote, with a chain of these certificates.
    pub(crate) fn quote_with(&self, chain: &[Vec<u8>]) -> Vec<u8> {
        let pem: String = chain.iter().map(|der| pem(der)).collect();
        let pem = [pem.as_bytes(), &[0]].concat();
        let mut report = self.qe_report;
        if report[320..352] == [0; 32] {
            let bound = [self.attestation_key.point(), self.qe_auth_data.clone()].concat();
            report[320..352].copy_from_slice(&crate::Digest::of(&bound).0);
        }
        let auth_len = u16::try_from(self.qe_auth_data.len()).unwrap();
        let inner = [
            &report[..],
            &self.pck_key.sign(&report),
            &auth_len.to_le_bytes(),
            &self.qe_auth_data,
            &5_u16.to_le_bytes(),
            &length(&pem),
            &pem,
        ]
        .concat();
        let signed = [&self.header[..], &self.descriptor, &self.body].concat();
        let data = [
            &self.attestation_key.sign(&signed)[..],
            &self.attestation_key.point(),
            &6_u16.to_le_bytes(),
            &length(&inner),
            &inner,
        ]
        .concat();
        [&signed[..], &length(&data), &data].concat()
    }

    pub(crate) fn quote(&self) -> Vec<u8> {
        self.quote_with(&self.pck_chain())
    }

    pub(crate) fn signed_tcb_info(&self) -> Vec<u8> {
        document("tcbInfo", &self.tcb_info, &self.signer_key)
    }

    pub(crate) fn signed_qe_identity(&self) -> Vec<u8> {
        document("enclaveIdentity", &self.qe_identity, &self.signer_key)
    }

    /// A certificate of the TCB signing key, and the root.
    pub(crate) fn signing_chain(&self, signer: &Subject) -> Vec<u8> {
        [pem(&self.signer_der(signer)), pem(&self.root_der())].concat().into_bytes()
    }

    pub(crate) fn endorsements(&self) -> Vec<Endorsement> {
        let pck_crl = revocation_list(&self.pck_list, &self.issuer, &self.issuer_key, &self.attestation_key);
        let root_crl = revocation_list(&self.root_list, &self.root, &self.root_key, &self.attestation_key);
        let pck_crl_chain = [pem(&self.issuer_der()), pem(&self.root_der())].concat().into_bytes();
        [
            (EndorsementKind::IntelTcbInfo, self.signed_tcb_info()),
            (EndorsementKind::IntelQeIdentity, self.signed_qe_identity()),
            (EndorsementKind::IntelTcbSigningChain, self.signing_chain(&self.signer)),
            (EndorsementKind::IntelPckCrl, pck_crl),
            (EndorsementKind::IntelPckCrlIssuerChain, pck_crl_chain),
            (EndorsementKind::IntelRootCaCrl, root_crl),
        ]
        .map(|(kind, bytes)| Endorsement { kind, bytes })
        .to_vec()
    }
}

/// A signed document as Intel serves it.
pub(crate) fn document(member: &str, body: &Value, key: &Key) -> Vec<u8> {
    document_of_text(member, &body.to_string(), key)
}

pub(crate) fn document_of_text(member: &str, body: &str, key: &Key) -> Vec<u8> {
    let signature = hex::encode(key.sign(body.as_bytes()));
    format!("{{\"{member}\":{body},\"signature\":\"{signature}\"}}").into_bytes()
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap().to_le_bytes()
}

pub(crate) fn pem(der: &[u8]) -> String {
    der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, der).unwrap()
}

fn params(subject: &Subject) -> CertificateParams {
    let mut out = CertificateParams::default();
    out.distinguished_name = DistinguishedName::new();
    out.distinguished_name.push(DnType::CommonName, subject.name);
    out.not_before = date_time_ymd(subject.years.0, 1, 1);
    out.not_after = date_time_ymd(subject.years.1, 1, 1);
    out.serial_number = Some(SerialNumber::from_slice(&[subject.serial]));
    if subject.authority {
        out.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        out.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    } else {
        out.is_ca = IsCa::ExplicitNoCa;
        out.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    }
    out
}

fn certificate(
    subject: &Subject,
    key: &Key,
    issuer: Option<&Subject>,
    issuer_key: &Key,
    sgx: Option<Vec<u8>>,
) -> Vec<u8> {
    let mut params_of_it = params(subject);
    let sgx = sgx.map(|content| CustomExtension::from_oid_content(&[1, 2, 840, 113_741, 1, 13, 1], content));
    params_of_it.custom_extensions.extend(sgx);
    let Some(issuer) = issuer else {
        return params_of_it.self_signed(&key.rcgen()).unwrap().der().to_vec();
    };
    let signs = if subject.forged { key.rcgen() } else { issuer_key.rcgen() };
    params_of_it.signed_by(&key.rcgen(), &Issuer::new(params(issuer), signs)).unwrap().der().to_vec()
}

fn revocation_list(list: &List, issuer: &Subject, issuer_key: &Key, other: &Key) -> Vec<u8> {
    let revoked = |serial: &u8| RevokedCertParams {
        serial_number: SerialNumber::from_slice(&[*serial]),
        revocation_time: date_time_ymd(2026, 2, 3),
        reason_code: None,
        invalidity_date: None,
    };
    let params_of_it = CertificateRevocationListParams {
        this_update: date_time_ymd(list.years.0, 1, 1),
        next_update: date_time_ymd(list.years.1, 1, 1),
        crl_number: SerialNumber::from_slice(&[1]),
        issuing_distribution_point: None,
        revoked_certs: list.revoked.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let signs = if list.forged { other.rcgen() } else { issuer_key.rcgen() };
    let issuer = params(&Subject { authority: true, ..issuer.clone() });
    params_of_it.signed_by(&Issuer::new(issuer, signs)).unwrap().der().to_vec()
}

// DER of the few shapes in the SGX extensions. Lengths to 65535.

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let head = match (high, low) {
        (0, 0..=0x7f) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [&head, content].concat()
}

pub(crate) fn sequence(content: &[u8]) -> Vec<u8> {
    tlv(0x30, content)
}

pub(crate) fn octets(content: &[u8]) -> Vec<u8> {
    tlv(4, content)
}

/// From 0 to 0x7fff.
pub(crate) fn integer(value: u16) -> Vec<u8> {
    match value.to_be_bytes() {
        [0, low] if low < 0x80 => tlv(2, &[low]),
        both => tlv(2, &both),
    }
}

/// `SEQUENCE { OID, value }` for each; the identifiers are below SGX extensions and `parents`.
fn elements(parents: &[u8], all: &Elements) -> Vec<u8> {
    let sgx = [0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 1, 13, 1];
    let one = |(number, value): &(u8, Vec<u8>)| {
        let oid = tlv(6, &[&sgx[..], parents, &[*number]].concat());
        sequence(&[oid, value.clone()].concat())
    };
    all.iter().flat_map(one).collect()
}

fn sgx() -> Elements {
    vec![
        (1, octets(&[0x11; 16])),
        (3, octets(&[0, 0])),
        (4, octets(&[0x50, 0x80, 0x6f, 0, 0, 0])),
        (5, vec![10, 1, 1]),
        (6, octets(&[0x22; 16])),
    ]
}

fn header(version: u8) -> [u8; 48] {
    let mut out = [0; 48];
    out[..8].copy_from_slice(&[version, 0, 2, 0, 0x81, 0, 0, 0]);
    out[12..28].copy_from_slice(&hex::decode("939a7233f79c4ca9940a0db3957f0607").unwrap());
    out
}

/// Module `TDX_01` of SVN 6, SEPT_VE_DISABLE.
fn body(is_15: bool) -> Vec<u8> {
    let mut out = vec![0; if is_15 { 648 } else { 584 }];
    out[..3].copy_from_slice(&[6, 1, 3]);
    out[at::MR_SEAM..at::MR_SIGNER_SEAM].fill(0x33);
    out[at::TD_ATTRIBUTES + 3] = 0x10;
    out[at::XFAM..at::XFAM + 3].copy_from_slice(&[0xe7, 0x02, 0x06]);
    out[at::MR_TD..at::MR_CONFIG_ID].fill(0x44);
    out[520..584].fill(0x55);
    if is_15 {
        out[at::TEE_TCB_SVN_2..at::TEE_TCB_SVN_2 + 3].copy_from_slice(&[6, 1, 3]);
    }
    out
}

/// The hash in REPORTDATA is filled in when the quote is made, unless it is set.
fn qe_report() -> [u8; 384] {
    let mut out = [0; 384];
    out[48] = 0x11;
    out[128..160].fill(0xdc);
    out[256] = 2;
    out[258] = 4;
    out
}

fn components(svn: [u8; 16]) -> Value {
    svn.map(|svn| json!({ "svn": svn })).to_vec().into()
}

/// A level for components of the SGX and the TDX TCB.
pub(crate) fn level(sgx: u8, tdx: [u8; 3], pcesvn: u16, status: &str, advisories: &[&str]) -> Value {
    let [a, b, c] = tdx;
    let mut all = [0; 16];
    all[..3].copy_from_slice(&[a, b, c]);
    json!({
        "tcb": { "sgxtcbcomponents": components([sgx; 16]), "pcesvn": pcesvn, "tdxtcbcomponents": components(all) },
        "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": status, "advisoryIDs": advisories,
    })
}

/// A level of a module or of the quoting enclave.
pub(crate) fn svn_level(svn: u16, status: &str, advisories: &[&str]) -> Value {
    let date = "2026-01-01T00:00:00Z";
    json!({ "tcb": { "isvsvn": svn }, "tcbDate": date, "tcbStatus": status, "advisoryIDs": advisories })
}

fn tcb_info() -> Value {
    let module = json!({
        "mrsigner": "00".repeat(48), "attributes": "00".repeat(8), "attributesMask": "FF".repeat(8),
    });
    let mut identity = module.clone();
    identity["id"] = "TDX_01".into();
    identity["tcbLevels"] =
        json!([svn_level(6, "UpToDate", &[]), svn_level(4, "OutOfDate", &["INTEL-SA-00001"])]);
    json!({
        "id": "TDX", "version": 3, "issueDate": "2026-06-01T00:00:00Z", "nextUpdate": "2026-07-01T00:00:00Z",
        "fmspc": "50806F000000", "pceId": "0000", "tcbType": 0, "tcbEvaluationDataNumber": 20,
        "tdxModule": module, "tdxModuleIdentities": [identity],
        "tcbLevels": [
            level(7, [5, 0, 3], 11, "UpToDate", &[]),
            level(6, [5, 0, 3], 11, "SWHardeningNeeded", &["INTEL-SA-00002"]),
            level(5, [3, 0, 2], 5, "OutOfDate", &["INTEL-SA-00003", "INTEL-SA-00002"]),
        ],
    })
}

fn qe_identity() -> Value {
    json!({
        "id": "TD_QE", "version": 2, "issueDate": "2026-06-01T00:00:00Z", "nextUpdate": "2026-07-01T00:00:00Z",
        "tcbEvaluationDataNumber": 19, "miscselect": "00000000", "miscselectMask": "FFFFFFFF",
        "attributes": "11000000000000000000000000000000",
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": "DC".repeat(32), "isvprodid": 2,
        "tcbLevels": [svn_level(4, "UpToDate", &[]), svn_level(2, "OutOfDate", &["INTEL-SA-00004"])],
    })
}
