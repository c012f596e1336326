//! Certificate revocation lists (RFC 5280 section 5).

use der::asn1::{AnyRef, IntRef, OctetStringRef};
use der::{Decode, Reader, SliceReader, Tag, Tagged};
use x509_cert::ext::pkix::KeyUsages;
use x509_cert::name::Name;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::Time;

use super::certificate::common_name;
use super::{Certificate, Signed, content, sequence};
use crate::crypto::SignatureCache;
use crate::{Error, UnixTime};

/// Intel's list of a large processor family stays far below this.
const MAX_LEN: usize = 128 * 1024;

const WHAT: &str = "certificate revocation list";

/// A parsed list. Nothing in it is authentic before [`RevocationList::is_issued_by`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationList {
    signed: Signed,
    list: TbsCertList,
}

/// The signed part. Read by hand: the library's type takes three times as long for Intel's lists, on every appraisal.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TbsCertList {
    algorithm: AlgorithmIdentifierOwned,
    issuer: Name,
    this_update: UnixTime,
    next_update: Option<UnixTime>,
    /// The entries, one after the other, all of which could be read.
    revoked: Vec<u8>,
    /// RFC 5280 sections 5.2 and 5.3 forbid to use a list with one that is not known; a delta list has one, for example.
    critical_extension: bool,
}

impl RevocationList {
    /// Parses DER or PEM.
    ///
    /// # Errors
    /// `Malformed` for what is not exactly one list of at most 128 KiB.
    pub fn from_pem_or_der(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_LEN {
            return Err(Error::malformed(
                WHAT,
                format!("{} bytes, at most {MAX_LEN} are allowed", bytes.len()),
            ));
        }
        if !bytes.starts_with(b"-----BEGIN") {
            return Self::from_der(bytes);
        }
        let (_, der) = der::pem::decode_vec(bytes)
            .map_err(|_quotes_input| Error::malformed(WHAT, "not a PEM document"))?;
        Self::from_der(&der)
    }

    fn from_der(der: &[u8]) -> Result<Self, Error> {
        let not_der = |_| Error::malformed(WHAT, "not a DER X.509 revocation list");
        let signed = Signed::split(der).map_err(not_der)?;
        let list = TbsCertList::from_der(&signed.content).map_err(not_der)?;
        if signed.algorithm != list.algorithm {
            return Err(Error::malformed(WHAT, "names two signature algorithms"));
        }
        if list.next_update.is_none() {
            return Err(Error::malformed(WHAT, "does not say when the next one comes"));
        }
        if list.critical_extension {
            return Err(Error::malformed(WHAT, "has a critical extension, which is not known"));
        }
        Ok(Self { signed, list })
    }

    /// Whether `issuer` is named as the issuer.
    #[must_use]
    pub fn names_issuer(&self, issuer: &Certificate) -> bool {
        issuer.is_named(&self.list.issuer)
    }

    /// Whether `issuer` is named as the issuer and signed the list.
    #[must_use]
    pub fn is_issued_by(&self, issuer: &Certificate, known: &SignatureCache) -> bool {
        self.names_issuer(issuer) && self.signed.is_signed_by(issuer, known)
    }

    /// The common name of the issuer; empty without one.
    #[must_use]
    pub fn issuer_cn(&self) -> String {
        common_name(&self.list.issuer)
    }

    /// thisUpdate and nextUpdate.
    #[must_use]
    pub fn validity(&self) -> (UnixTime, UnixTime) {
        (self.list.this_update, self.list.next_update.unwrap_or(UnixTime(0)))
    }

    /// What is wrong with the list itself at `now`; empty if nothing is.
    #[must_use]
    pub fn faults(&self, issuer: &Certificate, now: UnixTime, known: &SignatureCache) -> Vec<String> {
        let (name, (start, end)) = (issuer.subject_cn(), self.validity());
        let mut faults = Vec::new();
        if !self.is_issued_by(issuer, known) {
            faults.push(format!("the revocation list is not signed by {name}"));
        }
        if !issuer.may(KeyUsages::CRLSign) {
            faults.push(format!("{name} may not sign revocation lists"));
        }
        if now < start {
            faults.push(format!("the revocation list of {name} is not valid before {start}"));
        }
        if now > end {
            faults.push(format!("the revocation list of {name} expired at {end}"));
        }
        faults
    }

    /// When `certificate` was revoked, if it is on the list. Whether the list is of its issuer is the caller's to check.
    #[must_use]
    pub fn revoked_since(&self, certificate: &Certificate) -> Option<UnixTime> {
        let mut entries = Entries::new(&self.list.revoked).ok()?.filter_map(Result::ok);
        let mut entry = entries.find(|entry| entry.serial == certificate.serial())?;
        time(&mut entry.rest).ok()
    }
}

/// First bytes of the optional fields.
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const EXTENSIONS: u8 = 0xa0;

