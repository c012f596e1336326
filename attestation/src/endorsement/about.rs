//! What an endorsement is about and how long it is good for, for those who keep them: read, not verified.

use super::{Endorsement, EndorsementBundle, EndorsementKind};
use crate::snp::{Product, TcbParts};
use crate::x509::{Certificate, RevocationList};
use crate::{Error, UnixTime, nvidia, tdx};

/// A chain of Intel's has two certificates, one of AMD's three.
const MAX_CHAIN: usize = 8;

/// What an endorsement says of itself. Nobody looked at signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Of what: equal for two editions of the same endorsement, different for everything else of the kind.
    pub subject: String,
    /// When it was issued, or its validity begins.
    pub not_before: UnixTime,
    /// The last second at which it is good; a newer edition is there before.
    pub not_after: UnixTime,
}

impl About {
    fn new(subject: String, (not_before, not_after): (UnixTime, UnixTime)) -> Self {
        Self { subject, not_before, not_after }
    }
}

impl Endorsement {
    /// What this is about.
    ///
    /// # Errors
    /// `Malformed` for bytes that are not of the kind.
    pub fn about(&self) -> Result<About, Error> {
        let list = || RevocationList::from_pem_or_der(&self.bytes);
        let first = || {
            let chain = Certificate::list_from_pem_or_der(&self.bytes, MAX_CHAIN)?;
            chain.into_iter().next().ok_or_else(|| Error::malformed("certificate chain", "empty"))
        };
        Ok(match self.kind {
            EndorsementKind::AmdCertificate => of_amd(&Certificate::from_pem_or_der(&self.bytes)?),
            EndorsementKind::AmdCrl | EndorsementKind::IntelPckCrl | EndorsementKind::IntelRootCaCrl => {
                let list = list()?;
                About::new(list.issuer_cn(), list.validity())
            }
            EndorsementKind::IntelTcbSigningChain | EndorsementKind::IntelPckCrlIssuerChain => {
                let first = first()?;
                About::new(first.subject_cn(), first.validity())
            }
            EndorsementKind::IntelTcbInfo => {
                let (fmspc, validity) = tdx::about_tcb_info(&self.bytes)?;
                About::new(fmspc, validity)
            }
            EndorsementKind::IntelQeIdentity => {
                About::new("TD_QE".to_owned(), tdx::about_qe_identity(&self.bytes)?)
            }
            EndorsementKind::NvidiaRim => {
                let (subject, validity) = nvidia::about_rim(&self.bytes)?;
                About::new(subject, validity)
            }
            EndorsementKind::NvidiaOcsp => {
                let (subject, validity) = nvidia::about_ocsp(&self.bytes)?;
                About::new(subject, validity)
            }
        })
    }

    /// What a file or a vendor's answer holds: an endorsement, a bundle of them, or what vendors serve (certificates and lists as DER or
    /// PEM, Intel's JSON documents, manifests, OCSP responses).
    ///
    /// # Errors
    /// `Malformed` for everything else, certificates and lists of other issuers included.
    pub fn recognise(bytes: &[u8]) -> Result<Vec<Self>, Error> {
        if let Ok(bundle) = EndorsementBundle::decode(bytes) {
            return Ok(bundle.0);
        }
        if let Ok(one) = Self::decode(bytes) {
            return Ok(vec![one]);
        }
        if let Ok(chain) = Certificate::list_from_pem_or_der(bytes, MAX_CHAIN) {
            return of_chain(&chain, bytes);
        }
        if let Ok(list) = RevocationList::from_pem_or_der(bytes) {
            let kind = match list.issuer_cn() {
                name if name == "Intel SGX Root CA" => EndorsementKind::IntelRootCaCrl,
                name if name.starts_with("Intel SGX PCK ") => EndorsementKind::IntelPckCrl,
                name if name.starts_with("ARK-") => EndorsementKind::AmdCrl,
                _ => return Err(unknown("a revocation list of another issuer than AMD and Intel")),
            };
            return Ok(vec![Self { kind, bytes: bytes.to_vec() }]);
        }
        let others = [
            EndorsementKind::IntelTcbInfo,
            EndorsementKind::IntelQeIdentity,
            EndorsementKind::NvidiaRim,
            EndorsementKind::NvidiaOcsp,
        ];
        let mut tried = others.into_iter().map(|kind| Self { kind, bytes: bytes.to_vec() });
        let found = tried.find(|item| item.about().is_ok());
        found.map(|item| vec![item]).ok_or_else(|| unknown("not an endorsement of a kind that is known"))
    }
}

/// The subject of a VCEK for this chip at this TCB, as [`Endorsement::about`] gives it.
#[must_use]
pub fn vcek_subject(product: Product, chip_id: &[u8], tcb: TcbParts) -> String {
    let parts: Vec<String> = tcb.named().map(|(name, value)| format!("{name} {value}")).collect();
    format!("VCEK {product} {} {}", crate::types::to_hex(chip_id), parts.join(" "))
}

fn of_amd(certificate: &Certificate) -> About {
    let named = crate::snp::vcek_parts(certificate)
        .map(|(product, chip_id, tcb)| vcek_subject(product, &chip_id, tcb));
    let name = || match certificate.subject_cn() {
        // All VLEKs have one name; the provider tells them apart by number.
        name if certificate.is_authority() => name,
        name => format!("{name} {}", crate::types::to_hex(certificate.serial())),
    };
    About::new(named.unwrap_or_else(name), certificate.validity())
}

/// AMD's certificates one by one, without the root, which is pinned; Intel's chains as they are.
fn of_chain(chain: &[Certificate], bytes: &[u8]) -> Result<Vec<Endorsement>, Error> {
    let first = chain.first().map(Certificate::subject_cn).unwrap_or_default();
    let whole = |kind| Ok(vec![Endorsement { kind, bytes: bytes.to_vec() }]);
    if first == "Intel SGX TCB Signing" {
        return whole(EndorsementKind::IntelTcbSigningChain);
    }
    if first.starts_with("Intel SGX PCK ") && chain.first().is_some_and(Certificate::is_authority) {
        return whole(EndorsementKind::IntelPckCrlIssuerChain);
    }
    let is_amd = |name: String| name.starts_with("ARK-") || name.starts_with("SEV-");
    if !chain.iter().all(|c| is_amd(c.issuer_cn())) {
        return Err(unknown("a certificate of another issuer than AMD and Intel"));
    }
    let certificate =
        |c: &Certificate| Endorsement { kind: EndorsementKind::AmdCertificate, bytes: c.der().to_vec() };
    Ok(chain.iter().filter(|c| !c.is_self_issued()).map(certificate).collect())
}

fn unknown(why: &str) -> Error {
    Error::malformed("endorsement", why)
}
