//! The enveloped signature of a manifest: exactly the one form that NVIDIA uses.
//!
//! Sources: W3C, XML Signature Syntax and Processing Version 1.1; RFC 9231 (algorithm names).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::c14n::canonical;
use super::xml::Element;
use crate::crypto::{SignatureScheme, constant_time_eq, sha384};
use crate::x509::{Certificate, CertificatePath};
use crate::{Context, Error};

const NAMESPACE: &str = "http://www.w3.org/2000/09/xmldsig#";
const CANONICAL_XML_1_1: &str = "http://www.w3.org/2006/12/xml-c14n11";
const ENVELOPED: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";
const SHA384: &str = "http://www.w3.org/2001/04/xmldsig-more#sha384";
const ECDSA_SHA384: &str = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384";

/// NVIDIA sends 4 and the root is among them.
const MAX_CERTIFICATES: usize = 6;
/// As for every certificate; base64 needs a third more, and line ends.
const MAX_BASE64_LEN: usize = 12 * 1024;

const EXTENDED_KEY_USAGE: &str = "2.5.29.37";

const WHAT: &str = "XML signature";

/// A signature over the whole document that it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EnvelopedSignature {
    /// SignedInfo, canonical: what the key signed.
    signed_info: Vec<u8>,
    signature: Vec<u8>,
    /// Whether the document has the digest that SignedInfo names.
    pub(super) digest_fits: bool,
    /// The signer's certificate first.
    pub(super) certificates: Vec<Certificate>,
}

impl EnvelopedSignature {
    /// Takes the signature of the document with the root `root`, of which it must be a child and the only signature at any depth.
    pub(super) fn parse(root: &Element<'_>) -> Result<Self, Error> {
        let found: Vec<_> = root.elements()?.into_iter().filter(|e| e.is(NAMESPACE, "Signature")).collect();
        let [element] = found.as_slice() else {
            return Err(fault(format!("{} signatures below the root, expected 1", found.len())));
        };
        if root.count(NAMESPACE, "Signature") != 1 {
            return Err(fault("a signature within another element"));
        }
        let [info, value, key_info] = parts(element, ["SignedInfo", "SignatureValue", "KeyInfo"])?;
        let digest = digest_of(info)?;
        no_attributes(value)?;
        let certificates = certificates(key_info)?;
        let document = canonical(root, &[], Some(element));
        Ok(Self {
            signed_info: canonical(info, &[root, element], None),
            signature: base64(value)?,
            digest_fits: constant_time_eq(&sha384(&[&document]), &digest),
            certificates,
        })
    }

    /// The signer's path to `anchor`.
    pub(super) fn path<'a>(
        &'a self,
        anchor: &'a Certificate,
        ctx: Context<'_>,
    ) -> Option<CertificatePath<'a>> {
        let (signer, others) = self.certificates.split_first()?;
        Some(CertificatePath::build(signer, others, anchor, ctx.signatures))
    }

    /// What is wrong with digest, signature and chain; empty if nothing is.
    pub(super) fn faults(&self, anchor: &Certificate, ctx: Context<'_>) -> Vec<String> {
        let mut faults = Vec::new();
        if !self.digest_fits {
            faults.push("it was altered after it was signed (its digest differs)".to_owned());
        }
        let scheme = SignatureScheme::EcdsaP384Sha384Fixed;
        let signer = self.certificates.first();
        let key = signer.and_then(|signer| signer.key_for(scheme));
        let signed = |key| ctx.signatures.verify(scheme, key, &self.signed_info, &self.signature);
        if !key.is_some_and(signed) {
            faults.push("its signature does not verify under the signer's key".to_owned());
        }
        // Other end entities under the same authorities, such as OCSP responders, have a purpose of their own.
        if signer.is_some_and(|signer| signer.extension(EXTENDED_KEY_USAGE).is_some()) {
            faults.push("its signer has a certificate for another purpose".to_owned());
        }
        faults.extend(
            self.path(anchor, ctx).map(|path| path.faults(ctx.now, ctx.signatures)).unwrap_or_default(),
        );
        let roots = self.certificates.iter().filter(|c| c.is_self_issued() && *c != anchor);
        faults
            .extend(roots.map(|root| {
                format!("the root that it brings, {}, is not the pinned one", root.subject_cn())
            }));
        faults
    }
}