impl TbsCertList {
    fn from_der(der: &[u8]) -> der::Result<Self> {
        sequence(der, |r| {
            // Version 2 has the number 1; version 1, which has no field for it, has no extensions either.
            let is_v2 = r.peek_byte() == Some(INTEGER);
            if is_v2 && u8::decode(r)? != 1 {
                return Err(der::Tag::Integer.value_error());
            }
            let mut list = Self {
                algorithm: AlgorithmIdentifierOwned::decode(r)?,
                issuer: Name::decode(r)?,
                this_update: time(r)?,
                next_update: match r.peek_byte() {
                    Some(UTC_TIME | GENERALIZED_TIME) => Some(time(r)?),
                    Some(_) | None => None,
                },
                revoked: Vec::new(),
                critical_extension: false,
            };
            if r.peek_byte() == Some(SEQUENCE) {
                list.read_entries(AnyRef::decode(r)?.value())?;
            }
            if is_v2 && r.peek_byte() == Some(EXTENSIONS) {
                let wrapped = AnyRef::decode(r)?;
                list.critical_extension |= has_critical(AnyRef::from_der(wrapped.value())?)?;
            }
            Ok(list)
        })
    }

    fn read_entries(&mut self, content: &[u8]) -> der::Result<()> {
        for entry in Entries::new(content)? {
            let Entry { mut rest, .. } = entry?;
            let _checked = time(&mut rest)?;
            if !rest.is_finished() {
                self.critical_extension |= has_critical(AnyRef::decode(&mut rest)?)?;
            }
            rest.finish(())?;
        }
        self.revoked = content.to_vec();
        Ok(())
    }
}

/// A revoked certificate.
struct Entry<'a> {
    serial: &'a [u8],
    /// Date, extensions.
    rest: SliceReader<'a>,
}

/// Reads `SEQUENCE { serial number, date, extensions OPTIONAL }` one after the other; Intel's lists have hundreds.
struct Entries<'a>(SliceReader<'a>);

impl<'a> Entries<'a> {
    fn new(content: &'a [u8]) -> der::Result<Self> {
        SliceReader::new(content).map(Self)
    }

    fn read(&mut self) -> der::Result<Entry<'a>> {
        let mut rest = content(AnyRef::decode(&mut self.0)?)?;
        Ok(Entry { serial: IntRef::decode(&mut rest)?.as_bytes(), rest })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = der::Result<Entry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_finished()).then(|| self.read())
    }
}

fn time<'r>(r: &mut impl Reader<'r>) -> der::Result<UnixTime> {
    Time::decode(r).map(|time| UnixTime(time.to_unix_duration().as_secs()))
}

