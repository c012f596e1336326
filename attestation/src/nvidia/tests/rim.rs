//! Manifests under a test root: what is wrong with signature, content, and which of several is taken.

use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};

use super::factory::*;
use super::rejects::{given, verdict};
use super::*;
use crate::{Endorsement, EndorsementKind};

/// The verdict with a change to the driver's manifest before it is signed, and everything else in order.
fn with_driver(change: impl FnOnce(String) -> String) -> Verdict {
    let factory = Factory::new();
    let rims = [factory.rim(DRIVER, change), factory.rim(VBIOS, |text| text)];
    check(&factory, &rims)
}

fn check(factory: &Factory, rims: &[Vec<u8>]) -> Verdict {
    let gpu = factory.gpu(&factory.report(|_| {}));
    verdict(factory, &gpu, &given(rims, &factory.responses()))
}

#[track_caller]
fn rim_says(v: &Verdict, what: &str) {
    assert!(v.failed().contains(&"nvidia.rim"), "{:?}", v.failed());
    assert!(v.got("nvidia.rim").contains(what), "{}", v.got("nvidia.rim"));
    assert!(v.authentic && !v.accepted, "a report is genuine whatever manifests say");
}

/// A change of the text that must be there.
fn replaced(from: &str, to: &str) -> impl FnOnce(String) -> String {
    move |text| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    }
}

#[test]
fn altered_after_signing() {
    let factory = Factory::new();
    let alter = |from: &str, to: &str| {
        let text = String::from_utf8(factory.rim(DRIVER, |text| text)).unwrap();
        assert!(text.contains(from));
        check(&factory, &[text.replacen(from, to, 1).into_bytes(), factory.rim(VBIOS, |text| text)])
    };
    rim_says(&alter("active=\"True\"", "active=\"False\""), "altered after it was signed");
    rim_says(&alter("</p:Payload>", " </p:Payload>"), "altered after it was signed");
    rim_says(&alter("name=\"M_3\"", "name=\"M_x\""), "altered after it was signed");
    // Inherited namespaces are signed with SignedInfo, white space between tags is not looked at twice.
    rim_says(&alter("<ds:SignedInfo>", "<ds:SignedInfo> "), "does not verify");
    rim_says(&alter("<ds:Signature ", "<ds:Signature xmlns:q=\"urn:q\" "), "does not verify");
    let unchanged = alter("name=\"M_3\" size=\"48\"", "size=\"48\"   name='M_3'");
    assert!(unchanged.accepted, "what canonical XML ignores does not matter");
}

#[test]
fn faults_of_the_signer() {
    let with_signer = |change: &dyn Fn(&mut Factory)| {
        let mut factory = Factory::new();
        change(&mut factory);
        check(&factory, &factory.rims())
    };
    rim_says(
        &with_signer(&|f| {
            f.signer = f.signer.again(&f.rim_authority, |p| p.not_after = date_time_ymd(2025, 1, 1));
        }),
        "driver RIM: RIM signer expired at 2025-01-01T00:00:00Z",
    );
    rim_says(
        &with_signer(&|f| {
            f.signer = f.signer.again(&f.rim_authority, |p| {
                p.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
            });
        }),
        "for another purpose",
    );
    rim_says(&with_signer(&|f| f.rim_root = Party::new("RIM root", None, |_| {})), "not signed by");
    rim_says(&with_signer(&|f| f.rim_authority = Party::new("Other", Some(&f.rim_root), |_| {})), "missing");
    rim_says(
        &with_signer(&|f| f.signer = Party::new("RIM signer", Some(&f.rim_authority), |_| {})),
        "the end entity is a certificate authority",
    );
    // Under the root of devices, which signs no manifests.
    rim_says(&with_signer(&|f| f.signer = Party::new("s", Some(&f.identity), end_entity)), "missing");
    // A root of its own, and a key that is not the certificate's.
    let factory = Factory::new();
    let own = Party::new("RIM root", None, |_| {});
    let text = |version: &str| String::from_utf8(factory.rim(version, |text| text)).unwrap();
    let signed = |signer: &Party, certificates: &[&Party]| {
        let raw = std::cell::RefCell::new(String::new());
        factory.rim(DRIVER, |text| {
            raw.borrow_mut().clone_from(&text);
            text
        });
        let certificates: Vec<_> = certificates.iter().map(|p| p.certificate.clone()).collect();
        sign_rim(signer, &certificates, raw.into_inner())
    };
    let vbios = text(VBIOS).into_bytes();
    let v = check(
        &factory,
        &[signed(&factory.signer, &[&factory.signer, &factory.rim_authority, &own]), vbios.clone()],
    );
    rim_says(&v, "the root that it brings, RIM root, is not the pinned one");
    let v = check(&factory, &[signed(&own, &[&factory.signer, &factory.rim_authority]), vbios]);
    rim_says(&v, "does not verify under the signer's key");
}

