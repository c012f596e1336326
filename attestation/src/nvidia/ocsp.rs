//! OCSP responses (RFC 6960): whether NVIDIA still vouches for a certificate.

use der::asn1::{AnyRef, BitStringRef, GeneralizedTime, ObjectIdentifier, OctetStringRef, UintRef};
use der::{Decode, Encode as _, Reader, SliceReader, Tag, TagNumber, Tagged};
use x509_cert::ext::pkix::ExtendedKeyUsage;
use x509_cert::spki::{AlgorithmIdentifierOwned, AlgorithmIdentifierRef};

use crate::crypto::{sha256, sha384};
use crate::x509::{Certificate, CertificatePath, Signed, sequence};
use crate::{Context, Error, UnixTime};

/// NVIDIA's are about 1 KiB.
const MAX_LEN: usize = 8 * 1024;
/// NVIDIA's have 1, about the one certificate that was asked for.
const MAX_SINGLE: usize = 16;
/// NVIDIA's bring 1, the responder's.
const MAX_CERTIFICATES: usize = 4;
/// A response is made when it is asked for: a clock that is behind by less than this is not held against it.
const CLOCK_SKEW_SECONDS: u64 = 300;

const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
/// `AlgorithmIdentifier { SHA-384, NULL }`, DER.
const SHA384_IDENTIFIER: &[u8] = &[0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2, 5, 0];
/// What an OCTET STRING of 48 bytes begins with.
const OCTETS_48: &[u8] = &[4, 48];
const OCSP_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9");
const EXTENDED_KEY_USAGE: &str = "2.5.29.37";

const WHAT: &str = "OCSP response";

/// A parsed response. Nothing in it is authentic before `nvidia.ocsp` passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OcspResponse {
    signed: Signed,
    singles: Vec<Single>,
    certificates: Vec<Certificate>,
}

/// About one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Single {
    hash: ObjectIdentifier,
    issuer_name_hash: Vec<u8>,
    issuer_key_hash: Vec<u8>,
    serial: Vec<u8>,
    status: Status,
    this_update: UnixTime,
    next_update: UnixTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Good,
    Revoked { since: UnixTime, reason: Option<u8> },
    Unknown,
}

impl OcspResponse {
    /// Parses DER.
    ///
    /// # Errors
    /// `Malformed` for what is not exactly one successful basic response of at most 8 KiB that says when the next one comes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_LEN {
            return Err(Error::malformed(
                WHAT,
                format!("{} bytes, at most {MAX_LEN} are allowed", bytes.len()),
            ));
        }
        let basic =
            basic(bytes).map_err(|_reason| Error::malformed(WHAT, "not a successful OCSP response"))?;
        let mut response =
            Self::from_basic(basic).map_err(|_reason| Error::malformed(WHAT, "not a basic OCSP response"))?;
        response.singles = singles(&response.signed.content)
            .map_err(|_reason| Error::malformed(WHAT, "not OCSP response data of a form that is known"))?;
        Ok(response)
    }

    /// `SEQUENCE { tbsResponseData, signatureAlgorithm, signature BIT STRING, certs [0] SEQUENCE OF Certificate OPTIONAL }`
    fn from_basic(der: &[u8]) -> der::Result<Self> {
        sequence(der, |r| {
            let content = r.tlv_bytes()?.to_vec();
            let algorithm = AlgorithmIdentifierOwned::decode(r)?;
            let bits = BitStringRef::decode(r)?;
            let signature = bits.as_bytes().ok_or_else(|| Tag::BitString.value_error())?.to_vec();
            let certificates = match explicit(r, TagNumber::N0)? {
                Some(list) => list.sequence(certificates)?,
                None => Vec::new(),
            };
            Ok(Self { signed: Signed { content, algorithm, signature }, singles: Vec::new(), certificates })
        })
    }

    /// Whether the certificate's issuer signed this, or somebody whom the issuer certified to (RFC 6960 section 4.2.2.2).
    fn signer_faults(&self, issuer: &Certificate, ctx: Context<'_>) -> Vec<String> {
        // The responder first: a key that did not sign costs as much as the one that did, and is not remembered.
        let signs = |c: &&Certificate| {
            *c != issuer && c.names_issuer(issuer) && self.signed.is_signed_by(c, ctx.signatures)
        };
        let Some(responder) = self.certificates.iter().find(signs) else {
            if self.signed.is_signed_by(issuer, ctx.signatures) {
                return Vec::new();
            }
            return vec![format!("neither {} nor a responder of its signed it", issuer.subject_cn())];
        };
        let path = CertificatePath { certificates: vec![responder], anchor: issuer };
        let mut faults = path.faults(ctx.now, ctx.signatures);
        let usage = responder.extension(EXTENDED_KEY_USAGE).and_then(|e| ExtendedKeyUsage::from_der(e).ok());
        if !usage.is_some_and(|usage| usage.0.contains(&OCSP_SIGNING)) {
            faults.push(format!("{} may not sign OCSP responses", responder.subject_cn()));
        }
        faults
    }
}

