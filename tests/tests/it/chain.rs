//! Everything that can be wrong with a processor's certificates and reports, one at a time: each has exactly one consequence.

use cocoon_attestation::appraisal::{RawEvidence, Refusal};
use cocoon_attestation::binding::{ChannelBinding, Role};
use cocoon_attestation::policy::Policy;
use cocoon_attestation::snp::{Certificate, Chain, Product, REPORT_LEN, Report, Root};
use cocoon_attestation::wire::{AttestRequest, AttestResponse, EpochStatement};
use cocoon_attestation::{Digest, Error, UnixTime};
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

fn find(processor: &Processor, given: &[Vec<u8>]) -> Result<Chain, Error> {
    let report = Report::parse(&processor.report.sign()).unwrap();
    let given: Vec<&[u8]> = given.iter().map(Vec::as_slice).collect();
    Chain::find(&report, &given, &processor.root())
}

fn chain(processor: &Processor) -> Chain {
    find(processor, &[processor.vcek.issue(), processor.ask.issue()]).unwrap()
}

fn faults(processor: &Processor) -> Vec<String> {
    chain(processor).faults(now())
}

/// What a test looks at of a processor: faults of the chain; is the report of this chip, of this TCB, signed by this key?
fn judge(processor: &Processor) -> (Vec<String>, bool, bool, bool) {
    let report = Report::parse(&processor.report.sign()).unwrap();
    let chain = chain(processor);
    (
        chain.faults(now()),
        chain.is_of_chip(&report),
        chain.is_of_tcb(&report),
        report.is_signed_by(&chain.vcek),
    )
}

const fn sound() -> (Vec<String>, bool, bool, bool) {
    (Vec::new(), true, true, true)
}

#[test]
fn a_genuine_processor_of_each_product_is_sound() {
    for product in PRODUCTS {
        let processor = Processor::of(product);
        assert_eq!(judge(&processor), sound(), "{product:?}");
        assert_eq!(Report::parse(&processor.report.sign()).unwrap().product(), Some(product));
    }
    // The order in which the certificates come does not matter, nor that the root is among them.
    let genoa = genoa();
    let all = [genoa.ark.issue(), genoa.ask.issue(), genoa.vcek.issue()];
    assert_eq!(find(&genoa, &all).unwrap().faults(now()), [""; 0]);
}

#[test]
fn of_several_keys_the_one_of_the_reports_chip_is_taken() {
    let genoa = genoa();
    let genuine = genoa.vcek.issue();
    let mut others = Vec::new();
    for id in [vec![0x77; 64], Vec::new()] {
        let mut other = genoa.vcek.clone();
        other.set(HARDWARE_ID, id);
        others.push(other.issue());
    }
    let [wrong, empty] = others.try_into().unwrap();
    for given in [
        [wrong.clone(), empty.clone(), genuine.clone(), genoa.ask.issue()],
        [genuine.clone(), wrong, empty, genoa.ask.issue()],
    ] {
        assert_eq!(find(&genoa, &given).unwrap().vcek.der(), genuine);
    }
}

/// What a test does to a processor.
type Spoil = fn(&mut Processor);

