//! Reports, opaque data, versions, firmware identities and GPU evidence, each malformed in each way.

use rcgen::{CertificateParams, CustomExtension, KeyPair};

use crate::nvidia::dice::Identity;
use crate::nvidia::{GpuEvidence, Opaque, Report, Version, rim_ids};
use crate::x509::Certificate;

/// A report with `count` measurements and the opaque fields `fields`; nobody signed it.
fn report(count: u8, fields: &[(u16, &[u8])]) -> Vec<u8> {
    let mut out = vec![0x11, 0xe0, 1, 0xff];
    out.extend([7; 32]);
    out.push(0);
    out.extend([0x11, 0x60, 0, 0, count]);
    out.extend(&(u32::from(count) * 55).to_le_bytes()[..3]);
    for index in 1..=count {
        out.extend([index, 1, 51, 0, 1, 48, 0]);
        out.extend([index; 48]);
    }
    out.extend([8; 32]);
    let opaque = opaque(fields);
    out.extend(u16::try_from(opaque.len()).unwrap().to_le_bytes());
    out.extend(opaque);
    out.extend([9; 96]);
    out
}

fn opaque(fields: &[(u16, &[u8])]) -> Vec<u8> {
    let len = |value: &[u8]| u16::try_from(value.len()).unwrap().to_le_bytes();
    fields.iter().flat_map(|(n, value)| [&n.to_le_bytes(), &len(value), *value].concat()).collect()
}

fn parsed(fields: &[(u16, &[u8])]) -> Report {
    Report::parse(&report(2, fields)).unwrap()
}

#[test]
fn reads_request_and_response() {
    let bytes = report(2, &[(3, b"550.90.07\0"), (250, b"x")]);
    let report = Report::parse(&bytes).unwrap();
    assert_eq!((report.nonce, report.responder_nonce), ([7; 32], [8; 32]));
    assert_eq!(report.measurements, [[1; 48], [2; 48]]);
    assert_eq!(report.measurement(0), Some(&[1; 48]));
    assert_eq!(report.measurement(2), None);
    assert_eq!(report.opaque.field(250), Some(&b"x"[..]));
    assert_eq!(report.to_bytes(), bytes);
    assert!(Report::parse(&self::report(0, &[])).unwrap().measurements.is_empty());
    assert_eq!(Report::parse(&self::report(255, &[])).unwrap().measurements.len(), 255);
}

#[test]
fn every_fixed_byte_of_a_report_counts() {
    let good = report(2, &[]);
    let cases = [
        (0, "version of the request"),
        (1, "code of the request"),
        (2, "param1 of the request"),
        (3, "param2 of the request"),
        (36, "slot of the request"),
        (37, "version of the response"),
        (38, "code of the response"),
        (39, "param1 of the response"),
        (40, "slot of the response"),
        (45, "index of a measurement block"),
        (46, "specification of a measurement"),
        (47, "not a SHA-384 digest"),
        (48, "not a SHA-384 digest"),
        (50, "not a SHA-384 digest"),
        (51, "not a SHA-384 digest"),
        (100, "index of a measurement block"),
    ];
    for (at, why) in cases {
        for flip in [1, 0x80] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            let got = Report::parse(&bytes).unwrap_err().to_string();
            assert!(got.contains(why), "{at}: {got}");
        }
    }
    for (value_type, ok) in [(0, true), (1, true), (3, true), (4, false), (0x81, false)] {
        let mut bytes = good.clone();
        bytes[49] = value_type;
        assert_eq!(Report::parse(&bytes).is_ok(), ok, "{value_type}");
    }
}

#[test]
fn lengths_of_a_report_must_fit() {
    let good = report(2, &[(1, b"x")]);
    let refused = |bytes: &[u8]| Report::parse(bytes).unwrap_err().to_string();
    for len in 0..good.len() {
        assert!(refused(&good[..len]).contains("truncated"), "{len}");
    }
    assert!(refused(&[&good[..], &[0]].concat()).contains("1 bytes too many"));
    let changed = |at: usize, value: u8| [&good[..at], &[value], &good[at + 1..]].concat();
    assert!(refused(&changed(41, 1)).contains("bytes too many"), "fewer blocks than the record has");
    assert!(refused(&changed(41, 3)).contains("truncated"), "more blocks than the record has");
    assert!(refused(&changed(42, 109)).contains("truncated"));
    assert!(refused(&changed(44, 0xff)).contains("truncated"), "a record of 16 MiB");
    assert!(refused(&changed(187, 4)).contains("opaque data"), "opaque data cut short");
    assert!(refused(&vec![0x11; 16 * 1024 + 1]).contains("at most 16384"));
}

