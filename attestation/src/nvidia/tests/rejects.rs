//! Reports, chains and policies under test roots: one test for each way to be refused.

use rcgen::{BasicConstraints, CertificateParams, IsCa, date_time_ymd};

use super::factory::*;
use super::*;
use crate::Error;
use crate::policy::{Check, Demand};
use crate::x509::Certificate;

/// All endorsements of `factory`, given for its report alone.
pub(super) fn given(rims: &[Vec<u8>], ocsp: &[Vec<u8>]) -> Endorsements {
    let rims: Vec<&[u8]> = rims.iter().map(Vec::as_slice).collect();
    let ocsp: Vec<&[u8]> = ocsp.iter().map(Vec::as_slice).collect();
    Endorsements::for_one(&rims, &ocsp).unwrap()
}

/// A session's verdict at [`NOW`].
pub(super) fn verdict(factory: &Factory, gpu: &GpuEvidence, given: &Endorsements) -> Verdict {
    let signatures = SignatureCache::new();
    let ctx = Context { now: NOW.parse().unwrap(), missing: Missing::Fails, signatures: &signatures };
    inspect(gpu, given, &factory.anchors(), Some(NONCE), ctx)
}

/// The verdict with a change to the report before it is signed, and everything else in order.
fn with_report(change: impl FnOnce(&mut ReportParts)) -> Verdict {
    let factory = Factory::new();
    let gpu = factory.gpu(&factory.report(change));
    verdict(&factory, &gpu, &given(&factory.rims(), &factory.responses()))
}

/// The verdict with a change to the device, and everything else in order.
fn with_device(change: impl FnOnce(&mut Factory)) -> Verdict {
    let mut factory = Factory::new();
    change(&mut factory);
    let gpu = factory.gpu(&factory.report(|_| {}));
    verdict(&factory, &gpu, &given(&factory.rims(), &factory.responses()))
}

fn malformed(change: impl FnOnce(&mut ReportParts)) -> String {
    Report::parse(&Factory::new().report(change)).unwrap_err().to_string()
}

#[test]
fn the_factory_is_accepted() {
    let v = with_report(|_| {});
    assert_eq!(v.failed(), [""; 0]);
    assert!(v.authentic && v.accepted);
    // 40, of which index 35 is exempt.
    assert_eq!(v.got("nvidia.measurements"), "39 compared");
    assert_eq!(v.got("nvidia.ocsp"), "6 good");
}

#[test]
fn each_byte_of_the_request_and_the_header_has_one_value() {
    for (n, field) in [
        (0, "version of the request"),
        (1, "code of the request"),
        (2, "param1"),
        (3, "param2"),
        (36, "slot"),
    ] {
        assert!(malformed(|r| r.request[n] ^= 2).contains(field), "{field}");
    }
    for (n, field) in
        [(0, "version of the response"), (1, "code of the response"), (2, "param1"), (3, "slot")]
    {
        assert!(malformed(|r| r.header[n] ^= 2).contains(field), "{field}");
    }
}

#[test]
fn malformed_measurements() {
    assert!(malformed(|r| r.header[4] += 1).contains("truncated"));
    assert!(malformed(|r| r.header[4] -= 1).contains("55 bytes too many"));
    assert!(malformed(|r| r.extra_len = 1).contains("too many"));
    assert!(
        malformed(|r| r.blocks[1].0[0] = 1).contains("index of a measurement block is 0x01, expected 0x02")
    );
    assert!(malformed(|r| r.blocks[1].0[1] = 2).contains("specification"));
    assert!(malformed(|r| r.blocks[1].0[4] = 0x81).contains("type 0x81"));
    assert!(malformed(|r| r.blocks[1].0[4] = 4).contains("type 0x04"));
    assert!(malformed(|r| r.blocks[1].0[2] = 52).contains("not a SHA-384 digest"));
    assert!(malformed(|r| r.blocks[1].0[5] = 47).contains("not a SHA-384 digest"));
    let long = vec![0; 16 * 1024 + 1];
    assert!(Report::parse(&long).unwrap_err().to_string().contains("at most 16384"));
    assert!(Report::parse(&long[1..]).unwrap_err().to_string().contains("version of the request"));
    let report = Factory::new().report(|_| {});
    assert!(
        Report::parse(&[report.as_slice(), &[0]].concat())
            .unwrap_err()
            .to_string()
            .contains("1 bytes too many")
    );
}

