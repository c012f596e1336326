//! X.509 certificates of AMD's shape, verified over the bytes as received.

use der::asn1::{BitStringRef, ObjectIdentifier};
use der::{Decode, Reader as _, SliceReader};
use x509_cert::spki::AlgorithmIdentifierRef;

use crate::{Error, UnixTime, crypto};

/// AMD's certificates are below 2 KiB.
const MAX_LEN: usize = 8 * 1024;

const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

const WHAT: &str = "certificate";

/// A parsed certificate. Nothing in it is authentic before [`Certificate::is_issued_by`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    signed: Vec<u8>,
    signature: Vec<u8>,
    parsed: x509_cert::Certificate,
}

impl Certificate {
    /// Parses DER.
    ///
    /// # Errors
    /// `Malformed` for what is not exactly one DER certificate of at most 8 KiB with an RSASSA-PSS signature.
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
        let (signed, algorithm, signature) = split(der).map_err(not_der)?;
        if algorithm != RSASSA_PSS || parsed.tbs_certificate.signature.oid != RSASSA_PSS {
            return Err(Error::malformed(WHAT, "not signed with RSASSA-PSS, which all of AMD's are"));
        }
        Ok(Self { der: der.to_vec(), signed, signature, parsed })
    }

    /// Parses PEM or DER.
    ///
    /// # Errors
    /// As [`Certificate::from_der`].
    pub fn from_pem_or_der(bytes: &[u8]) -> Result<Self, Error> {
        if !bytes.starts_with(b"-----BEGIN") {
            return Self::from_der(bytes);
        }
        let (label, der) = der::pem::decode_vec(bytes)
            .map_err(|_quotes_input| Error::malformed(WHAT, "not a PEM document"))?;
        if label != "CERTIFICATE" {
            return Err(Error::malformed(WHAT, "a PEM document that is not a CERTIFICATE"));
        }
        Self::from_der(&der)
    }

    /// The bytes as received.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The subject's common name, for messages.
    #[must_use]
    pub fn subject(&self) -> String {
        self.parsed.tbs_certificate.subject.to_string()
    }

    /// Whether this is self-issued: an anchor's shape.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.parsed.tbs_certificate.subject == self.parsed.tbs_certificate.issuer
    }

    /// Whether `issuer` is named as the issuer, may issue, and signed this certificate.
    #[must_use]
    pub fn is_issued_by(&self, issuer: &Self) -> bool {
        self.names_issuer(issuer)
            && issuer
                .rsa_key()
                .is_some_and(|key| crypto::verify_rsa_pss_sha384(key, &self.signed, &self.signature))
    }

    /// Whether `issuer`'s subject is this certificate's issuer.
    #[must_use]
    pub fn names_issuer(&self, issuer: &Self) -> bool {
        self.parsed.tbs_certificate.issuer == issuer.parsed.tbs_certificate.subject
    }

    /// Whether `now` is within the validity.
    #[must_use]
    pub fn is_valid_at(&self, now: UnixTime) -> bool {
        let validity = &self.parsed.tbs_certificate.validity;
        let start = validity.not_before.to_unix_duration().as_secs();
        let end = validity.not_after.to_unix_duration().as_secs();
        (start..=end).contains(&now.0)
    }

    /// Content of the extension `oid`, if it is there once.
    #[must_use]
    pub fn extension(&self, oid: &str) -> Option<&[u8]> {
        let oid = ObjectIdentifier::new(oid).ok()?;
        let mut found = self.parsed.tbs_certificate.extensions.iter().flatten().filter(|e| e.extn_id == oid);
        let first = found.next()?;
        found.next().is_none().then(|| first.extn_value.as_bytes())
    }

    /// Whether basic constraints say that this is a certificate authority.
    #[must_use]
    pub fn is_authority(&self) -> bool {
        let content = self.extension("2.5.29.19");
        content.and_then(|c| x509_cert::ext::pkix::BasicConstraints::from_der(c).ok()).is_some_and(|b| b.ca)
    }

    /// The uncompressed point, if the key is on P-384.
    pub(crate) fn p384_point(&self) -> Option<&[u8]> {
        let spki = &self.parsed.tbs_certificate.subject_public_key_info;
        let curve = spki.algorithm.parameters.as_ref()?.decode_as::<ObjectIdentifier>().ok()?;
        (spki.algorithm.oid == EC_PUBLIC_KEY && curve == SECP384R1)
            .then(|| spki.subject_public_key.as_bytes())
            .flatten()
    }

    /// The PKCS#1 key, if it is for RSA (AMD marks its keys with either object identifier).
    fn rsa_key(&self) -> Option<&[u8]> {
        let spki = &self.parsed.tbs_certificate.subject_public_key_info;
        [RSA_ENCRYPTION, RSASSA_PSS]
            .contains(&spki.algorithm.oid)
            .then(|| spki.subject_public_key.as_bytes())
            .flatten()
    }
}

/// The signed part, the signature's algorithm and the signature, without decoding and encoding again.
fn split(der: &[u8]) -> der::Result<(Vec<u8>, ObjectIdentifier, Vec<u8>)> {
    let mut reader = SliceReader::new(der)?;
    let parts = reader.sequence(|r| {
        let signed = r.tlv_bytes()?.to_vec();
        let algorithm = AlgorithmIdentifierRef::decode(r)?.oid;
        let signature = BitStringRef::decode(r)?;
        Ok((signed, algorithm, signature.raw_bytes().to_vec()))
    })?;
    reader.finish(parts)
}