#[test]
fn each_fault_of_a_chain_is_found() {
    let cases: [(&str, Spoil, &str); 16] = [
        (
            "the root has the key of one ARK and the signature of another",
            |p| p.ark.signed_by = Authority::OtherArk,
            "the root is not self-signed",
        ),
        (
            "the root names another issuer",
            |p| p.ark.issuer = "CN=somebody else",
            "the root is not self-signed",
        ),
        (
            "the root has no basic constraints",
            |p| p.ark.remove(BASIC_CONSTRAINTS),
            "root or ASK is not a certificate authority",
        ),
        (
            "the root says that it is none",
            |p| p.ark.set(BASIC_CONSTRAINTS, basic_constraints(false)),
            "root or ASK is not a certificate authority",
        ),
        (
            "the ASK has no basic constraints",
            |p| p.ask.remove(BASIC_CONSTRAINTS),
            "root or ASK is not a certificate authority",
        ),
        (
            "the ASK says that it is none",
            |p| p.ask.set(BASIC_CONSTRAINTS, basic_constraints(false)),
            "root or ASK is not a certificate authority",
        ),
        (
            "the ASK has basic constraints twice",
            |p| p.ask.add(BASIC_CONSTRAINTS, basic_constraints(true)),
            "root or ASK is not a certificate authority",
        ),
        (
            "an ARK of the same name signed the ASK",
            |p| p.ask.signed_by = Authority::OtherArk,
            "the ASK is not signed by the root that the policy accepts",
        ),
        (
            "the ASK names another issuer than the key that signed it",
            |p| p.ask.issuer = "CN=ARK-Other",
            "the ASK is not signed by the root that the policy accepts",
        ),
        (
            "an ASK of the same name signed the VCEK",
            |p| p.vcek.signed_by = Authority::OtherAsk,
            "the VCEK is not signed by the ASK",
        ),
        (
            "the ARK signed the VCEK in the name of the ASK",
            |p| p.vcek.signed_by = Authority::Ark,
            "the VCEK is not signed by the ASK",
        ),
        (
            "the VCEK may issue certificates",
            |p| p.vcek.add(BASIC_CONSTRAINTS, basic_constraints(true)),
            "the VCEK is a certificate authority",
        ),
        ("the root is expired", |p| expired(&mut p.ark), "the root is not valid at this time"),
        ("the ASK is expired", |p| expired(&mut p.ask), "the ASK is not valid at this time"),
        ("the VCEK is expired", |p| expired(&mut p.vcek), "the VCEK is not valid at this time"),
        // The control: a VCEK that says that it is no authority is what AMD's say by silence.
        ("none", |p| p.vcek.add(BASIC_CONSTRAINTS, basic_constraints(false)), ""),
    ];
    for (name, spoil, fault) in cases {
        let mut processor = genoa();
        spoil(&mut processor);
        let expected: Vec<&str> = [fault].into_iter().filter(|fault| !fault.is_empty()).collect();
        assert_eq!(faults(&processor), expected, "{name}");
    }
}

fn expired(certificate: &mut Template) {
    (certificate.not_before, certificate.not_after) = (now().0 - 2 * DAY, now().0 - DAY);
}

#[test]
fn validity_includes_its_ends_and_nothing_else() {
    let whole = genoa();
    type Pick = fn(&mut Processor) -> &mut Template;
    let certificates: [(&str, Pick); 3] = [
        ("the root is not valid at this time", |p| &mut p.ark),
        ("the ASK is not valid at this time", |p| &mut p.ask),
        ("the VCEK is not valid at this time", |p| &mut p.vcek),
    ];
    for (fault, of) in certificates {
        let mut processor = whole.clone();
        let (start, end) = (now().0 - 100, now().0 + 100);
        let certificate = of(&mut processor);
        (certificate.not_before, certificate.not_after) = (start, end);
        let chain = chain(&processor);
        for (at, valid) in [(start - 1, false), (start, true), (end, true), (end + 1, false)] {
            let expected: &[&str] = if valid { &[] } else { &[fault] };
            assert_eq!(chain.faults(UnixTime(at)), expected, "{at} in {start}..={end}");
        }
    }
}

#[test]
fn another_hierarchy_of_the_same_names_is_refused() {
    let (genuine, forged) = (genoa(), Processor::of_another_hierarchy(Product::Genoa));
    // The control: under its own root it is sound.
    assert_eq!(judge(&forged), sound());
    let report = Report::parse(&forged.report.sign()).unwrap();
    let (vcek, ask, ark) = (forged.vcek.issue(), forged.ask.issue(), forged.ark.issue());
    for given in [vec![&vcek[..], &ask], vec![&vcek, &ask, &ark], vec![&ark, &vcek, &ask]] {
        let chain = Chain::find(&report, &given, &genuine.root()).unwrap();
        assert_eq!(chain.faults(now()), ["the ASK is not signed by the root that the policy accepts"]);
    }
    // With the genuine ASK in the place of the forged one.
    let chain = Chain::find(&report, &[&vcek, &genuine.ask.issue()], &genuine.root()).unwrap();
    assert_eq!(chain.faults(now()), ["the VCEK is not signed by the ASK"]);
    // And no simulated processor is one of AMD's, whatever its report says.
    for product in PRODUCTS {
        let processor = Processor::of(product);
        let report = Report::parse(&processor.report.sign()).unwrap();
        let given = [processor.vcek.issue(), processor.ask.issue()];
        let chain = Chain::find(&report, &[&given[0], &given[1]], &Root::Amd(vec![product])).unwrap();
        assert!(!chain.faults(now()).is_empty(), "{product:?}");
        let others = PRODUCTS.into_iter().filter(|other| *other != product).collect();
        let refused = Chain::find(&report, &[&given[0], &given[1]], &Root::Amd(others)).unwrap_err();
        assert!(refused.to_string().contains("CPUID"), "{refused}");
    }
}

