//! From the key that signed a report, over AMD's intermediate key, to a pinned root.

use super::product::{Product, REVOKED};
use super::report::{Report, SigningKey};
use crate::crypto::SignatureScheme;
use crate::endorsement::{Endorsement, EndorsementKind};
use crate::x509::{Certificate, CertificatePath, RevocationList};
use crate::{Context, Error};

/// More certificates than this are not looked at: VCEK, ASK, ARK, and some to spare.
const MAX_CERTIFICATES: usize = 8;
/// One of each product.
const MAX_LISTS: usize = 4;

/// hwID, CSP_ID and productName (AMD 57230 section 3.1).
const HARDWARE_ID: &str = "1.3.6.1.4.1.3704.1.4";
const CSP_ID: &str = "1.3.6.1.4.1.3704.1.5";
const PRODUCT_NAME: &str = "1.3.6.1.4.1.3704.1.2";

const WHAT: &str = "SNP endorsements";

/// What a chain must end in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Root {
    /// AMD's root keys, built into this library. Which products are accepted is another question.
    Amd,
    /// A root that a policy names: a simulated platform, whose reports anyone who holds that key can make.
    InsecureSimulated(Box<Certificate>),
}

/// What AMD endorses, as given with a report.
#[derive(Clone, Debug, Default)]
pub struct Endorsements {
    certificates: Vec<Certificate>,
    lists: Vec<RevocationList>,
}

impl Endorsements {
    /// Sorts certificates and revocation lists.
    ///
    /// # Errors
    /// `Malformed` for more than 8 certificates or 4 lists.
    pub fn new(certificates: Vec<Certificate>, lists: Vec<RevocationList>) -> Result<Self, Error> {
        if certificates.len() > MAX_CERTIFICATES {
            return Err(Error::malformed(WHAT, format!("more than {MAX_CERTIFICATES} certificates")));
        }
        if lists.len() > MAX_LISTS {
            return Err(Error::malformed(WHAT, format!("more than {MAX_LISTS} revocation lists")));
        }
        Ok(Self { certificates, lists })
    }

    /// Takes AMD's among `given`.
    ///
    /// # Errors
    /// `Malformed`: as [`Endorsements::new`], and for what is neither a certificate nor a revocation list.
    pub fn from_stapled(given: &[Endorsement]) -> Result<Self, Error> {
        let of = |kind| given.iter().filter(move |e| e.kind == kind).map(|e| e.bytes.as_slice());
        let certificates = of(EndorsementKind::AmdCertificate).take(MAX_CERTIFICATES.saturating_add(1));
        let lists = of(EndorsementKind::AmdCrl).take(MAX_LISTS.saturating_add(1));
        Self::new(
            certificates.map(Certificate::from_der).collect::<Result<_, _>>()?,
            lists.map(RevocationList::from_pem_or_der).collect::<Result<_, _>>()?,
        )
    }

    /// The first certificate with a P-384 key: VCEK or VLEK, of which there is one. With several, the one of the report's chip.
    fn endorsement_key(&self, report: &Report) -> Option<&Certificate> {
        let scheme = SignatureScheme::EcdsaP384Sha384Fixed;
        let mut keys = self.certificates.iter().filter(|c| c.key_for(scheme).is_some());
        let first = keys.next()?;
        let chip =
            |c: &&Certificate| c.extension(HARDWARE_ID).is_some_and(|id| report.chip_id.starts_with(id));
        Some([first].into_iter().chain(keys).find(chip).unwrap_or(first))
    }
}

/// The certificates for one report.
#[derive(Clone, Debug)]
pub(super) struct Chain<'a> {
    /// VCEK or VLEK: signs reports.
    pub(super) key: &'a Certificate,
    /// ASK or ASVK: signs the former.
    intermediate: &'a Certificate,
    /// ARK: signs the latter. From [`Root`], never from the peer.
    ark: &'a Certificate,
    /// The product by the chain; with a simulated root, by the report.
    pub(super) product: Product,
    given: &'a Endorsements,
    simulated: bool,
}

