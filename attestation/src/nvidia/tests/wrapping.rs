//! Signed manifests as an attacker would write them: the signature's form, its place, the schema, the signer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};

use super::super::c14n::canonical;
use super::super::xml::{self, Element};
use crate::nvidia::Rim;
use crate::x509::Certificate;
use crate::{Context, Missing, SignatureCache, UnixTime};

const TEMPLATE: &str = r#"<SoftwareIdentity xmlns="http://standards.iso.org/iso/19770/-2/2015/schema.xsd" xmlns:n="http://standards.iso.org/iso/19770/-2/2015/schema.xsd" xmlns:h="http://www.w3.org/2001/04/xmlenc#sha384" name="GH100">
  <n:Entity name="NVIDIA Corporation" role="tagCreator"/>
  <n:Meta colloquialVersion="550.90.07" edition="GPU" product="GH100"/>
  <n:Payload>
    <n:Resource type="Measurement" index="0" active="False" alternatives="1" h:Hash0="{00}" name="M" size="48"/>
    <n:Resource type="Measurement" index="7" active="True" alternatives="2" h:Hash0="{00}" h:Hash1="{ff}" name="M" size="48"/>
  </n:Payload>
<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#">{signature}</ds:Signature></SoftwareIdentity>"#;

const INFO: &str = r#"<ds:SignedInfo><ds:CanonicalizationMethod Algorithm="http://www.w3.org/2006/12/xml-c14n11"/><ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"/><ds:Reference URI=""><ds:Transforms><ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/><ds:Transform Algorithm="http://www.w3.org/2006/12/xml-c14n11"/></ds:Transforms><ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#sha384"/><ds:DigestValue>{digest}</ds:DigestValue></ds:Reference></ds:SignedInfo>"#;

const NOW: UnixTime = UnixTime(1_800_000_000);

fn fill(text: &str) -> String {
    text.replace("{00}", &"00".repeat(48)).replace("{ff}", &"ff".repeat(48))
}

/// Signs manifests under a root of its own.
struct Signer {
    root: Certificate,
    certificate: Certificate,
    key: EcdsaKeyPair,
}

impl Signer {
    fn new(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let generate = || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test RIM root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let (root_key, key) = (generate(), generate());
        let root = Certificate::from_der(params.self_signed(&root_key).unwrap().der()).unwrap();
        let mut leaf = CertificateParams::default();
        leaf.distinguished_name.push(DnType::CommonName, "test RIM signer");
        change(&mut leaf);
        let issued = leaf.signed_by(&key, &Issuer::new(params, root_key)).unwrap();
        let random = ring::rand::SystemRandom::new();
        let pkcs8 = key.serialized_der();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, pkcs8, &random).unwrap();
        Self { root, certificate: Certificate::from_der(issued.der()).unwrap(), key }
    }

    /// A good manifest.
    fn sign(&self) -> String {
        let text = fill(TEMPLATE);
        let empty = text.replace("{signature}", "");
        let root = xml::parse(empty.as_bytes()).unwrap();
        let digest = crate::crypto::sha384(&[&canonical(&root, &[], Some(signature(&root)))]);
        let info = INFO.replace("{digest}", &STANDARD.encode(digest));
        let with_info = text.replace("{signature}", &info);
        let root = xml::parse(with_info.as_bytes()).unwrap();
        let element = signature(&root);
        let signed = canonical(element.elements().unwrap()[0], &[&root, element], None);
        let value = self.key.sign(&ring::rand::SystemRandom::new(), &signed).unwrap();
        let certificate = |c: &Certificate| {
            format!("<ds:X509Certificate>{}</ds:X509Certificate>", STANDARD.encode(c.der()))
        };
        let rest = format!(
            "<ds:SignatureValue>{}</ds:SignatureValue><ds:KeyInfo><ds:X509Data>{}{}</ds:X509Data></ds:KeyInfo>",
            STANDARD.encode(value.as_ref()),
            certificate(&self.certificate),
            certificate(&self.root)
        );
        text.replace("{signature}", &format!("{info}{rest}"))
    }

    fn faults(&self, rim: &str) -> Vec<String> {
        let signatures = SignatureCache::new();
        let ctx = Context { now: NOW, missing: Missing::Fails, signatures: &signatures };
        Rim::parse(rim.as_bytes()).unwrap().signature.faults(&self.root, ctx)
    }
}