#[test]
fn the_peer_cannot_bring_its_own_root() {
    let genuine = genoa();
    // A certificate that calls itself the ASK and is its own issuer: not an ASK, although the VCEK names it.
    let mut pretender = genuine.ask.clone();
    pretender.issuer = pretender.subject;
    (pretender.spki, pretender.signed_by) = (Authority::OtherAsk.spki(), Authority::OtherAsk);
    let given = [genuine.vcek.issue(), pretender.issue(), genuine.ask.issue()];
    let chain = find(&genuine, &given).unwrap();
    assert_eq!((chain.ask.der(), chain.faults(now())), (&given[2][..], Vec::new()));
    let refused = find(&genuine, &given[..2]).unwrap_err();
    assert!(refused.to_string().contains("no ASK"), "{refused}");
    // A VCEK directly below the root has no ASK either.
    let mut short = genuine.clone();
    (short.vcek.issuer, short.vcek.signed_by) = (short.ark.subject, Authority::Ark);
    let refused = find(&short, &[short.vcek.issue(), short.ask.issue(), short.ark.issue()]).unwrap_err();
    assert!(refused.to_string().contains("no ASK"), "{refused}");
}

#[test]
fn incomplete_and_senseless_endorsements_are_malformed() {
    let genuine = genoa();
    let (vcek, ask) = (genuine.vcek.issue(), genuine.ask.issue());
    let mut rsa_vcek = genuine.vcek.clone();
    rsa_vcek.spki = Authority::OtherAsk.spki();
    // P-256: another curve under the same object identifier of the key.
    let mut p256_vcek = genuine.vcek.clone();
    let p256 = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
    p256_vcek.spki.algorithm.parameters = Some(Any::encode_from(&p256).unwrap());
    let eight = [vec![vcek.clone()], vec![ask.clone(); 7]].concat();
    let nine = [eight.clone(), vec![ask.clone()]].concat();
    assert!(find(&genuine, &eight).unwrap().faults(now()).is_empty());
    let truncated = ask[..ask.len() - 1].to_vec();
    let mut other_algorithm = ask.clone();
    // sha256WithRSAEncryption in the place of RSASSA-PSS: the last byte of the object identifier, which stands in there twice.
    let oid = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
    let places: Vec<usize> = (0..ask.len() - 9).filter(|at| ask[*at..at + 9] == oid).collect();
    assert_eq!(places.len(), 2);
    places.iter().for_each(|at| other_algorithm[at + 8] = 0x0b);
    let [mut signed_other, mut unsigned_other] = [ask.clone(), ask.clone()];
    signed_other[places[0] + 8] = 0x0b;
    unsigned_other[places[1] + 8] = 0x0b;
    let cases = [
        (vec![], "no VCEK"),
        (vec![ask.clone()], "no VCEK"),
        (vec![rsa_vcek.issue(), ask.clone()], "no VCEK"),
        (vec![p256_vcek.issue(), ask.clone()], "no VCEK"),
        (vec![vcek.clone()], "no ASK"),
        (nine, "more than 8"),
        (vec![vcek.clone(), ask.clone(), b"not a certificate".to_vec()], "not a DER X.509 certificate"),
        (vec![vcek.clone(), ask.clone(), Vec::new()], "not a DER X.509 certificate"),
        (vec![vcek.clone(), truncated], "not a DER X.509 certificate"),
        (vec![vcek.clone(), [&ask[..], &[0]].concat()], "not a DER X.509 certificate"),
        (vec![vcek.clone(), other_algorithm], "RSASSA-PSS"),
        (vec![vcek.clone(), signed_other], "RSASSA-PSS"),
        (vec![vcek, unsigned_other], "RSASSA-PSS"),
    ];
    for (given, why) in cases {
        match find(&genuine, &given).map(|_| ()) {
            Err(Error::Malformed { why: got, .. }) => assert!(got.contains(why), "{why}: {got}"),
            other => panic!("{why}: {other:?}"),
        }
    }
}

