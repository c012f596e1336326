//! OCSP responses under a test root.

use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};

use super::super::ocsp::{OcspResponse, status};
use super::factory::*;
use super::rejects::{given, verdict};
use super::*;

/// What a response says about the boot ROM's certificate, made by its issuer but for `change`.
fn said(change: impl FnOnce(&mut Ocsp)) -> Option<Vec<String>> {
    let factory = Factory::new();
    let response = Ocsp::good(&factory.boot_rom, &factory.identity).with(change);
    ask(&factory, &[response.signed(&factory.identity, &[])])
}

fn ask(factory: &Factory, responses: &[Vec<u8>]) -> Option<Vec<String>> {
    let signatures = SignatureCache::new();
    let ctx = Context { now: NOW.parse().unwrap(), missing: Missing::Fails, signatures: &signatures };
    let responses: Vec<_> = responses.iter().map(|bytes| OcspResponse::parse(bytes).unwrap()).collect();
    status(responses.iter(), &factory.boot_rom.certificate, &factory.identity.certificate, ctx)
}

#[track_caller]
fn bad(said: Option<Vec<String>>, what: &str) {
    let said = said.unwrap();
    assert!(said.len() == 1 && said[0].contains(what) && said[0].contains("GH100 A01 GSP BROM"), "{said:?}");
}

/// `[1] { time, reason }`
fn revoked(reason: &[u8]) -> Vec<u8> {
    tlv(0xa1, &[time("20260203000000Z"), reason.to_vec()].concat())
}

#[test]
fn the_three_statuses() {
    assert_eq!(said(|_| {}), Some(vec![]));
    bad(said(|o| o.status = revoked(&[])), "was revoked at 2026-02-03T00:00:00Z (no reason given)");
    let reason = |code| tlv(0xa0, &[0x0a, 1, code]);
    bad(said(|o| o.status = revoked(&reason(1))), "(key compromised)");
    bad(said(|o| o.status = revoked(&reason(6))), "(on hold)");
    bad(said(|o| o.status = revoked(&reason(99))), "(no reason given)");
    bad(said(|o| o.status = vec![0x82, 0]), "is not known to the OCSP responder");
}

#[test]
fn dates() {
    bad(said(|o| o.next_update = tlv(0xa0, &time("20261124115959Z"))), "expired at 2026-11-24T11:59:59Z");
    bad(said(|o| o.this_update = time("20261124120501Z")), "not valid before 2026-11-24T12:05:01Z");
    assert_eq!(
        said(|o| o.this_update = time("20261124120500Z")),
        Some(vec![]),
        "a clock may be behind a little"
    );
}

#[test]
fn about_another_certificate() {
    assert_eq!(said(|o| o.serial = tlv(2, &[1])), None);
    assert_eq!(said(|o| o.name_hash = tlv(4, &[0; 48])), None);
    assert_eq!(said(|o| o.key_hash = tlv(4, &[0; 48])), None);
    let sha1 = tlv(0x30, &[6, 5, 0x2b, 0x0e, 3, 2, 0x1a]);
    assert_eq!(said(|o| o.hash = sha1.clone()), None);
    // An empty hash is not equal to one that is not known.
    let empty = |o: &mut Ocsp| (o.hash, o.name_hash, o.key_hash) = (sha1, tlv(4, &[]), tlv(4, &[]));
    assert_eq!(said(empty), None);
    let factory = Factory::new();
    let with_sha256 = Ocsp::good(&factory.boot_rom, &factory.identity).with(|o| {
        o.hash = tlv(0x30, &[6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1]);
        let issuer = &factory.identity.certificate;
        o.name_hash = tlv(4, &crate::crypto::sha256(&[&issuer.subject_der()]));
        o.key_hash = tlv(4, &crate::crypto::sha256(&[issuer.public_key()]));
    });
    assert_eq!(ask(&factory, &[with_sha256.signed(&factory.identity, &[])]), Some(vec![]));
}