#[test]
fn malformed_opaque_data() {
    assert!(malformed(|r| r.opaque.push((3, vec![]))).contains("field 3 is there twice"));
    assert!(malformed(|r| r.opaque_tail = vec![1]).contains("truncated"));
    assert!(malformed(|r| r.opaque_tail = vec![99, 0, 1, 0]).contains("truncated"));
    for version in [&[2, 0][..], &[0, 1], &[1], &[1, 0, 0]] {
        assert!(malformed(|r| r.set(34, version)).contains("a version that is not known"), "{version:?}");
    }
    assert!(Report::parse(&Factory::new().report(|r| r.set(34, &[1, 0]))).is_ok());
    let fill = |n: u16| move |r: &mut ReportParts| r.opaque = (100..100 + n).map(|n| (n, vec![])).collect();
    assert!(malformed(fill(65)).contains("more than 64 fields"));
    assert!(Report::parse(&Factory::new().report(fill(64))).is_ok());
}

#[test]
fn fields_of_opaque_data_are_read_strictly() {
    let opaque = |number: u16, content: &[u8]| {
        let report = Factory::new().report(|r| r.set(number, content));
        Report::parse(&report).unwrap().opaque
    };
    for bad in [&b""[..], b"\0", b"1\x002", b"1 2", b"\xff", b"1/2"] {
        assert_eq!(opaque(3, bad).driver_version(), None, "{bad:?}");
        assert_eq!(opaque(17, bad).board(), None, "{bad:?}");
    }
    for bad in [&[0; 7][..], &[0; 9], &[0, 0, 0, 0, 0, 1, 0, 0], &[0, 0, 0, 0, 0, 0, 0, 1]] {
        assert_eq!(opaque(6, bad).vbios_version(), None, "{bad:?}");
    }
    assert!(opaque(11, &[0x55]).is_nvdec0_off());
    assert!(!opaque(11, &[0xaa]).is_nvdec0_off() && !opaque(11, &[0x55, 0]).is_nvdec0_off());
    assert_eq!((opaque(21, &[0xaa]).protected_pcie(), opaque(21, &[0]).protected_pcie()), ("on", "unknown"));
    let features: [(&[u8], _); 5] = [
        (&[0, 0], "single-gpu"),
        (&[1, 0], "multi-gpu"),
        (&[2, 0], "protected-pcie"),
        (&[3, 0], "unknown"),
        (&[0], "unknown"),
    ];
    for (content, feature) in features {
        assert_eq!(opaque(36, content).feature(), feature);
    }
    assert_eq!(opaque(200, b"x").field(200), Some(&b"x"[..]));
    assert_eq!(opaque(200, b"x").field(201), None);
}

#[test]
fn an_altered_report_is_not_signed() {
    let factory = Factory::new();
    let mut report = factory.report(|_| {});
    report[60] ^= 1;
    let v = verdict(&factory, &factory.gpu(&report), &given(&factory.rims(), &factory.responses()));
    assert_eq!(v.failed(), ["nvidia.signature", "nvidia.measurements"]);
    assert!(!v.authentic);
}

#[test]
fn the_nonce_is_the_one_that_was_asked_with() {
    let v = with_report(|r| r.request[4] ^= 1);
    assert_eq!(v.failed(), ["nvidia.nonce"]);
    assert!(v.authentic && !v.accepted);
}

