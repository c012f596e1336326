//! Evidence and endorsements under test roots. Everything can be changed before it is signed.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    KeyPair as _,
};

use crate::crypto::sha384;
use crate::nvidia::c14n::canonical;
use crate::nvidia::{Anchors, GpuEvidence, Report, xml};
use crate::x509::Certificate;

/// Somebody with a P-384 key and a certificate.
#[derive(Clone)]
pub(crate) struct Party {
    pkcs8: Vec<u8>,
    params: CertificateParams,
    pub(crate) certificate: Certificate,
}

impl Party {
    /// `issuer`: `None` for a root. Authorities by default.
    pub(crate) fn new(
        name: &str,
        issuer: Option<&Party>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).unwrap();
        Self::with_key(pkcs8.as_ref().to_vec(), name, issuer, change)
    }

    /// The same party with another certificate.
    pub(crate) fn again(&self, issuer: &Party, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::try_from(self.pkcs8.as_slice()).unwrap();
        let mut params = self.params.clone();
        change(&mut params);
        let der = params.signed_by(&key, &issuer.issuer()).unwrap();
        let certificate = Certificate::from_der(der.der()).unwrap();
        Self { pkcs8: self.pkcs8.clone(), params, certificate }
    }

    fn with_key(
        pkcs8: Vec<u8>,
        name: &str,
        issuer: Option<&Party>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let key = KeyPair::try_from(pkcs8.as_slice()).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let serial = sha384(&[key.public_key_raw()]);
        params.serial_number = Some(SerialNumber::from_slice(&[&[0x41], &serial[..8]].concat()));
        change(&mut params);
        let certificate = match issuer {
            None => params.self_signed(&key).unwrap(),
            Some(issuer) => params.signed_by(&key, &issuer.issuer()).unwrap(),
        };
        let certificate = Certificate::from_der(certificate.der()).unwrap();
        Self { pkcs8, params, certificate }
    }

    /// A revocation list with nothing on it, DER.
    pub(crate) fn issue_empty_list(&self) -> Vec<u8> {
        let params = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 1, 1),
            next_update: rcgen::date_time_ymd(2027, 1, 1),
            crl_number: rcgen::SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer()).unwrap().der().to_vec()
    }

    pub(crate) fn issuer(&self) -> Issuer<'static, KeyPair> {
        Issuer::new(self.params.clone(), KeyPair::try_from(self.pkcs8.as_slice()).unwrap())
    }

    fn sign(&self, algorithm: &'static EcdsaSigningAlgorithm, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(algorithm, &self.pkcs8, &random).unwrap();
        key.sign(&random, message).unwrap().as_ref().to_vec()
    }

    /// r || s
    pub(crate) fn sign_fixed(&self, message: &[u8]) -> Vec<u8> {
        self.sign(&ECDSA_P384_SHA384_FIXED_SIGNING, message)
    }

    pub(crate) fn point(&self) -> Vec<u8> {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &self.pkcs8, &random).unwrap();
        key.public_key().as_ref().to_vec()
    }
}

/// For those who issue nothing.
pub(crate) fn end_entity(params: &mut CertificateParams) {
    params.is_ca = IsCa::NoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
}

/// `tag`, length, content.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let [high, low] = u16::try_from(len).unwrap().to_be_bytes();
    let header = match len {
        0..=127 => vec![tag, low],
        128..=255 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [header, content.to_vec()].concat()
}

pub(crate) const OID_SHA384: &[u8] = &[6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2];

pub(crate) const FWID: [u8; 48] = [0xf1; 48];

/// `SEQUENCE { SHA-384, digest }`
pub(crate) fn fwid(digest: &[u8]) -> Vec<u8> {
    tlv(0x30, &[OID_SHA384, &tlv(4, digest)].concat())
}

/// Hopper's extension, for the device whose key is `point`.
pub(crate) fn composite_device_id(point: &[u8]) -> Vec<u8> {
    let key = [
        tlv(0x30, &hex::decode("06072a8648ce3d020106052b81040022").unwrap()),
        tlv(3, &[&[0], point].concat()),
    ];
    tlv(0x30, &[&[2, 1, 1], tlv(0x30, &key.concat()).as_slice(), &fwid(&FWID)].concat())
}