#[test]
fn opaque_data_is_a_list_without_repetitions() {
    let refused = |bytes: &[u8]| Opaque::parse(bytes).unwrap_err().to_string();
    assert!(refused(&opaque(&[(3, b"1"), (3, b"1")])).contains("field 3 is there twice"));
    assert!(refused(&[3]).contains("truncated"));
    assert!(refused(&[3, 0, 2]).contains("truncated"));
    assert!(refused(&[3, 0, 2, 0, 1]).contains("truncated"));
    // A newer format begins with a header, of which the first bytes read as a field of 16 KiB.
    assert!(refused(b"NVDAOD\x01\x00\x00\x00").contains("truncated"));
    let many = |n: u16| (100..100 + n).flat_map(|number| opaque(&[(number, b"")])).collect::<Vec<_>>();
    assert_eq!(Opaque::parse(&many(64)).unwrap().numbers().count(), 64);
    assert!(refused(&many(65)).contains("more than 64 fields"));
    assert_eq!(Opaque::parse(b"").unwrap(), Opaque::default());
}

#[test]
fn opaque_fields_say_something_or_nothing() {
    let of = |number, value: &'static [u8]| parsed(&[(number, value)]).opaque;
    assert_eq!(of(3, b"550.90.07\0\0").driver_version(), Some("550.90.07"));
    for bad in [&b""[..], b"\0", b"550 90", b"550/90", b"\xff", b"5\x000"] {
        let bytes = report(0, &[(3, bad)]);
        assert_eq!(Report::parse(&bytes).unwrap().opaque.driver_version(), None, "{bad:?}");
    }
    let vbios = |value: &'static [u8]| of(6, value).vbios_version();
    assert_eq!(vbios(&[0, 0x9f, 0, 0x96, 1, 0, 0, 0]).as_deref(), Some("96.00.9f.00.01"));
    assert_eq!(vbios(&[0, 0x9f, 0, 0x96, 1, 1, 0, 0]), None);
    assert_eq!(vbios(b"96.10.55.00.01"), None, "an NVSwitch writes it as text");
    assert!(of(11, &[0x55]).is_nvdec0_off());
    for other in [&[0xaa][..], &[0], &[0x55, 0x55], &[]] {
        let bytes = report(0, &[(11, other)]);
        assert!(!Report::parse(&bytes).unwrap().opaque.is_nvdec0_off(), "{other:?}");
    }
    assert!(!parsed(&[]).opaque.is_nvdec0_off());
    let pcie = [(&[0xaa][..], "on"), (&[0x55], "off"), (&[0], "unknown"), (&[0x55, 0], "unknown")];
    for (value, want) in pcie {
        assert_eq!(Report::parse(&report(0, &[(21, value)])).unwrap().opaque.protected_pcie(), want);
    }
    let features = [
        (&[0, 0][..], "single-gpu"),
        (&[1, 0], "multi-gpu"),
        (&[2, 0], "protected-pcie"),
        (&[0, 2], "unknown"),
        (&[0], "unknown"),
    ];
    for (value, want) in features {
        assert_eq!(Report::parse(&report(0, &[(36, value)])).unwrap().opaque.feature(), want);
    }
    let none = parsed(&[]).opaque;
    assert_eq!((none.protected_pcie(), none.feature()), ("unstated", "unstated"));
    assert_eq!((none.driver_version(), none.vbios_version(), none.board()), (None, None, None));
}

#[test]
fn names_of_manifests() {
    let all: [(u16, &[u8]); 5] = [
        (3, b"550.90.07\0"),
        (6, &[0, 0x9f, 0, 0x96, 1, 0, 0, 0]),
        (15, b"882\0"),
        (17, b"1010\0"),
        (18, b"0200\0"),
    ];
    let ids = |chip| rim_ids(&parsed(&all), chip);
    let vbios = "NV_GPU_VBIOS_1010_0200_882_96009F0001".to_owned();
    assert_eq!(ids("GH100"), Some(["NV_GPU_DRIVER_GH100_550.90.07".to_owned(), vbios.clone()]));
    assert_eq!(ids("GB100"), Some(["NV_GPU_CC_DRIVER_GB100_550.90.07".to_owned(), vbios]));
    assert_eq!((ids("LS_10"), ids("")), (None, None));
    for without in 0..all.len() {
        let mut fields = all.to_vec();
        let field = fields.remove(without);
        assert_eq!(rim_ids(&parsed(&fields), "GH100"), None, "without {}", field.0);
    }
}