/// Whom a response is about (serial number and hash of the issuer's key), and thisUpdate with nextUpdate.
pub(crate) fn about_ocsp(bytes: &[u8]) -> Result<(String, (UnixTime, UnixTime)), Error> {
    let response = OcspResponse::parse(bytes)?;
    match response.singles.as_slice() {
        [one] => Ok((subject(&one.serial), (one.this_update, one.next_update))),
        _ => Err(Error::malformed(WHAT, "about more than one certificate")),
    }
}

fn subject(serial: &[u8]) -> String {
    format!("certificate {}", crate::types::to_hex(serial))
}

/// An OCSPRequest about one certificate (RFC 6960 section 4.1.1), without nonce, so that the response can be stapled; and the subject
/// that [`crate::Endorsement::about`] gives for the response.
///
/// # Errors
/// None in practice: what is encoded was decoded before.
pub fn ocsp_request(certificate: &Certificate, issuer: &Certificate) -> Result<(Vec<u8>, String), Error> {
    let encoded = || -> der::Result<Vec<u8>> {
        let sequence = |content: &[u8]| AnyRef::new(Tag::Sequence, content).and_then(|any| any.to_der());
        let serial = AnyRef::new(Tag::Integer, certificate.serial()).and_then(|any| any.to_der())?;
        let (name, key) = (sha384(&[&issuer.subject_der()]), sha384(&[issuer.public_key()]));
        let id = [SHA384_IDENTIFIER, OCTETS_48, &name, OCTETS_48, &key, &serial].concat();
        // CertID, Request, requestList, tbsRequest, OCSPRequest.
        (0..5).try_fold(id, |inner, _| sequence(&inner))
    };
    let request = encoded().map_err(|_reason| Error::malformed("certificate", "cannot be asked about"))?;
    Ok((request, subject(certificate.serial())))
}

/// What `given` say about `certificate`: `None` if nothing, else what is wrong with it (nothing, if the latest good response says
/// good).
pub(super) fn status<'a>(
    given: impl Iterator<Item = &'a OcspResponse>,
    certificate: &Certificate,
    issuer: &Certificate,
    ctx: Context<'_>,
) -> Option<Vec<String>> {
    let (mut said, mut latest) = (None::<Vec<String>>, None::<(UnixTime, Status)>);
    for response in given {
        let mut about = response.singles.iter().filter(|s| s.is_about(certificate, issuer)).peekable();
        let signer_faults = about.peek().map(|_| response.signer_faults(issuer, ctx)).unwrap_or_default();
        for single in about {
            let mut faults = single.out_of_date(ctx.now);
            faults.extend(signer_faults.clone());
            if faults.is_empty() && latest.is_none_or(|(time, _)| time <= single.this_update) {
                latest = Some((single.this_update, single.status));
            }
            said.get_or_insert_default().extend(faults);
        }
    }
    let name = certificate.subject_cn();
    match latest {
        Some((_, status)) => {
            Some(status.fault().map(|fault| format!("{name} {fault}")).into_iter().collect())
        }
        None => said.map(|faults| vec![format!("the OCSP response about {name}: {}", faults.join(", "))]),
    }
}