#[test]
fn a_vcek_of_another_chip_is_found() {
    let of_chip = |spoil: &dyn Fn(&mut Processor), product| {
        let mut processor = Processor::of(product);
        spoil(&mut processor);
        let (faults, of_chip, of_tcb, signed) = judge(&processor);
        assert!(faults.is_empty() && signed, "only the chip is in question here");
        (of_chip, of_tcb)
    };
    for product in PRODUCTS {
        let len = if product == Product::Turin { 8 } else { 64 };
        let id: Vec<u8> = (1..=len).collect();
        let mut other = id.clone();
        *other.last_mut().unwrap() ^= 1;
        let hardware_ids = [other, id[1..].to_vec(), [&id[..], &[0]].concat(), Vec::new(), vec![0; id.len()]];
        for wrong in hardware_ids {
            let set = |p: &mut Processor| p.vcek.set(HARDWARE_ID, wrong.clone());
            assert_eq!(of_chip(&set, product), (false, true), "{product:?} {wrong:02x?}");
        }
        assert_eq!(of_chip(&|p| p.vcek.remove(HARDWARE_ID), product), (false, true));
        // Twice is not once, whichever comes first.
        assert_eq!(of_chip(&|p| p.vcek.add(HARDWARE_ID, id.clone()), product), (false, true));
        // A report with a masked chip identifier (MASK_CHIP_ID), and a VCEK that would be of "that chip".
        assert_eq!(of_chip(&|p| p.report.set(offset::CHIP_ID, &[0; 64]), product), (false, true));
        let zero = |p: &mut Processor| {
            p.report.set(offset::CHIP_ID, &[0; 64]);
            p.vcek.set(HARDWARE_ID, vec![0; id.len()]);
        };
        assert_eq!(of_chip(&zero, product), (false, true), "{product:?}: all zero");
    }
    // Turin's identifier is 8 bytes: what follows them must be zero, and 64 bytes of the others are not enough.
    assert_eq!(of_chip(&|p| p.report.set(offset::CHIP_ID + 8, &[1]), Product::Turin), (false, true));
    assert_eq!(of_chip(&|p| p.report.set(offset::CHIP_ID + 63, &[1]), Product::Turin), (false, true));
    let long =
        |p: &mut Processor| p.vcek.set(HARDWARE_ID, [&[1, 2, 3, 4, 5, 6, 7, 8][..], &[0; 56]].concat());
    assert_eq!(of_chip(&long, Product::Turin), (false, true));
    let short = |p: &mut Processor| {
        p.report.set(offset::CHIP_ID + 8, &[0; 56]);
        p.vcek.set(HARDWARE_ID, (1..=8).collect());
    };
    assert_eq!(of_chip(&short, Product::Genoa), (false, true), "the rule of Turin on Genoa");
}