/// Blackwell's extension with these operational flags.
pub(crate) fn dice_tcb_info(flags: [u8; 4]) -> Vec<u8> {
    let fwids = tlv(0xa6, &[fwid(&FWID), fwid(&[0; 48])].concat());
    let fields =
        [tlv(0x80, b"NVIDIA"), tlv(0x83, &[1]), fwids, tlv(0x87, &[&[0], flags.as_slice()].concat())];
    tlv(0x30, &fields.concat())
}

pub(crate) const COMPOSITE_DEVICE_ID: &[u64] = &[2, 23, 133, 5, 4, 1];
pub(crate) const DICE_TCB_INFO: &[u64] = &[2, 23, 133, 5, 4, 1, 1];

pub(crate) fn extension(oid: &[u64], content: Vec<u8>) -> CustomExtension {
    CustomExtension::from_oid_content(oid, content)
}

/// One GPU with what NVIDIA would endorse about it.
#[derive(Clone)]
pub(crate) struct Factory {
    pub(crate) root: Party,
    pub(crate) identity: Party,
    pub(crate) boot_rom: Party,
    pub(crate) leaf: Party,
    pub(crate) rim_root: Party,
    pub(crate) rim_authority: Party,
    pub(crate) signer: Party,
}

pub(crate) const DRIVER: &str = "550.1.2";
pub(crate) const VBIOS: &str = "96.00.9F.00.01";
pub(crate) const NONCE: [u8; 32] = [7; 32];

impl Factory {
    /// A Hopper GPU.
    pub(crate) fn new() -> Self {
        let root = Party::new("Root", None, |_| {});
        let rim_root = Party::new("RIM root", None, |_| {});
        let rim_authority = Party::new("RIM authority", Some(&rim_root), |_| {});
        let signer = Party::new("RIM signer", Some(&rim_authority), end_entity);
        Self::of(&root, [rim_root, rim_authority, signer])
    }

    /// Another Hopper GPU of the same vendor.
    pub(crate) fn another(&self) -> Self {
        Self::of(&self.root, [&self.rim_root, &self.rim_authority, &self.signer].map(Party::clone))
    }

    fn of(root: &Party, [rim_root, rim_authority, signer]: [Party; 3]) -> Self {
        let identity = Party::new("GH100 Identity", Some(root), |_| {});
        let boot_rom = Party::new("GH100 A01 GSP BROM", Some(&identity), |_| {});
        let point = boot_rom.point();
        let leaf = Party::new("GH100 A01 GSP FMC LF", Some(&boot_rom), |params| {
            end_entity(params);
            params.custom_extensions = vec![extension(COMPOSITE_DEVICE_ID, composite_device_id(&point))];
        });
        Self { root: root.clone(), identity, boot_rom, leaf, rim_root, rim_authority, signer }
    }

    /// A Blackwell GPU whose certificate has these operational flags.
    pub(crate) fn blackwell(flags: [u8; 4]) -> Self {
        let mut out = Self::new();
        out.boot_rom = Party::new("GB100 A01 GSP BROM", Some(&out.identity), |_| {});
        out.leaf = Party::new("GB100 A01 GSP FMC LF", Some(&out.boot_rom), |params| {
            end_entity(params);
            params.custom_extensions = vec![extension(DICE_TCB_INFO, dice_tcb_info(flags))];
        });
        out
    }

    /// Issues the leaf again.
    pub(crate) fn leaf_with(&mut self, change: impl FnOnce(&mut CertificateParams)) {
        self.leaf = self.leaf.again(&self.boot_rom, change);
    }

    pub(crate) fn anchors(&self) -> Anchors {
        Anchors { device: self.root.certificate.clone(), rim: self.rim_root.certificate.clone() }
    }

    pub(crate) fn chain(&self) -> Vec<Certificate> {
        [&self.leaf, &self.boot_rom, &self.identity].map(|party| party.certificate.clone()).to_vec()
    }