/// Why there is no chain to verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoChain {
    /// No VCEK or VLEK was given.
    NoKey,
    /// What was given leads nowhere.
    Broken(String),
}

impl<'a> Chain<'a> {
    /// Finds key, intermediate and root for `report`. Finding is not verifying: see [`Chain::faults`].
    pub(super) fn find(report: &Report, given: &'a Endorsements, root: &'a Root) -> Result<Self, NoChain> {
        let key = given.endorsement_key(report).ok_or(NoChain::NoKey)?;
        let broken = |why: String| NoChain::Broken(why);
        let (product, ark, built_in) = match root {
            Root::InsecureSimulated(ark) => {
                let product = report.product().unwrap_or(Product::Milan);
                (product, &**ark, None)
            }
            Root::Amd => {
                let issuer = key.issuer_cn();
                let (product, kind) = Product::of_issuer(&issuer).ok_or_else(|| {
                    broken(format!("{issuer} is not a key of AMD's that issues VCEKs or VLEKs"))
                })?;
                let ark = product.ark().ok_or_else(|| broken(format!("no root of {product}")))?;
                (product, ark, product.intermediate(kind))
            }
        };
        // What was given is what is meant: a wrong intermediate, such as one that says of itself that it is none, is not mended by
        // a built-in one.
        let is_key =
            |c: &Certificate| c.key_for(SignatureScheme::EcdsaP384Sha384Fixed).is_some() && !c.is_authority();
        let mut authorities =
            given.certificates.iter().filter(|c| !is_key(c) && !c.is_self_issued()).peekable();
        let intermediate = match authorities.peek() {
            Some(_) => authorities.find(|c| key.names_issuer(c)),
            None => built_in,
        };
        let intermediate = intermediate
            .ok_or_else(|| broken(format!("{}, the issuer of the key, is missing", key.issuer_cn())))?;
        let simulated = matches!(root, Root::InsecureSimulated(_));
        Ok(Self { key, intermediate, ark, product, given, simulated })
    }

    /// Kind of the key, by what AMD puts into its certificate.
    pub(super) fn kind(&self) -> SigningKey {
        if self.key.extension(CSP_ID).is_some() { SigningKey::Vlek } else { SigningKey::Vcek }
    }

    /// The cloud provider that a VLEK belongs to.
    pub(super) fn csp_id(&self) -> Option<String> {
        self.key.extension(CSP_ID).map(text)
    }

    /// What is wrong with the chain; empty if nothing is.
    pub(super) fn faults(&self, report: &Report, ctx: Context<'_>) -> Vec<String> {
        let path = CertificatePath { certificates: vec![self.key, self.intermediate], anchor: self.ark };
        let mut faults = path.faults(ctx.now, ctx.signatures);
        for (n, certificate) in self.given.certificates.iter().enumerate() {
            let name = certificate.subject_cn();
            if self.given.certificates.iter().skip(n.saturating_add(1)).any(|other| other == certificate) {
                faults.push(format!(
                    "{name} is given twice: one of the certificates is not what it was meant to be"
                ));
            }
            if certificate.is_self_issued() && !certificate.is_same_authority(self.ark) {
                faults.push(format!(
                    "the root that was given, {name}, is not the pinned {}",
                    self.ark.subject_cn()
                ));
            }
        }
        if report.signing_key() != Ok(self.kind()) {
            let claimed = report.signing_key().map_or("unknown", SigningKey::name);
            faults.push(format!(
                "the report says that a {claimed} signed it, the certificate is a {}",
                self.kind().name()
            ));
        }
        if !self.simulated {
            faults.extend(self.misnamed());
        }
        faults
    }

    /// The certificate's own words about kind and product against its issuer's name.
    fn misnamed(&self) -> Option<String> {
        let issuer = self.key.issuer_cn();
        let by_issuer = Product::of_issuer(&issuer);
        if by_issuer != Some((self.product, self.kind())) {
            return Some(format!("{issuer} issued a {}", self.kind().name()));
        }
        let name = self.key.extension(PRODUCT_NAME).map(text).unwrap_or_default();
        let fits = name == self.product.name()
            || name.strip_prefix(self.product.name()).is_some_and(|n| n.starts_with('-'));
        (!fits).then(|| format!("{issuer} issued a key for the product {name}"))
    }

