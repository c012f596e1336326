//! Everything that can be wrong with a processor's certificates and reports, one at a time: each has exactly one consequence.

use cocoon_attestation::appraisal::{RawEvidence, Refusal};
use cocoon_attestation::binding::{ChannelBinding, Role};
use cocoon_attestation::policy::Policy;
use cocoon_attestation::result::Status;
use cocoon_attestation::snp::{self, Endorsements, Product, Report, Root};
use cocoon_attestation::wire::{AttestRequest, AttestResponse, EpochStatement};
use cocoon_attestation::x509::{Certificate, RevocationList};
use cocoon_attestation::{
    Context, Digest, Endorsement, EndorsementKind, Error, Missing, SignatureCache, UnixTime,
};
use cocoon_tests::enclave::now;
use cocoon_tests::factory::{
    Authority, BASIC_CONSTRAINTS, Chip, HARDWARE_ID, Processor, Template, basic_constraints, offset, spl,
};
use der::Encode;
use der::asn1::{Any, ObjectIdentifier};

const PRODUCTS: [Product; 3] = [Product::Milan, Product::Genoa, Product::Turin];
const DAY: u64 = 24 * 3600;

fn genoa() -> Processor {
    Processor::of(Product::Genoa)
}

/// Failed factors with what they say, of `processor`'s report with `given` certificates and its revocation list.
fn find(
    processor: &Processor,
    given: &[Vec<u8>],
    root: &Root,
    at: UnixTime,
) -> Result<Vec<(&'static str, String)>, Error> {
    let certificates = given.iter().map(|der| Certificate::from_der(der)).collect::<Result<_, _>>()?;
    let lists = vec![RevocationList::from_pem_or_der(&processor.crl.issue())?];
    let report = Report::parse(&processor.report.sign())?;
    Ok(failures(&report, &Endorsements::new(certificates, lists)?, root, at))
}

fn failures(
    report: &Report,
    given: &Endorsements,
    root: &Root,
    now: UnixTime,
) -> Vec<(&'static str, String)> {
    let ctx = Context { now, missing: Missing::Fails, signatures: &SignatureCache::new() };
    let who = snp::authenticate(report, given, root, ctx);
    let failed = who.factors.iter().filter(|factor| factor.status == Status::Fail);
    let failed: Vec<_> = failed.map(|factor| (factor.name, factor.got.clone().unwrap_or_default())).collect();
    assert_eq!(failed.is_empty(), who.is_authentic());
    failed
}

/// Names of the factors that fail for `processor`.
fn judge(processor: &Processor) -> Vec<&'static str> {
    let report = Report::parse(&processor.report.sign()).unwrap();
    let failed = failures(&report, &processor.endorsements(), &processor.root(), now());
    failed.into_iter().map(|(name, _)| name).collect()
}