/// Whether a manifest with this change can be read.
fn malformed(change: impl FnOnce(String) -> String) -> String {
    Rim::parse(&Factory::new().rim(DRIVER, change)).unwrap_err().to_string()
}

#[test]
fn a_malformed_rim_fails_its_factor() {
    let v = with_driver(|text| format!("<!DOCTYPE x>{text}"));
    rim_says(&v, "document type");
    let factory = Factory::new();
    rim_says(&check(&factory, &[b"not XML".to_vec()]), "malformed XML document");
}

#[test]
fn the_signature_has_one_form() {
    for (from, to, why) in [
        (
            "2006/12/xml-c14n11\"/><ds:SignatureMethod",
            "2001/10/xml-exc-c14n#\"/><ds:SignatureMethod",
            "Algorithm",
        ),
        ("more#ecdsa-sha384", "more#ecdsa-sha256", "Algorithm"),
        (
            "more#ecdsa-sha384\"/>",
            "more#ecdsa-sha384\"><ds:HMACOutputLength>1</ds:HMACOutputLength></ds:SignatureMethod>",
            "content of SignatureMethod",
        ),
        ("xmldsig-more#sha384", "xmlenc#sha256", "Algorithm"),
        ("URI=\"\"", "URI=\"#x\"", "URI"),
        ("URI=\"\"", "", "URI"),
        ("URI=\"\"", "URI=\"\" Type=\"x\"", "URI"),
        ("xmldsig#enveloped-signature", "xmldsig#base64", "Algorithm"),
        (
            "<ds:Transforms>",
            "<ds:Transforms><ds:Transform Algorithm=\"http://www.w3.org/TR/1999/REC-xpath-19991116\"/>",
            "content of Transforms",
        ),
        (
            "<ds:Transform Algorithm=\"http://www.w3.org/2006/12/xml-c14n11\"/></ds:Transforms>",
            "</ds:Transforms>",
            "content of Transforms",
        ),
        ("</ds:Reference>", "</ds:Reference><ds:Reference URI=\"\"/>", "content of SignedInfo"),
        ("<ds:SignedInfo>", "<ds:SignedInfo Id=\"x\">", "attributes of SignedInfo"),
        ("<ds:Signature ", "<ds:Signature Id=\"x\" ", "attributes of Signature"),
        ("<ds:SignatureValue>", "<ds:SignatureValue Id=\"x\">", "attributes of SignatureValue"),
        ("<ds:DigestValue>", "<ds:DigestValue Id=\"x\">", "attributes of DigestValue"),
        ("<ds:KeyInfo>", "<ds:KeyInfo Id=\"x\">", "attributes of KeyInfo"),
        ("<ds:X509Data>", "<ds:X509Data Id=\"x\">", "attributes of X509Data"),
        ("<ds:X509Data>", "<ds:KeyValue/><ds:X509Data>", "content of KeyInfo"),
        ("</ds:KeyInfo>", "</ds:KeyInfo><ds:Object/>", "content of Signature"),
        ("<ds:DigestValue>DIGEST", "<ds:DigestValue>?", "DigestValue is not base64"),
        ("<ds:SignatureValue>SIGNATURE", "<ds:SignatureValue>", "SignatureValue is not text only"),
        ("CERTIFICATES", "", "0 certificates"),
        ("CERTIFICATES", "CERTIFICATES<ds:X509CRL/>", "no certificate in X509Data"),
        ("CERTIFICATES", "CERTIFICATESCERTIFICATESCERTIFICATES", "9 certificates"),
        ("CERTIFICATES", "<ds:X509Certificate>AAAA</ds:X509Certificate>", "malformed certificate"),
        (
            "CERTIFICATES",
            "<ds:X509Certificate Id=\"x\">AAAA</ds:X509Certificate>",
            "attributes of X509Certificate",
        ),
        ("CERTIFICATES", "text", "text in X509Data"),
    ] {
        let said = malformed(replaced(from, to));
        assert!(said.contains(why), "{from} -> {to}: {said}");
    }
    let long = malformed(|text| text.replace("SIGNATURE", &"A".repeat(12 * 1024 + 4)));
    assert!(long.contains("SignatureValue is too long"), "{long}");
}

