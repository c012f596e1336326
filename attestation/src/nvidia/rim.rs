//! Reference integrity manifests: what NVIDIA says the measurements of a driver or a VBIOS must be.
//!
//! Sources: TCG PC Client Reference Integrity Manifest specification; ISO/IEC 19770-2 (SWID tags); published manifests.

use super::xml::{self, Element};
use super::xmldsig::EnvelopedSignature;
use crate::x509::Certificate;
use crate::{Error, UnixTime};

const SWID: &str = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd";
const SHA384: &str = "http://www.w3.org/2001/04/xmlenc#sha384";

const NVIDIA: &str = "NVIDIA Corporation";

/// One measurement has at most 4 so far.
const MAX_ALTERNATIVES: usize = 16;
/// 64 so far; a report has room for 255.
const MAX_MEASUREMENTS: usize = 255;

/// Attributes of a measurement besides its digests.
const MEASUREMENT_ATTRIBUTES: [&str; 6] = ["type", "index", "active", "alternatives", "name", "size"];

const WHAT: &str = "RIM";

/// A parsed manifest. Nothing in it is authentic before its signature was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rim {
    /// `GH100`, `GB100`, ..
    pub product: String,
    /// `GPU` or `SWITCH`.
    pub edition: String,
    /// Version of the driver or VBIOS.
    pub version: String,
    /// The measurements that count, by ascending index, which counts from 0.
    pub active: Vec<ReferenceValue>,
    pub(super) signature: EnvelopedSignature,
}

/// What one measurement may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceValue {
    /// From 0: the report counts from 1.
    pub index: u8,
    /// Any of these (SHA-384).
    pub alternatives: Vec<[u8; 48]>,
}

impl Rim {
    /// Parses a manifest.
    ///
    /// # Errors
    /// `Malformed` for what is not one signed SWID tag of NVIDIA's with SHA-384 measurements, at most 64 KiB of plain XML.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let root = xml::parse(bytes)?;
        if !root.is(SWID, "SoftwareIdentity") {
            return Err(fault("the root element is not SoftwareIdentity"));
        }
        let signature = EnvelopedSignature::parse(&root)?;
        // The signature is the fourth: it was found as a child of the root and is the only one.
        let [entity, meta, payload, _signature] = <[&Element<'_>; 4]>::try_from(root.elements()?)
            .ok()
            .filter(|[entity, meta, payload, _signature]| {
                entity.is(SWID, "Entity") && meta.is(SWID, "Meta") && payload.is(SWID, "Payload")
            })
            .ok_or_else(|| fault("the content is not Entity, Meta, Payload, Signature"))?;
        if required(entity, "name")? != NVIDIA {
            return Err(fault("its creator is not NVIDIA"));
        }
        empty(entity)?;
        empty(meta)?;
        Ok(Self {
            product: plain(meta, "product")?,
            edition: plain(meta, "edition")?,
            version: plain(meta, "colloquialVersion")?,
            active: active(payload)?,
            signature,
        })
    }
}

/// Product and version of a manifest, and when its signer's certificate is valid.
pub(crate) fn about_rim(bytes: &[u8]) -> Result<(String, (UnixTime, UnixTime)), Error> {
    let rim = Rim::parse(bytes)?;
    let signer = rim.signature.certificates.first().ok_or_else(|| fault("no certificate"))?;
    Ok((format!("{} {} {}", rim.edition, rim.product, rim.version), signer.validity()))
}

impl Rim {
    /// Who signed it: each certificate with its issuer, from the signer to the one below the root. All of them must be asked about.
    pub fn to_ask_about(&self) -> impl Iterator<Item = (&Certificate, &Certificate)> {
        self.signature.certificates.windows(2).filter_map(|pair| match pair {
            [certificate, issuer] => Some((certificate, issuer)),
            _ => None,
        })
    }
}

fn fault(why: impl Into<String>) -> Error {
    Error::malformed(WHAT, why)
}