#[test]
fn a_vcek_of_another_firmware_is_found() {
    let of_tcb = |product, spoil: &dyn Fn(&mut Processor)| {
        let mut processor = Processor::of(product);
        spoil(&mut processor);
        let (faults, of_chip, of_tcb, signed) = judge(&processor);
        assert!(faults.is_empty() && of_chip && signed, "only the firmware is in question here");
        of_tcb
    };
    for product in PRODUCTS {
        let parts: &[u8] = if product == Product::Turin { &[1, 2, 3, 8, 9] } else { &[1, 2, 3, 8] };
        for part in parts {
            let name = spl(*part);
            let genuine = Processor::of(product).vcek;
            let value = genuine.extensions.iter().find(|(oid, _)| *oid == name).unwrap().1.clone();
            type Spoil<'a> = &'a dyn Fn(&mut Template);
            let cases: [(&str, Spoil<'_>); 6] = [
                ("wrong", &|v| v.set(&name, 77u8.to_der().unwrap())),
                ("missing", &|v| v.remove(&name)),
                ("twice", &|v| v.add(&name, value.clone())),
                ("not an integer", &|v| v.set(&name, vec![4, 1, 9])),
                ("with a trailing byte", &|v| v.set(&name, [&value[..], &[0]].concat())),
                ("above a byte", &|v| v.set(&name, 265u16.to_der().unwrap())),
            ];
            for (case, spoil) in cases {
                assert!(!of_tcb(product, &|p| spoil(&mut p.vcek)), "{product:?}, {name} {case}");
            }
        }
        // Each byte of the report's TCB that has a meaning; the others are not looked at.
        let meaning: &[usize] = if product == Product::Turin { &[0, 1, 2, 3, 7] } else { &[0, 1, 6, 7] };
        for byte in 0..8 {
            let same = of_tcb(product, &|p| p.report.set(offset::REPORTED_TCB + byte, &[99]));
            assert_eq!(same, !meaning.contains(&byte), "{product:?}, byte {byte}");
        }
        // The TCB that runs now is not the one that the key is of.
        assert!(of_tcb(product, &|p| p.report.set(offset::CURRENT_TCB, &[99; 8])));
    }
    // The bytes of one product in the order of another.
    let turin = Processor::of(Product::Turin);
    let mut confused = Processor::of(Product::Genoa);
    confused.vcek = turin.vcek.clone();
    confused.report.set(offset::REPORTED_TCB, &[5, 9, 1, 23, 0, 0, 0, 200]);
    assert!(!judge(&confused).2);
}

#[test]
fn products_are_told_by_family_and_model() {
    let product = |family: u8, model: u8| {
        let mut processor = genoa();
        processor.report.set(offset::CPUID, &[family, model, 0]);
        let report = Report::parse(&processor.report.sign()).unwrap();
        let chain = chain(&processor);
        if report.product().is_none() {
            assert!(!chain.is_of_chip(&report) && !chain.is_of_tcb(&report), "unknown, but accepted");
            let refused = Chain::find(&report, &[chain.vcek.der()], &Root::Amd(PRODUCTS.into())).unwrap_err();
            assert!(matches!(&refused, Error::Malformed { why, .. } if why.contains("CPUID")), "{refused}");
        }
        report.product()
    };
    use Product::{Genoa, Milan, Turin};
    let cases = [
        (0x19, 0x00, Some(Milan)),
        (0x19, 0x0f, Some(Milan)),
        (0x19, 0x10, Some(Genoa)),
        (0x19, 0x1f, Some(Genoa)),
        (0x19, 0x20, None),
        (0x19, 0x9f, None),
        (0x19, 0xa0, Some(Genoa)),
        (0x19, 0xaf, Some(Genoa)),
        (0x19, 0xb0, None),
        (0x1a, 0x00, Some(Turin)),
        (0x1a, 0x1f, Some(Turin)),
        (0x1a, 0x20, None),
        (0x17, 0x31, None),
        (0x1b, 0x00, None),
        (0x00, 0x00, None),
    ];
    for (family, model, expected) in cases {
        assert_eq!(product(family, model), expected, "family {family:#x}, model {model:#x}");
    }
}

#[test]
fn reports_that_are_not_as_the_abi_says_are_malformed() {
    let parse = |at: usize, content: &[u8]| {
        let mut report = genoa().report;
        report.set(at, content);
        Report::parse(&report.sign()).map(|report| report.version)
    };
    let refused = |at: usize, content: &[u8], why: &str| match parse(at, content) {
        Err(Error::Malformed { why: got, .. }) => assert!(got.contains(why), "{at:#x}: {got}"),
        other => panic!("{at:#x}: {other:?}"),
    };
    for version in [3, 4, 5] {
        assert_eq!(parse(offset::VERSION, &[version]).unwrap(), u32::from(version));
    }
    for version in [0, 1, 2, 6, 0xff] {
        refused(offset::VERSION, &[version], "version");
    }
    refused(offset::VERSION, &[3, 0, 0, 1], "version");
    for algorithm in [0, 2] {
        refused(offset::ALGORITHM, &[algorithm], "algorithm");
    }
    // First and last byte of each reserved field below the signature. 0x1f8 has a meaning from version 5 on.
    let reserved = [(0x4c, 0x4f), (0x18b, 0x19f), (0x1eb, 0x1eb), (0x1ef, 0x1ef), (0x208, 0x29f)];
    for at in reserved.into_iter().chain([(0x1f8, 0x207)]).flat_map(|(first, last)| [first, last]) {
        refused(at, &[1], "reserved");
    }
    for at in [0x48, 0x1e8, 0x1ea, 0x1ec, 0x1ee, 0x1f0, 0x1f7] {
        assert!(parse(at, &[1]).is_ok(), "{at:#x} is not reserved");
    }
    let mut version_5 = genoa().report;
    version_5.set(offset::VERSION, &[5]);
    version_5.set(0x1f8, &[1; 16]);
    assert!(Report::parse(&version_5.sign()).is_ok());
    version_5.set(0x208, &[1]);
    assert!(Report::parse(&version_5.sign()).is_err());
}

#[test]
fn signatures_are_one_way_to_write_and_of_one_key() {
    let genuine = genoa();
    let good = genuine.report.sign();
    assert_eq!(good.len(), REPORT_LEN);
    for bad in [&good[..REPORT_LEN - 1], &[&good[..], &[0]].concat(), &[]] {
        assert!(Report::parse(bad).unwrap_err().to_string().contains("a report has 1184"));
    }
    let vcek = Certificate::from_der(&genuine.vcek.issue()).unwrap();
    let verdict = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        Report::parse(&bytes).map(|report| report.is_signed_by(&vcek))
    };
    let (r, s, end) = (offset::SIGNATURE, offset::SIGNATURE + 72, offset::SIGNATURE + 144);
    for at in [r + 48, r + 71, s + 48, s + 71] {
        assert!(verdict(at).unwrap_err().to_string().contains("padding"), "{at:#x}");
    }
    for at in [end, REPORT_LEN - 1] {
        assert!(verdict(at).unwrap_err().to_string().contains("reserved"), "{at:#x}");
    }
    for at in [r, r + 47, s, s + 47, offset::REPORT_DATA, offset::MEASUREMENT] {
        assert_eq!(verdict(at), Ok(false), "{at:#x}");
    }
    // No signature at all, and zero or the group's order as a scalar, which some verifiers took for anybody's signature.
    let order =
        "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973";
    let mut order = hex::decode(order).unwrap();
    order.reverse();
    for (scalar_r, scalar_s) in [
        (&[0; 48][..], &[0; 48][..]),
        (&order, &order),
        (&good[r..r + 48], &[0; 48]),
        (&[0; 48], &good[s..s + 48]),
    ] {
        let mut bytes = good.clone();
        bytes[r..r + 48].copy_from_slice(scalar_r);
        bytes[s..s + 48].copy_from_slice(scalar_s);
        assert!(!Report::parse(&bytes).unwrap().is_signed_by(&vcek));
    }
    // Another processor's key, and keys of another kind.
    let mut other = genuine.clone();
    other.report.signed_by = Chip::Other;
    assert_eq!(judge(&other), (Vec::new(), true, true, false));
    let report = Report::parse(&good).unwrap();
    assert!(report.is_signed_by(&vcek));
    assert!(!report.is_signed_by(&Certificate::from_der(&genuine.ask.issue()).unwrap()));
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
    match evidence.verify(&Policy::from_toml(&genoa().policy()).unwrap(), now()) {
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
        (false, vec!["snp.chain"])
    );
    assert_eq!(spoilt(|p| p.vcek.signed_by = Authority::OtherAsk), (false, vec!["snp.chain"]));
    assert_eq!(spoilt(|p| expired(&mut p.vcek)), (false, vec!["snp.chain"]));
    assert_eq!(spoilt(|p| p.report.signed_by = Chip::Other), (false, vec!["snp.signature"]));
    assert_eq!(spoilt(|p| p.vcek.remove(HARDWARE_ID)), (false, vec!["snp.hwid"]));
    assert_eq!(spoilt(|p| p.report.set(offset::CHIP_ID, &[0; 64])), (false, vec!["snp.hwid"]));
    assert_eq!(spoilt(|p| p.vcek.remove(&spl(8))), (false, vec!["snp.vcek_tcb"]));
    assert_eq!(
        spoilt(|p| p.report.set(offset::REPORTED_TCB, &[10])),
        (false, vec!["snp.vcek_tcb"]),
        "a report that claims newer firmware than its key is of"
    );
    assert_eq!(spoilt(|p| p.report.set(offset::CPUID, &[0x17])), (false, vec!["snp.hwid", "snp.vcek_tcb"]));
    // Authentic, but not what the policy accepts.
    assert_eq!(spoilt(|p| p.report.set(offset::MEASUREMENT, &[0])), (true, vec!["snp.measurement"]));
    assert_eq!(spoilt(|p| p.report.set(offset::POLICY + 2, &[0x0b])), (true, vec!["snp.policy.debug"]));
    assert_eq!(spoilt(|p| p.report.set(0x30, &[1])), (true, vec!["snp.vmpl"]));
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
    assert!(
        matches!(verify(&genoa(), gpu, |_| ()), Err(Error::Malformed { .. })),
        "GPU evidence that is not there"
    );
}

#[test]
fn endorsements_of_a_response_are_not_taken_on_trust() {
    let answered = |spoil: fn(&mut AttestResponse)| verify(&genoa(), |_| (), spoil);
    assert_eq!(answered(|r| r.endorsements.clear()), Ok((false, vec!["snp.chain"])));
    let nonsense = |r: &mut AttestResponse| {
        r.endorsements.insert(Digest::of(b"nonsense"), b"nonsense".to_vec());
    };
    assert_eq!(answered(nonsense), Ok((false, vec!["snp.chain"])));
    let many = |r: &mut AttestResponse| {
        for n in 0..7u8 {
            r.endorsements.insert(Digest::of(&[n]), vec![n]);
        }
    };
    assert_eq!(answered(many), Ok((false, vec!["snp.chain"])));
}