#[test]
fn versions_have_an_order() {
    let version = |text: &str| text.parse::<Version>().unwrap();
    assert!(version("550.90.07") < version("550.100.00") && version("550.90.07") < version("1000.1"));
    assert!(version("550.90") < version("550.90.00"));
    assert!(version("96.00.9f.00.01") < version("96.00.A0.00.00"));
    assert_eq!(version("96.00.9F.00.01"), version("96.00.9f.00.01"));
    assert_eq!(version("96.00.9F.00.01").to_string(), "96.00.9f.00.01");
    for bad in ["", ".", "1..2", "1.", "g", "+1", "-1", "1 ", "123456789", "1.1.1.1.1.1.1.1.1"] {
        assert!(bad.parse::<Version>().is_err(), "{bad:?}");
    }
    let check = |text: &str| {
        toml::from_str::<std::collections::BTreeMap<String, crate::policy::Check<Version>>>(text)
    };
    assert!(check("row = { at_least = \"550.54.15\" }").is_ok());
    assert!(check("row = { at_least = \"0.00\" }").unwrap_err().to_string().contains("every value"));
    assert!(check("row = { exactly = \"x\" }").is_err());
}

const COMPOSITE: &[u64] = &[2, 23, 133, 5, 4, 1];
const TCB_INFO: &[u64] = &[2, 23, 133, 5, 4, 1, 1];
const SHA384: &str = "0609608648016503040202";
const SHA256: &str = "0609608648016503040201";

fn certificate(extensions: &[(&[u64], Vec<u8>)]) -> Certificate {
    let mut params = CertificateParams::default();
    params.custom_extensions = extensions
        .iter()
        .map(|(oid, content)| CustomExtension::from_oid_content(oid, content.clone()))
        .collect();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap()
}

/// `tag`, length, content.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let header = match (high, low) {
        (0, 0..0x80) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [header, content.to_vec()].concat()
}

fn fwid(algorithm: &str, digest: &[u8]) -> Vec<u8> {
    tlv(0x30, &[hex::decode(algorithm).unwrap(), tlv(4, digest)].concat())
}

/// CompositeDeviceID with a key of 3 bytes: nothing looks into it here.
fn composite(version: u8, fwid: &[u8]) -> Vec<u8> {
    let algorithm = hex::decode("301006072a8648ce3d020106052b81040022").unwrap();
    let key = tlv(0x30, &[algorithm, tlv(3, &[0, 4, 1, 2])].concat());
    tlv(0x30, &[&[2, 1, version], &key[..], fwid].concat())
}

#[test]
fn firmware_identity_of_hopper() {
    let good = composite(1, &fwid(SHA384, &[5; 48]));
    let found = certificate(&[(COMPOSITE, good.clone())]);
    let identity = Identity::of(&found).unwrap();
    assert_eq!(identity.fwid, [5; 48]);
    assert_eq!((identity.device_key, identity.insecure), (Some(&[4, 1, 2][..]), None));
    let bad = [
        composite(2, &fwid(SHA384, &[5; 48])),
        composite(1, &fwid(SHA256, &[5; 48])),
        composite(1, &fwid(SHA384, &[5; 32])),
        composite(1, &[]),
        composite(1, &[fwid(SHA384, &[5; 48]), vec![5, 0]].concat()),
        [&good[..], &[0]].concat(),
        good[..good.len() - 1].to_vec(),
        Vec::new(),
    ];
    for extension in bad {
        let hex = hex::encode(&extension);
        assert_eq!(Identity::of(&certificate(&[(COMPOSITE, extension)])), None, "{hex}");
    }
    assert_eq!(Identity::of(&certificate(&[])), None);
}

