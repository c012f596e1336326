//! VCEK, ASK and ARK: from the key that signed a report to a pinned root.

use super::report::{Report, TcbVersion};
use crate::crypto::{SignatureCache, SignatureScheme};
use crate::x509::Certificate;
use crate::{Error, UnixTime};

/// More certificates than this are not looked at: VCEK, ASK, ARK, and some to spare.
const MAX_CERTIFICATES: usize = 8;

/// hwID (AMD 57230 section 3.1).
const HARDWARE_ID: &str = "1.3.6.1.4.1.3704.1.4";

/// An EPYC generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
#[non_exhaustive]
pub enum Product {
    /// 7003. Its VCEK seed is extractable (arXiv 2605.12990): policies should not accept it.
    Milan,
    /// 9004, 8004.
    Genoa,
    /// 9005.
    Turin,
}

impl Product {
    /// AMD's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    fn ark(self) -> &'static [u8] {
        match self {
            Self::Milan => include_bytes!("roots/ark_milan.der"),
            Self::Genoa => include_bytes!("roots/ark_genoa.der"),
            Self::Turin => include_bytes!("roots/ark_turin.der"),
        }
    }

    fn ask(self) -> &'static [u8] {
        match self {
            Self::Milan => include_bytes!("roots/ask_milan.der"),
            Self::Genoa => include_bytes!("roots/ask_genoa.der"),
            Self::Turin => include_bytes!("roots/ask_turin.der"),
        }
    }
}

/// What a chain must end in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Root {
    /// AMD's root key of one of these products, built into this library.
    Amd(Vec<Product>),
    /// A root that a policy names: a simulated platform, whose reports anyone who holds that key can make.
    InsecureSimulated(Box<Certificate>),
}

/// The certificates for one report, in order, found among what was given.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Signs reports.
    pub vcek: Certificate,
    /// Signs VCEKs.
    pub ask: Certificate,
    /// Signs the ASK; from [`Root`], never from the peer.
    pub ark: Certificate,
}

impl Chain {
    /// Finds VCEK and ASK for `report` among `given` (DER each), and the root in `root`.
    ///
    /// # Errors
    /// `Malformed`, with what is missing. Finding is not verifying: see [`Chain::faults`].
    pub fn find(report: &Report, given: &[&[u8]], root: &Root) -> Result<Self, Error> {
        if given.len() > MAX_CERTIFICATES {
            return Err(Error::malformed(
                "SNP endorsements",
                format!("more than {MAX_CERTIFICATES} certificates"),
            ));
        }
        let certificates =
            given.iter().map(|der| Certificate::from_der(der)).collect::<Result<Vec<_>, _>>()?;
        // With several keys the one of the report's chip is meant; that it is, is checked later like everything else.
        let keys =
            || certificates.iter().filter(|c| c.key_for(SignatureScheme::EcdsaP384Sha384Fixed).is_some());
        let is_of_chip = |key: &&Certificate| names_chip(key, report);
        let vcek = keys().find(is_of_chip).or_else(|| keys().next()).ok_or_else(|| {
            Error::malformed("SNP endorsements", "no VCEK (a certificate with a P-384 key)")
        })?;
        let (ark, built_in_ask) = match root {
            Root::InsecureSimulated(ark) => ((**ark).clone(), None),
            Root::Amd(products) => {
                let product = report.product().filter(|p| products.contains(p)).ok_or_else(|| {
                    Error::malformed(
                        "SNP report",
                        format!("its CPUID {:02x?} is not of a product that is accepted", report.cpuid),
                    )
                })?;
                (Certificate::from_der(product.ark())?, Some(Certificate::from_der(product.ask())?))
            }
        };
        let ask = certificates
            .iter()
            .chain(built_in_ask.as_ref())
            .find(|c| !c.is_self_issued() && vcek.names_issuer(c))
            .ok_or_else(|| {
                Error::malformed("SNP endorsements", "no ASK that the VCEK names as its issuer")
            })?;
        Ok(Self { vcek: vcek.clone(), ask: ask.clone(), ark })
    }

