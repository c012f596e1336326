//! From an end-entity certificate to a pinned anchor.

use x509_cert::ext::pkix::KeyUsages;

use super::Certificate;
use crate::UnixTime;
use crate::crypto::SignatureCache;

/// A path in order: the end entity first, then its issuer, and so on; the anchor is apart because it is ours, not the peer's.
#[derive(Clone, Debug)]
pub struct CertificatePath<'a> {
    /// End entity, its issuer, ..; the last one is issued by the anchor.
    pub certificates: Vec<&'a Certificate>,
    /// Pinned: its bytes are trusted, so its own signature is not looked at.
    pub anchor: &'a Certificate,
}

impl<'a> CertificatePath<'a> {
    /// Puts `given` in order, from `leaf` to the anchor, by names. Certificates that are not on the way are ignored; where two
    /// have the issuer's name, the one whose key fits is taken.
    #[must_use]
    pub fn build(
        leaf: &'a Certificate,
        given: &'a [Certificate],
        anchor: &'a Certificate,
        known: &SignatureCache,
    ) -> Self {
        let mut certificates = vec![leaf];
        let mut current = leaf;
        while !current.names_issuer(anchor) && certificates.len() <= given.len() {
            let candidates = || given.iter().filter(|c| !c.is_self_issued() && current.names_issuer(c));
            let Some(first) = candidates().next() else { break };
            let several = candidates().nth(1).is_some();
            current = if several {
                candidates().find(|c| current.is_issued_by(c, known)).unwrap_or(first)
            } else {
                first
            };
            certificates.push(current);
        }
        Self { certificates, anchor }
    }

    /// What is wrong with the path at `now` (RFC 5280 section 6.1 without policies and names); empty if nothing is. Each fault
    /// names the certificate. Revocation is apart: see [`super::RevocationList`].
    #[must_use]
    pub fn faults(&self, now: UnixTime, known: &SignatureCache) -> Vec<String> {
        let issuers = self.certificates.iter().skip(1).copied().chain([self.anchor]);
        let mut faults = Vec::new();
        for (depth, (certificate, issuer)) in self.certificates.iter().zip(issuers).enumerate() {
            let name = certificate.subject_cn();
            if !certificate.names_issuer(issuer) {
                faults.push(format!("the issuer of {name} ({}) is missing", certificate.issuer_cn()));
            } else if !certificate.is_issued_by(issuer, known) {
                faults.push(format!("{name} is not signed by {}", issuer.subject_cn()));
            }
            if let Some(oid) = certificate.unknown_critical_extension() {
                faults.push(format!("{name} has the critical extension {oid}, which is not known"));
            }
            faults.extend(out_of_date(certificate, now));
            faults.extend(may_not_issue(issuer, depth));
        }
        if self.certificates.first().is_some_and(|leaf| leaf.is_authority()) {
            faults.push("the end entity is a certificate authority".to_owned());
        }
        faults.extend(out_of_date(self.anchor, now));
        faults
    }
}

fn out_of_date(certificate: &Certificate, now: UnixTime) -> Option<String> {
    let ((start, end), name) = (certificate.validity(), certificate.subject_cn());
    if now < start {
        return Some(format!("{name} is not valid before {start}"));
    }
    (now > end).then(|| format!("{name} expired at {end}"))
}

/// `below`: number of authorities between `issuer` and the end entity.
fn may_not_issue(issuer: &Certificate, below: usize) -> Option<String> {
    let name = issuer.subject_cn();
    if !issuer.is_authority() || !issuer.may(KeyUsages::KeyCertSign) {
        return Some(format!("{name} is not a certificate authority"));
    }
    let too_long = issuer.path_len().is_some_and(|max| below > usize::from(max));
    too_long.then(|| format!("{name} does not allow a path of this length"))
}