/// Documents in which a reader and a verifier could see two things.
#[test]
fn wrapping_and_moving_the_signature() {
    let signed = String::from_utf8(Factory::new().rim(DRIVER, |text| text)).unwrap();
    let (from, to) = (signed.find("<ds:Signature ").unwrap(), signed.find("</SoftwareIdentity>").unwrap());
    let signature = &signed[from..to];
    let forged = signed.replace("active=\"True\"", "active=\"False\"");
    let forged =
        forged.replace(&forged[forged.find("<ds:Signature ").unwrap()..forged.find("</Soft").unwrap()], "");
    let refused = |document: String| Rim::parse(document.as_bytes()).unwrap_err().to_string();
    let root = signed.split('>').next().unwrap();
    // The signed document in a new one; in the place of the signature; in an object of it; the signature at another depth.
    assert!(refused(format!("{root}>{signed}</SoftwareIdentity>")).contains("0 signatures"));
    assert!(refused(forged.replace("</Soft", &format!("{signed}</Soft"))).contains("0 signatures"));
    let wrapped =
        signature.replace("</ds:KeyInfo>", &format!("</ds:KeyInfo><ds:Object>{signature}</ds:Object>"));
    assert!(refused(forged.replace("</Soft", &format!("{wrapped}</Soft"))).contains("within another"));
    assert!(
        refused(forged.replace("</p:Payload>", &format!("{signature}</p:Payload>"))).contains("0 signatures")
    );
    assert!(refused(signed.replace(signature, &signature.repeat(2))).contains("2 signatures"));
    assert!(
        refused(signed.replace("</p:Payload>", &format!("{signature}</p:Payload>")))
            .contains("within another")
    );
    assert!(refused(signed.replace(signature, "")).contains("0 signatures"));
    // The same names under another namespace are other names.
    assert!(
        refused(signed.replace("2000/09/xmldsig#\"><ds:Sig", "2000/09/other#\"><ds:Sig"))
            .contains("0 signatures")
    );
    assert!(
        refused(signed.replace("iso/19770/-2/2015", "iso/19770/-2/2014")).contains("not SoftwareIdentity")
    );
    // Before the rest it does not belong, though it would verify.
    let moved = malformed(|text| {
        let (from, to) = (text.find("<ds:Signature ").unwrap(), text.find("</SoftwareIdentity>").unwrap());
        let signature = text[from..to].to_owned();
        text.replace(&signature, "").replace("<p:Entity", &format!("{signature}<p:Entity"))
    });
    assert!(moved.contains("not Entity, Meta, Payload, Signature"), "{moved}");
}

