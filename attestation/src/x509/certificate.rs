//! X.509 certificates, verified over the bytes as received.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::Decode;
use der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};

use super::{RSASSA_PSS, Signed};
use crate::crypto::{SignatureCache, SignatureScheme};
use crate::{Error, UnixTime};

/// Certificates of the three vendors are below 2 KiB.
const MAX_LEN: usize = 8 * 1024;

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

const WHAT: &str = "certificate";

/// A parsed certificate. Nothing in it is authentic before [`Certificate::is_issued_by`] or a [`super::CertificatePath`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    signed: Signed,
    parsed: x509_cert::Certificate,
}

impl Certificate {
    /// Parses DER.
    ///
    /// # Errors
    /// `Malformed` for what is not exactly one DER certificate of at most 8 KiB.
    pub fn from_der(der: &[u8]) -> Result<Self, Error> {
        if der.len() > MAX_LEN {
            return Err(Error::malformed(
                WHAT,
                format!("{} bytes, at most {MAX_LEN} are allowed", der.len()),
            ));
        }
        // The library's message can quote input: it is dropped.
        let not_der = |_| Error::malformed(WHAT, "not a DER X.509 certificate");
        let parsed = x509_cert::Certificate::from_der(der).map_err(not_der)?;
        let signed = Signed::split(der).map_err(not_der)?;
        if signed.algorithm != parsed.tbs_certificate.signature {
            return Err(Error::malformed(WHAT, "names two signature algorithms"));
        }
        // RFC 5280 section 4.2.
        let mut seen = BTreeSet::new();
        if !parsed.tbs_certificate.extensions.iter().flatten().all(|e| seen.insert(e.extn_id)) {
            return Err(Error::malformed(WHAT, "has an extension twice"));
        }
        Ok(Self { der: der.to_vec(), signed, parsed })
    }

    /// Parses one certificate, PEM or DER.
    ///
    /// # Errors
    /// As [`Certificate::from_der`], and for more than one.
    pub fn from_pem_or_der(bytes: &[u8]) -> Result<Self, Error> {
        match <[Self; 1]>::try_from(Self::list_from_pem_or_der(bytes, 1)?) {
            Ok([certificate]) => Ok(certificate),
            Err(_) => Err(Error::malformed(WHAT, "a PEM document without a certificate")),
        }
    }

    /// Parses a PEM document with 1 to `max` certificates, or one certificate as DER. Zero bytes and white space after the last
    /// one are ignored, as Intel's quotes have them.
    ///
    /// # Errors
    /// `Malformed`: as [`Certificate::from_der`], more than `max`, none, or something else between them.
    pub fn list_from_pem_or_der(bytes: &[u8], max: usize) -> Result<Vec<Self>, Error> {
        if !bytes.trim_ascii_start().starts_with(b"-----BEGIN") {
            return Ok(vec![Self::from_der(bytes)?]);
        }
        Self::ders_of_pem(bytes, max)?.iter().map(|der| Self::from_der(der)).collect()
    }