fn signature<'e, 'a>(root: &'e Element<'a>) -> &'e Element<'a> {
    root.elements().unwrap().into_iter().find(|e| e.name.local == "Signature").unwrap()
}

/// Puts another first digit into the base64 after `tag`.
fn spoiled(text: &str, tag: &str) -> String {
    let (before, after) = text.split_once(tag).unwrap();
    let other = if after.starts_with('A') { "B" } else { "A" };
    format!("{before}{tag}{other}{}", &after[1..])
}

#[test]
fn a_signed_manifest_is_good_and_any_change_shows() {
    let signer = Signer::new(|_| {});
    let good = signer.sign();
    assert_eq!(signer.faults(&good), Vec::<String>::new());
    let rim = Rim::parse(good.as_bytes()).unwrap();
    let names = (rim.product.as_str(), rim.edition.as_str(), rim.version.as_str());
    assert_eq!(names, ("GH100", "GPU", "550.90.07"));
    assert_eq!(rim.active.len(), 1);
    assert_eq!((rim.active[0].index, &rim.active[0].alternatives[..]), (7, &[[0; 48], [0xff; 48]][..]));
    let changes = [
        ("550.90.07", "550.90.08"),
        ("h:Hash1=\"f", "h:Hash1=\"e"),
        ("active=\"False\"", "active=\"True\""),
        ("<n:Payload>", "<n:Payload> "),
    ];
    for (from, to) in changes {
        let faults = signer.faults(&good.replacen(from, to, 1));
        assert_eq!(faults.len(), 1, "{from}: {faults:?}");
        assert!(faults[0].contains("altered after it was signed"), "{from}: {faults:?}");
    }
    // Namespaces in force are part of the canonical SignedInfo too.
    assert_eq!(signer.faults(&good.replacen("xmlns:h=", "xmlns:i=\"u:i\" xmlns:h=", 1)).len(), 2);
    // Quotes, order and empty elements are not signed, and mean the same.
    let same = good
        .replace("edition=\"GPU\" product=\"GH100\"/>", "product='GH100'   edition='GPU' ></n:Meta>")
        .replace("</ds:X509Certificate>", "\n</ds:X509Certificate>");
    assert_ne!(same, good);
    assert_eq!(signer.faults(&same), Vec::<String>::new());
}

#[test]
fn the_signer_counts() {
    let signer = Signer::new(|_| {});
    let good = signer.sign();
    assert!(signer.faults(&spoiled(&good, "<ds:SignatureValue>"))[0].contains("does not verify"));
    assert_eq!(signer.faults(&spoiled(&good, "<ds:DigestValue>")).len(), 2);
    let short = good.replace("<ds:SignatureValue>", "<ds:SignatureValue>AAAA");
    assert!(signer.faults(&short)[0].contains("does not verify"));
    let other = Signer::new(|_| {}).faults(&good).join("; ");
    assert!(other.contains("is not the pinned one"), "{other}");
    let faults = |change: fn(&mut CertificateParams)| {
        let signer = Signer::new(change);
        signer.faults(&signer.sign()).join("; ")
    };
    let responder = faults(|leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning]);
    assert!(responder.contains("for another purpose"), "{responder}");
    let authority = faults(|leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert!(authority.contains("certificate authority"), "{authority}");
    let late = faults(|leaf| leaf.not_after = rcgen::date_time_ymd(2026, 5, 6));
    assert!(late.contains("test RIM signer expired at 2026-05-06T00:00:00Z"), "{late}");
    let early = faults(|leaf| leaf.not_before = rcgen::date_time_ymd(2030, 5, 6));
    assert!(early.contains("test RIM signer is not valid before 2030-05-06T00:00:00Z"), "{early}");
}

