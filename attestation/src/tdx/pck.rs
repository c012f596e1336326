//! The PCK certificate: the key of one platform at one TCB, with what Intel says in it about the platform (Intel SGX PCK
//! Certificate and Certificate Revocation List Profile Specification, section 1.3).

use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use der::{Decode, Reader as _, Tag, Tagged as _};

use crate::Error;
use crate::x509::{Certificate, content};

/// SGX extensions. Everything below is one of its arcs.
const SGX: &str = "1.2.840.113741.1.13.1";
const TOP: ObjectIdentifier = ObjectIdentifier::new_unwrap(SGX);
const TCB: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.2");
const CONFIGURATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.7");

/// Elements that Intel defines: 7 at the top, 18 in the TCB, 3 in the configuration; more would be another format.
const MAX_ELEMENTS: usize = 32;

const WHAT: &str = "PCK certificate";

/// A PCK certificate with its SGX extensions.
#[derive(Clone, Debug)]
pub struct Pck {
    /// The certificate.
    pub certificate: Certificate,
    /// Identifier of the platform, stable over TCB updates.
    pub ppid: [u8; 16],
    /// SVNs of the SGX TCB components 1 to 16.
    pub components: [u8; 16],
    /// SVN of the provisioning certification enclave.
    pub pce_svn: u16,
    /// CPUSVN, raw.
    pub cpu_svn: [u8; 16],
    /// Identifier of the provisioning certification enclave.
    pub pce_id: [u8; 2],
    /// Family, model, stepping, platform, custom SKU.
    pub fmspc: [u8; 6],
    /// Kind of memory protection. Nothing is decided by it: for a TD the TDX module answers for its memory.
    pub sgx_type: Option<SgxType>,
    /// Identifier of the platform's registration, which changes with its packages. Not in certificates of the processor CA.
    pub platform_instance_id: Option<[u8; 16]>,
    /// How the platform is set up. Not in certificates of the processor CA.
    pub configuration: Option<Configuration>,
}

/// SGX type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SgxType {
    /// Memory with integrity tree, client processors.
    Standard,
    /// Memory encryption of server processors.
    Scalable,
    /// The same with integrity protection.
    ScalableWithIntegrity,
}

/// How the platform is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Packages can be added without a new registration.
    pub dynamic_platform: Option<bool>,
    /// Intel keeps the platform's root keys.
    pub cached_keys: Option<bool>,
    /// Simultaneous multithreading is on.
    pub smt_enabled: Option<bool>,
}

impl Pck {
    /// Reads the SGX extensions of `certificate`.
    ///
    /// # Errors
    /// `Malformed` for a missing or repeated element, or one of another type or range.
    pub(super) fn from_certificate(certificate: Certificate) -> Result<Self, Error> {
        let no_extension = || Error::malformed(WHAT, "without the SGX extensions");
        let content = certificate.extension(SGX).ok_or_else(no_extension)?;
        let top =
            AnyRef::from_der(content).ok().and_then(|v| Elements::read(v, TOP)).ok_or_else(no_extension)?;
        let need =
            |what: &str| Error::malformed(WHAT, format!("no well-formed {what} in the SGX extensions"));
        let tcb = top.one(2).and_then(|v| Elements::read(v, TCB)).ok_or_else(|| need("TCB"))?;
        let components = tcb.components().ok_or_else(|| need("TCB component"))?;
        let pck = Self {
            ppid: top.octets(1).ok_or_else(|| need("PPID"))?,
            components,
            pce_svn: tcb.one(17).and_then(|v| v.decode_as().ok()).ok_or_else(|| need("PCESVN"))?,
            cpu_svn: tcb.octets(18).ok_or_else(|| need("CPUSVN"))?,
            pce_id: top.octets(3).ok_or_else(|| need("PCE-ID"))?,
            fmspc: top.octets(4).ok_or_else(|| need("FMSPC"))?,
            sgx_type: top.optional(5, |e, n| sgx_type(e.one(n)?)).ok_or_else(|| need("SGX type"))?,
            platform_instance_id: top
                .optional(6, |e, n| e.octets(n))
                .ok_or_else(|| need("platform instance ID"))?,
            configuration: top.optional(7, configuration).ok_or_else(|| need("configuration"))?,
            certificate: certificate.clone(),
        };
        Ok(pck)
    }
}