#[test]
fn firmware_ids() {
    let v = with_report(|r| r.remove(20));
    assert_eq!(v.failed(), ["nvidia.fwid"]);
    assert!(v.authentic, "an old driver is no forgery");
    for other in [&[0xf2; 48][..], &FWID[..47], b""] {
        let v = with_report(|r| r.set(20, other));
        assert_eq!(v.failed(), ["nvidia.fwid"]);
        assert!(!v.authentic, "a contradiction is");
    }
}

#[test]
fn versions_and_modes_of_the_policy() {
    let v = with_report(|r| r.set(21, &[0xaa]));
    assert_eq!(v.failed(), ["nvidia.protected_pcie"]);
    assert_eq!(with_report(|r| r.set(21, &[1])).got("nvidia.protected_pcie"), "unknown");
    assert_eq!(with_report(|r| r.set(36, &[2, 0])).failed(), ["nvidia.feature"]);
    assert_eq!(with_report(|r| r.set(36, &[9, 0])).failed(), ["nvidia.feature"]);
    assert!(with_report(|r| r.remove(36)).accepted && with_report(|r| r.remove(21)).accepted);
    // Without a version there is no manifest to compare with.
    for number in [3, 6] {
        let v = with_report(|r| r.remove(number));
        assert_eq!(v.failed(), ["nvidia.rim", "nvidia.measurements"]);
    }
}

/// The rows of the policy one by one, on one good report.
#[test]
fn rows_of_the_policy() {
    let factory = Factory::new();
    let gpu = factory.gpu(&factory.report(|_| {}));
    let signatures = SignatureCache::new();
    let ctx = Context { now: NOW.parse().unwrap(), missing: Missing::Fails, signatures: &signatures };
    let apply = |gpu: &GpuEvidence, given: &Endorsements, change: &dyn Fn(&mut NvidiaPolicy)| {
        let mut policy = NvidiaPolicy::strict(1).unwrap();
        change(&mut policy);
        let who = authenticate(gpu, given, &factory.anchors(), ctx);
        let factors = appraise(gpu, &who, Some(NONCE), &policy);
        Verdict { authentic: who.is_authentic(), accepted: false, factors }
    };
    let all = given(&factory.rims(), &factory.responses());
    let version = |text: &str| text.parse::<Version>().unwrap();
    let newer = |p: &mut NvidiaPolicy| p.driver_version = Check::AtLeast(version("550.2"));
    assert_eq!(apply(&gpu, &all, &newer).failed(), ["nvidia.driver_version"]);
    let same = |p: &mut NvidiaPolicy| p.driver_version = Check::AtLeast(version("550.1.2"));
    assert_eq!(apply(&gpu, &all, &same).status("nvidia.driver_version"), Status::Pass);
    let other = |p: &mut NvidiaPolicy| p.vbios_version = Check::Exactly(version("96.00.9f.00.02"));
    assert_eq!(apply(&gpu, &all, &other).failed(), ["nvidia.vbios_version"]);
    let blackwell = |p: &mut NvidiaPolicy| p.arch = Check::Exactly("Blackwell".to_owned());
    assert_eq!(apply(&gpu, &all, &blackwell).failed(), ["nvidia.arch"]);
    let none = given(&[], &[]);
    assert_eq!(apply(&gpu, &none, &|_| {}).failed(), ["nvidia.rim", "nvidia.measurements", "nvidia.ocsp"]);
    let unchecked = || Demand::Unchecked { why: "test".to_owned() };
    let lax = |p: &mut NvidiaPolicy| {
        (p.fwid, p.rim, p.measurements, p.ocsp, p.debug) =
            (unchecked(), unchecked(), unchecked(), unchecked(), unchecked());
    };
    let v = apply(&gpu, &none, &lax);
    assert_eq!(v.failed(), [""; 0]);
    assert_eq!(v.status("nvidia.rim"), Status::Unchecked);
    // A version that is not there fails only where one is wanted.
    let gpu = factory.gpu(&factory.report(|r| r.remove(3)));
    assert_eq!(apply(&gpu, &none, &lax).status("nvidia.driver_version"), Status::Unchecked);
    let v = apply(&gpu, &none, &|p| {
        lax(p);
        newer(p);
    });
    assert_eq!(v.failed(), ["nvidia.driver_version"]);
}