#[test]
fn signatures_of_another_form_are_refused() {
    let c14n = "http://www.w3.org/2006/12/xml-c14n11";
    let enveloped = r#"<ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/>"#;
    let xslt = r#"<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xslt-19991116"/>"#;
    let cases = [
        ("<ds:Reference URI=\"\">", "<ds:Reference URI=\"#a\">", "for URI"),
        ("<ds:Reference URI=\"\">", "<ds:Reference>", "for URI"),
        ("<ds:Reference URI=\"\">", "<ds:Reference URI=\"\" Id=\"x\">", "for URI"),
        (c14n, "http://www.w3.org/TR/2001/REC-xml-c14n-20010315", "CanonicalizationMethod"),
        (c14n, "http://www.w3.org/2006/12/xml-c14n11#WithComments", "CanonicalizationMethod"),
        ("more#ecdsa-sha384", "more#ecdsa-sha256", "SignatureMethod"),
        ("more#ecdsa-sha384", "more#rsa-sha384", "SignatureMethod"),
        ("xmldsig#enveloped-signature", "xmldsig#base64", "Transform is not for"),
        ("xmldsig-more#sha384", "xmlenc#sha256", "DigestMethod is not for"),
        (
            "xml-c14n11\"/><ds:SignatureMethod",
            "xml-c14n11\">x</ds:CanonicalizationMethod><ds:SignatureMethod",
            "text in Can",
        ),
        (enveloped, "", "content of Transforms"),
        (enveloped, xslt, "Transform is not for"),
        ("</ds:Transforms>", "<ds:Transform Algorithm=\"x\"/></ds:Transforms>", "content of Transforms"),
        ("<ds:Transforms>", "<ds:Transforms x=\"1\">", "attributes of Transforms"),
        ("<ds:DigestValue>", "<ds:DigestValue x=\"1\">", "attributes of DigestValue"),
        ("<ds:DigestValue>", "<ds:DigestValue><ds:x/>", "text only"),
        ("<ds:DigestValue>", "<ds:DigestValue>=", "not base64"),
        ("<ds:SignatureValue>", "<ds:SignatureValue Id=\"1\">", "attributes of SignatureValue"),
        ("<ds:SignatureValue>", "<ds:SignatureValue>=", "not base64"),
        ("<ds:SignedInfo>", "<ds:SignedInfo Id=\"1\">", "attributes of SignedInfo"),
        ("<ds:SignedInfo>", "<ds:SignedInfo><ds:Reference URI=\"\"/>", "content of SignedInfo"),
        ("<ds:KeyInfo>", "<ds:KeyInfo Id=\"1\">", "attributes of KeyInfo"),
        ("<ds:KeyInfo>", "<ds:KeyInfo><ds:KeyName>x</ds:KeyName>", "content of KeyInfo"),
        ("</ds:KeyInfo>", "</ds:KeyInfo><ds:Object>x</ds:Object>", "content of Signature"),
        ("<ds:X509Data>", "<ds:X509Data x=\"1\">", "attributes of X509Data"),
        ("<ds:X509Data>", "<ds:X509Data><ds:X509CRL>x</ds:X509CRL>", "no certificate in X509Data"),
        ("<ds:X509Data>", "<ds:X509Data>stray", "text in X509Data"),
        ("<ds:X509Certificate>", "<ds:X509Certificate x=\"1\">", "attributes of X509Certificate"),
        ("<ds:X509Certificate>", "<ds:X509Certificate>!", "not base64"),
        ("<ds:X509Certificate>", "<ds:X509Certificate>AAAA", "certificate"),
        ("xmldsig#\">", "xmldsig#\" Id=\"x\">", "attributes of Signature"),
    ];
    let good = Signer::new(|_| {}).sign();
    let altered = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        Rim::parse(good.replacen(from, to, 1).as_bytes()).unwrap_err().to_string()
    };
    for (from, to, why) in cases {
        let got = altered(from, to);
        assert!(got.contains(why), "{from} -> {to}: {got}");
    }
    let long = format!("<ds:SignatureValue>{}", "A".repeat(13 * 1024));
    assert!(altered("<ds:SignatureValue>", &long).contains("too long"));
    let many = format!("<ds:X509Data>{}", "<ds:X509Certificate>AAAA</ds:X509Certificate>".repeat(5));
    assert!(altered("<ds:X509Data>", &many).contains("7 certificates"));
    let (before, after) = good.split_once("<ds:X509Data>").unwrap();
    let (_, after) = after.split_once("</ds:X509Data>").unwrap();
    let none = format!("{before}<ds:X509Data></ds:X509Data>{after}");
    assert!(Rim::parse(none.as_bytes()).unwrap_err().to_string().contains("0 certificates"));
}