/// Whether one of these `Extensions` is critical.
fn has_critical(extensions: AnyRef<'_>) -> der::Result<bool> {
    let mut critical = false;
    let mut all = content(extensions)?;
    while !all.is_finished() {
        let mut one = content(AnyRef::decode(&mut all)?)?;
        AnyRef::decode(&mut one)?.tag().assert_eq(Tag::ObjectIdentifier)?;
        critical |= Option::<bool>::decode(&mut one)?.unwrap_or(false);
        OctetStringRef::decode(&mut one)?;
        one.finish(())?;
    }
    all.finish(critical)
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlIssuingDistributionPoint,
        CrlScope, DistinguishedName, DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
        RevocationReason, RevokedCertParams, SerialNumber, date_time_ymd,
    };

    use super::*;

    struct Ca {
        params: CertificateParams,
        key: KeyPair,
    }

    impl Ca {
        fn new(name: &str) -> Self {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            params.serial_number = Some(SerialNumber::from_slice(&[0, 0x8a, 1]));
            Self { params, key: KeyPair::generate().unwrap() }
        }

        fn certificate(&self) -> Certificate {
            Certificate::from_der(self.params.self_signed(&self.key).unwrap().der()).unwrap()
        }

        fn list(&self, change: impl FnOnce(&mut CertificateRevocationListParams)) -> Vec<u8> {
            let entry = |serial: &[u8], reason_code| RevokedCertParams {
                serial_number: SerialNumber::from_slice(serial),
                revocation_time: date_time_ymd(2026, 2, 3),
                reason_code,
                invalidity_date: None,
            };
            let mut list = CertificateRevocationListParams {
                this_update: date_time_ymd(2026, 1, 1),
                next_update: date_time_ymd(2027, 1, 1),
                crl_number: SerialNumber::from_slice(&[1]),
                issuing_distribution_point: None,
                revoked_certs: vec![
                    entry(&[9], None),
                    entry(&[0x8a, 1], Some(RevocationReason::KeyCompromise)),
                ],
                key_identifier_method: KeyIdMethod::Sha256,
            };
            change(&mut list);
            let key = KeyPair::try_from(self.key.serialized_der()).unwrap();
            list.signed_by(&Issuer::new(self.params.clone(), key)).unwrap().der().to_vec()
        }
    }

    fn refused(der: &[u8]) -> String {
        RevocationList::from_pem_or_der(der).unwrap_err().to_string()
    }

    /// Changes the first place where `from` is.
    fn patched(der: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
        let at = der.windows(from.len()).position(|w| w == from).unwrap();
        [&der[..at], to, &der[at.saturating_add(from.len())..]].concat()
    }

    /// Takes the field out and puts the lengths right.
    fn without_next_update(der: &[u8]) -> Vec<u8> {
        let body = |der: &[u8]| AnyRef::from_der(der).unwrap().value().to_vec();
        let sequence = |content: &[u8]| {
            let header =
                der::Header::new(der::Tag::Sequence, der::Length::try_from(content.len()).unwrap()).unwrap();
            [der::Encode::to_der(&header).unwrap(), content.to_vec()].concat()
        };
        let (old, outer) = (Signed::split(der).unwrap().content, body(der));
        let next_update = [b"\x17\x0d", &b"270101000000Z"[..]].concat();
        let new = sequence(&patched(&body(&old), &next_update, b""));
        sequence(&patched(&outer, &old, &new))
    }

    #[test]
    fn reads_entries_and_dates() {
        let (ca, other, known) = (Ca::new("a"), Ca::new("b"), SignatureCache::new());
        let list = RevocationList::from_pem_or_der(&ca.list(|_| {})).unwrap();
        assert_eq!(list.revoked_since(&ca.certificate()), Some(UnixTime(1_770_076_800)));
        assert_eq!(Entries::new(&list.list.revoked).unwrap().count(), 2);
        let (start, end) = list.validity();
        assert_eq!(
            (start.to_string(), end.to_string()),
            ("2026-01-01T00:00:00Z".into(), "2027-01-01T00:00:00Z".into())
        );
        assert!(list.faults(&ca.certificate(), start, &known).is_empty());
        assert!(list.faults(&ca.certificate(), end, &known).is_empty());
        assert!(!list.names_issuer(&other.certificate()));
        let early = UnixTime(start.0.saturating_sub(1));
        assert!(
            list.faults(&ca.certificate(), early, &known)[0]
                .contains("not valid before 2026-01-01T00:00:00Z")
        );
        let late = UnixTime(end.0.saturating_add(1));
        assert!(list.faults(&ca.certificate(), late, &known)[0].contains("expired at 2027-01-01T00:00:00Z"));
        assert!(list.faults(&other.certificate(), start, &known)[0].contains("not signed by b"));
        let (mut may_not, list_of) =
            (Ca::new("a"), |ca: &Ca| RevocationList::from_pem_or_der(&ca.list(|_| {})));
        may_not.params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = may_not.certificate();
        may_not.params.key_usages.push(KeyUsagePurpose::CrlSign);
        let faults = list_of(&may_not).unwrap().faults(&certificate, start, &known);
        assert_eq!(faults, ["a may not sign revocation lists"]);
        let empty = RevocationList::from_pem_or_der(&ca.list(|l| l.revoked_certs.clear())).unwrap();
        assert_eq!(empty.revoked_since(&ca.certificate()), None);
        let pem = der::pem::encode_string("X509 CRL", der::pem::LineEnding::LF, &ca.list(|_| {})).unwrap();
        assert_eq!(RevocationList::from_pem_or_der(pem.as_bytes()).unwrap().list, list.list);
    }

    #[test]
    fn refuses_other_shapes() {
        let ca = Ca::new("a");
        let good = ca.list(|_| {});
        for len in 0..good.len() {
            assert!(refused(&good[..len]).contains("malformed certificate revocation list"), "{len}");
        }
        assert!(refused(&[&good[..], &[0]].concat()).contains("not a DER"));
        assert!(refused(&vec![0x30; MAX_LEN.saturating_add(1)]).contains("at most"));
        assert!(refused(b"-----BEGIN nonsense").contains("not a PEM"));
        // Version 3; the inner algorithm; a date of another type; an entry without date.
        assert!(refused(&patched(&good, &[2, 1, 1, 0x30], &[2, 1, 2, 0x30])).contains("not a DER"));
        let sha256 = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
        let sha384 = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
        assert!(refused(&patched(&good, &sha256, &sha384)).contains("two signature algorithms"));
        assert!(refused(&patched(&good, b"\x17\x0d260101", b"\x04\x0d260101")).contains("not a DER"));
        assert!(refused(&patched(&good, b"\x17\x0d260203", b"\x04\x0d260203")).contains("not a DER"));
        assert!(refused(&without_next_update(&good)).contains("does not say when the next one comes"));
        let point = |scope| {
            let uris = vec!["http://example".to_owned()];
            let point = CrlIssuingDistributionPoint {
                distribution_point: rcgen::CrlDistributionPoint { uris },
                scope,
            };
            ca.list(|l| l.issuing_distribution_point = Some(point))
        };
        assert!(refused(&point(Some(CrlScope::CaCertsOnly))).contains("critical extension"));
    }
}