#[test]
fn no_policy_can_accept_an_unknown_chip() {
    let mut factory = Factory::new();
    factory.boot_rom = Party::new("LS_10 A01 FSP BROM", Some(&factory.identity), |_| {});
    factory.leaf_with(|_| {});
    let unchecked = |p: &mut NvidiaPolicy| p.arch = Check::Unchecked { why: "test".to_owned() };
    let gpu = factory.gpu(&factory.report(|_| {}));
    let signatures = SignatureCache::new();
    let ctx = Context { now: NOW.parse().unwrap(), missing: Missing::Fails, signatures: &signatures };
    let who = authenticate(&gpu, &Endorsements::default(), &factory.anchors(), ctx);
    assert_eq!((who.chip.as_str(), who.arch), ("", None), "the names of leaf and issuer differ");
    let mut policy = NvidiaPolicy::strict(1).unwrap();
    unchecked(&mut policy);
    let arch =
        appraise(&gpu, &who, Some(NONCE), &policy).into_iter().find(|f| f.name == "nvidia.arch").unwrap();
    assert_eq!((arch.status, arch.got.as_deref()), (Status::Fail, Some("unknown")));
    assert_eq!(Arch::of_chip("LS_10"), None);
}

#[test]
fn blackwell_says_whether_it_can_be_debugged() {
    // notConfigured and fixedWidth mean no harm; notSecure, recovery and debug do.
    for (flags, ok) in [
        ([0x80, 0, 0, 1], true),
        ([0, 0, 0, 0], true),
        ([0x40, 0, 0, 1], false),
        ([0x20, 0, 0, 1], false),
        ([0x10, 0, 0, 1], false),
    ] {
        let factory = Factory::blackwell(flags);
        let rims = [DRIVER, VBIOS]
            .map(|version| factory.rim(version, |text| text.replace("\"GH100\"", "\"GB100\"")));
        let gpu = factory.gpu(&factory.report(|_| {}));
        let v = verdict(&factory, &gpu, &given(&rims, &factory.responses()));
        assert_eq!(v.failed(), if ok { vec![] } else { vec!["nvidia.debug"] }, "{flags:?}");
        assert_eq!(v.got("nvidia.arch"), "Blackwell");
    }
    // With a certificate as Hopper's have it, which does not say.
    let mut factory = Factory::blackwell([0; 4]);
    let point = factory.boot_rom.point();
    factory.leaf_with(|params| {
        params.custom_extensions = vec![extension(COMPOSITE_DEVICE_ID, composite_device_id(&point))];
    });
    let v = verdict(&factory, &factory.gpu(&factory.report(|_| {})), &given(&[], &[]));
    assert_eq!((v.got("nvidia.arch"), v.got("nvidia.debug")), ("Blackwell", "unstated"));
    assert!(v.failed().contains(&"nvidia.debug"));
}

fn chain_says(v: &Verdict, what: &str) {
    assert!(v.failed().contains(&"nvidia.chain"), "{:?}", v.failed());
    assert!(v.got("nvidia.chain").contains(what), "{}", v.got("nvidia.chain"));
    assert!(!v.authentic && !v.accepted);
}