impl Single {
    fn is_about(&self, certificate: &Certificate, issuer: &Certificate) -> bool {
        let hash = |bytes: &[u8]| match self.hash {
            SHA384 => sha384(&[bytes]).to_vec(),
            SHA256 => sha256(&[bytes]).to_vec(),
            _ => Vec::new(),
        };
        self.serial == certificate.serial()
            && self.issuer_key_hash == hash(issuer.public_key())
            && self.issuer_name_hash == hash(&issuer.subject_der())
            && !self.issuer_key_hash.is_empty()
    }

    fn out_of_date(&self, now: UnixTime) -> Vec<String> {
        if UnixTime(now.0.saturating_add(CLOCK_SKEW_SECONDS)) < self.this_update {
            return vec![format!("not valid before {}", self.this_update)];
        }
        if now > self.next_update { vec![format!("expired at {}", self.next_update)] } else { Vec::new() }
    }
}

impl Status {
    fn fault(self) -> Option<String> {
        // RFC 5280 section 5.3.1.
        const REASONS: [&str; 11] = [
            "no reason",
            "key compromised",
            "authority compromised",
            "affiliation changed",
            "superseded",
            "out of operation",
            "on hold",
            "reason 7",
            "removed from the list",
            "privilege withdrawn",
            "attribute authority compromised",
        ];
        match self {
            Self::Good => None,
            Self::Unknown => Some("is not known to the OCSP responder".to_owned()),
            Self::Revoked { since, reason } => {
                let reason = reason.and_then(|r| REASONS.get(usize::from(r))).unwrap_or(&"no reason given");
                Some(format!("was revoked at {since} ({reason})"))
            }
        }
    }
}

/// The field `[number] EXPLICIT`, if it comes next.
fn explicit<'a>(r: &mut impl Reader<'a>, number: TagNumber) -> der::Result<Option<AnyRef<'a>>> {
    let tag = Tag::ContextSpecific { number, constructed: true };
    if r.is_finished() || r.peek_header()?.tag != tag {
        return Ok(None);
    }
    let field = AnyRef::decode(r)?;
    AnyRef::from_der(field.value()).map(Some)
}

/// `SEQUENCE { ENUMERATED successful, [0] SEQUENCE { responseType, OCTET STRING } }`: what the OCTET STRING contains.
fn basic(der: &[u8]) -> der::Result<&[u8]> {
    sequence(der, |r| {
        let status = AnyRef::decode(r)?;
        if status.tag() != Tag::Enumerated || status.value() != [0] {
            return Err(Tag::Enumerated.value_error());
        }
        let bytes = explicit(r, TagNumber::N0)?.ok_or_else(|| Tag::Sequence.value_error())?;
        bytes.sequence(|r| {
            if ObjectIdentifier::decode(r)? != BASIC {
                return Err(Tag::ObjectIdentifier.value_error());
            }
            OctetStringRef::decode(r).map(|content| content.as_bytes())
        })
    })
}

fn certificates<'a>(r: &mut impl Reader<'a>) -> der::Result<Vec<Certificate>> {
    let mut out = Vec::new();
    while !r.is_finished() {
        if out.len() == MAX_CERTIFICATES {
            return Err(Tag::Sequence.length_error());
        }
        let certificate = Certificate::from_der(r.tlv_bytes()?);
        out.push(certificate.map_err(|_malformed| Tag::Sequence.value_error())?);
    }
    Ok(out)
}