/// DiceTcbInfo with vendor, FWIDs and flags.
fn tcb_info(fwids: Option<Vec<u8>>, flags: Option<&[u8]>) -> Vec<u8> {
    let fwids = fwids.map(|list| tlv(0xa6, &list)).unwrap_or_default();
    let flags = flags.map(|flags| tlv(0x87, flags)).unwrap_or_default();
    tlv(0x30, &[tlv(0x80, b"NVIDIA"), fwids, flags, tlv(0x89, &[1, 0])].concat())
}

#[test]
fn firmware_identity_of_blackwell() {
    let list = [fwid(SHA384, &[6; 48]), fwid(SHA384, &[0; 48])].concat();
    let of = |flags: &[u8]| {
        let found = certificate(&[(TCB_INFO, tcb_info(Some(list.clone()), Some(flags)))]);
        Identity::of(&found).map(|identity| (identity.fwid.to_vec(), identity.insecure))
    };
    assert_eq!(of(&[0, 0x80, 0, 0, 1]), Some((vec![6; 48], Some(false))));
    for insecure in [0x40, 0x20, 0x10] {
        assert_eq!(of(&[0, insecure, 0, 0, 0]), Some((vec![6; 48], Some(true))), "{insecure:#x}");
    }
    assert_eq!((of(&[]), of(&[0]), of(&[4, 0x80])), (None, None, None), "no flags, or not whole bytes");
    let twice = [tlv(0xa6, &list), tlv(0xa6, &list), tlv(0x87, &[0, 0])].concat();
    let swapped = [tlv(0x87, &[0, 0]), tlv(0xa6, &list)].concat();
    let bad = [
        tcb_info(None, Some(&[0, 0])),
        tcb_info(Some(list.clone()), None),
        tcb_info(Some(Vec::new()), Some(&[0, 0])),
        tcb_info(Some(fwid(SHA256, &[6; 48])), Some(&[0, 0])),
        tlv(0x30, &twice),
        tlv(0x30, &swapped),
        tlv(0x30, &tlv(4, &[1])),
        [tcb_info(Some(list.clone()), Some(&[0, 0])), vec![0]].concat(),
    ];
    for extension in bad {
        let hex = hex::encode(&extension);
        assert_eq!(Identity::of(&certificate(&[(TCB_INFO, extension)])), None, "{hex}");
    }
    let both =
        [(COMPOSITE, composite(1, &fwid(SHA384, &[5; 48]))), (TCB_INFO, tcb_info(Some(list), Some(&[0, 0])))];
    assert_eq!(Identity::of(&certificate(&both)), None, "two that could differ");
}

#[test]
fn gpu_evidence_round_trip_and_refusals() {
    let one = certificate(&[]);
    let report = Report::parse(&report(2, &[(3, b"1.2")])).unwrap();
    let evidence =
        |chain: usize| GpuEvidence { x: [3; 32], report: report.clone(), chain: vec![one.clone(); chain] };
    for chain in [1, 8] {
        assert_eq!(GpuEvidence::decode(&evidence(chain).encode()).unwrap(), evidence(chain));
    }
    let refused = |bytes: &[u8]| GpuEvidence::decode(bytes).unwrap_err().to_string();
    assert!(refused(&evidence(0).encode()).contains("no certificate"));
    assert!(refused(&evidence(9).encode()).contains("at most 8"));
    let good = evidence(1).encode();
    for len in 0..good.len() {
        assert!(GpuEvidence::decode(&good[..len]).is_err(), "{len}");
    }
    assert!(refused(&[&good[..], &[0]].concat()).contains("malformed"));
    assert!(refused(&vec![0; 32 * 1024 + 1]).contains("at most"));
    // Version, x, and a field too many.
    assert!(refused(&[&good[..2], &[2], &good[3..]].concat()).contains("unknown version"));
    assert!(refused(&[&[0xa5], &good[1..], &[4, 0]].concat()).contains("1 unknown fields"));
    let parts = GpuEvidence::from_parts(&report.to_bytes(), one.to_pem().as_bytes()).unwrap();
    assert_eq!((parts.x, &parts.report, &parts.chain[..]), ([0; 32], &report, &[one.clone()][..]));
    assert!(GpuEvidence::from_parts(&report.to_bytes(), one.to_pem().repeat(9).as_bytes()).is_err());
    assert!(GpuEvidence::from_parts(&report.to_bytes(), b"").is_err());
    assert!(GpuEvidence::from_parts(b"", one.der()).is_err());
}