    pub(crate) fn gpu(&self, report: &[u8]) -> GpuEvidence {
        GpuEvidence { x: [0; 32], report: Report::parse(report).unwrap(), chain: self.chain() }
    }

    /// What the GPU signs, with a change before it does.
    pub(crate) fn report(&self, change: impl FnOnce(&mut ReportParts)) -> Vec<u8> {
        let mut parts = ReportParts::default();
        change(&mut parts);
        let mut bytes = parts.to_bytes();
        bytes.extend(self.leaf.sign_fixed(&bytes));
        bytes
    }

    /// A manifest whose text is changed before it is signed.
    pub(crate) fn rim(&self, version: &str, change: impl FnOnce(String) -> String) -> Vec<u8> {
        let certificates = [&self.signer, &self.rim_authority, &self.rim_root];
        let certificates = certificates.map(|party| party.certificate.clone());
        sign_rim(&self.signer, &certificates, change(rim_text(version)))
    }

    /// Both manifests.
    pub(crate) fn rims(&self) -> Vec<Vec<u8>> {
        [DRIVER, VBIOS].map(|version| self.rim(version, |text| text)).to_vec()
    }

    /// Good responses about everything, made by the issuers themselves.
    pub(crate) fn responses(&self) -> Vec<Vec<u8>> {
        self.asked().map(|(certificate, issuer)| Ocsp::good(certificate, issuer).signed(issuer, &[])).to_vec()
    }

    /// Every certificate that must be asked about, with its issuer.
    pub(crate) fn asked(&self) -> [(&Party, &Party); 4] {
        [
            (&self.boot_rom, &self.identity),
            (&self.identity, &self.root),
            (&self.signer, &self.rim_authority),
            (&self.rim_authority, &self.rim_root),
        ]
    }
}

/// A report before it is signed.
pub(crate) struct ReportParts {
    pub(crate) request: [u8; 37],
    /// Version, code, two parameters, number of blocks.
    pub(crate) header: [u8; 5],
    /// Index, specification, size, type, size of the value; the value.
    pub(crate) blocks: Vec<([u8; 7], Vec<u8>)>,
    /// Added to the length of the record.
    pub(crate) extra_len: u8,
    pub(crate) opaque: Vec<(u16, Vec<u8>)>,
    /// Behind the fields.
    pub(crate) opaque_tail: Vec<u8>,
}

/// Number of measurements; index 35 is among them.
pub(crate) const BLOCKS: u8 = 40;

/// The measurement with this index in manifests.
pub(crate) fn value(index: u8) -> Vec<u8> {
    vec![index + 1; 48]
}

impl Default for ReportParts {
    fn default() -> Self {
        let mut request = [0; 37];
        request[..4].copy_from_slice(&[0x11, 0xe0, 1, 0xff]);
        request[4..36].copy_from_slice(&NONCE);
        let block = |index| ([index, 1, 51, 0, 1, 48, 0], value(index - 1));
        Self {
            request,
            header: [0x11, 0x60, 0, 0, BLOCKS],
            blocks: (1..=BLOCKS).map(block).collect(),
            extra_len: 0,
            opaque: vec![
                (3, format!("{DRIVER}\0").into_bytes()),
                (6, vec![0, 0x9f, 0, 0x96, 1, 0, 0, 0]),
                (11, vec![0x55]),
                (15, b"882\0\0".to_vec()),
                (17, b"1010\0".to_vec()),
                (18, b"0200\0".to_vec()),
                (20, FWID.to_vec()),
                (21, vec![0x55]),
                (36, vec![0, 0]),
            ],
            opaque_tail: Vec::new(),
        }
    }
}

impl ReportParts {
    /// Replaces or adds a field of the opaque data.
    pub(crate) fn set(&mut self, number: u16, content: &[u8]) {
        self.remove(number);
        self.opaque.push((number, content.to_vec()));
    }

