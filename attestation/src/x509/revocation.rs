//! Certificate revocation lists (RFC 5280 section 5).

use der::Decode;
use x509_cert::crl::CertificateList;

use super::{Certificate, Signed};
use crate::crypto::SignatureCache;
use crate::{Error, UnixTime};

/// Intel's list of a large processor family stays far below this.
const MAX_LEN: usize = 128 * 1024;

const WHAT: &str = "certificate revocation list";

/// A parsed list. Nothing in it is authentic before [`RevocationList::is_issued_by`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationList {
    signed: Signed,
    parsed: CertificateList,
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
        let parsed = CertificateList::from_der(der).map_err(not_der)?;
        let signed = Signed::split(der).map_err(not_der)?;
        if signed.algorithm != parsed.tbs_cert_list.signature.oid {
            return Err(Error::malformed(WHAT, "names two signature algorithms"));
        }
        if parsed.tbs_cert_list.next_update.is_none() {
            return Err(Error::malformed(WHAT, "does not say when the next one comes"));
        }
        Ok(Self { signed, parsed })
    }

    /// Whether `issuer` is named as the issuer.
    #[must_use]
    pub fn names_issuer(&self, issuer: &Certificate) -> bool {
        issuer.is_named(&self.parsed.tbs_cert_list.issuer)
    }

    /// Whether `issuer` is named as the issuer and signed the list.
    #[must_use]
    pub fn is_issued_by(&self, issuer: &Certificate, known: &SignatureCache) -> bool {
        self.names_issuer(issuer) && self.signed.is_signed_by(issuer, known)
    }

    /// thisUpdate and nextUpdate.
    #[must_use]
    pub fn validity(&self) -> (UnixTime, UnixTime) {
        let list = &self.parsed.tbs_cert_list;
        let seconds = |time: x509_cert::time::Time| UnixTime(time.to_unix_duration().as_secs());
        (seconds(list.this_update), list.next_update.map_or(UnixTime(0), seconds))
    }

    /// What is wrong with the list itself at `now`; empty if nothing is.
    #[must_use]
    pub fn faults(&self, issuer: &Certificate, now: UnixTime, known: &SignatureCache) -> Vec<String> {
        let (name, (start, end)) = (issuer.subject_cn(), self.validity());
        let mut faults = Vec::new();
        if !self.is_issued_by(issuer, known) {
            faults.push(format!("the revocation list is not signed by {name}"));
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
        let mut entries = self.parsed.tbs_cert_list.revoked_certificates.iter().flatten();
        let entry = entries.find(|entry| entry.serial_number.as_bytes() == certificate.serial());
        entry.map(|entry| UnixTime(entry.revocation_date.to_unix_duration().as_secs()))
    }
}