/// `SEQUENCE { responderID, producedAt, SEQUENCE OF SingleResponse, [1] extensions OPTIONAL }`. Version 1 has no field for it; who
/// the responder says that it is does not matter, as its key is known by trying.
fn singles(der: &[u8]) -> der::Result<Vec<Single>> {
    sequence(der, |r| {
        let responder = AnyRef::decode(r)?.tag();
        if !responder.is_context_specific() || responder.number() == TagNumber::N0 {
            return Err(responder.unexpected_error(None));
        }
        GeneralizedTime::decode(r)?;
        let mut singles = Vec::new();
        r.sequence(|r| {
            while !r.is_finished() {
                if singles.len() == MAX_SINGLE {
                    return Err(Tag::Sequence.length_error());
                }
                singles.push(r.sequence(single)?);
            }
            Ok(())
        })?;
        no_critical(explicit(r, TagNumber::N1)?)?;
        Ok(singles)
    })
}

/// `certID, certStatus, thisUpdate, [0] nextUpdate, [1] extensions OPTIONAL`
fn single<'a>(r: &mut impl Reader<'a>) -> der::Result<Single> {
    let (hash, issuer_name_hash, issuer_key_hash, serial) = r.sequence(|r| {
        let hash = AlgorithmIdentifierRef::decode(r)?.oid;
        let name = OctetStringRef::decode(r)?.as_bytes().to_vec();
        let key = OctetStringRef::decode(r)?.as_bytes().to_vec();
        // As certificates have it: with the zero byte that keeps it positive.
        let serial = AnyRef::decode(r)?;
        serial.decode_as::<UintRef<'_>>()?;
        Ok((hash, name, key, serial.value().to_vec()))
    })?;
    let status = cert_status(AnyRef::decode(r)?)?;
    let this_update = seconds(GeneralizedTime::decode(r)?);
    let next_update = explicit(r, TagNumber::N0)?.ok_or_else(|| Tag::GeneralizedTime.value_error())?;
    let next_update = seconds(next_update.decode_as()?);
    no_critical(explicit(r, TagNumber::N1)?)?;
    Ok(Single { hash, issuer_name_hash, issuer_key_hash, serial, status, this_update, next_update })
}

/// `good [0] NULL`, `revoked [1] { time, [0] reason OPTIONAL }`, `unknown [2] NULL`, implicitly tagged.
fn cert_status(field: AnyRef<'_>) -> der::Result<Status> {
    let Tag::ContextSpecific { number, constructed } = field.tag() else {
        return Err(field.tag().unexpected_error(None));
    };
    match (number, constructed, field.value()) {
        (TagNumber::N0, false, []) => Ok(Status::Good),
        (TagNumber::N2, false, []) => Ok(Status::Unknown),
        (TagNumber::N1, true, value) => {
            let mut r = SliceReader::new(value)?;
            let since = seconds(GeneralizedTime::decode(&mut r)?);
            let reason = match explicit(&mut r, TagNumber::N0)? {
                None => None,
                Some(reason) => match (reason.tag(), reason.value()) {
                    (Tag::Enumerated, [code]) => Some(*code),
                    _ => return Err(Tag::Enumerated.value_error()),
                },
            };
            r.finish(Status::Revoked { since, reason })
        }
        _ => Err(field.tag().value_error()),
    }
}

fn seconds(time: GeneralizedTime) -> UnixTime {
    UnixTime(time.to_unix_duration().as_secs())
}

/// Extensions that may be ignored; none that may not.
fn no_critical(extensions: Option<AnyRef<'_>>) -> der::Result<()> {
    let Some(extensions) = extensions else { return Ok(()) };
    extensions.sequence(|r| {
        while !r.is_finished() {
            r.sequence(|r| {
                ObjectIdentifier::decode(r)?;
                if Option::<bool>::decode(r)?.unwrap_or(false) {
                    return Err(Tag::Boolean.value_error());
                }
                OctetStringRef::decode(r).map(|_| ())
            })?;
        }
        Ok(())
    })
}
