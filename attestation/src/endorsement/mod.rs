//! Endorsements: what vendors sign about their hardware, typed, as it travels stapled to an AttestResponse and lies in a cache.

mod about;

pub use about::{About, vcek_subject};

use crate::cbor::{self, Fields, Value};
use crate::{Digest, Error};

/// What an endorsement is. The numbers are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EndorsementKind {
    /// VCEK, VLEK, ASK or ASVK, DER (AMD 57230).
    AmdCertificate = 1,
    /// Revocation list of an ARK, DER (AMD 57230).
    AmdCrl = 2,
    /// TCB info, JSON as served (Intel PCS API v4).
    IntelTcbInfo = 16,
    /// Identity of the TD quoting enclave, JSON as served (Intel PCS API v4).
    IntelQeIdentity = 17,
    /// Chain of the key that signs TCB info and identities, PEM.
    IntelTcbSigningChain = 18,
    /// Revocation list of the PCK platform or processor CA, DER.
    IntelPckCrl = 19,
    /// Chain of that CA, PEM.
    IntelPckCrlIssuerChain = 20,
    /// Revocation list of the root, DER.
    IntelRootCaCrl = 21,
    /// Reference integrity manifest of a driver or VBIOS, signed XML.
    NvidiaRim = 32,
    /// OCSP response for a certificate of a device or of a manifest's signer, DER (RFC 6960).
    NvidiaOcsp = 33,
}

/// Every kind with its name in files and tables.
pub const ENDORSEMENT_KINDS: [(EndorsementKind, &str); 10] = [
    (EndorsementKind::AmdCertificate, "amd-certificate"),
    (EndorsementKind::AmdCrl, "amd-crl"),
    (EndorsementKind::IntelTcbInfo, "intel-tcb-info"),
    (EndorsementKind::IntelQeIdentity, "intel-qe-identity"),
    (EndorsementKind::IntelTcbSigningChain, "intel-tcb-signing-chain"),
    (EndorsementKind::IntelPckCrl, "intel-pck-crl"),
    (EndorsementKind::IntelPckCrlIssuerChain, "intel-pck-crl-issuer-chain"),
    (EndorsementKind::IntelRootCaCrl, "intel-root-ca-crl"),
    (EndorsementKind::NvidiaRim, "nvidia-rim"),
    (EndorsementKind::NvidiaOcsp, "nvidia-ocsp"),
];

/// One endorsement. Who signed it, and whether it is still good, is found out during an appraisal, each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorsement {
    /// What the bytes are.
    pub kind: EndorsementKind,
    /// The vendor's own format, as served.
    pub bytes: Vec<u8>,
}

/// Everything for eight GPUs and a CPU in one file; what is stapled is limited further by the AttestResponse.
const MAX_BUNDLE_LEN: usize = 1024 * 1024;
const MAX_ITEMS: usize = 256;

/// The largest that exist are RIMs (26 KiB) and Intel's revocation lists.
const MAX_ITEM_LEN: usize = 128 * 1024;

const WHAT: &str = "endorsement";

impl EndorsementKind {
    /// Its name in files and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        ENDORSEMENT_KINDS.iter().find(|(kind, _)| *kind == self).map_or("unknown", |(_, name)| name)
    }

    fn code(self) -> u64 {
        #[expect(clippy::as_conversions, reason = "the enum's own numbers, all below 256")]
        let code = self as u8;
        code.into()
    }

    fn from_code(code: u64) -> Result<Self, Error> {
        let found = ENDORSEMENT_KINDS.iter().find(|(kind, _)| kind.code() == code);
        found.map(|(kind, _)| *kind).ok_or_else(|| Error::malformed(WHAT, format!("kind {code} is unknown")))
    }
}

impl Endorsement {
    /// `[kind, bytes]`, deterministic CBOR.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&self.value())
    }

    /// Reads one that is all of `bytes`.
    ///
    /// # Errors
    /// `Malformed` for anything but `[kind, bytes]` of a known kind and at most 128 KiB.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        Self::from_value(cbor::decode(WHAT, bytes, MAX_BUNDLE_LEN)?)
    }

    /// SHA-256 of the encoding: its key in an AttestResponse.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }

    fn value(&self) -> Value {
        Value::Array(vec![cbor::uint(self.kind.code()), cbor::bytes(&self.bytes)])
    }

    fn from_value(value: Value) -> Result<Self, Error> {
        let Value::Array(items) = value else { return Err(Error::malformed(WHAT, "not an array")) };
        let Ok([Value::Integer(code), Value::Bytes(bytes)]) = <[Value; 2]>::try_from(items) else {
            return Err(Error::malformed(WHAT, "not [kind, bytes]"));
        };
        if bytes.len() > MAX_ITEM_LEN {
            return Err(Error::malformed(
                WHAT,
                format!("{} bytes, at most {MAX_ITEM_LEN} are allowed", bytes.len()),
            ));
        }
        let code = u64::try_from(code).map_err(|_negative| Error::malformed(WHAT, "a negative kind"))?;
        Ok(Self { kind: EndorsementKind::from_code(code)?, bytes })
    }
}

