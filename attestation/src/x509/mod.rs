//! X.509 as the three vendors use it: certificates, paths to a pinned anchor, revocation lists (RFC 5280).
//!
//! Everything is verified over the bytes as received; what is parsed is never encoded again.

mod certificate;
mod path;
mod revocation;

pub use certificate::Certificate;
pub use path::CertificatePath;
pub use revocation::RevocationList;

use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier};
use der::{Decode, NestedReader, Reader as _, SliceReader, Tag, Tagged as _};
use x509_cert::spki::AlgorithmIdentifierOwned;

use crate::crypto::{SignatureCache, SignatureScheme};

/// AMD gives its parameters in two encodings; ring takes only what they say: SHA-384, MGF1 with SHA-384, 48 bytes of salt.
const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");

/// What is in a SEQUENCE. The library's own way into one takes three times as long.
pub(crate) fn content(sequence: AnyRef<'_>) -> der::Result<SliceReader<'_>> {
    sequence.tag().assert_eq(Tag::Sequence)?;
    SliceReader::new(sequence.value())
}

/// What `read` takes from the SEQUENCE that is all of `der`.
pub(crate) fn sequence<'a, T>(
    der: &'a [u8],
    read: impl FnOnce(&mut NestedReader<'_, SliceReader<'a>>) -> der::Result<T>,
) -> der::Result<T> {
    let mut reader = SliceReader::new(der)?;
    let value = reader.sequence(read)?;
    reader.finish(value)
}

/// The outer shape of everything that X.509 signs: `SEQUENCE { to be signed, algorithm, BIT STRING }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signed {
    /// The signed part, tag and length included.
    pub(crate) content: Vec<u8>,
    /// With its parameters, which nobody signs here: certificates and lists repeat it inside (RFC 5280 section 4.1.1.2).
    pub(crate) algorithm: AlgorithmIdentifierOwned,
    pub(crate) signature: Vec<u8>,
}

impl Signed {
    pub(crate) fn split(der: &[u8]) -> der::Result<Self> {
        sequence(der, |r| {
            let content = r.tlv_bytes()?.to_vec();
            let algorithm = AlgorithmIdentifierOwned::decode(r)?;
            // Signatures are whole bytes: with unused bits allowed there would be several forms of one certificate.
            let bits = BitStringRef::decode(r)?;
            let signature = bits.as_bytes().ok_or_else(|| Tag::BitString.value_error())?.to_vec();
            Ok(Self { content, algorithm, signature })
        })
    }

    /// Whether `key` (see [`Certificate`]) made the signature, by the algorithm that is named here.
    pub(crate) fn is_signed_by(&self, key: &Certificate, known: &SignatureCache) -> bool {
        self.scheme()
            .zip(self.scheme().and_then(|scheme| key.key_for(scheme)))
            .is_some_and(|(scheme, key)| known.verify(scheme, key, &self.content, &self.signature))
    }

    fn scheme(&self) -> Option<SignatureScheme> {
        match self.algorithm.oid {
            RSASSA_PSS => Some(SignatureScheme::RsaPssSha384),
            ECDSA_WITH_SHA256 => Some(SignatureScheme::EcdsaP256Sha256Asn1),
            ECDSA_WITH_SHA384 => Some(SignatureScheme::EcdsaP384Sha384Asn1),
            _ => None,
        }
    }
}