/// What is signed is what is read: no second signature, none elsewhere, no other document around it.
#[test]
fn signature_wrapping_is_refused() {
    let signer = Signer::new(|_| {});
    let good = signer.sign();
    let refused = |text: &str| Rim::parse(text.as_bytes()).unwrap_err().to_string();
    let (start, end) = (good.find("<ds:Signature ").unwrap(), good.find("</SoftwareIdentity>").unwrap());
    let signature = &good[start..end];
    let forged = good.replace(signature, "").replace("550.90.07", "999.99.99");
    let inside = |place: &str, what: &str| forged.replace(place, &format!("{what}{place}"));
    assert!(refused(&good.replace(signature, "")).contains("0 signatures"));
    assert!(refused(&good.replace(signature, &signature.repeat(2))).contains("2 signatures"));
    // The recipe `nv-rim-wrapping`: a forged root around the whole signed document.
    assert!(refused(&inside("</SoftwareIdentity>", &good)).contains("0 signatures"));
    assert!(refused(&inside("</n:Payload>", signature)).contains("0 signatures"));
    let around = |what: &str| {
        signature.replace("</ds:KeyInfo>", &format!("</ds:KeyInfo><ds:Object>{what}</ds:Object>"))
    };
    assert!(refused(&inside("</SoftwareIdentity>", &around(&good))).contains("deeper than 8"));
    assert!(refused(&inside("</SoftwareIdentity>", &around(signature))).contains("within another element"));
    let moved = good.replace(signature, "").replace("<n:Meta", &format!("{signature}<n:Meta"));
    assert!(refused(&moved).contains("Entity, Meta, Payload, Signature"));
    let outside = good.replace(signature, "") + signature;
    assert!(refused(&outside).contains("after the root"));
    let other_namespace = good.replace("xmldsig#\">", "xmldsig\">");
    assert!(refused(&other_namespace).contains("0 signatures"));
    // A prefix is signed, although it says nothing.
    let prefix = good.replace("ds:", "sd:").replace("xmlns:ds=", "xmlns:sd=");
    assert!(signer.faults(&prefix).join("; ").contains("does not verify"));
}