    pub(crate) fn remove(&mut self, number: u16) {
        self.opaque.retain(|(known, _)| *known != number);
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut record = Vec::new();
        for (header, value) in &self.blocks {
            record.extend([header.as_slice(), value].concat());
        }
        let mut opaque = Vec::new();
        for (number, content) in &self.opaque {
            opaque.extend(number.to_le_bytes());
            opaque.extend(u16::try_from(content.len()).unwrap().to_le_bytes());
            opaque.extend(content);
        }
        opaque.extend(&self.opaque_tail);
        let [a, b, c, _] = (u32::try_from(record.len()).unwrap() + u32::from(self.extra_len)).to_le_bytes();
        let mut out = [self.request.as_slice(), &self.header, &[a, b, c], &record, &[9; 32]].concat();
        out.extend(u16::try_from(opaque.len()).unwrap().to_le_bytes());
        out.extend(opaque);
        out
    }
}

/// The text of a manifest. DIGEST, SIGNATURE and CERTIFICATES are filled in.
fn rim_text(version: &str) -> String {
    // The driver's measurements are 20 to 39, the VBIOS's 0 to 19.
    let active = if version == DRIVER { 20..BLOCKS } else { 0..20 };
    let resource = |index: u8| {
        let is_active = if active.contains(&index) { "True" } else { "False" };
        // Index 35 is wrong, and exempt.
        let digest = if index == 35 { "00".repeat(48) } else { hex::encode(value(index)) };
        format!(
            "<p:Resource type=\"Measurement\" index=\"{index}\" active=\"{is_active}\" alternatives=\"1\" \
             h:Hash0=\"{digest}\" name=\"M_{index}\" size=\"48\"/>\n"
        )
    };
    let resources: String = (0..BLOCKS).map(resource).collect();
    format!(
        "<SoftwareIdentity xmlns=\"http://standards.iso.org/iso/19770/-2/2015/schema.xsd\" \
         xmlns:p=\"http://standards.iso.org/iso/19770/-2/2015/schema.xsd\" \
         xmlns:h=\"http://www.w3.org/2001/04/xmlenc#sha384\" name=\"GH100\" version=\"1.0\">\n\
         <p:Entity name=\"NVIDIA Corporation\" role=\"tagCreator\"/>\n\
         <p:Meta colloquialVersion=\"{version}\" edition=\"GPU\" product=\"GH100\"/>\n\
         <p:Payload>\n{resources}</p:Payload>\n\
         <ds:Signature xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\"><ds:SignedInfo>\
         <ds:CanonicalizationMethod Algorithm=\"http://www.w3.org/2006/12/xml-c14n11\"/>\
         <ds:SignatureMethod Algorithm=\"http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384\"/>\
         <ds:Reference URI=\"\"><ds:Transforms>\
         <ds:Transform Algorithm=\"http://www.w3.org/2000/09/xmldsig#enveloped-signature\"/>\
         <ds:Transform Algorithm=\"http://www.w3.org/2006/12/xml-c14n11\"/></ds:Transforms>\
         <ds:DigestMethod Algorithm=\"http://www.w3.org/2001/04/xmldsig-more#sha384\"/>\
         <ds:DigestValue>DIGEST</ds:DigestValue></ds:Reference></ds:SignedInfo>\
         <ds:SignatureValue>SIGNATURE</ds:SignatureValue>\
         <ds:KeyInfo><ds:X509Data>CERTIFICATES</ds:X509Data></ds:KeyInfo></ds:Signature></SoftwareIdentity>"
    )
}

/// Fills in a manifest's text. What is no XML, or has no signature to fill in, stays as it is.
pub(crate) fn sign_rim(signer: &Party, certificates: &[Certificate], text: String) -> Vec<u8> {
    let base64 = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
    let certificate =
        |c: &Certificate| format!("<ds:X509Certificate>{}</ds:X509Certificate>", base64(c.der()));
    let mut text = text.replace("CERTIFICATES", &certificates.iter().map(certificate).collect::<String>());
    let Ok(root) = xml::parse(text.as_bytes()) else { return text.into_bytes() };
    let elements = root.elements().unwrap_or_default();
    let element = elements.iter().find(|e| e.name.local == "Signature").copied();
    let digest = base64(&sha384(&[&canonical(&root, &[], element)]));
    text = text.replace("DIGEST", &digest);
    let signed = {
        let root = xml::parse(text.as_bytes()).unwrap();
        let elements = root.elements().unwrap_or_default();
        let element = elements.iter().find(|e| e.name.local == "Signature").copied();
        let info = element.and_then(|e| e.elements().ok()?.first().copied().cloned());
        element.zip(info).map(|(element, info)| signer.sign_fixed(&canonical(&info, &[&root, element], None)))
    };
    text.replace("SIGNATURE", &base64(&signed.unwrap_or_default())).into_bytes()
}