    /// What is wrong with the chain at `now`; empty if nothing is.
    #[must_use]
    pub fn faults(&self, now: UnixTime, known: &SignatureCache) -> Vec<String> {
        let checks = [
            (self.ark.is_issued_by(&self.ark, known), "the root is not self-signed"),
            (
                self.ark.is_authority() && self.ask.is_authority(),
                "root or ASK is not a certificate authority",
            ),
            (
                self.ask.is_issued_by(&self.ark, known),
                "the ASK is not signed by the root that the policy accepts",
            ),
            (self.vcek.is_issued_by(&self.ask, known), "the VCEK is not signed by the ASK"),
            (!self.vcek.is_authority(), "the VCEK is a certificate authority"),
            (self.ark.is_valid_at(now), "the root is not valid at this time"),
            (self.ask.is_valid_at(now), "the ASK is not valid at this time"),
            (self.vcek.is_valid_at(now), "the VCEK is not valid at this time"),
        ];
        checks.into_iter().filter(|(ok, _)| !ok).map(|(_, fault)| fault.to_owned()).collect()
    }

    /// Whether the VCEK is of the chip that the report names.
    #[must_use]
    pub fn is_of_chip(&self, report: &Report) -> bool {
        names_chip(&self.vcek, report)
    }

    /// Whether the VCEK was derived from the TCB that the report names.
    #[must_use]
    pub fn is_of_tcb(&self, report: &Report) -> bool {
        let Some(product) = report.product() else { return false };
        let tcb: TcbVersion = report.reported_tcb;
        let spl = |n: u8| self.vcek.extension(&format!("1.3.6.1.4.1.3704.1.3.{n}")).and_then(small_integer);
        let parts = tcb.parts(product).map(Some);
        // blSPL, teeSPL, snpSPL, ucodeSPL, and fmcSPL where there is one (AMD 57230 section 3.1).
        [spl(1), spl(2), spl(3), spl(8)] == parts && tcb.fmc(product).is_none_or(|fmc| spl(9) == Some(fmc))
    }
}

/// Whether the chip identifier in `key` (64 bytes, on Turin 8) is the report's, which is not all zero.
fn names_chip(key: &Certificate, report: &Report) -> bool {
    let (Some(id), Some(product)) = (key.extension(HARDWARE_ID), report.product()) else { return false };
    let len = if product == Product::Turin { 8 } else { 64 };
    let Some((chip, rest)) = report.chip_id.split_at_checked(len) else { return false };
    id == chip && rest.iter().all(|byte| *byte == 0) && chip.iter().any(|byte| *byte != 0)
}

/// A DER INTEGER from 0 to 255.
fn small_integer(der: &[u8]) -> Option<u8> {
    der::Decode::from_der(der).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_roots_verify_their_ask() {
        let in_2026 = UnixTime(1_780_000_000);
        for product in [Product::Milan, Product::Genoa, Product::Turin] {
            let ark = Certificate::from_der(product.ark()).unwrap();
            let ask = Certificate::from_der(product.ask()).unwrap();
            assert!(
                ark.is_self_issued()
                    && ark.is_issued_by(&ark, &SignatureCache::new())
                    && ask.is_issued_by(&ark, &SignatureCache::new()),
                "{product:?}"
            );
            assert!(
                ark.is_authority()
                    && ask.is_authority()
                    && ark.is_valid_at(in_2026)
                    && ask.is_valid_at(in_2026)
            );
            assert!(ark.subject().contains(product.name()));
        }
        let ark = Certificate::from_der(Product::Genoa.ark()).unwrap();
        assert!(
            !Certificate::from_der(Product::Turin.ask()).unwrap().is_issued_by(&ark, &SignatureCache::new())
        );
        assert!(!ark.is_valid_at(UnixTime(0)));
    }

    #[test]
    fn small_integers_are_strict() {
        assert_eq!(small_integer(&[2, 1, 7]), Some(7));
        assert_eq!(small_integer(&[2, 2, 0, 200]), Some(200));
        for bad in [&[2, 2, 0, 7][..], &[2, 1, 0x80], &[2, 2, 1, 0], &[4, 1, 7], &[2, 1, 7, 0], &[]] {
            assert_eq!(small_integer(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn certificates_are_bounded_and_strict() {
        let good = Product::Genoa.ark();
        assert!(Certificate::from_der(&[good, &[0]].concat()).is_err());
        assert!(Certificate::from_der(&good[..good.len() - 1]).is_err());
        assert!(
            Certificate::from_der(&vec![0x30; MAX_FOR_TEST + 1]).unwrap_err().to_string().contains("at most")
        );
        assert!(Certificate::from_pem_or_der(b"-----BEGIN nonsense").is_err());
    }

    const MAX_FOR_TEST: usize = 8 * 1024;
}