#[test]
fn manifests_of_another_schema_are_refused() {
    let cases = [
        ("xmlns=\"http://standards", "xmlns=\"https://standards", "not SoftwareIdentity"),
        ("NVIDIA Corporation", "ACME", "not NVIDIA"),
        ("<n:Entity name", "<n:Entity title", "Entity has no name"),
        ("<n:Entity name=\"NVIDIA Corporation\" role=\"tagCreator\"/>", "", "Entity, Meta, Payload"),
        ("role=\"tagCreator\"/>", "role=\"tagCreator\">x</n:Entity>", "content of Entity"),
        ("product=\"GH100\"/>", "product=\"GH100\"><n:Payload/></n:Meta>", "content of Meta"),
        ("<n:Meta", "<n:Link/><n:Meta", "Entity, Meta, Payload"),
        ("<n:Meta", "<h:Meta", "Entity, Meta, Payload"),
        ("<n:Meta", "text<n:Meta", "text in SoftwareIdentity"),
        ("colloquialVersion=\"550.90.07\" ", "", "no colloquialVersion"),
        ("colloquialVersion=\"550.90.07\" ", "colloquialVersion=\"\" ", "not a name or version"),
        ("colloquialVersion=\"550.90.07\" ", "colloquialVersion=\"550 90\" ", "not a name or version"),
        (" edition=\"GPU\"", "", "no edition"),
        (" product=\"GH100\"", "", "no product"),
        ("<n:Payload>", "<n:Payload>x", "text in Payload"),
        ("type=\"Measurement\"", "type=\"Other\"", "no measurement in Payload"),
        ("<n:Resource type", "<h:Resource type", "no measurement in Payload"),
        ("size=\"48\"/>", "size=\"48\">x</n:Resource>", "content of Resource"),
        ("index=\"7\"", "index=\"07\"", "index that is no number"),
        ("index=\"7\"", "index=\"255\"", "index that is no number"),
        ("index=\"7\"", "index=\"+7\"", "index that is no number"),
        ("index=\"7\"", "index=\"0\"", "do not ascend"),
        ("index=\"0\"", "index=\"8\"", "do not ascend"),
        ("index=\"7\" ", "", "no index"),
        ("active=\"True\"", "active=\"true\"", "neither active nor not"),
        ("active=\"True\"", "active=\"False\"", "no measurement is active"),
        ("active=\"True\" ", "", "no active"),
        ("size=\"48\"", "size=\"32\"", "not of 48 bytes"),
        ("alternatives=\"2\"", "alternatives=\"1\"", "2 digests, not what it says"),
        ("alternatives=\"2\"", "alternatives=\"3\"", "2 digests, not what it says"),
        ("alternatives=\"2\"", "alternatives=\"x\"", "2 digests, not what it says"),
        ("alternatives=\"1\" h:Hash0=\"{00}\"", "alternatives=\"0\"", "0 digests"),
        ("h:Hash1=", "h:Hash2=", "digests that are not SHA-384"),
        ("h:Hash1=\"ff", "h:Hash1=\"f", "digests that are not SHA-384"),
        ("h:Hash1=\"ff", "h:Hash1=\"gg", "digests that are not SHA-384"),
        ("h:Hash1=", "Hash1=", "attribute that is not known"),
        ("alternatives=\"2\"", "alternatives=\"2\" mask=\"00\"", "attribute that is not known"),
        ("xmlenc#sha384", "xmlenc#sha512", "attribute that is not known"),
    ];
    let good = Signer::new(|_| {}).sign();
    let altered = |from: &str, to: &str| {
        let (from, to) = (fill(from), fill(to));
        assert!(good.contains(&from), "{from}");
        let got = Rim::parse(good.replacen(&from, &to, 1).as_bytes());
        got.map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
    };
    for (from, to, why) in cases {
        let got = altered(from, to);
        assert!(got.contains(why), "{from} -> {to}: {got}");
    }
    let more = |n: usize| (2..n).map(|i| format!(" h:Hash{i}=\"{{00}}\"")).collect::<String>();
    let many = |n: usize| altered("alternatives=\"2\"", &format!("alternatives=\"{n}\"{}", more(n)));
    assert_eq!(many(16), "accepted");
    assert!(many(17).contains("17 digests"));
    let resources = "<n:Resource/>".repeat(254);
    assert!(altered("<n:Payload>", &format!("<n:Payload>{resources}")).contains("more than 255"));
    assert!(Rim::parse(b"<a/>").unwrap_err().to_string().contains("not SoftwareIdentity"));
}

#[test]
fn no_prefix_of_a_manifest_is_one() {
    let good = Signer::new(|_| {}).sign();
    for len in 0..good.len() {
        assert!(Rim::parse(&good.as_bytes()[..len]).is_err(), "{len}");
    }
}