/// An OCSP response before it is signed; DER pieces.
#[derive(Clone)]
pub(crate) struct Ocsp {
    pub(crate) response_status: Vec<u8>,
    pub(crate) response_type: Vec<u8>,
    /// Before the responder.
    pub(crate) version: Vec<u8>,
    pub(crate) responder: Vec<u8>,
    pub(crate) hash: Vec<u8>,
    pub(crate) name_hash: Vec<u8>,
    pub(crate) key_hash: Vec<u8>,
    pub(crate) serial: Vec<u8>,
    pub(crate) status: Vec<u8>,
    pub(crate) this_update: Vec<u8>,
    pub(crate) next_update: Vec<u8>,
    pub(crate) single_extensions: Vec<u8>,
    pub(crate) extensions: Vec<u8>,
    pub(crate) singles: usize,
    /// After the others.
    pub(crate) more: Vec<u8>,
}

pub(crate) fn time(text: &str) -> Vec<u8> {
    tlv(0x18, text.as_bytes())
}

/// When everything of the factory is valid.
pub(crate) const NOW: &str = "2026-11-24T12:00:00Z";

impl Ocsp {
    /// `certificate` is good, on the day of [`NOW`].
    pub(crate) fn good(certificate: &Party, issuer: &Party) -> Self {
        let subject = issuer.certificate.subject_der();
        Self {
            response_status: vec![0x0a, 1, 0],
            response_type: vec![6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1],
            version: Vec::new(),
            responder: tlv(0xa2, &tlv(4, &[1; 20])),
            hash: tlv(0x30, &[OID_SHA384, &[5, 0]].concat()),
            name_hash: tlv(4, &sha384(&[&subject])),
            key_hash: tlv(4, &sha384(&[&issuer.point()])),
            serial: tlv(2, certificate.certificate.serial()),
            status: vec![0x80, 0],
            this_update: time("20261124000000Z"),
            next_update: tlv(0xa0, &time("20261125000000Z")),
            single_extensions: Vec::new(),
            extensions: Vec::new(),
            singles: 1,
            more: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// A SingleResponse.
    pub(crate) fn single(&self) -> Vec<u8> {
        let id = [&self.hash, &self.name_hash, &self.key_hash, &self.serial].map(Vec::as_slice).concat();
        let single =
            [&tlv(0x30, &id), &self.status, &self.this_update, &self.next_update, &self.single_extensions];
        tlv(0x30, &single.map(Vec::as_slice).concat())
    }

    pub(crate) fn signed(&self, signer: &Party, certificates: &[&Party]) -> Vec<u8> {
        let singles = tlv(0x30, &[self.single().repeat(self.singles), self.more.clone()].concat());
        let produced = time("20261124000000Z");
        let data = [&self.version, &self.responder, &produced, &singles, &self.extensions];
        let data = tlv(0x30, &data.map(Vec::as_slice).concat());
        let signature = signer.sign(&ECDSA_P384_SHA384_ASN1_SIGNING, &data);
        let algorithm = tlv(0x30, &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3]);
        let mut basic = [data, algorithm, tlv(3, &[&[0], signature.as_slice()].concat())].concat();
        if !certificates.is_empty() {
            let list: Vec<_> = certificates.iter().flat_map(|c| c.certificate.der().to_vec()).collect();
            basic.extend(tlv(0xa0, &tlv(0x30, &list)));
        }
        let bytes = [self.response_type.clone(), tlv(4, &tlv(0x30, &basic))].concat();
        tlv(0x30, &[self.response_status.clone(), tlv(0xa0, &tlv(0x30, &bytes))].concat())
    }
}