/// A file of endorsements: `{ 0: "cocoon-endorsements/1", 1: [* [kind, bytes]] }`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndorsementBundle(pub Vec<Endorsement>);

impl EndorsementBundle {
    /// Deterministic CBOR.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let items = self.0.iter().map(Endorsement::value).collect();
        cbor::encode(&cbor::map([(0, cbor::text(VERSION)), (1, Value::Array(items))]))
    }

    /// Reads a bundle.
    ///
    /// # Errors
    /// `Malformed` for anything that is not exactly one canonical bundle of at most 1 MiB and 256 items.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields::decode("endorsement bundle", bytes, MAX_BUNDLE_LEN)?;
        fields.version(&cbor::text(VERSION))?;
        let items = fields.required(1)?.items(MAX_ITEMS)?;
        fields.finish()?;
        items
            .into_iter()
            .map(|item| Endorsement::from_value(item.into_value()))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Those of one kind.
    pub fn of_kind(&self, kind: EndorsementKind) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |item| item.kind == kind).map(|item| item.bytes.as_slice())
    }
}

const VERSION: &str = "cocoon-endorsements/1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvidia::tests::factory::{Party, extension};

    #[test]
    fn bytes_of_another_kind_are_about_nothing() {
        for (kind, _name) in ENDORSEMENT_KINDS {
            for bytes in [
                &b"x"[..],
                b"",
                b"-----BEGIN CERTIFICATE-----",
                b"-----BEGIN CERTIFICATE----------END CERTIFICATE-----",
            ] {
                assert!(Endorsement { kind, bytes: bytes.to_vec() }.about().is_err(), "{}", kind.name());
                assert!(Endorsement::recognise(bytes).is_err());
            }
        }
        // What nobody endorses hardware with.
        let key = Party::new("Somebody", None, |params| {
            params.key_usages.push(rcgen::KeyUsagePurpose::CrlSign);
        });
        let chain = key.certificate.to_pem();
        assert!(Endorsement::recognise(chain.as_bytes()).is_err());
        let list = key.issue_empty_list();
        assert!(Endorsement::recognise(&list).unwrap_err().to_string().contains("another issuer"));
        let no_vcek =
            Endorsement { kind: EndorsementKind::AmdCertificate, bytes: key.certificate.der().to_vec() };
        assert_eq!(no_vcek.about().unwrap().subject, "Somebody");
        // Issued like a VCEK, but it names no chip, or no firmware.
        let ask = Party::new("SEV-Genoa", None, |_| {});
        for extensions in [Vec::new(), vec![extension(&[1, 3, 6, 1, 4, 1, 3704, 1, 4], vec![7; 64])]] {
            let key = Party::new("SEV-VCEK", Some(&ask), |params| params.custom_extensions = extensions);
            let item =
                Endorsement { kind: EndorsementKind::AmdCertificate, bytes: key.certificate.der().to_vec() };
            assert_eq!(item.about().unwrap().subject, "SEV-VCEK");
        }
    }

    fn bundle() -> EndorsementBundle {
        let item =
            |(kind, name): (EndorsementKind, &str)| Endorsement { kind, bytes: name.as_bytes().to_vec() };
        EndorsementBundle(ENDORSEMENT_KINDS.into_iter().map(item).collect())
    }

    #[test]
    fn round_trip() {
        let decoded = EndorsementBundle::decode(&bundle().encode()).unwrap();
        assert_eq!(decoded, bundle());
        assert_eq!(decoded.of_kind(EndorsementKind::AmdCrl).collect::<Vec<_>>(), [b"amd-crl"]);
        for item in bundle().0 {
            assert_eq!(Endorsement::decode(&item.encode()).unwrap(), item);
            assert!(!item.kind.name().contains("unknown"));
        }
    }

    #[test]
    fn refuses_unknown_kinds_shapes_and_sizes() {
        let refused = |value: Value| Endorsement::decode(&cbor::encode(&value)).unwrap_err().to_string();
        let item = |kind, bytes: &[u8]| Value::Array(vec![cbor::uint(kind), cbor::bytes(bytes)]);
        assert!(refused(item(3, b"")).contains("kind 3 is unknown"));
        assert!(refused(Value::Array(vec![cbor::uint(1)])).contains("[kind, bytes]"));
        assert!(refused(Value::Array(vec![Value::Integer(-1), cbor::bytes(b"")])).contains("negative"));
        assert!(refused(cbor::uint(1)).contains("array"));
        assert!(refused(item(1, &vec![0; MAX_ITEM_LEN + 1])).contains("at most"));
        assert!(Endorsement::decode(&cbor::encode(&item(1, &vec![0; MAX_ITEM_LEN]))).is_ok());
        let many = EndorsementBundle(vec![
            Endorsement { kind: EndorsementKind::AmdCrl, bytes: vec![] };
            MAX_ITEMS + 1
        ]);
        assert!(EndorsementBundle::decode(&many.encode()).is_err());
        assert!(EndorsementBundle::decode(&cbor::encode(&cbor::map([(0, cbor::text("x"))]))).is_err());
    }
}