    /// What the revocation lists say: `None` when none was given, else what is wrong.
    pub(super) fn revocation(&self, ctx: Context<'_>) -> Option<Vec<String>> {
        let revoked = |since: String| format!("{} was revoked at {since}", self.intermediate.subject_cn());
        let known = REVOKED.iter().find(|(product, serial, _)| {
            !self.simulated && *product == self.product && *serial == self.intermediate.serial()
        });
        if let Some((_, _, since)) = known {
            return Some(vec![revoked((*since).to_owned())]);
        }
        if self.given.lists.is_empty() {
            return None;
        }
        let Some(list) = self
            .given
            .lists
            .iter()
            .filter(|list| list.names_issuer(self.ark))
            .max_by_key(|list| list.validity())
        else {
            return Some(vec![format!("no revocation list of {} among those given", self.ark.subject_cn())]);
        };
        let mut faults = list.faults(self.ark, ctx.now, ctx.signatures);
        faults.extend(list.revoked_since(self.intermediate).map(|since| revoked(since.to_string())));
        Some(faults)
    }

    /// Whether the VCEK is of the chip that the report names. A VLEK is of no chip.
    pub(super) fn is_of_chip(&self, report: &Report) -> bool {
        let Some(id) = self.key.extension(HARDWARE_ID) else { return false };
        let Some((chip, rest)) = report.chip_id.split_at_checked(self.product.chip_id_len()) else {
            return false;
        };
        id == chip && rest.iter().all(|byte| *byte == 0) && chip.iter().any(|byte| *byte != 0)
    }

    /// The TCB that the key was derived from, by its certificate; `None` if a part is missing.
    pub(super) fn tcb(&self) -> Option<super::TcbParts> {
        tcb_of(self.key, self.product)
    }
}

fn tcb_of(key: &Certificate, product: Product) -> Option<super::TcbParts> {
    let spl = |n: u8| key.extension(&format!("1.3.6.1.4.1.3704.1.3.{n}")).and_then(small_integer);
    // blSPL, teeSPL, snpSPL, ucodeSPL, and fmcSPL where there is one (AMD 57230 section 3.1).
    Some(super::TcbParts {
        bootloader: spl(1)?,
        tee: spl(2)?,
        snp: spl(3)?,
        microcode: spl(8)?,
        fmc: if product == Product::Turin { Some(spl(9)?) } else { None },
    })
}

/// Product, chip and TCB of a VCEK as its certificate states them; `None` for other certificates.
pub(crate) fn vcek_parts(certificate: &Certificate) -> Option<(Product, Vec<u8>, super::TcbParts)> {
    let (product, _kind) = Product::of_issuer(&certificate.issuer_cn())?;
    let chip_id = certificate.extension(HARDWARE_ID)?.to_vec();
    Some((product, chip_id, tcb_of(certificate, product)?))
}

/// A DER INTEGER from 0 to 255.
fn small_integer(der: &[u8]) -> Option<u8> {
    der::Decode::from_der(der).ok()
}

/// A DER IA5String or UTF8String, for people and for comparison with ASCII.
fn text(der: &[u8]) -> String {
    let value: Option<der::asn1::AnyRef<'_>> = der::Decode::from_der(der).ok();
    value.map(|any| String::from_utf8_lossy(any.value()).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_integers_are_strict() {
        assert_eq!(small_integer(&[2, 1, 7]), Some(7));
        assert_eq!(small_integer(&[2, 2, 0, 200]), Some(200));
        for bad in [&[2, 2, 0, 7][..], &[2, 1, 0x80], &[2, 2, 1, 0], &[4, 1, 7], &[2, 1, 7, 0], &[]] {
            assert_eq!(small_integer(bad), None, "{bad:?}");
        }
    }
}