#[test]
fn faults_of_the_chain() {
    chain_says(
        &with_device(|f| f.root = Party::new("Root", None, |_| {})),
        "GH100 Identity is not signed by Root",
    );
    chain_says(&with_device(|f| f.root = Party::new("Other", None, |_| {})), "(Root) is missing");
    let years = |from, until| {
        move |p: &mut CertificateParams| {
            (p.not_before, p.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
        }
    };
    chain_says(&with_device(|f| f.leaf_with(years(2024, 2025))), "FMC LF expired at 2025-01-01T00:00:00Z");
    chain_says(
        &with_device(|f| f.leaf_with(years(2027, 2028))),
        "FMC LF is not valid before 2027-01-01T00:00:00Z",
    );
    chain_says(
        &with_device(|f| f.leaf_with(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        "the end entity is a certificate authority",
    );
    let unknown = extension(&[1, 2, 3, 4], vec![5, 0]);
    let critical = |f: &mut Factory| {
        f.leaf_with(|p| {
            let mut unknown = unknown.clone();
            unknown.set_criticality(true);
            p.custom_extensions.push(unknown);
        });
    };
    chain_says(&with_device(critical), "critical extension 1.2.3.4");
    chain_says(
        &with_device(|f| f.boot_rom = f.boot_rom.again(&f.identity, end_entity)),
        "BROM is not a certificate authority",
    );
}

#[test]
fn the_order_and_the_root_of_the_chain() {
    let factory = Factory::new();
    let endorsements = given(&factory.rims(), &factory.responses());
    let with_chain = |chain: Vec<Certificate>| {
        let gpu = GpuEvidence { chain, ..factory.gpu(&factory.report(|_| {})) };
        verdict(&factory, &gpu, &endorsements)
    };
    let (chain, root) = (factory.chain(), factory.root.certificate.clone());
    let with_root = [chain.clone(), vec![root.clone()]].concat();
    assert!(with_chain(with_root.clone()).accepted, "the pinned root may come along");
    chain_says(&with_chain(with_root.iter().rev().cloned().collect()), "is not the pinned Root");
    chain_says(&with_chain(chain.iter().rev().cloned().collect()), "missing");
    chain_says(&with_chain(vec![chain[0].clone(), chain[2].clone()]), "missing");
    chain_says(&with_chain(vec![]), "no certificate of a device");
    chain_says(&with_chain(vec![root.clone()]), "no certificate of a device");
    let fake = Party::new("Root", None, |_| {}).certificate;
    chain_says(
        &with_chain([chain, vec![fake]].concat()),
        "the root that was given, Root, is not the pinned Root",
    );
}

#[test]
fn faults_of_the_firmware_extension() {
    let with_extension = |oid: &'static [u64], content: Vec<u8>| {
        with_device(move |f| f.leaf_with(|p| p.custom_extensions = vec![extension(oid, content)]))
    };
    let none = "does not say which firmware it is of (FWID)";
    chain_says(&with_device(|f| f.leaf_with(|p| p.custom_extensions.clear())), none);
    let other = Party::new("x", None, |_| {});
    let point = other.certificate.public_key().to_vec();
    chain_says(
        &with_extension(COMPOSITE_DEVICE_ID, composite_device_id(&point)),
        "of another device than its issuer",
    );
    let good = composite_device_id(&point);
    // Version 2, another digest, a digest of another length, something behind it, half of it.
    for bad in [
        hex::encode(&good).replacen("020101", "020102", 1),
        hex::encode(&good).replace(&hex::encode(OID_SHA384), "0609608648016503040201"),
        hex::encode(tlv(0x30, &[&[2, 1, 1], &good[6..6 + 120], &fwid(&[1; 47])].concat())),
        format!("{}00", hex::encode(&good)),
        hex::encode(&good[..80]),
    ] {
        chain_says(&with_extension(COMPOSITE_DEVICE_ID, hex::decode(bad).unwrap()), none);
    }
    let fields = |list: &[Vec<u8>]| tlv(0x30, &list.concat());
    let fwids = tlv(0xa6, &fwid(&FWID));
    let flags = tlv(0x87, &[0, 0x80, 0, 0, 1]);
    for bad in [
        fields(std::slice::from_ref(&fwids)),
        fields(std::slice::from_ref(&flags)),
        fields(&[flags.clone(), fwids.clone()]),
        fields(&[fwids.clone(), fwids.clone(), flags.clone()]),
        fields(&[tlv(4, b"x"), fwids.clone(), flags.clone()]),
        fields(&[fwids.clone(), tlv(0x87, &[0])]),
        fields(&[fwids.clone(), tlv(0x87, &[])]),
        fields(&[fwids.clone(), tlv(0x87, &[1, 0x80])]),
        fields(&[tlv(0xa6, &[]), flags.clone()]),
        [fields(&[fwids.clone(), flags.clone()]), vec![0]].concat(),
        fields(&[fwids.clone(), flags.clone()])[..20].to_vec(),
    ] {
        chain_says(&with_extension(DICE_TCB_INFO, bad), none);
    }
    let both = |f: &mut Factory| {
        f.leaf_with(|p| p.custom_extensions.push(extension(DICE_TCB_INFO, fields(&[fwids, flags]))))
    };
    chain_says(&with_device(both), none);
}

#[test]
fn a_key_of_another_curve_signs_nothing() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    end_entity(&mut params);
    let certificate = Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap();
    let factory = Factory::new();
    let gpu = GpuEvidence { chain: vec![certificate], ..factory.gpu(&factory.report(|_| {})) };
    let v = verdict(&factory, &gpu, &Endorsements::default());
    assert_eq!(v.status("nvidia.signature"), Status::Fail);
}

#[test]
fn versions_are_compared_part_by_part() {
    let version = |text: &str| text.parse::<Version>();
    assert!(version("550.90.07").unwrap() < version("550.124.03").unwrap());
    assert!(version("96.00.9f.00.01").unwrap() < version("96.00.AF.00.01").unwrap());
    assert!(version("550.90").unwrap() < version("550.90.00").unwrap());
    assert_eq!(version("96.00.9F.00.01").unwrap(), version("96.0.9f.0.1").unwrap());
    assert_eq!(version("96.00.9F.00.01").unwrap().to_string(), "96.00.9f.00.01");
    for bad in ["", ".", "1.", "1..2", "v1", "1.2.3.4.5.6.7.8.9", "123456789", "+1", "1.-2"] {
        assert!(version(bad).is_err(), "{bad}");
    }
    assert!(version("1.2.3.4.5.6.7.8").is_ok());
}

#[test]
fn the_policy_is_strict() {
    let read = |text: &str| toml::from_str::<NvidiaPolicy>(text);
    let rows = "arch = { exactly = \"Hopper\" }\ncount = { exactly = 1 }\ndriver_version = { at_least = \"550.90.07\" }\n\
                vbios_version = { unchecked = \"x\" }\nfwid = \"required\"\nrim = \"required\"\nmeasurements = \"required\"\n\
                ocsp = { unchecked = \"no network\" }\ndebug = \"required\"\nprotected_pcie = { exactly = \"off\" }\n\
                feature = { exactly = \"single-gpu\" }\n";
    assert!(read(rows).is_ok());
    for line in rows.lines() {
        assert!(read(&rows.replace(line, "")).is_err(), "{line} is mandatory");
    }
    assert!(read(&format!("{rows}nonce = \"required\"\n")).is_err(), "unknown rows are refused");
    for (from, to) in
        [("\"550.90.07\"", "\"0.0\""), ("\"550.90.07\"", "\"new\""), ("{ exactly = 1 }", "{ at_least = 0 }")]
    {
        assert!(read(&rows.replace(from, to)).is_err(), "{to}");
    }
    assert!(NvidiaPolicy::strict(0).unwrap_err().to_string().contains("no GPU"));
    let strict = NvidiaPolicy::strict(8).unwrap();
    assert_eq!((strict.count, strict.ocsp), (Check::Exactly(8), Demand::Required));
}

#[test]
fn endorsements_are_counted() {
    let many = |rims: usize, ocsp: usize| -> Result<Endorsements, Error> {
        Endorsements::for_one(&vec![b"x".as_slice(); rims], &vec![b"x".as_slice(); ocsp])
    };
    assert!(many(16, 64).is_ok());
    assert!(many(17, 0).unwrap_err().to_string().contains("more than 16"));
    assert!(many(0, 65).unwrap_err().to_string().contains("more than 16 RIMs or 64"));
}