    /// The DER of each certificate of such a PEM document, not parsed: for chains of which not all is looked into.
    ///
    /// # Errors
    /// `Malformed`: more than `max`, none, not PEM, or something else between them.
    pub(crate) fn ders_of_pem(bytes: &[u8], max: usize) -> Result<Vec<Vec<u8>>, Error> {
        const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
        const END: &str = "-----END CERTIFICATE-----";
        let not_pem = || Error::malformed(WHAT, "not a PEM document of certificates only");
        let text = std::str::from_utf8(bytes).map_err(|_quotes_input| not_pem())?;
        let mut rest = text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\0');
        let mut out = Vec::new();
        while !rest.is_empty() {
            if out.len() == max {
                return Err(Error::malformed(WHAT, format!("more than {max} certificates")));
            }
            let end = rest.starts_with(BEGIN).then(|| rest.find(END)).flatten().ok_or_else(not_pem)?;
            let (one, after) = rest.split_at_checked(end.saturating_add(END.len())).ok_or_else(not_pem)?;
            let lines =
                one.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)).ok_or_else(not_pem)?;
            let packed: String = lines.split_ascii_whitespace().collect();
            out.push(STANDARD.decode(packed).map_err(|_quotes_input| not_pem())?);
            rest = after.trim_ascii_start();
        }
        if out.is_empty() { Err(not_pem()) } else { Ok(out) }
    }

    /// The bytes as received.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The same as PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        // Fails only for lengths that overflow, of which a certificate has none.
        der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, &self.der).unwrap_or_default()
    }

    /// The subject's distinguished name, for messages.
    #[must_use]
    pub fn subject(&self) -> String {
        self.parsed.tbs_certificate.subject.to_string()
    }

    /// The subject's distinguished name, DER: what OCSP hashes. Encoded again, which for anything but DER gives another hash.
    pub(crate) fn subject_der(&self) -> Vec<u8> {
        // Encoding what was decoded cannot fail.
        der::Encode::to_der(&self.parsed.tbs_certificate.subject).unwrap_or_default()
    }

    /// The common name of the subject; empty without one.
    #[must_use]
    pub fn subject_cn(&self) -> String {
        common_name(&self.parsed.tbs_certificate.subject)
    }

    /// The common name of the issuer; empty without one.
    #[must_use]
    pub fn issuer_cn(&self) -> String {
        common_name(&self.parsed.tbs_certificate.issuer)
    }

    /// The serial number: big-endian, without leading zeros that DER does not need.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        self.parsed.tbs_certificate.serial_number.as_bytes()
    }

    /// The SubjectPublicKeyInfo's key bits: PKCS#1 for RSA, the uncompressed point for ECDSA.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        self.parsed.tbs_certificate.subject_public_key_info.subject_public_key.raw_bytes()
    }

    /// Whether this is self-issued: an anchor's shape.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.parsed.tbs_certificate.subject == self.parsed.tbs_certificate.issuer
    }

    /// Whether `issuer` is named as the issuer and signed this certificate. Whether it may issue, and dates, are checked by
    /// [`super::CertificatePath::faults`].
    #[must_use]
    pub fn is_issued_by(&self, issuer: &Self, known: &SignatureCache) -> bool {
        self.names_issuer(issuer) && self.signed.is_signed_by(issuer, known)
    }

    /// Whether `issuer`'s subject is this certificate's issuer.
    #[must_use]
    pub fn names_issuer(&self, issuer: &Self) -> bool {
        self.parsed.tbs_certificate.issuer == issuer.parsed.tbs_certificate.subject
    }

    /// Whether name and key are the same: the same authority, perhaps with another certificate.
    pub(crate) fn is_same_authority(&self, other: &Self) -> bool {
        let (own, other) = (&self.parsed.tbs_certificate, &other.parsed.tbs_certificate);
        own.subject == other.subject && own.subject_public_key_info == other.subject_public_key_info
    }

    /// Whether `name` is this certificate's subject.
    pub(super) fn is_named(&self, name: &x509_cert::name::Name) -> bool {
        self.parsed.tbs_certificate.subject == *name
    }

    /// First and last second of the validity.
    #[must_use]
    pub fn validity(&self) -> (UnixTime, UnixTime) {
        let validity = &self.parsed.tbs_certificate.validity;
        let seconds = |time: x509_cert::time::Time| UnixTime(time.to_unix_duration().as_secs());
        (seconds(validity.not_before), seconds(validity.not_after))
    }

    /// Whether `now` is within the validity.
    #[must_use]
    pub fn is_valid_at(&self, now: UnixTime) -> bool {
        let (start, end) = self.validity();
        (start..=end).contains(&now)
    }

    /// Content of the extension `oid`, if it is there. No extension is there twice.
    #[must_use]
    pub fn extension(&self, oid: &str) -> Option<&[u8]> {
        let oid = ObjectIdentifier::new(oid).ok()?;
        let mut all = self.parsed.tbs_certificate.extensions.iter().flatten();
        all.find(|e| e.extn_id == oid).map(|e| e.extn_value.as_bytes())
    }

    /// Whether basic constraints say that this is a certificate authority.
    #[must_use]
    pub fn is_authority(&self) -> bool {
        self.basic_constraints().is_some_and(|b| b.ca)
    }

    /// How many authorities may follow below this one, if that is limited.
    pub(super) fn path_len(&self) -> Option<u8> {
        self.basic_constraints().and_then(|b| b.path_len_constraint)
    }

    fn basic_constraints(&self) -> Option<BasicConstraints> {
        self.extension("2.5.29.19").and_then(|content| BasicConstraints::from_der(content).ok())
    }

    /// Whether the key usage, if there is one, allows `usage`.
    pub(super) fn may(&self, usage: KeyUsages) -> bool {
        match self.extension("2.5.29.15") {
            None => true,
            Some(content) => KeyUsage::from_der(content).is_ok_and(|u| u.0.contains(usage)),
        }
    }

    /// The first critical extension that no code here reads: RFC 5280 section 4.2 wants such a certificate refused.
    pub(super) fn unknown_critical_extension(&self) -> Option<String> {
        const KNOWN: [&str; 3] = ["2.5.29.19", "2.5.29.15", "2.5.29.37"];
        let all = self.parsed.tbs_certificate.extensions.iter().flatten();
        all.filter(|e| e.critical).map(|e| e.extn_id.to_string()).find(|oid| !KNOWN.contains(&oid.as_str()))
    }

    /// The key, if it is one for `scheme`: PKCS#1 RSAPublicKey, or the uncompressed point.
    pub(crate) fn key_for(&self, scheme: SignatureScheme) -> Option<&[u8]> {
        let spki = &self.parsed.tbs_certificate.subject_public_key_info;
        let parameters = spki.algorithm.parameters.as_ref();
        let curve = || parameters.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
        let is_on = |oid| spki.algorithm.oid == EC_PUBLIC_KEY && curve() == Some(oid);
        let fits = match scheme {
            // AMD marks its keys with either object identifier.
            SignatureScheme::RsaPssSha384 => [RSA_ENCRYPTION, RSASSA_PSS].contains(&spki.algorithm.oid),
            SignatureScheme::EcdsaP256Sha256Asn1 | SignatureScheme::EcdsaP256Sha256Fixed => is_on(SECP256R1),
            SignatureScheme::EcdsaP384Sha384Asn1 | SignatureScheme::EcdsaP384Sha384Fixed => is_on(SECP384R1),
            SignatureScheme::Ed25519 => false,
        };
        fits.then(|| spki.subject_public_key.as_bytes()).flatten()
    }
}

pub(super) fn common_name(name: &x509_cert::name::Name) -> String {
    const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
    let attributes = name.0.iter().flat_map(|set| set.0.iter());
    let value = attributes
        .filter(|attribute| attribute.oid == COMMON_NAME)
        .map(|attribute| attribute.value.value())
        .next();
    value.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
}