/// ENUMERATED.
fn sgx_type(value: AnyRef<'_>) -> Option<SgxType> {
    let is_enumerated = der::Tagged::tag(&value) == der::Tag::Enumerated;
    match (is_enumerated, value.value()) {
        (true, [0]) => Some(SgxType::Standard),
        (true, [1]) => Some(SgxType::Scalable),
        (true, [2]) => Some(SgxType::ScalableWithIntegrity),
        _ => None,
    }
}

fn configuration(top: &Elements<'_>, number: u8) -> Option<Configuration> {
    let elements = Elements::read(top.one(number)?, CONFIGURATION)?;
    let flag = |n| elements.optional(n, |e, n| e.one(n)?.decode_as().ok());
    Some(Configuration { dynamic_platform: flag(1)?, cached_keys: flag(2)?, smt_enabled: flag(3)? })
}

/// `SEQUENCE OF SEQUENCE { OBJECT IDENTIFIER, value }`, by the last arc of the identifier. Elements that are not asked for are
/// ignored: Intel signs them, and may define more.
struct Elements<'a>(Vec<(u8, AnyRef<'a>)>);

/// The number of an element that is not one arc below the parent. None of Intel's.
const OTHER: u8 = 0;

impl<'a> Elements<'a> {
    /// Those whose identifier is one arc below `parent`.
    fn read(value: AnyRef<'a>, parent: ObjectIdentifier) -> Option<Self> {
        let mut out = Vec::new();
        let mut all = content(value).ok()?;
        while !all.is_finished() && out.len() <= MAX_ELEMENTS {
            out.push(Self::element(AnyRef::decode(&mut all).ok()?, parent).ok()?);
        }
        (out.len() <= MAX_ELEMENTS).then_some(Self(out))
    }

    fn element(pair: AnyRef<'a>, parent: ObjectIdentifier) -> der::Result<(u8, AnyRef<'a>)> {
        let mut pair = content(pair)?;
        let (oid, value) = (AnyRef::decode(&mut pair)?, AnyRef::decode(&mut pair)?);
        oid.tag().assert_eq(Tag::ObjectIdentifier)?;
        let number = match oid.value().strip_prefix(parent.as_bytes()) {
            // An arc above 127 has more bytes; the last one has no continuation bit.
            Some([number]) if *number < 0x80 => *number,
            Some([_]) => return Err(Tag::ObjectIdentifier.value_error()),
            Some(_) | None => OTHER,
        };
        pair.finish((number, value))
    }

    /// The value of element `number`, if it is there once.
    fn one(&self, number: u8) -> Option<AnyRef<'a>> {
        let mut found = self.0.iter().filter(|(n, _)| *n == number);
        let (_, value) = found.next()?;
        found.next().is_none().then_some(*value)
    }

    /// `None` if element `number` is there but not well formed.
    #[expect(clippy::option_option, reason = "wrong, absent and present are three things")]
    fn optional<T>(&self, number: u8, read: impl FnOnce(&Self, u8) -> Option<T>) -> Option<Option<T>> {
        if self.0.iter().all(|(n, _)| *n != number) {
            return Some(None);
        }
        read(self, number).map(Some)
    }

    /// An OCTET STRING of `N` bytes.
    fn octets<const N: usize>(&self, number: u8) -> Option<[u8; N]> {
        self.one(number)?.decode_as::<OctetStringRef<'_>>().ok()?.as_bytes().try_into().ok()
    }

    /// INTEGERs 1 to 16, each 0 to 255.
    fn components(&self) -> Option<[u8; 16]> {
        let all = (1..=16).map(|n| self.one(n)?.decode_as().ok()).collect::<Option<Vec<u8>>>()?;
        all.try_into().ok()
    }
}