/// The one fault that was found; without a chain, list and signature are unknown.
fn only(mut failed: Vec<(&'static str, String)>) -> (&'static str, String) {
    failed.retain(|(_, got)| got != "unknown");
    let [one] = <[_; 1]>::try_from(failed).unwrap();
    one
}

#[test]
fn a_genuine_processor_of_each_product_is_sound() {
    for product in PRODUCTS {
        let processor = Processor::of(product);
        assert_eq!(judge(&processor), [""; 0], "{product:?}");
        assert_eq!(Report::parse(&processor.report.sign()).unwrap().product(), Some(product));
    }
    // The order in which the certificates come does not matter, nor that the root is among them.
    let genoa = genoa();
    let all = [genoa.ark.issue(), genoa.ask.issue(), genoa.vcek.issue()];
    assert!(find(&genoa, &all, &genoa.root(), now()).unwrap().is_empty());
}

#[test]
fn of_several_keys_the_one_of_the_reports_chip_is_taken() {
    let genoa = genoa();
    let genuine = genoa.vcek.issue();
    let mut other = genoa.vcek.clone();
    other.set(HARDWARE_ID, vec![0x77; 64]);
    other.spki = Chip::Other.spki();
    for given in
        [[other.issue(), genuine.clone(), genoa.ask.issue()], [genuine, other.issue(), genoa.ask.issue()]]
    {
        assert!(find(&genoa, &given, &genoa.root(), now()).unwrap().is_empty());
    }
}

/// What a test does to a processor.
type Spoil = fn(&mut Processor);

#[test]
fn each_fault_of_a_chain_is_found() {
    let cases: [(&str, Spoil, &str, &str); 21] = [
        (
            "the root has no basic constraints",
            |p| p.ark.remove(BASIC_CONSTRAINTS),
            "snp.chain",
            "ARK-Factory is not a certificate authority",
        ),
        (
            "the root says that it is none",
            |p| p.ark.set(BASIC_CONSTRAINTS, basic_constraints(false)),
            "snp.chain",
            "ARK-Factory is not a certificate authority",
        ),
        (
            "the ASK has no basic constraints",
            |p| p.ask.remove(BASIC_CONSTRAINTS),
            "snp.chain",
            "SEV-Factory is not a certificate authority",
        ),
        (
            "the ASK says that it is none",
            |p| p.ask.set(BASIC_CONSTRAINTS, basic_constraints(false)),
            "snp.chain",
            "SEV-Factory is not a certificate authority",
        ),
        (
            "an ARK of the same name signed the ASK",
            |p| p.ask.signed_by = Authority::OtherArk,
            "snp.chain",
            "SEV-Factory is not signed by ARK-Factory",
        ),
        (
            "the ASK names another issuer than the key that signed it",
            |p| p.ask.issuer = "CN=ARK-Other",
            "snp.chain",
            "the issuer of SEV-Factory (ARK-Other) is missing",
        ),
        (
            "an ASK of the same name signed the VCEK",
            |p| p.vcek.signed_by = Authority::OtherAsk,
            "snp.chain",
            "SEV-VCEK is not signed by SEV-Factory",
        ),
        (
            "the ARK signed the VCEK in the name of the ASK",
            |p| p.vcek.signed_by = Authority::Ark,
            "snp.chain",
            "SEV-VCEK is not signed by SEV-Factory",
        ),
        (
            "the VCEK may issue certificates",
            |p| p.vcek.add(BASIC_CONSTRAINTS, basic_constraints(true)),
            "snp.chain",
            "the end entity is a certificate authority",
        ),
        ("the root is expired", |p| expired(&mut p.ark), "snp.chain", "ARK-Factory expired at "),
        ("the ASK is expired", |p| expired(&mut p.ask), "snp.chain", "SEV-Factory expired at "),
        ("the VCEK is expired", |p| expired(&mut p.vcek), "snp.chain", "SEV-VCEK expired at "),
        (
            "the VCEK is not valid yet",
            |p| p.vcek.not_before = now().0 + 60,
            "snp.chain",
            "SEV-VCEK is not valid before ",
        ),
        ("an extension that nobody knows is critical", |p| p.ask.add("2.5.29.30", vec![0x30, 0]), "", ""),
        (
            "the report says that a VLEK signed it",
            |p| p.report.set(offset::FLAGS, &[4]),
            "snp.chain",
            "the report says that a VLEK signed it",
        ),
        (
            "the list is somebody else's",
            |p| p.crl.issuer = "CN=ARK-Other",
            "snp.crl",
            "no revocation list of ARK-Factory",
        ),
        (
            "an ARK of the same name signed the list",
            |p| p.crl.signed_by = Authority::OtherArk,
            "snp.crl",
            "the revocation list is not signed by ARK-Factory",
        ),
        (
            "the list is old",
            |p| p.crl.next_update = Some(now().0 - 60),
            "snp.crl",
            "the revocation list of ARK-Factory expired at ",
        ),
        (
            "the list is from the future",
            |p| p.crl.this_update = now().0 + 60,
            "snp.crl",
            "the revocation list of ARK-Factory is not valid before ",
        ),
        ("the ASK is revoked", |p| p.crl.revoked = vec![7, 1], "snp.crl", "SEV-Factory was revoked at "),
        ("another certificate is revoked", |p| p.crl.revoked = vec![7], "", ""),
    ];
    for (name, spoil, factor, fault) in cases {
        let mut processor = genoa();
        spoil(&mut processor);
        let report = Report::parse(&processor.report.sign()).unwrap();
        let failed = failures(&report, &processor.endorsements(), &processor.root(), now());
        if factor.is_empty() {
            assert!(failed.is_empty(), "{name}: {failed:?}");
            continue;
        }
        let (got_factor, got) = only(failed);
        assert_eq!(got_factor, factor, "{name}");
        assert!(got.starts_with(fault) && !got.contains("; "), "{name}: {got}");
    }
}

#[test]
fn a_certificate_with_an_unknown_critical_extension_is_refused() {
    let genuine = genoa();
    let mut der = genuine.vcek.issue();
    assert!(find(&genuine, &[der.clone(), genuine.ask.issue()], &genuine.root(), now()).unwrap().is_empty());
    // The factory marks only basic constraints as critical: give them another object identifier of the same length.
    let mut ask = genuine.ask.issue();
    let place = ask.windows(5).position(|w| w == [0x06, 0x03, 0x55, 0x1d, 0x13]).unwrap();
    ask[place + 4] = 0x1e;
    let failed = find(&genuine, &[der.clone(), ask], &genuine.root(), now()).unwrap();
    assert!(only(failed).1.contains("SEV-Factory"), "no authority any more");
    let mut critical = genuine.vcek.clone();
    critical.add(BASIC_CONSTRAINTS, basic_constraints(false));
    der = critical.issue();
    let place = der.windows(5).position(|w| w == [0x06, 0x03, 0x55, 0x1d, 0x13]).unwrap();
    der[place + 4] = 0x1e;
    let failed = find(&genuine, &[der, genuine.ask.issue()], &genuine.root(), now()).unwrap();
    assert!(only(failed).1.contains("SEV-VCEK has the critical extension 2.5.29.30, which is not known"));
}

#[test]
fn a_certificate_that_has_an_extension_twice_is_malformed() {
    let processor = genoa();
    for certificate in [processor.ask, processor.vcek] {
        assert!(Certificate::from_der(&certificate.issue()).is_ok());
        for (oid, content) in certificate.extensions.clone() {
            for place in [0, certificate.extensions.len()] {
                let mut twice = certificate.clone();
                twice.extensions.insert(place, (oid.clone(), content.clone()));
                let refused = Certificate::from_der(&twice.issue()).unwrap_err().to_string();
                assert!(refused.contains("has an extension twice"), "{oid}: {refused}");
            }
        }
    }
}

#[test]
fn a_simulated_root_is_never_a_pass() {
    let processor = genoa();
    let report = Report::parse(&processor.report.sign()).unwrap();
    let status = |root: &Root| {
        let ctx = Context { now: now(), missing: Missing::Fails, signatures: &SignatureCache::new() };
        let who = snp::authenticate(&report, &processor.endorsements(), root, ctx);
        who.factors.iter().find(|factor| factor.name == "snp.root").unwrap().status
    };
    assert_eq!((status(&processor.root()), status(&Root::Amd)), (Status::Unchecked, Status::Pass));
}

/// Under AMD's roots the chain says of which product a key is, and the report says it again.
#[test]
fn a_report_of_another_product_than_its_chain_is_refused() {
    let fails = |issuer: &'static str| {
        let mut processor = genoa();
        processor.vcek.issuer = issuer;
        let report = Report::parse(&processor.report.sign()).unwrap();
        let given =
            Endorsements::new(vec![Certificate::from_der(&processor.vcek.issue()).unwrap()], vec![]).unwrap();
        let failed = failures(&report, &given, &Root::Amd, now());
        failed.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    // AMD signed neither key; that is another matter.
    assert_eq!(fails("CN=SEV-Genoa"), ["snp.chain", "snp.crl"]);
    let turin = fails("CN=SEV-Turin");
    assert!(turin.contains(&"snp.cpuid") && turin.contains(&"snp.chain"), "{turin:?}");
    assert_eq!(fails("CN=SEV-Other"), ["snp.chain", "snp.crl", "snp.signature"], "no product");
}

#[test]
fn a_missing_endorsement_fails_in_a_session_and_is_unchecked_offline() {
    let genuine = genoa();
    let report = Report::parse(&genuine.report.sign()).unwrap();
    let status = |given: &Endorsements, missing| {
        let ctx = Context { now: now(), missing, signatures: &SignatureCache::new() };
        let who = snp::authenticate(&report, given, &genuine.root(), ctx);
        let of = |name| who.factors.iter().find(|factor| factor.name == name).map(|factor| factor.status);
        (of("snp.chain"), of("snp.crl"), of("snp.signature"), who.is_authentic())
    };
    let (pass, fail, unchecked) = (Some(Status::Pass), Some(Status::Fail), Some(Status::Unchecked));
    let certificates =
        || [&genuine.vcek, &genuine.ask].map(|c| Certificate::from_der(&c.issue()).unwrap()).to_vec();
    let without_list = Endorsements::new(certificates(), Vec::new()).unwrap();
    assert_eq!(status(&genuine.endorsements(), Missing::Fails), (pass, pass, pass, true));
    assert_eq!(status(&without_list, Missing::Fails), (pass, fail, pass, false));
    assert_eq!(status(&without_list, Missing::Unchecked), (pass, unchecked, pass, true));
    assert_eq!(status(&Endorsements::default(), Missing::Fails), (fail, fail, fail, false));
    let nothing = status(&Endorsements::default(), Missing::Unchecked);
    assert_eq!(nothing, (unchecked, unchecked, unchecked, false), "nothing was verified: not authentic");
}

fn expired(certificate: &mut Template) {
    (certificate.not_before, certificate.not_after) = (now().0 - 2 * DAY, now().0 - DAY);
}

#[test]
fn validity_includes_its_ends_and_nothing_else() {
    type Pick = fn(&mut Processor) -> (&mut u64, &mut u64);
    let spans: [(&str, Pick); 4] = [
        ("ARK-Factory", |p| (&mut p.ark.not_before, &mut p.ark.not_after)),
        ("SEV-Factory", |p| (&mut p.ask.not_before, &mut p.ask.not_after)),
        ("SEV-VCEK", |p| (&mut p.vcek.not_before, &mut p.vcek.not_after)),
        ("the revocation list", |p| (&mut p.crl.this_update, p.crl.next_update.as_mut().unwrap())),
    ];
    for (name, of) in spans {
        let mut processor = genoa();
        let (start, end) = (now().0 - 100, now().0 + 100);
        let (from, until) = of(&mut processor);
        (*from, *until) = (start, end);
        let given = [processor.vcek.issue(), processor.ask.issue()];
        for (at, valid) in [(start - 1, false), (start, true), (end, true), (end + 1, false)] {
            let failed = find(&processor, &given, &processor.root(), UnixTime(at)).unwrap();
            assert_eq!(failed.is_empty(), valid, "{at} in {start}..={end}");
            if !valid {
                assert!(only(failed).1.starts_with(name));
            }
        }
    }
}

#[test]
fn another_hierarchy_of_the_same_names_is_refused() {
    let (genuine, forged) = (genoa(), Processor::of_another_hierarchy(Product::Genoa));
    // The control: under its own root it is sound.
    assert_eq!(judge(&forged), [""; 0]);
    let (vcek, ask, ark) = (forged.vcek.issue(), forged.ask.issue(), forged.ark.issue());
    let chain = |given: &[Vec<u8>]| {
        let mut forged = forged.clone();
        forged.crl = genuine.crl.clone();
        only(find(&forged, given, &genuine.root(), now()).unwrap()).1
    };
    assert_eq!(chain(&[vcek.clone(), ask.clone()]), "SEV-Factory is not signed by ARK-Factory");
    assert!(
        chain(&[ark, vcek.clone(), ask])
            .contains("the root that was given, ARK-Factory, is not the pinned ARK-Factory")
    );
    // With the genuine ASK in the place of the forged one.
    assert_eq!(chain(&[vcek, genuine.ask.issue()]), "SEV-VCEK is not signed by SEV-Factory");
    // And no simulated processor is one of AMD's, whatever its report says.
    for product in PRODUCTS {
        let processor = Processor::of(product);
        let given = [processor.vcek.issue(), processor.ask.issue()];
        let (factor, got) = only(find(&processor, &given, &Root::Amd, now()).unwrap());
        assert_eq!(factor, "snp.chain");
        assert!(got.contains("SEV-Factory is not a key of AMD's"), "{got}");
    }
    // Not even with the names of AMD's own keys.
    let mut named = genoa();
    (named.ask.subject, named.vcek.issuer) = ("CN=SEV-Genoa,O=Test", "CN=SEV-Genoa,O=Test");
    let failed = find(&named, &[named.vcek.issue(), named.ask.issue()], &Root::Amd, now()).unwrap();
    assert_eq!(failed.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["snp.chain", "snp.crl"]);
    assert!(failed[0].1.contains("the issuer of SEV-Genoa (ARK-Factory) is missing"), "{failed:?}");
    assert!(failed[0].1.contains("issued a key for the product"), "{failed:?}");
}

#[test]
fn the_peer_cannot_bring_its_own_root() {
    let genuine = genoa();
    // A certificate that calls itself the ASK and is its own issuer: not an ASK, although the VCEK names it.
    let mut pretender = genuine.ask.clone();
    pretender.issuer = pretender.subject;
    (pretender.spki, pretender.signed_by) = (Authority::OtherAsk.spki(), Authority::OtherAsk);
    let chain = |processor: &Processor, given: &[Vec<u8>]| {
        only(find(processor, given, &genuine.root(), now()).unwrap()).1
    };
    let given = [genuine.vcek.issue(), pretender.issue()];
    assert!(chain(&genuine, &given).contains("SEV-Factory, the issuer of the key, is missing"));
    let given = [genuine.vcek.issue(), pretender.issue(), genuine.ask.issue()];
    assert_eq!(
        chain(&genuine, &given),
        "the root that was given, SEV-Factory, is not the pinned ARK-Factory"
    );
    // A VCEK directly below the root has no ASK.
    let mut short = genuine.clone();
    (short.vcek.issuer, short.vcek.signed_by) = (short.ark.subject, Authority::Ark);
    let given = [short.vcek.issue(), short.ask.issue(), short.ark.issue()];
    assert!(chain(&short, &given).contains("ARK-Factory, the issuer of the key, is missing"));
    // A certificate that is given twice was meant to be another one.
    let ask = genuine.ask.issue();
    let given = [genuine.vcek.issue(), ask.clone(), ask];
    assert!(chain(&genuine, &given).starts_with("SEV-Factory is given twice"));
}

#[test]
fn incomplete_and_senseless_endorsements_are_refused() {
    let genuine = genoa();
    let (vcek, ask) = (genuine.vcek.issue(), genuine.ask.issue());
    let mut rsa_vcek = genuine.vcek.clone();
    rsa_vcek.spki = Authority::OtherAsk.spki();
    // P-256: another curve under the same object identifier of the key.
    let mut p256_vcek = genuine.vcek.clone();
    let p256 = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
    p256_vcek.spki.algorithm.parameters = Some(Any::encode_from(&p256).unwrap());
    for key in [rsa_vcek.issue(), p256_vcek.issue()] {
        let failed = find(&genuine, &[key, ask.clone()], &genuine.root(), now()).unwrap();
        assert_eq!(
            failed.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            ["snp.chain", "snp.crl", "snp.signature"]
        );
    }
    let oid = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
    let places: Vec<usize> = (0..ask.len() - 9).filter(|at| ask[*at..at + 9] == oid).collect();
    assert_eq!(places.len(), 2);
    let [mut other_algorithm, mut signed_other, mut unsigned_other] = [ask.clone(), ask.clone(), ask.clone()];
    // sha256WithRSAEncryption in the place of RSASSA-PSS.
    places.iter().for_each(|at| other_algorithm[at + 8] = 0x0b);
    signed_other[places[0] + 8] = 0x0b;
    unsigned_other[places[1] + 8] = 0x0b;
    let failed = find(&genuine, &[vcek.clone(), other_algorithm], &genuine.root(), now()).unwrap();
    assert!(only(failed).1.contains("SEV-Factory is not signed by ARK-Factory"));
    let malformed = |given: Vec<Vec<u8>>, why: &str| match find(&genuine, &given, &genuine.root(), now()) {
        Err(Error::Malformed { why: got, .. }) => assert!(got.contains(why), "{why}: {got}"),
        other => panic!("{why}: {other:?}"),
    };
    malformed(vec![ask.clone(); 9], "more than 8");
    malformed(vec![vcek.clone(), signed_other], "two signature algorithms");
    malformed(vec![vcek.clone(), unsigned_other], "two signature algorithms");
    // A salt of another length, where nobody signs it: the last byte of the outer parameters.
    let salt = [0xa2, 0x03, 0x02, 0x01, 0x30];
    let outer = ask.windows(5).rposition(|bytes| bytes == salt).unwrap();
    assert!(outer > places[1]);
    let mut unsigned_salt = ask.clone();
    unsigned_salt[outer + 4] = 0x20;
    malformed(vec![vcek.clone(), unsigned_salt], "two signature algorithms");
    for bad in
        [b"not a certificate".to_vec(), Vec::new(), ask[..ask.len() - 1].to_vec(), [&ask[..], &[0]].concat()]
    {
        malformed(vec![vcek.clone(), ask.clone(), bad], "not a DER X.509 certificate");
    }
    let mut endless = genuine.crl.clone();
    endless.next_update = None;
    assert!(
        RevocationList::from_pem_or_der(&endless.issue())
            .unwrap_err()
            .to_string()
            .contains("when the next one comes")
    );
    let list = RevocationList::from_pem_or_der(&genuine.crl.issue()).unwrap();
    assert!(Endorsements::new(Vec::new(), vec![list; 5]).unwrap_err().to_string().contains("more than 4"));
    for bad in [b"-----BEGIN nonsense".to_vec(), vec![0x30; 128 * 1024 + 1], ask] {
        assert!(RevocationList::from_pem_or_der(&bad).is_err());
    }
}

#[test]
fn a_vcek_of_another_chip_is_found() {
    let of_chip = |spoil: &dyn Fn(&mut Processor), product| {
        let mut processor = Processor::of(product);
        spoil(&mut processor);
        judge(&processor)
    };
    for product in PRODUCTS {
        let len = if product == Product::Turin { 8 } else { 64 };
        let id: Vec<u8> = (1..=len).collect();
        let mut other = id.clone();
        *other.last_mut().unwrap() ^= 1;
        let hardware_ids = [other, id[1..].to_vec(), [&id[..], &[0]].concat(), Vec::new(), vec![0; id.len()]];
        for wrong in hardware_ids {
            let set = |p: &mut Processor| p.vcek.set(HARDWARE_ID, wrong.clone());
            assert_eq!(of_chip(&set, product), ["snp.hwid"], "{product:?} {wrong:02x?}");
        }
        assert_eq!(of_chip(&|p| p.vcek.remove(HARDWARE_ID), product), ["snp.hwid"]);
        // A report with a masked chip identifier (MASK_CHIP_ID), and a VCEK that would be of "that chip".
        assert_eq!(of_chip(&|p| p.report.set(offset::CHIP_ID, &[0; 64]), product), ["snp.hwid"]);
        let zero = |p: &mut Processor| {
            p.report.set(offset::CHIP_ID, &[0; 64]);
            p.vcek.set(HARDWARE_ID, vec![0; id.len()]);
        };
        assert_eq!(of_chip(&zero, product), ["snp.hwid"], "{product:?}: all zero");
    }
    // Turin's identifier is 8 bytes: what follows them must be zero, and 64 bytes of the others are not enough.
    assert_eq!(of_chip(&|p| p.report.set(offset::CHIP_ID + 8, &[1]), Product::Turin), ["snp.hwid"]);
    assert_eq!(of_chip(&|p| p.report.set(offset::CHIP_ID + 63, &[1]), Product::Turin), ["snp.hwid"]);
    let long =
        |p: &mut Processor| p.vcek.set(HARDWARE_ID, [&[1, 2, 3, 4, 5, 6, 7, 8][..], &[0; 56]].concat());
    assert_eq!(of_chip(&long, Product::Turin), ["snp.hwid"]);
    let short = |p: &mut Processor| {
        p.report.set(offset::CHIP_ID + 8, &[0; 56]);
        p.vcek.set(HARDWARE_ID, (1..=8).collect());
    };
    assert_eq!(of_chip(&short, Product::Genoa), ["snp.hwid"], "the rule of Turin on Genoa");
}

#[test]
fn a_vcek_of_another_firmware_is_found() {
    let of_tcb = |product, spoil: &dyn Fn(&mut Processor)| {
        let mut processor = Processor::of(product);
        spoil(&mut processor);
        let failed = judge(&processor);
        assert!(
            failed.is_empty() || failed == ["snp.vcek_tcb"],
            "only the firmware is in question here: {failed:?}"
        );
        failed.is_empty()
    };
    for product in PRODUCTS {
        let parts: &[u8] = if product == Product::Turin { &[1, 2, 3, 8, 9] } else { &[1, 2, 3, 8] };
        for part in parts {
            let name = spl(*part);
            let genuine = Processor::of(product).vcek;
            let value = genuine.extensions.iter().find(|(oid, _)| *oid == name).unwrap().1.clone();
            type Spoil<'a> = &'a dyn Fn(&mut Template);
            let cases: [(&str, Spoil<'_>); 5] = [
                ("wrong", &|v| v.set(&name, 77u8.to_der().unwrap())),
                ("missing", &|v| v.remove(&name)),
                ("not an integer", &|v| v.set(&name, vec![4, 1, 9])),
                ("with a trailing byte", &|v| v.set(&name, [&value[..], &[0]].concat())),
                ("above a byte", &|v| v.set(&name, 265u16.to_der().unwrap())),
            ];
            for (case, spoil) in cases {
                assert!(!of_tcb(product, &|p| spoil(&mut p.vcek)), "{product:?}, {name} {case}");
            }
        }
        // Each byte of the report's TCB, those that the product reserves too.
        for byte in 0..8 {
            assert!(
                !of_tcb(product, &|p| p.report.set(offset::REPORTED_TCB + byte, &[99])),
                "{product:?}, byte {byte}"
            );
        }
        // The TCB that runs now is not the one that the key is of.
        assert!(of_tcb(product, &|p| p.report.set(offset::CURRENT_TCB, &[99; 8])));
    }
    // The bytes of one product in the order of another.
    let turin = Processor::of(Product::Turin);
    let mut confused = Processor::of(Product::Genoa);
    confused.vcek = turin.vcek.clone();
    confused.report.set(offset::REPORTED_TCB, &[5, 10, 1, 23, 0, 0, 0, 200]);
    assert!(judge(&confused).contains(&"snp.vcek_tcb"));
}

fn channel() -> ChannelBinding {
    ChannelBinding {
        role: Role::Enclave,
        cipher_suite: 0x1302,
        named_group: 0x11ec,
        spki: Digest([6; 32]),
        peer_spki: None,
        exported: [0xee; 32],
    }
}

/// Verifies what `processor` answers, under the policy of a genuine one; the factors that fail, and whether it was authentic.
fn verify(
    processor: &Processor,
    change: impl FnOnce(&mut EpochStatement),
    spoil: impl FnOnce(&mut AttestResponse),
) -> Result<(bool, Vec<&'static str>), Error> {
    let request = AttestRequest::new([7; 32]).encode();
    let mut response = processor.respond(&channel(), &request, change);
    spoil(&mut response);
    let evidence = RawEvidence { request, response: response.encode(), channel: channel() };
    match evidence.verify(&Policy::from_toml(&genoa().policy()).unwrap(), now(), &SignatureCache::new()) {
        Ok(_) => Ok((true, Vec::new())),
        Err(Refusal::Rejected(rejection)) => {
            let names = rejection.report.failures().map(|factor| factor.name).collect();
            Ok((rejection.report.authentic, names))
        }
        Err(Refusal::Malformed(error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn the_whole_verification_names_the_factor_that_fails() {
    let spoilt = |spoil: Spoil| {
        let mut processor = genoa();
        spoil(&mut processor);
        verify(&processor, |_| (), |_| ()).unwrap()
    };
    assert_eq!(spoilt(|_| ()), (true, vec![]));
    assert_eq!(
        verify(&Processor::of_another_hierarchy(Product::Genoa), |_| (), |_| ()).unwrap(),
        (false, vec!["snp.chain", "snp.crl"])
    );
    assert_eq!(spoilt(|p| p.vcek.signed_by = Authority::OtherAsk), (false, vec!["snp.chain"]));
    assert_eq!(spoilt(|p| expired(&mut p.vcek)), (false, vec!["snp.chain"]));
    assert_eq!(spoilt(|p| p.report.signed_by = Chip::Other), (false, vec!["snp.signature"]));
    assert_eq!(spoilt(|p| p.vcek.remove(HARDWARE_ID)), (false, vec!["snp.hwid"]));
    assert_eq!(spoilt(|p| p.report.set(offset::CHIP_ID, &[0; 64])), (false, vec!["snp.hwid"]));
    assert_eq!(spoilt(|p| p.vcek.remove(&spl(8))), (false, vec!["snp.vcek_tcb"]));
    assert_eq!(
        spoilt(|p| p.report.set(offset::REPORTED_TCB, &[11])),
        (false, vec!["snp.vcek_tcb", "snp.tcb.reported"]),
        "a report that claims newer firmware than its key is of"
    );
}

#[test]
fn a_statement_that_the_hardware_signed_can_still_be_wrong() {
    let stated = |change: fn(&mut EpochStatement)| verify(&genoa(), change, |_| ()).unwrap();
    assert_eq!(stated(|s| s.spki = Digest([9; 32])), (true, vec!["channel.spki"]));
    assert_eq!(
        stated(|s| s.models.push(Digest([9; 32]))),
        (true, vec!["claims.model"]),
        "one model too many"
    );
    let past = |s: &mut EpochStatement| {
        (s.not_before, s.not_after) = (UnixTime(now().0 - 4000), UnixTime(now().0 - 400));
    };
    assert_eq!(stated(past), (true, vec!["epoch.window"]));
    let future = |s: &mut EpochStatement| {
        (s.not_before, s.not_after) = (UnixTime(now().0 + 400), UnixTime(now().0 + 4000));
    };
    assert_eq!(stated(future), (true, vec!["epoch.window"]));
    let gpu = |s: &mut EpochStatement| {
        s.gpu_evidence = Some(Digest([8; 32]));
        s.gpu_ids = vec![vec![9; 16]];
    };
    assert_eq!(
        verify(&genoa(), gpu, |_| ()).unwrap(),
        (true, vec!["evidence.platform"]),
        "GPU evidence that is not there"
    );
}

#[test]
fn endorsements_of_a_response_are_not_taken_on_trust() {
    let answered = |spoil: fn(&mut AttestResponse)| verify(&genoa(), |_| (), spoil);
    let nothing = ["snp.chain", "snp.crl", "snp.signature"].to_vec();
    assert_eq!(answered(|r| r.endorsements.clear()), Ok((false, nothing)));
    assert_eq!(answered(|r| drop(r.endorsements.pop())), Ok((false, vec!["snp.crl"])), "no revocation list");
    let nonsense = |r: &mut AttestResponse| {
        r.endorsements
            .push(Endorsement { kind: EndorsementKind::AmdCertificate, bytes: b"nonsense".to_vec() });
    };
    assert!(matches!(answered(nonsense), Err(Error::Malformed { .. })));
    let many = |r: &mut AttestResponse| {
        let certificate = |bytes| Endorsement { kind: EndorsementKind::AmdCertificate, bytes };
        r.endorsements.extend((0..9u8).map(|n| certificate(vec![n])));
    };
    assert!(matches!(answered(many), Err(Error::Malformed { .. })));
    // What is for other hardware is not looked at.
    let other = |r: &mut AttestResponse| {
        r.endorsements.push(Endorsement { kind: EndorsementKind::IntelTcbInfo, bytes: b"nonsense".to_vec() });
    };
    assert_eq!(answered(other), Ok((true, Vec::new())));
}