fn fault(why: impl Into<String>) -> Error {
    Error::malformed(WHAT, why)
}

/// The children of `element`, which must be these and have no attributes besides.
fn parts<'e, 'a, const N: usize>(
    element: &'e Element<'a>,
    names: [&str; N],
) -> Result<[&'e Element<'a>; N], Error> {
    no_attributes(element)?;
    children(element, names)
}

fn children<'e, 'a, const N: usize>(
    element: &'e Element<'a>,
    names: [&str; N],
) -> Result<[&'e Element<'a>; N], Error> {
    let found = <[&Element<'_>; N]>::try_from(element.elements()?).ok();
    let fits = |found: &[&Element<'_>; N]| found.iter().zip(names).all(|(e, name)| e.is(NAMESPACE, name));
    found
        .filter(fits)
        .ok_or_else(|| fault(format!("the content of {} is not {}", element.name.local, names.join(", "))))
}

fn no_attributes(element: &Element<'_>) -> Result<(), Error> {
    if element.attributes.is_empty() {
        return Ok(());
    }
    Err(fault(format!("attributes of {}", element.name.local)))
}

/// An element that is nothing but the name of an algorithm.
fn algorithm(element: &Element<'_>, want: &str) -> Result<(), Error> {
    let [] = children(element, [])?;
    attribute_only(element, "Algorithm", want)
}

fn attribute_only(element: &Element<'_>, name: &str, want: &str) -> Result<(), Error> {
    if element.attributes.len() == 1 && element.attribute(name) == Some(want) {
        return Ok(());
    }
    Err(fault(format!("{} is not for {name} {want:?} only", element.name.local)))
}

/// The digest that SignedInfo names, where it has the one form that is known.
fn digest_of(info: &Element<'_>) -> Result<Vec<u8>, Error> {
    let [canonicalization, method, reference] =
        parts(info, ["CanonicalizationMethod", "SignatureMethod", "Reference"])?;
    algorithm(canonicalization, CANONICAL_XML_1_1)?;
    algorithm(method, ECDSA_SHA384)?;
    // The whole document. Anything else could leave out what is read here.
    attribute_only(reference, "URI", "")?;
    let [transforms, digest_method, digest] =
        children(reference, ["Transforms", "DigestMethod", "DigestValue"])?;
    let [enveloped, canonical] = parts(transforms, ["Transform", "Transform"])?;
    algorithm(enveloped, ENVELOPED)?;
    algorithm(canonical, CANONICAL_XML_1_1)?;
    algorithm(digest_method, SHA384)?;
    no_attributes(digest)?;
    base64(digest)
}

fn certificates(key_info: &Element<'_>) -> Result<Vec<Certificate>, Error> {
    let [data] = parts(key_info, ["X509Data"])?;
    no_attributes(data)?;
    let found = data.elements()?;
    if found.is_empty() || found.len() > MAX_CERTIFICATES {
        return Err(fault(format!("{} certificates, expected 1 to {MAX_CERTIFICATES}", found.len())));
    }
    let certificate = |element: &&Element<'_>| {
        if !element.is(NAMESPACE, "X509Certificate") {
            return Err(fault("something that is no certificate in X509Data"));
        }
        no_attributes(element)?;
        Certificate::from_der(&base64(element)?)
    };
    found.iter().map(certificate).collect()
}

/// Base64 in lines of any length.
fn base64(element: &Element<'_>) -> Result<Vec<u8>, Error> {
    let text = element.text()?;
    if text.len() > MAX_BASE64_LEN {
        return Err(fault(format!("{} is too long", element.name.local)));
    }
    let packed: String = text.split_ascii_whitespace().collect();
    STANDARD.decode(&packed).map_err(|_reason| fault(format!("{} is not base64", element.name.local)))
}