/// What is changed, into what, and what is said.
const CONTENT: [(&str, &str, &str); 37] = [
    ("<SoftwareIdentity", "<Software", "end tag"),
    ("<p:Entity name=\"NVIDIA Corporation\" role=\"tagCreator\"/>", "", "not Entity, Meta, Payload"),
    ("<p:Payload>", "text<p:Payload>", "text in SoftwareIdentity"),
    ("<p:Payload>", "<p:Link/><p:Payload>", "not Entity, Meta, Payload"),
    ("<p:Meta ", "<h:Meta ", "not Entity, Meta, Payload"),
    ("<p:Entity name=\"NVIDIA Corporation\"", "<p:Entity name=\"NVIDlA Corporation\"", "not NVIDIA"),
    ("<p:Entity name=\"NVIDIA Corporation\"", "<p:Entity", "Entity has no name"),
    ("role=\"tagCreator\"/>", "role=\"tagCreator\"><p:x/></p:Entity>", "content of Entity"),
    ("product=\"GH100\"/>", "product=\"GH100\"><p:x/></p:Meta>", "content of Meta"),
    ("product=\"GH100\"", "", "Meta has no product"),
    ("edition=\"GPU\"", "", "Meta has no edition"),
    ("colloquialVersion=\"550.1.2\"", "", "Meta has no colloquialVersion"),
    ("colloquialVersion=\"550.1.2\"", "colloquialVersion=\"\"", "not a name or version"),
    ("colloquialVersion=\"550.1.2\"", "colloquialVersion=\"a b\"", "not a name or version"),
    ("<p:Payload>", "<p:Payload>text", "text in Payload"),
    ("<p:Payload>", "<p:Payload><p:File/>", "no measurement in Payload"),
    ("type=\"Measurement\"", "type=\"Other\"", "no measurement in Payload"),
    ("type=\"Measurement\"", "", "Resource has no type"),
    ("name=\"M_3\" size=\"48\"/>", "name=\"M_3\" size=\"48\">x</p:Resource>", "content of Resource"),
    ("index=\"3\"", "index=\"2\"", "do not ascend"),
    ("index=\"3\"", "index=\"03\"", "an index"),
    ("index=\"3\"", "index=\"+3\"", "an index"),
    ("index=\"39\"", "index=\"255\"", "an index"),
    ("index=\"39\"", "index=\"256\"", "an index"),
    ("index=\"3\"", "", "Resource has no index"),
    ("index=\"3\" active=\"False\"", "index=\"3\" active=\"false\"", "neither active nor not"),
    ("index=\"3\" active=\"False\"", "index=\"3\"", "Resource has no active"),
    ("name=\"M_3\" size=\"48\"", "name=\"M_3\" size=\"32\"", "not of 48 bytes"),
    ("name=\"M_3\" size=\"48\"", "name=\"M_3\"", "Resource has no size"),
    ("name=\"M_3\"", "other=\"x\"", "attribute that is not known"),
    ("name=\"M_3\"", "p:name=\"x\"", "attribute that is not known"),
    (
        "index=\"3\" active=\"False\" alternatives=\"1\"",
        "index=\"3\" active=\"False\" alternatives=\"2\"",
        "1 digests, not what it says",
    ),
    (
        "index=\"3\" active=\"False\" alternatives=\"1\"",
        "index=\"3\" active=\"False\"",
        "Resource has no alternatives",
    ),
    (
        "index=\"3\" active=\"False\" alternatives=\"1\"",
        "index=\"3\" active=\"False\" alternatives=\"1\" h:Hash1=\"00\"",
        "2 digests",
    ),
    ("h:Hash0=\"01", "h:Hash0=\"0g", "not SHA-384"),
    ("h:Hash0=\"0101", "h:Hash0=\"01", "not SHA-384"),
    ("h:Hash0", "h:Hash1", "not SHA-384"),
];

#[test]
fn the_content_has_one_form() {
    let more = |text: String| {
        let line = text.lines().find(|line| line.contains("index=\"3\"")).unwrap().to_owned();
        let lines: String =
            (40..256).map(|n| line.replace("index=\"3\"", &format!("index=\"{n}\"")) + "\n").collect();
        text.replace("</p:Payload>", &format!("{lines}</p:Payload>"))
    };
    assert!(malformed(more).contains("more than 255 measurements"));
    for (from, to, why) in CONTENT {
        let said = malformed(replaced(from, to));
        assert!(said.contains(why), "{from} -> {to}: {said}");
    }
    assert!(
        malformed(|text| text.replace("active=\"True\"", "active=\"False\""))
            .contains("no measurement is active")
    );
    let long = format!("colloquialVersion=\"{}\"", "1".repeat(65));
    assert!(malformed(replaced("colloquialVersion=\"550.1.2\"", &long)).contains("not a name or version"));
    let digests: String = (1..17).map(|n| format!(" h:Hash{n}=\"{}\"", "00".repeat(48))).collect();
    let many = format!("index=\"3\" active=\"False\" alternatives=\"17\"{digests}");
    assert!(
        malformed(replaced("index=\"3\" active=\"False\" alternatives=\"1\"", &many)).contains("17 digests")
    );
    let none = malformed(|text| {
        let line = text.lines().find(|line| line.contains("index=\"3\"")).unwrap().to_owned();
        let start = line.find("h:Hash0").unwrap();
        let without = format!("{}{}", &line[..start], &line[start + 107..])
            .replace("alternatives=\"1\"", "alternatives=\"0\"");
        text.replace(&line, &without)
    });
    assert!(none.contains("0 digests"), "{none}");
}

#[test]
fn measurements_that_differ_are_listed() {
    let digest = |index: u8| format!("h:Hash0=\"{}\"", hex::encode(value(index)));
    let wrong = format!("h:Hash0=\"{}\"", "00".repeat(48));
    let v = with_driver(|text| text.replace(&digest(21), &wrong).replace(&digest(30), &wrong));
    assert_eq!(v.failed(), ["nvidia.measurements"]);
    assert_eq!(v.got("nvidia.measurements"), "differ at 21, 30 (driver)");
    // Any alternative will do.
    let two = format!("alternatives=\"2\" {wrong} {}", digest(21).replace("Hash0", "Hash1"));
    let v = with_driver(|text| text.replace(&format!("alternatives=\"1\" {}", digest(21)), &two));
    assert!(v.accepted, "{:?}", v.failed());
    // What the report does not have differs.
    let factory = Factory::new();
    let gpu = factory.gpu(&factory.report(|r| {
        r.blocks.pop();
        r.header[4] -= 1;
    }));
    let v = verdict(&factory, &gpu, &given(&factory.rims(), &factory.responses()));
    assert_eq!(v.got("nvidia.measurements"), "differ at 39 (driver)");
    // Index 35 counts unless NVDEC0 is off.
    for state in [&[0xaa][..], &[]] {
        let gpu = factory.gpu(&factory.report(|r| r.set(11, state)));
        let v = verdict(&factory, &gpu, &given(&factory.rims(), &factory.responses()));
        assert_eq!(v.got("nvidia.measurements"), "differ at 35 (driver)");
    }
}