fn required<'a>(element: &Element<'a>, name: &str) -> Result<&'a str, Error> {
    let value = element.attribute(name);
    value.ok_or_else(|| fault(format!("{} has no {name}", element.name.local)))
}

/// A name or version: letters, digits, dots, dashes and underscores.
fn plain(element: &Element<'_>, name: &str) -> Result<String, Error> {
    const MAX_LEN: usize = 64;
    let value = required(element, name)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if value.is_empty() || value.len() > MAX_LEN || !value.bytes().all(allowed) {
        return Err(fault(format!("{name} is not a name or version")));
    }
    Ok(value.to_owned())
}

fn empty(element: &Element<'_>) -> Result<(), Error> {
    if element.children.is_empty() {
        Ok(())
    } else {
        Err(fault(format!("content of {}", element.name.local)))
    }
}

fn active(payload: &Element<'_>) -> Result<Vec<ReferenceValue>, Error> {
    let resources = payload.elements()?;
    if resources.len() > MAX_MEASUREMENTS {
        return Err(fault(format!("more than {MAX_MEASUREMENTS} measurements")));
    }
    let mut out = Vec::new();
    let mut next: u16 = 0;
    for resource in resources {
        let (value, is_active) = measurement(resource)?;
        if u16::from(value.index) < next {
            return Err(fault("the indices of the measurements do not ascend"));
        }
        next = u16::from(value.index).saturating_add(1);
        if is_active {
            out.push(value);
        }
    }
    if out.is_empty() {
        return Err(fault("no measurement is active"));
    }
    Ok(out)
}

fn measurement(resource: &Element<'_>) -> Result<(ReferenceValue, bool), Error> {
    if !resource.is(SWID, "Resource") || required(resource, "type")? != "Measurement" {
        return Err(fault("something that is no measurement in Payload"));
    }
    empty(resource)?;
    let index = required(resource, "index")?;
    let index: u8 = number(index).ok_or_else(|| fault("an index that is no number up to 254"))?;
    let is_active = match required(resource, "active")? {
        "True" => true,
        "False" => false,
        _ => return Err(fault(format!("measurement {index} is neither active nor not"))),
    };
    if required(resource, "size")? != "48" {
        return Err(fault(format!("measurement {index} is not of 48 bytes")));
    }
    let digests = resource.attributes.iter().filter(|a| a.namespace == SHA384).count();
    let known = resource
        .attributes
        .iter()
        .filter(|a| a.namespace.is_empty() && MEASUREMENT_ATTRIBUTES.contains(&a.name.local))
        .count();
    if digests.saturating_add(known) != resource.attributes.len() {
        return Err(fault(format!("measurement {index} has an attribute that is not known")));
    }
    let said: Option<u8> = number(required(resource, "alternatives")?);
    if said.map(usize::from) != Some(digests) || digests == 0 || digests > MAX_ALTERNATIVES {
        return Err(fault(format!("measurement {index} has {digests} digests, not what it says")));
    }
    let alternatives = (0..digests).map(|n| digest(resource, n)).collect::<Option<_>>();
    let alternatives =
        alternatives.ok_or_else(|| fault(format!("measurement {index} has digests that are not SHA-384")))?;
    Ok((ReferenceValue { index, alternatives }, is_active))
}

/// `Hash0`, `Hash1`, ..
fn digest(resource: &Element<'_>, n: usize) -> Option<[u8; 48]> {
    let name = format!("Hash{n}");
    let value = resource.attributes.iter().find(|a| a.namespace == SHA384 && a.name.local == name)?.value;
    let mut out = [0; 48];
    hex::decode_to_slice(value, &mut out).ok()?;
    Some(out)
}

/// A decimal number in its one shortest form.
fn number(text: &str) -> Option<u8> {
    let number: u8 = text.parse().ok()?;
    (number.to_string() == text && number < u8::MAX).then_some(number)
}