#[test]
fn who_may_sign() {
    let factory = Factory::new();
    let response = Ocsp::good(&factory.boot_rom, &factory.identity);
    let responder = |issuer: &Party| {
        Party::new("Responder", Some(issuer), |p| {
            end_entity(p);
            p.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
        })
    };
    let delegated = responder(&factory.identity);
    let by = |signer: &Party, brought: &[&Party]| ask(&factory, &[response.signed(signer, brought)]);
    assert_eq!(by(&delegated, &[&delegated]), Some(vec![]));
    assert_eq!(by(&delegated, &[&factory.leaf, &delegated]), Some(vec![]), "others may come along");
    let neither = "neither GH100 Identity nor a responder of its signed it";
    bad(by(&delegated, &[]), neither);
    bad(by(&factory.leaf, &[&delegated]), neither);
    let of_root = responder(&factory.root);
    bad(by(&of_root, &[&of_root]), neither);
    bad(by(&factory.root, &[]), neither);
    let plain = delegated.again(&factory.identity, |p| p.extended_key_usages.clear());
    bad(by(&plain, &[&plain]), "Responder may not sign OCSP responses");
    let server = delegated.again(&factory.identity, |p| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    bad(by(&server, &[&server]), "Responder may not sign OCSP responses");
    let old = delegated.again(&factory.identity, |p| p.not_after = date_time_ymd(2025, 1, 1));
    bad(by(&old, &[&old]), "Responder expired at 2025-01-01T00:00:00Z");
    let imposter = responder(&Party::new("GH100 Identity", Some(&factory.root), |_| {}));
    bad(by(&imposter, &[&imposter]), "Responder is not signed by GH100 Identity");
}

/// The latest that is good in itself counts.
#[test]
fn several_responses() {
    let factory = Factory::new();
    let at = |hour: &str, status: &[u8]| {
        let response = Ocsp::good(&factory.boot_rom, &factory.identity).with(|o| {
            o.this_update = time(&format!("20261124{hour}0000Z"));
            o.status = status.to_vec();
        });
        response.signed(&factory.identity, &[])
    };
    let (good, revoked) = ([0x80, 0], revoked(&[]));
    assert_eq!(ask(&factory, &[at("01", &revoked), at("02", &good)]), Some(vec![]), "a hold was lifted");
    assert_eq!(ask(&factory, &[at("02", &good), at("01", &revoked)]), Some(vec![]));
    bad(ask(&factory, &[at("02", &revoked), at("01", &good)]), "was revoked");
    let stale = Ocsp::good(&factory.boot_rom, &factory.identity)
        .with(|o| o.next_update = tlv(0xa0, &time("20261124010000Z")))
        .signed(&factory.identity, &[]);
    assert_eq!(ask(&factory, &[stale, at("01", &good)]), Some(vec![]));
}

#[test]
fn malformed_responses() {
    let factory = Factory::new();
    let refused = |change: &dyn Fn(&mut Ocsp)| {
        let response = Ocsp::good(&factory.boot_rom, &factory.identity).with(change);
        OcspResponse::parse(&response.signed(&factory.identity, &[])).unwrap_err().to_string()
    };
    let critical = tlv(0x30, &tlv(0x30, &[&[6, 3, 0x2a, 3, 4, 1, 1, 0xff], tlv(4, b"").as_slice()].concat()));
    let plain = tlv(0x30, &tlv(0x30, &[&[6, 3, 0x2a, 3, 4], tlv(4, b"").as_slice()].concat()));
    assert!(refused(&|o| o.response_status = vec![0x0a, 1, 6]).contains("not a successful"));
    assert!(refused(&|o| o.response_status = vec![2, 1, 0]).contains("not a successful"));
    assert!(refused(&|o| o.response_type = vec![6, 3, 0x2a, 3, 4]).contains("not a successful"));
    let data = "response data of a form that is known";
    assert!(refused(&|o| o.version = tlv(0xa0, &[2, 1, 1])).contains(data));
    assert!(refused(&|o| o.responder = tlv(4, b"x")).contains(data));
    assert!(refused(&|o| o.responder.clear()).contains(data));
    assert!(refused(&|o| o.serial = tlv(2, &[])).contains(data));
    assert!(refused(&|o| o.serial = tlv(2, &[0x80])).contains(data), "negative");
    assert!(refused(&|o| o.serial = tlv(4, &[1])).contains(data));
    assert!(refused(&|o| o.status = vec![0x83, 0]).contains(data));
    assert!(refused(&|o| o.status = vec![0x80, 1, 0]).contains(data));
    assert!(refused(&|o| o.status = vec![5, 0]).contains(data));
    assert!(refused(&|o| o.status = revoked(&tlv(0xa0, &[2, 1, 1]))).contains(data));
    assert!(refused(&|o| o.status = revoked(&[5, 0])).contains(data));
    assert!(refused(&|o| o.status = tlv(0xa1, &[])).contains(data));
    assert!(refused(&|o| o.this_update = tlv(0x17, b"261124000000Z")).contains(data));
    assert!(refused(&|o| o.next_update.clear()).contains(data));
    assert!(refused(&|o| o.single_extensions = tlv(0xa1, &critical)).contains(data));
    assert!(refused(&|o| o.extensions = tlv(0xa1, &critical)).contains(data));
    assert!(refused(&|o| o.extensions = tlv(0xa2, &plain)).contains(data));
    assert!(refused(&|o| o.singles = 17).contains(data));
    let good = |change: &dyn Fn(&mut Ocsp)| {
        let response = Ocsp::good(&factory.boot_rom, &factory.identity).with(change);
        ask(&factory, &[response.signed(&factory.identity, &[])])
    };
    assert_eq!(good(&|o| o.extensions = tlv(0xa1, &plain)), Some(vec![]));
    assert_eq!(good(&|o| o.single_extensions = tlv(0xa1, &plain)), Some(vec![]));
    assert_eq!(good(&|o| o.singles = 16), Some(vec![]));
    let with = |n: usize| {
        let response = Ocsp::good(&factory.boot_rom, &factory.identity);
        OcspResponse::parse(&response.signed(&factory.identity, &vec![&factory.leaf; n]))
    };
    assert!(with(4).is_ok());
    assert!(with(5).unwrap_err().to_string().contains("not a basic OCSP response"));
    let bytes = Ocsp::good(&factory.boot_rom, &factory.identity).signed(&factory.identity, &[&factory.leaf]);
    let longer = OcspResponse::parse(&[bytes.as_slice(), &[0]].concat());
    assert!(longer.unwrap_err().to_string().contains("not a successful"));
    let text =
        hex::encode(&bytes).replace(&hex::encode(&factory.leaf.certificate.der()[..8]), &"30".repeat(8));
    let broken = OcspResponse::parse(&hex::decode(text).unwrap());
    assert!(broken.unwrap_err().to_string().contains("not a basic OCSP response"));
    let too_long = vec![0x30; 8 * 1024 + 1];
    assert!(OcspResponse::parse(&too_long).unwrap_err().to_string().contains("at most 8192"));
}

/// How it counts in the verdict: what a response says about the device is about authenticity, about a signer of RIMs it is not.
#[test]
fn revocation_in_the_verdict() {
    let factory = Factory::new();
    let gpu = factory.gpu(&factory.report(|_| {}));
    for n in 0..4 {
        let (certificate, issuer) = factory.asked()[n];
        let mut responses = factory.responses();
        responses[n] = Ocsp::good(certificate, issuer).with(|o| o.status = revoked(&[])).signed(issuer, &[]);
        let v = verdict(&factory, &gpu, &given(&factory.rims(), &responses));
        assert_eq!(v.failed(), ["nvidia.ocsp"]);
        let name = certificate.certificate.subject_cn();
        assert!(v.got("nvidia.ocsp").contains(&format!("{name} was revoked at 2026-02-03")));
        assert_eq!(v.authentic, n > 1);
        // Without it, it is missing, which is not the device's fault.
        responses.remove(n);
        let v = verdict(&factory, &gpu, &given(&factory.rims(), &responses));
        assert_eq!((v.failed(), v.authentic), (vec!["nvidia.ocsp"], true));
        assert!(v.factor("nvidia.ocsp").want.as_deref().unwrap().contains(&name));
    }
    let mut responses = factory.responses();
    responses.push(b"x".to_vec());
    let v = verdict(&factory, &gpu, &given(&factory.rims(), &responses));
    assert_eq!((v.failed(), v.authentic), (vec!["nvidia.ocsp"], true));
    // A policy that does without responses does not do without what one says.
    let mut policy = NvidiaPolicy::strict(1).unwrap();
    policy.ocsp = crate::policy::Demand::Unchecked { why: "test".to_owned() };
    let signatures = SignatureCache::new();
    let ctx = Context { now: NOW.parse().unwrap(), missing: Missing::Fails, signatures: &signatures };
    let of = |responses: &[Vec<u8>]| {
        let who = authenticate(&gpu, &given(&factory.rims(), responses), &factory.anchors(), ctx);
        let factors = appraise(&gpu, &who, Some(NONCE), &policy);
        factors.into_iter().find(|f| f.name == "nvidia.ocsp").unwrap().status
    };
    assert_eq!((of(&[]), of(&responses)), (Status::Unchecked, Status::Fail));
}

#[test]
fn a_chain_of_one_has_nothing_to_ask_about() {
    let mut factory = Factory::new();
    factory.leaf = Party::new("GH100", Some(&factory.root), end_entity);
    let gpu =
        GpuEvidence { chain: vec![factory.leaf.certificate.clone()], ..factory.gpu(&factory.report(|_| {})) };
    let v = verdict(&factory, &gpu, &given(&[], &[]));
    assert!(v.failed().contains(&"nvidia.ocsp") && v.got("nvidia.ocsp") == "0 good", "{:?}", v.failed());
}

#[test]
fn a_request_names_the_certificate_as_the_response_does() {
    let factory = Factory::new();
    let (certificate, issuer) = (&factory.boot_rom, &factory.identity);
    let (request, subject) =
        crate::nvidia::ocsp_request(&certificate.certificate, &issuer.certificate).unwrap();
    let Ocsp { hash, name_hash, key_hash, serial, .. } = Ocsp::good(certificate, issuer);
    let id = [hash, name_hash, key_hash, serial].concat();
    assert_eq!(request, (0..5).fold(id, |inner, _| tlv(0x30, &inner)));
    let response = Ocsp::good(certificate, issuer).signed(issuer, &[]);
    assert_eq!(crate::nvidia::about_ocsp(&response).unwrap().0, subject);
    let two = Ocsp::good(certificate, issuer).with(|o| o.singles = 2).signed(issuer, &[]);
    assert!(crate::nvidia::about_ocsp(&two).unwrap_err().to_string().contains("more than one certificate"));
}