#[test]
fn one_index_belongs_to_one_rim() {
    let v = with_driver(replaced("index=\"5\" active=\"False\"", "index=\"5\" active=\"True\""));
    assert_eq!(v.failed(), ["nvidia.measurements"]);
    assert!(v.got("nvidia.measurements").contains("both RIMs have a value at 5"));
}

#[test]
fn rims_for_something_else() {
    for (from, to) in [
        ("550.1.2", "550.1.3"),
        ("product=\"GH100\"", "product=\"GB100\""),
        ("edition=\"GPU\"", "edition=\"SWITCH\""),
    ] {
        rim_says(&with_driver(replaced(from, to)), "is not for this report");
    }
    let factory = Factory::new();
    let [driver, vbios] = [DRIVER, VBIOS].map(|version| factory.rim(version, |text| text));
    rim_says(
        &check(&factory, &[driver.clone(), driver.clone(), vbios.clone()]),
        "the driver RIM is given twice",
    );
    // One missing: in a session both fail.
    let v = check(&factory, std::slice::from_ref(&driver));
    assert_eq!(v.failed(), ["nvidia.rim", "nvidia.measurements"]);
    assert!(v.factor("nvidia.rim").want.as_deref().unwrap().contains("the VBIOS's RIM"));
    let v = check(&factory, &[vbios]);
    assert!(v.factor("nvidia.rim").want.as_deref().unwrap().contains("the driver's RIM"));
    // Offline what was given may be good while the comparison is incomplete.
    let signatures = SignatureCache::new();
    let ctx = Context { now: NOW.parse().unwrap(), missing: Missing::Unchecked, signatures: &signatures };
    let gpu = factory.gpu(&factory.report(|_| {}));
    let v = inspect(&gpu, &given(&[driver], &[]), &factory.anchors(), None, ctx);
    assert_eq!(v.failed(), ["nvidia.measurements"]);
}

/// What is stapled may be for several GPUs, in several editions.
#[test]
fn the_fitting_rims_are_chosen() {
    let mut factory = Factory::new();
    let [good, vbios] = [DRIVER, VBIOS].map(|version| factory.rim(version, |text| text));
    let other = factory.rim(DRIVER, replaced("550.1.2", "550.1.3"));
    let responses = factory.responses();
    factory.signer =
        factory.signer.again(&factory.rim_authority, |p| p.not_after = date_time_ymd(2025, 1, 1));
    let expired = factory.rim(DRIVER, |text| text);
    let stapled = |rims: &[&Vec<u8>]| {
        let rim = |bytes: &&Vec<u8>| Endorsement { kind: EndorsementKind::NvidiaRim, bytes: bytes.to_vec() };
        let ocsp = |bytes: &Vec<u8>| Endorsement { kind: EndorsementKind::NvidiaOcsp, bytes: bytes.clone() };
        let amd = Endorsement { kind: EndorsementKind::AmdCrl, bytes: b"x".to_vec() };
        let all: Vec<_> = rims.iter().map(rim).chain(responses.iter().map(ocsp)).chain([amd]).collect();
        let gpu = factory.gpu(&factory.report(|_| {}));
        verdict(&factory, &gpu, &Endorsements::from_stapled(&all).unwrap())
    };
    assert!(stapled(&[&good, &vbios]).accepted);
    assert!(stapled(&[&other, &good, &vbios, &good]).accepted, "others are ignored, and twice is no harm");
    assert!(stapled(&[&expired, &vbios, &good]).accepted, "the edition that is good");
    rim_says(&stapled(&[&expired, &vbios]), "expired at 2025-01-01T00:00:00Z");
    rim_says(&stapled(&[&other, &vbios]), "not given");
    rim_says(&stapled(&[&good, &vbios, &b"x".to_vec()]), "malformed");
}
