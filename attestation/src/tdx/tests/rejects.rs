//! One test case for each way to be refused.

use super::factory::{Case, Subject, at, document, document_of_text, integer, level, octets, pem, svn_level};
use super::*;
use crate::policy::Check;

/// Changes a good case of `version` and appraises it by the strict policy.
fn changed(version: u8, change: impl FnOnce(&mut Case)) -> Outcome {
    let mut case = Case::new(version);
    change(&mut case);
    let quote = Quote::parse(&case.quote()).unwrap();
    run(&quote, &case.endorsements(), &case.anchor(), Case::now(), &strict())
}

/// Why a quote with a change before it was signed cannot be parsed.
fn malformed(change: impl FnOnce(&mut Case)) -> String {
    let mut case = Case::new(5);
    change(&mut case);
    Quote::parse(&case.quote()).unwrap_err().to_string()
}

/// Why a quote with a change of its bytes cannot be parsed.
fn broken(change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut quote = Case::new(4).quote();
    change(&mut quote);
    Quote::parse(&quote).unwrap_err().to_string()
}

/// The only factor that failed, and what it got.
#[track_caller]
fn only(out: &Outcome, name: &'static str, got: &str) {
    assert_eq!(out.failed(), [name], "{:?}", out.who.factors);
    assert!(out.got(name).contains(got), "{}", out.got(name));
    assert!(!out.accepted());
    let factor = out.factor(name);
    assert!(
        factor.want.as_ref().is_some_and(|w| !w.is_empty())
            && factor.help.as_ref().is_some_and(|h| !h.is_empty())
    );
}

#[test]
fn the_good_case_is_accepted() {
    for version in [4, 5] {
        let out = changed(version, |_| {});
        assert!(out.accepted(), "{:?}", out.failed());
        let tcb = out.who.tcb.as_ref().unwrap();
        assert_eq!((tcb.status, tcb.evaluation_number), (TcbStatus::UpToDate, 19));
        assert!(tcb.advisory_ids.is_empty() && tcb.module_faults.is_empty());
        for (name, got) in [
            ("tdx.signature", "valid"),
            ("tdx.qe_report", "valid"),
            ("tdx.chain", "Intel SGX PCK Platform CA"),
            ("tdx.crl", "not revoked"),
            ("tdx.endorsements", "current, for this platform"),
            ("tdx.qe_identity", "Intel's TD quoting enclave"),
            ("tdx.advisories", "none"),
            ("tdx.mr_signer_seam", "zero"),
            ("tdx.module", "known"),
        ] {
            assert_eq!(out.got(name), got);
            assert_eq!(out.factor(name).status, Status::Pass);
        }
    }
}

#[test]
fn quotes_of_another_shape() {
    assert!(broken(|q| q[0] = 3).contains("version 3 is an SGX quote"));
    assert!(broken(|q| q[0] = 6).contains("version 6"));
    assert!(broken(|q| q[2] = 3).contains("attestation key type 3"));
    assert!(broken(|q| q[4] = 0).contains("TEE type 0 is an SGX enclave"));
    assert!(broken(|q| q[4] = 0x82).contains("TEE type 0x82"));
    assert!(broken(|q| q[8] = 1).contains("reserved field at 0x08"));
    assert!(broken(|q| q[12] ^= 1).contains("not by Intel's quoting enclave"));
    assert!(malformed(|c| c.descriptor[0] = 1).contains("body of type 1"));
    assert!(malformed(|c| c.descriptor[2] = 0x48).contains("with 584 bytes"));
    // Certification data: kind, and bytes that its length leaves out.
    let data = 48 + 584 + 4;
    assert!(broken(|q| q[data + 128] = 5).contains("type 5, expected 6"));
    let pck = data + 134 + 384 + 64 + 2 + 32;
    assert!(broken(|q| q[pck] = 6).contains("type 6, expected 5"));
    assert!(broken(|q| q[pck + 2] -= 1).contains("1 bytes too many"));
    assert!(broken(|q| q[data + 130] -= 1).contains("1 bytes too many"));
    assert!(broken(|q| q[data + 130] += 1).contains("truncated"));
    let longer = |q: &mut Vec<u8>| {
        q.push(0);
        let len = u32::try_from(q.len() - data).unwrap();
        q[data - 4..data].copy_from_slice(&len.to_le_bytes());
    };
    assert!(broken(longer).contains("1 bytes too many"));
    assert!(broken(|q| q.push(1)).contains("what follows the signature data"));
}

#[test]
fn chains_of_another_length() {
    let case = Case::new(4);
    let chain = case.pck_chain();
    let refused = |chain: &[Vec<u8>]| Quote::parse(&case.quote_with(chain)).unwrap_err().to_string();
    assert!(refused(&chain[..2]).contains("2 certificates instead of"));
    assert!(refused(&[&chain[..], &chain[..1]].concat()).contains("more than 3"));
    assert!(refused(&[]).contains("certificate"));
}

#[test]
fn reserved_fields_of_the_quoting_enclaves_report() {
    for (place, name) in [(0x14, "0x14"), (0x60, "0x60"), (0xa0, "0xa0"), (0x106, "0x106")] {
        let why = malformed(|c| c.qe_report[place] = 1);
        assert!(why.contains(&format!("reserved field at {name}")), "{why}");
    }
}

#[test]
fn sgx_extensions_of_another_shape() {
    let missing = |list: fn(&mut Case) -> &mut super::factory::Elements, number: u8| {
        malformed(|c| list(c).retain(|(n, _)| *n != number))
    };
    let twice = |list: fn(&mut Case) -> &mut super::factory::Elements, number: u8| {
        malformed(|c| {
            let again = list(c).iter().find(|(n, _)| *n == number).unwrap().clone();
            list(c).push(again);
        })
    };
    let top: fn(&mut Case) -> &mut _ = |c| &mut c.sgx;
    let tcb: fn(&mut Case) -> &mut _ = |c| &mut c.sgx_tcb;
    let configuration: fn(&mut Case) -> &mut _ = |c| &mut c.sgx_configuration;
    for (list, number, what) in [
        (top, 1, "PPID"),
        (top, 3, "PCE-ID"),
        (top, 4, "FMSPC"),
        (tcb, 1, "TCB component"),
        (tcb, 16, "TCB component"),
        (tcb, 17, "PCESVN"),
        (tcb, 18, "CPUSVN"),
    ] {
        assert!(missing(list, number).contains(what), "{what}");
        assert!(twice(list, number).contains(what), "{what}");
    }
    for (list, number, what) in
        [(top, 5, "SGX type"), (top, 6, "platform instance ID"), (configuration, 1, "configuration")]
    {
        assert!(twice(list, number).contains(what), "{what}");
    }
    assert!(twice(top, 1).starts_with("malformed PCK certificate"));
    let replaced = |number: u8, value: Vec<u8>| {
        malformed(|c| c.sgx.iter_mut().find(|(n, _)| *n == number).unwrap().1 = value)
    };
    assert!(replaced(1, octets(&[1; 15])).contains("PPID"));
    assert!(replaced(1, integer(1)).contains("PPID"));
    assert!(replaced(5, vec![10, 1, 3]).contains("SGX type"));
    assert!(replaced(5, integer(1)).contains("SGX type"));
    assert!(replaced(6, octets(&[1; 17])).contains("platform instance ID"));
    assert!(malformed(|c| c.sgx_tcb[0].1 = integer(256)).contains("TCB component"));
    assert!(malformed(|c| c.sgx_configuration[1].1 = integer(1)).contains("configuration"));
    assert!(malformed(|c| c.sgx.push((2, octets(&[])))).contains("TCB"));
    assert!(malformed(|c| c.sgx.extend(vec![(9, integer(0)); 40])).contains("without the SGX extensions"));
    assert!(
        malformed(|c| c.sgx.push((200, integer(0)))).contains("without the SGX extensions"),
        "not an OID"
    );
    // No extension at all: a certificate that is not of a platform.
    let case = Case::new(4);
    let [_, issuer, root] = <[_; 3]>::try_from(case.pck_chain()).unwrap();
    let why = Quote::parse(&case.quote_with(&[issuer.clone(), issuer, root])).unwrap_err().to_string();
    assert!(why.contains("without the SGX extensions"), "{why}");
}

/// Elements that Intel may define later, and those that the processor CA leaves out.
#[test]
fn sgx_extensions_that_are_read() {
    let mut case = Case::new(4);
    case.sgx.push((9, integer(1)));
    case.sgx.retain(|(n, _)| *n != 6);
    case.sgx_configuration.clear();
    let pck = Quote::parse(&case.quote()).unwrap().pck;
    assert_eq!(pck.platform_instance_id, None);
    let none = super::super::Configuration { dynamic_platform: None, cached_keys: None, smt_enabled: None };
    assert_eq!(pck.configuration, Some(none));
    assert_eq!((pck.ppid, pck.components, pck.pce_svn), ([0x11; 16], [7; 16], 11));
    assert_eq!((pck.cpu_svn, pck.pce_id, pck.fmspc), ([7; 16], [0, 0], [0x50, 0x80, 0x6f, 0, 0, 0]));
    for (value, kind) in [(0, SgxType::Standard), (1, SgxType::Scalable), (2, SgxType::ScalableWithIntegrity)]
    {
        case.sgx.iter_mut().find(|(n, _)| *n == 5).unwrap().1 = vec![10, 1, value];
        assert_eq!(Quote::parse(&case.quote()).unwrap().pck.sgx_type, Some(kind));
    }
}

#[test]
fn signatures() {
    let place = |offset: usize| {
        move |case: &Case| {
            let mut quote = case.quote();
            quote[48 + 584 + 4 + offset] ^= 1;
            let quote = Quote::parse(&quote).unwrap();
            run(&quote, &case.endorsements(), &case.anchor(), Case::now(), &strict())
        }
    };
    let case = Case::new(4);
    only(&place(0)(&case), "tdx.signature", "invalid");
    // Signature of the quoting enclave's report.
    only(&place(134 + 384)(&case), "tdx.qe_report", "invalid");
    only(&changed(4, |c| c.qe_report[320..352].fill(7)), "tdx.signature", "did not report");
    only(&changed(4, |c| c.qe_report[352] = 1), "tdx.signature", "did not report");
    // Signed before the body was changed.
    let mut quote = case.quote();
    quote[48 + at::MR_TD] ^= 1;
    let quote = Quote::parse(&quote).unwrap();
    let out = run(&quote, &case.endorsements(), &case.anchor(), Case::now(), &strict());
    only(&out, "tdx.signature", "invalid");
    assert!(!out.who.is_authentic());
}

#[test]
fn chains() {
    let chain = |change: fn(&mut Case), got: &str| only(&changed(4, change), "tdx.chain", got);
    chain(|c| c.pck.name = "Intel SGX TCB Signing", "Intel SGX TCB Signing is not Intel SGX PCK Certificate");
    chain(|c| c.issuer.name = "Intel SGX PCK CA", "Intel SGX PCK CA is not a CA of PCK certificates");
    chain(|c| c.pck.years = (2020, 2021), "Intel SGX PCK Certificate expired at 2021-01-01T00:00:00Z");
    chain(
        |c| c.pck.years = (2030, 2031),
        "Intel SGX PCK Certificate is not valid before 2030-01-01T00:00:00Z",
    );
    chain(|c| c.issuer.years = (2020, 2021), "Intel SGX PCK Platform CA expired at 2021-01-01T00:00:00Z");
    chain(|c| c.pck.forged = true, "Intel SGX PCK Certificate is not signed by Intel SGX PCK Platform CA");
    chain(|c| c.issuer.forged = true, "Intel SGX PCK Platform CA is not signed by Intel SGX Root CA");
    chain(|c| c.pck.authority = true, "the end entity is a certificate authority");
    let processor = changed(4, |c| c.issuer.name = "Intel SGX PCK Processor CA");
    assert!(processor.accepted());
    // An expired root: everything below it falls.
    let out = changed(4, |c| c.root.years = (2020, 2021));
    assert!(out.got("tdx.chain").contains("Intel SGX Root CA expired at 2021-01-01T00:00:00Z"));
    assert!(out.got("tdx.endorsements").contains("Intel SGX Root CA expired"));
    // Not a CA, which makes its revocation list worthless too.
    let out = changed(4, |c| c.issuer.authority = false);
    assert!(out.got("tdx.chain").contains("Intel SGX PCK Platform CA is not a certificate authority"));
}

#[test]
fn another_root() {
    let (case, other) = (Case::new(4), Case::new(4));
    let quote = Quote::parse(&case.quote()).unwrap();
    let out = run(&quote, &case.endorsements(), &other.anchor(), Case::now(), &strict());
    assert!(out.got("tdx.chain").contains("Intel SGX PCK Platform CA is not signed by Intel SGX Root CA"));
    assert!(out.got("tdx.chain").contains("the quote names another root"));
    assert!(out.failed().contains(&"tdx.crl") && out.failed().contains(&"tdx.endorsements"));
    // The chain is good, but the root beside it is not the pinned one.
    let mut chain = case.pck_chain();
    chain[2] = other.pck_chain().remove(2);
    let quote = Quote::parse(&case.quote_with(&chain)).unwrap();
    let out = run(&quote, &case.endorsements(), &case.anchor(), Case::now(), &strict());
    only(&out, "tdx.chain", "the quote names another root");
}

#[test]
fn revocation() {
    let crl = |change: fn(&mut Case), got: &str| only(&changed(5, change), "tdx.crl", got);
    crl(|c| c.pck_list.revoked = vec![9, 3], "Intel SGX PCK Certificate was revoked at 2026-02-03T00:00:00Z");
    crl(|c| c.root_list.revoked = vec![2], "Intel SGX PCK Platform CA was revoked at 2026-02-03T00:00:00Z");
    crl(|c| c.root_list.revoked = vec![4], "Intel SGX TCB Signing was revoked at 2026-02-03T00:00:00Z");
    crl(
        |c| c.pck_list.years = (2024, 2025),
        "revocation list of Intel SGX PCK Platform CA expired at 2025-01-01T00:00:00Z",
    );
    crl(|c| c.pck_list.years = (2027, 2028), "is not valid before 2027-01-01T00:00:00Z");
    crl(
        |c| c.root_list.years = (2024, 2025),
        "revocation list of Intel SGX Root CA expired at 2025-01-01T00:00:00Z",
    );
    crl(|c| c.root_list.years = (2027, 2028), "is not valid before 2027-01-01T00:00:00Z");
    crl(|c| c.pck_list.forged = true, "the revocation list is not signed by Intel SGX PCK Platform CA");
    crl(|c| c.root_list.forged = true, "the revocation list is not signed by Intel SGX Root CA");
    // Numbers of other lists' certificates mean nothing.
    assert!(changed(5, |c| c.pck_list.revoked = vec![2, 4]).accepted());
    assert!(changed(5, |c| c.root_list.revoked = vec![3]).accepted());
}

/// Appraises a good case with other endorsements.
fn with(missing: Missing, change: impl FnOnce(&Case, &mut Vec<Endorsement>)) -> Outcome {
    let case = Case::new(5);
    let mut given = case.endorsements();
    change(&case, &mut given);
    let quote = Quote::parse(&case.quote()).unwrap();
    run_with(&quote, &given, &case.anchor(), missing, Case::now(), &strict())
}

const UNKNOWN_TCB: [&str; 4] =
    ["tdx.tcb_status", "tdx.advisories", "tdx.tcb_evaluation_number", "tdx.module"];

/// What is not given fails in a session and is unchecked offline; the issuer's chain is not needed.
#[test]
fn missing_endorsements() {
    for (kind, names) in [
        (EndorsementKind::IntelTcbInfo, &["tdx.endorsements"][..]),
        (EndorsementKind::IntelQeIdentity, &["tdx.endorsements", "tdx.qe_identity"]),
        (EndorsementKind::IntelTcbSigningChain, &["tdx.endorsements", "tdx.qe_identity"]),
        (EndorsementKind::IntelPckCrl, &["tdx.crl"]),
        (EndorsementKind::IntelRootCaCrl, &["tdx.crl"]),
        (EndorsementKind::IntelPckCrlIssuerChain, &[]),
    ] {
        let unknown = if names.contains(&"tdx.endorsements") { &UNKNOWN_TCB[..] } else { &[] };
        let names: Vec<_> = names.iter().chain(unknown).copied().collect();
        let without = |missing| with(missing, |_, given| given.retain(|e| e.kind != kind));
        let out = without(Missing::Fails);
        assert_eq!(out.failed(), names, "{kind:?}");
        let out = without(Missing::Unchecked);
        assert!(out.failed().is_empty() && out.who.is_authentic(), "{kind:?}: {:?}", out.failed());
        assert!(names.iter().all(|name| out.factor(name).status == Status::Unchecked), "{kind:?}");
        assert_eq!(out.who.tcb.is_some(), unknown.is_empty());
    }
    // Nothing at all: only what the quote itself carries is appraised.
    let out = with(Missing::Unchecked, |_, given| given.clear());
    assert!(out.who.is_authentic());
    for name in ["tdx.signature", "tdx.qe_report", "tdx.chain"] {
        assert_eq!(out.factor(name).status, Status::Pass);
    }
    // What is given must be right, whatever else is missing.
    let out = with(Missing::Unchecked, |case, given| {
        let mut other = case.tcb_info.clone();
        other["fmspc"] = "00806F050000".into();
        *given =
            vec![endorsement(EndorsementKind::IntelTcbInfo, document("tcbInfo", &other, &case.signer_key))];
    });
    assert_eq!(out.failed(), ["tdx.endorsements"]);
    assert!(!out.who.is_authentic());
}

fn endorsement(kind: EndorsementKind, bytes: Vec<u8>) -> Endorsement {
    Endorsement { kind, bytes }
}

/// Unrelated, unreadable, older and newer ones beside the right ones change nothing.
#[test]
fn several_of_one_kind() {
    let out = with(Missing::Fails, |case, given| {
        let other = Case::new(4);
        let mut info = case.tcb_info.clone();
        info["fmspc"] = "00806F050000".into();
        let mut sgx = case.qe_identity.clone();
        sgx["id"] = "QE".into();
        let mut extra = vec![
            endorsement(EndorsementKind::IntelTcbInfo, document("tcbInfo", &info, &case.signer_key)),
            endorsement(EndorsementKind::IntelTcbInfo, b"{}".to_vec()),
            endorsement(
                EndorsementKind::IntelQeIdentity,
                document("enclaveIdentity", &sgx, &case.signer_key),
            ),
            endorsement(EndorsementKind::IntelPckCrl, b"nonsense".to_vec()),
            endorsement(EndorsementKind::NvidiaRim, b"nonsense".to_vec()),
        ];
        // Another root's endorsements, with the same names.
        extra.extend(other.endorsements());
        let mut stale = Case::new(4);
        stale.pck_list.years = (2020, 2021);
        extra.extend(stale.endorsements());
        given.splice(0..0, extra);
    });
    assert!(out.accepted(), "{:?}", out.who.factors);
}

/// Of two that are good, the one that knows of more TCB recoveries counts, whatever their order.
#[test]
fn the_newest_endorsement_counts() {
    for newer_first in [false, true] {
        let out = with(Missing::Fails, |case, given| {
            let mut newer = case.tcb_info.clone();
            newer["tcbEvaluationDataNumber"] = 21.into();
            newer["tcbLevels"][0]["tcbStatus"] = "OutOfDate".into();
            let at = if newer_first { 0 } else { given.len() };
            let newer = document("tcbInfo", &newer, &case.signer_key);
            given.insert(at, endorsement(EndorsementKind::IntelTcbInfo, newer));
            // A forged one with a still higher number does not.
            let mut forged = case.tcb_info.clone();
            forged["tcbEvaluationDataNumber"] = 99.into();
            let forged = document("tcbInfo", &forged, &case.pck_key);
            given.insert(at, endorsement(EndorsementKind::IntelTcbInfo, forged));
        });
        assert_eq!(out.status(), "OutOfDate");
        only(&out, "tdx.tcb_status", "OutOfDate");
    }
}

#[test]
fn too_many_of_one_kind() {
    let info = endorsement(EndorsementKind::IntelTcbInfo, Case::new(4).signed_tcb_info());
    assert!(Endorsements::new(&vec![info.clone(); 8]).is_ok());
    assert!(Endorsements::new(&vec![info; 9]).unwrap_err().to_string().contains("more than 8"));
    let rim = endorsement(EndorsementKind::NvidiaRim, Vec::new());
    assert!(Endorsements::new(&vec![rim; 9]).is_ok(), "not of Intel");
}

/// With another TCB info.
fn info(change: impl FnOnce(&mut Value)) -> Outcome {
    changed(5, |case| change(&mut case.tcb_info))
}

fn identity(change: impl FnOnce(&mut Value)) -> Outcome {
    changed(5, |case| change(&mut case.qe_identity))
}

#[track_caller]
fn endorsements_fail(out: &Outcome, got: &str) {
    assert!(out.failed().contains(&"tdx.endorsements"), "{:?}", out.failed());
    assert!(out.got("tdx.endorsements").contains(got), "{}", out.got("tdx.endorsements"));
}

#[test]
fn documents_that_are_not_for_this_platform_or_time() {
    endorsements_fail(
        &info(|i| i["fmspc"] = "50806F000001".into()),
        "is for FMSPC 50806f000000 and PCE-ID 0000",
    );
    endorsements_fail(&info(|i| i["pceId"] = "0001".into()), "is for FMSPC 50806f000000");
    endorsements_fail(&info(|i| i["id"] = "SGX".into()), "SGX of version 3, expected TDX of version 3");
    endorsements_fail(&info(|i| i["version"] = 2.into()), "TDX of version 2");
    endorsements_fail(&identity(|i| i["id"] = "QE".into()), "QE of version 2, expected TD_QE");
    endorsements_fail(&identity(|i| i["version"] = 3.into()), "TD_QE of version 3");
    let out = info(|i| i["nextUpdate"] = "2026-06-14T00:00:00Z".into());
    only(&out, "tdx.endorsements", "the TCB info expired at 2026-06-14T00:00:00Z");
    let out = info(|i| i["issueDate"] = "2026-06-16T00:00:00Z".into());
    only(&out, "tdx.endorsements", "the TCB info is not valid before 2026-06-16T00:00:00Z");
    let out = identity(|i| i["nextUpdate"] = "2026-06-14T00:00:00Z".into());
    only(&out, "tdx.endorsements", "the QE identity expired at 2026-06-14T00:00:00Z");
    let out = identity(|i| i["issueDate"] = "2026-06-16T00:00:00Z".into());
    only(&out, "tdx.endorsements", "the QE identity is not valid before 2026-06-16T00:00:00Z");
    assert_eq!(out.status(), "UpToDate", "who signed it is known: it still informs");
}

#[test]
fn documents_of_another_shape() {
    for (member, value) in [
        ("fmspc", "5080".into()),
        ("fmspc", "50806F00000G".into()),
        ("issueDate", "2026-06-01".into()),
        ("issueDate", 1.into()),
        ("tcbType", 1.into()),
        ("tcbType", Value::Null),
        ("tcbEvaluationDataNumber", (-1).into()),
        ("tcbLevels", Value::Null),
        ("tdxModule", Value::Null),
    ] {
        endorsements_fail(
            &info(|i| i[member] = value.clone()),
            "malformed TCB info: not as specified, column",
        );
    }
    let levels = |change: fn(&mut Value)| info(|i| change(&mut i["tcbLevels"][0]));
    let malformed = "malformed TCB info: not as specified";
    endorsements_fail(&levels(|l| l["tcbStatus"] = "Fine".into()), malformed);
    endorsements_fail(&levels(|l| l["tcbStatus"] = "none: no TCB level matches".into()), malformed);
    endorsements_fail(&levels(|l| l["tcb"]["pcesvn"] = 65_536.into()), malformed);
    endorsements_fail(&levels(|l| l["tcb"]["sgxtcbcomponents"][0]["svn"] = 256.into()), malformed);
    endorsements_fail(
        &levels(|l| drop(l["tcb"]["tdxtcbcomponents"].as_array_mut().unwrap().pop())),
        malformed,
    );
    endorsements_fail(&identity(|i| i["mrsigner"] = "00".into()), "malformed QE identity: not as specified");
}

/// The outer text is taken only as Intel serves it, and what is signed is its inner text, as it is.
#[test]
fn the_text_of_documents() {
    let text = |change: fn(&Case, String) -> Vec<u8>| {
        with(Missing::Fails, |case, given| {
            let place = given.iter().position(|e| e.kind == EndorsementKind::IntelTcbInfo).unwrap();
            let old = String::from_utf8(given[place].bytes.clone()).unwrap();
            given[place].bytes = change(case, old);
        })
    };
    assert!(text(|_, old| format!("{old}\n").into_bytes()).accepted(), "white space at the end");
    let outer = "as Intel serves it";
    endorsements_fail(&text(|_, old| old.replacen("tcbInfo", "tcbInfos", 1).into_bytes()), outer);
    endorsements_fail(&text(|_, old| old.replace(",\"signature\"", " ,\"signature\"x").into_bytes()), outer);
    endorsements_fail(
        &text(|_, old| old.replace("\"signature\":\"", "\"signature\":\"0").into_bytes()),
        outer,
    );
    endorsements_fail(&text(|_, _| b"{\"tcbInfo\":\"}".to_vec()), outer);
    endorsements_fail(&text(|_, old| old.replace("\"}", "zz\"}").into_bytes()), "malformed");
    endorsements_fail(
        &text(|_, old| old.replace("\"UpToDate\"", "\"UpToDate\" ").into_bytes()),
        "is not signed by",
    );
    // Members beside the body, repeated members, a second value.
    let signed = |change: fn(String) -> String| {
        with(Missing::Fails, |case, given| {
            let place = given.iter().position(|e| e.kind == EndorsementKind::IntelTcbInfo).unwrap();
            let body = change(case.tcb_info.to_string());
            given[place].bytes = document_of_text("tcbInfo", &body, &case.signer_key);
        })
    };
    assert!(signed(|body| format!(" {body} ")).accepted(), "still the signed text");
    endorsements_fail(&signed(|body| format!("{body},\"x\":1")), "malformed");
    endorsements_fail(&signed(|body| body.replacen("{", "{\"fmspc\":\"000000000000\",", 1)), "malformed");
    endorsements_fail(&signed(|body| body.replacen("{\"svn\":7}", "{\"svn\":7,\"svn\":0}", 1)), "malformed");
    endorsements_fail(&signed(|body| format!("[{body}]")), "malformed");
    endorsements_fail(
        &signed(|body| format!("{body}{}", " ".repeat(64 * 1024))),
        "at most 65536 are allowed",
    );
    // Names that it does not know are Intel's to add, and control characters in what it quotes are not shown.
    assert!(signed(|body| body.replacen("{", "{\"new\":[{\"a\":1}],", 1)).accepted());
    let out = info(|i| i["id"] = "\u{1b}[2JSGX with a very long name".into());
    endorsements_fail(&out, "[2JSGXwithaveryl of version 3");
}

/// Of what nobody signed nothing is believed, even beside the other document that somebody did.
#[test]
fn one_document_that_is_not_signed() {
    for kind in [EndorsementKind::IntelTcbInfo, EndorsementKind::IntelQeIdentity] {
        let out = with(Missing::Fails, |case, given| {
            let forged = if kind == EndorsementKind::IntelTcbInfo {
                document("tcbInfo", &case.tcb_info, &case.pck_key)
            } else {
                document("enclaveIdentity", &case.qe_identity, &case.pck_key)
            };
            given.iter_mut().find(|e| e.kind == kind).unwrap().bytes = forged;
        });
        endorsements_fail(&out, "is not signed by the TCB signing key that was given");
        assert!(out.who.tcb.is_none());
        assert_eq!(out.failed()[1..], UNKNOWN_TCB);
    }
}

/// Only the TCB signing key signs documents: other keys below the same root do not.
#[test]
fn the_key_that_signs_documents() {
    let out = changed(5, |c| c.signer.name = "Intel SGX PCK Certificate");
    only(&out, "tdx.endorsements", "Intel SGX PCK Certificate is not Intel SGX TCB Signing");
    let out = changed(5, |c| c.signer.years = (2020, 2021));
    only(&out, "tdx.endorsements", "Intel SGX TCB Signing expired at 2021-01-01T00:00:00Z");
    let out = changed(5, |c| c.signer.forged = true);
    only(&out, "tdx.endorsements", "Intel SGX TCB Signing is not signed by Intel SGX Root CA");
    let out = changed(5, |c| c.signer.authority = true);
    only(&out, "tdx.endorsements", "the end entity is a certificate authority");
    // The platform's own key, whose certificate is genuine.
    let out = with(Missing::Fails, |case, given| {
        let chain: String = case.pck_chain().iter().map(|der| pem(der)).collect();
        for e in given {
            if e.kind == EndorsementKind::IntelTcbInfo {
                e.bytes = document("tcbInfo", &case.tcb_info, &case.pck_key);
            } else if e.kind == EndorsementKind::IntelTcbSigningChain {
                e.bytes = chain.clone().into_bytes();
            }
        }
    });
    endorsements_fail(&out, "the issuer of Intel SGX PCK Certificate (Intel SGX PCK Platform CA) is missing");
    endorsements_fail(&out, "the QE identity is not signed by the TCB signing key that was given");
    let out = with(Missing::Fails, |_, given| {
        given.iter_mut().find(|e| e.kind == EndorsementKind::IntelTcbSigningChain).unwrap().bytes = vec![1];
    });
    endorsements_fail(
        &out,
        "the TCB info is not signed by the TCB signing key that was given; malformed certificate",
    );
    // An expired certificate of the same key beside the current one.
    let out = with(Missing::Fails, |case, given| {
        let current = given.iter().position(|e| e.kind == EndorsementKind::IntelTcbSigningChain).unwrap();
        let old = Subject { years: (2020, 2021), ..case.signer.clone() };
        let old = endorsement(EndorsementKind::IntelTcbSigningChain, case.signing_chain(&old));
        given.insert(current, old);
    });
    assert!(out.accepted());
}

#[test]
fn another_quoting_enclave() {
    let qe = |change: fn(&mut Case), got: &str| only(&changed(4, change), "tdx.qe_identity", got);
    qe(|c| c.qe_report[128] ^= 1, "another MRSIGNER");
    qe(|c| c.qe_report[256] = 1, "another ISVPRODID");
    qe(|c| c.qe_report[16] = 1, "another MISCSELECT");
    qe(|c| c.qe_report[48] |= 2, "another ATTRIBUTES");
    // Bits that the mask leaves out.
    assert!(changed(4, |c| c.qe_report[48] |= 4).accepted());
    let out = changed(4, |c| {
        c.qe_identity["miscselectMask"] = "00000000".into();
        c.qe_report[16] = 1;
    });
    assert!(out.accepted());
    let out = changed(4, |c| c.qe_identity["attributes"] = "13000000000000000000000000000000".into());
    only(&out, "tdx.qe_identity", "another ATTRIBUTES");
}

/// Status and advisories of each part, and how they come together.
#[test]
fn tcb_statuses() {
    let tcb = |version, change: &dyn Fn(&mut Case)| {
        let out = changed(version, |c| change(c));
        assert!(out.who.is_authentic());
        let advisories = out.who.tcb.as_ref().unwrap().advisory_ids.join(" ");
        (out.status(), advisories.replace("INTEL-SA-0000", ""))
    };
    let is = |status: &str, advisories: &str| (status.to_owned(), advisories.to_owned());
    let svn = |svn: u16| move |c: &mut Case| c.sgx_tcb[15].1 = integer(svn);
    assert_eq!(tcb(4, &svn(6)), is("SWHardeningNeeded", "2"));
    assert_eq!(tcb(4, &svn(5)), is("OutOfDate", "2 3"));
    assert_eq!(tcb(4, &svn(4)), is("none: no TCB level matches", ""));
    assert_eq!(tcb(4, &|c| c.sgx_tcb[16].1 = integer(10)), is("OutOfDate", "2 3"), "PCESVN");
    assert_eq!(tcb(4, &|c| c.set(at::TEE_TCB_SVN, &[6, 1, 2])), is("OutOfDate", "2 3"), "TDX component");
    assert_eq!(tcb(4, &|c| c.set(at::TEE_TCB_SVN, &[6, 1, 1])), is("none: no TCB level matches", ""));
    // The module's SVN is judged by its identity, not by components 0 and 1.
    assert_eq!(tcb(4, &|c| c.set(at::TEE_TCB_SVN, &[5, 1, 3])), is("OutOfDate", "1"), "module");
    assert_eq!(
        tcb(4, &|c| c.set(at::TEE_TCB_SVN, &[3, 1, 3])),
        is("none: no TCB level matches", ""),
        "module"
    );
    // Without a module version they are components like the others.
    assert_eq!(tcb(4, &|c| c.set(at::TEE_TCB_SVN, &[5, 0, 3])), is("UpToDate", ""));
    assert_eq!(tcb(4, &|c| c.set(at::TEE_TCB_SVN, &[4, 0, 3])), is("OutOfDate", "2 3"));
    assert_eq!(tcb(4, &|c| c.set(at::TEE_TCB_SVN, &[2, 0, 3])), is("none: no TCB level matches", ""));
    // Quoting enclave.
    assert_eq!(tcb(4, &|c| c.qe_report[258] = 3), is("OutOfDate", "4"));
    assert_eq!(tcb(4, &|c| c.qe_report[258] = 1), is("none: no TCB level matches", ""));
    assert_eq!(
        tcb(4, &|c| c.qe_identity["tcbLevels"][0] = svn_level(4, "Revoked", &["x"])),
        is("Revoked", "x")
    );
    let configuration = |c: &mut Case| {
        c.tcb_info["tcbLevels"][0] = level(7, [5, 0, 3], 11, "ConfigurationNeeded", &["INTEL-SA-00009"]);
    };
    assert_eq!(tcb(4, &configuration), is("ConfigurationNeeded", "9"));
    let both = |c: &mut Case| {
        configuration(c);
        c.qe_report[258] = 2;
    };
    assert_eq!(tcb(4, &both), is("OutOfDateConfigurationNeeded", "4 9"));
}

/// The TDX module was updated under a running TD.
#[test]
fn relaunch() {
    let tcb = |then: [u8; 3], now: [u8; 3], change: &dyn Fn(&mut Case)| {
        let out = changed(5, |c| {
            c.set(at::TEE_TCB_SVN, &then);
            c.set(at::TEE_TCB_SVN_2, &now);
            change(c);
        });
        assert!(out.who.is_authentic());
        assert_eq!(out.accepted(), out.status() == "UpToDate");
        out.status()
    };
    let none = |_: &mut Case| {};
    assert_eq!(tcb([6, 1, 3], [7, 1, 3], &none), "UpToDate", "good before and after");
    assert_eq!(tcb([4, 1, 3], [6, 1, 3], &none), "TDRelaunchAdvised", "out of date before, good now");
    assert_eq!(tcb([4, 1, 3], [5, 1, 3], &none), "OutOfDate", "out of date before and after");
    assert_eq!(tcb([6, 1, 3], [4, 1, 3], &none), "OutOfDate", "a module that became older");
    assert_eq!(tcb([3, 1, 3], [6, 1, 3], &none), "none: no TCB level matches", "unknown before");
    assert_eq!(tcb([6, 1, 3], [3, 1, 3], &none), "none: no TCB level matches", "unknown now");
    assert_eq!(tcb([4, 1, 3], [6, 2, 3], &none), "none: no TCB level matches", "a module nobody knows");
    // Not the module is what was out of date.
    assert_eq!(tcb([6, 1, 2], [6, 1, 3], &none), "OutOfDate");
    assert_eq!(tcb([4, 1, 3], [6, 1, 3], &|c| c.qe_report[258] = 2), "OutOfDate", "quoting enclave");
    let configuration = |c: &mut Case| c.tcb_info["tcbLevels"][0]["tcbStatus"] = "ConfigurationNeeded".into();
    assert_eq!(tcb([4, 1, 3], [6, 1, 3], &configuration), "TDRelaunchAdvisedConfigurationNeeded");
    let revoked =
        |c: &mut Case| c.tcb_info["tdxModuleIdentities"][0]["tcbLevels"][0]["tcbStatus"] = "Revoked".into();
    assert_eq!(tcb([4, 1, 3], [6, 1, 3], &revoked), "Revoked");
    let out = changed(5, |c| c.set(at::TEE_TCB_SVN, &[4, 1, 3]));
    assert_eq!(out.failed(), ["tdx.tcb_status", "tdx.advisories"]);
    assert!(out.factor("tdx.tcb_status").help.as_ref().unwrap().contains("restart it"));
}

#[test]
fn the_tdx_module() {
    // All zero is Intel; the TCB info names the same.
    let out = changed(4, |c| c.set(at::MR_SIGNER_SEAM, &[1]));
    assert_eq!(out.failed(), ["tdx.mr_signer_seam", "tdx.module"]);
    assert_eq!(out.got("tdx.module"), "MRSIGNERSEAM is another");
    let out = changed(4, |c| c.set(at::SEAM_ATTRIBUTES, &[1]));
    assert_eq!(out.failed(), ["tdx.seam_attributes", "tdx.module"]);
    assert_eq!(out.got("tdx.module"), "SEAMATTRIBUTES are others");
    let out = changed(4, |c| c.tcb_info["tdxModuleIdentities"][0]["attributes"] = "0100000000000000".into());
    only(&out, "tdx.module", "SEAMATTRIBUTES are others");
    let out = changed(4, |c| c.set(at::TEE_TCB_SVN, &[6, 2, 3]));
    assert_eq!(out.failed(), ["tdx.tcb_status", "tdx.module"]);
    assert_eq!(out.got("tdx.module"), "the TCB info has no module TDX_02");
    let without = |c: &mut Case| drop(c.tcb_info.as_object_mut().unwrap().remove("tdxModuleIdentities"));
    assert_eq!(changed(4, without).got("tdx.module"), "the TCB info has no module TDX_01");
    let out = changed(4, |c| {
        c.set(at::TEE_TCB_SVN, &[5, 0, 3]);
        c.tcb_info["tdxModule"]["mrsigner"] = "01".repeat(48).into();
    });
    only(&out, "tdx.module", "MRSIGNERSEAM is another");
    let out = changed(4, |c| c.tcb_info["tdxModuleIdentities"][0]["id"] = "tdx_01".into());
    assert!(out.accepted());
}

/// Every row of the strict policy that a TD can violate.
#[test]
fn rows_of_the_strict_policy() {
    let attribute = |bit: usize| {
        changed(5, |c| {
            let old = c.body[at::TD_ATTRIBUTES + bit / 8];
            c.set(at::TD_ATTRIBUTES + bit / 8, &[old ^ 1 << (bit % 8)]);
        })
    };
    only(&attribute(0), "tdx.attributes.debug", "1");
    only(&attribute(28), "tdx.attributes.sept_ve_disable", "0");
    only(&attribute(29), "tdx.attributes.migratable", "1");
    only(&attribute(31), "tdx.attributes.key_locker", "1");
    only(&attribute(63), "tdx.attributes.perfmon", "1");
    for bit in (1..=26).chain(32..=62) {
        only(&attribute(bit), "tdx.attributes.reserved", &format!("{:#x}", 1_u64 << bit));
    }
    for bit in [27, 30] {
        assert!(attribute(bit).accepted());
    }
    only(&changed(5, |c| c.set(at::XFAM, &[0xe5])), "tdx.xfam.fixed", "0x602e5");
    only(&changed(5, |c| c.set(at::XFAM + 2, &[0x0e])), "tdx.xfam.fixed", "0xe02e7");
    only(&changed(5, |c| c.set(at::MR_SERVICE_TD, &[1])), "tdx.mr_service_td", "0100");
    let out = changed(5, |c| c.tcb_info["tcbEvaluationDataNumber"] = 16.into());
    only(&out, "tdx.tcb_evaluation_number", "16");
    let out = changed(5, |c| c.qe_identity["tcbEvaluationDataNumber"] = 16.into());
    only(&out, "tdx.tcb_evaluation_number", "16");
    let out = changed(5, |c| c.sgx_tcb[0].1 = integer(6));
    assert_eq!(out.failed(), ["tdx.tcb_status", "tdx.advisories"]);
}

/// A quote of version 4 does not say which TD serves this one: only what cannot be otherwise is taken for granted.
#[test]
fn a_service_td_that_nobody_names() {
    let status = |policy: &TdxPolicy, migratable: bool| {
        let mut case = Case::new(4);
        if migratable {
            case.set(at::TD_ATTRIBUTES + 3, &[0x30]);
        }
        let quote = Quote::parse(&case.quote()).unwrap();
        let out = run(&quote, &case.endorsements(), &case.anchor(), Case::now(), policy);
        out.factor("tdx.mr_service_td").status
    };
    let (mut other, mut any) = (strict(), strict());
    other.mr_service_td = Check::Exactly(crate::Measurement([7; 48]));
    any.mr_service_td = Check::Unchecked { why: "test".to_owned() };
    assert_eq!(status(&strict(), false), Status::Unchecked);
    assert_eq!(status(&strict(), true), Status::Fail);
    assert_eq!(status(&other, false), Status::Fail);
    assert_eq!((status(&any, false), status(&any, true)), (Status::Unchecked, Status::Unchecked));
}

fn by(policy: &TdxPolicy, change: impl FnOnce(&mut Case)) -> Outcome {
    let mut case = Case::new(5);
    change(&mut case);
    let quote = Quote::parse(&case.quote()).unwrap();
    run(&quote, &case.endorsements(), &case.anchor(), Case::now(), policy)
}

/// Rows that the strict policy leaves to the caller.
#[test]
fn rows_of_a_release() {
    use super::super::appraise as row_of;
    let zeros = format!("{{ exactly = \"{}\" }}", "00".repeat(48));
    for (row, place) in [
        ("mr_seam", at::MR_SEAM),
        ("mr_td", at::MR_TD),
        ("rtmr0", at::RTMR0),
        ("rtmr1", at::RTMR0 + 48),
        ("rtmr2", at::RTMR0 + 96),
        ("rtmr3", at::RTMR0 + 144),
        ("mr_config_id", at::MR_CONFIG_ID),
        ("mr_owner", at::MR_OWNER),
        ("mr_owner_config", at::MR_OWNER_CONFIG),
    ] {
        let why = if row == "mr_seam" { "the TDX module is known" } else { "no reference value" };
        let line = crate::policy::STRICT_TDX.lines().find(|l| l.starts_with(&format!("{row} = "))).unwrap();
        assert!(line.contains(why), "{line}");
        let policy = policy(&[(line, &format!("{row} = {zeros}"))]);
        let name: &'static str = Box::leak(format!("tdx.{row}").into_boxed_str());
        assert!(by(&policy, |c| c.set(place, &[0; 48])).accepted(), "{row}");
        only(&by(&policy, |c| c.set(place, &[&[0; 47][..], &[9]].concat())), name, "0009");
    }
    let xfam = "xfam = { unchecked = \"no reference value is given\" }";
    let exact = policy(&[(xfam, "xfam = { any_of = [\"e702060000000000\"] }")]);
    assert!(by(&exact, |_| {}).accepted());
    only(&by(&exact, |c| c.set(at::XFAM, &[0xe7, 0, 6])), "tdx.xfam", "e700060000000000");
    let four = policy(&[("version = { any_of = [4, 5] }", "version = { exactly = 4 }")]);
    only(&by(&four, |_| {}), "tdx.version", "5");
    let pks = "pks = { unchecked = \"protection keys for the guest's own kernel\" }";
    let lass = "lass = { unchecked = \"separates the addresses of the guest's own kernel\" }";
    let exact = policy(&[(pks, "pks = { exactly = 1 }"), (lass, "lass = { exactly = 1 }")]);
    assert_eq!(by(&exact, |_| {}).failed(), ["tdx.attributes.pks", "tdx.attributes.lass"]);
    assert!(by(&exact, |c| c.set(at::TD_ATTRIBUTES + 3, &[0x58])).accepted());
    // REPORTDATA is the caller's to compare.
    let quote = Quote::parse(&Case::new(4).quote()).unwrap();
    assert_eq!(quote.body.report_data, [0x55; 64]);
    let out = by(&strict(), |_| {});
    assert!(row_of(&quote, &out.who, &strict(), None).iter().all(|f| !f.name.contains("report_data")));
}

/// How Intel certified the platform's setup; what it does not say fails unless the policy does not look.
#[test]
fn rows_of_the_platform() {
    let line = |row: &str| {
        let prefix = format!("{row} = {{ unchecked");
        crate::policy::STRICT_TDX.lines().find(|l| l.starts_with(&prefix)).unwrap()
    };
    let rows = [
        (line("dynamic"), "dynamic = { exactly = 0 }"),
        (line("cached_keys"), "cached_keys = { exactly = 0 }"),
    ];
    let rows = [rows[0], rows[1], (line("smt"), "smt = { exactly = 0 }")];
    let exact = policy(&rows);
    assert_eq!(by(&exact, |_| {}).failed(), ["tdx.platform.dynamic", "tdx.platform.smt"]);
    let out = by(&exact, |c| c.sgx_configuration.clear());
    let all = ["tdx.platform.dynamic", "tdx.platform.cached_keys", "tdx.platform.smt"];
    assert_eq!(out.failed(), all);
    assert!(all.iter().all(|name| out.got(name) == "not stated"));
    assert!(by(&exact, |c| c.sgx_configuration.iter_mut().for_each(|(_, v)| v[2] = 0)).accepted());
    let out = by(&strict(), |c| c.sgx_configuration.clear());
    assert!(out.accepted() && all.iter().all(|name| out.factor(name).status == Status::Unchecked));
}

/// A status other than `UpToDate` needs every one of its advisories listed.
#[test]
fn listed_advisories() {
    let status = "tcb_status = { exactly = \"UpToDate\" }";
    let relaxed = "tcb_status = { any_of = [\"UpToDate\", \"SWHardeningNeeded\"] }";
    let old = |c: &mut Case| c.sgx_tcb[0].1 = integer(6);
    let listed =
        |list: &str| policy(&[(status, relaxed), ("advisories = []", &format!("advisories = [{list}]"))]);
    let out = by(&listed(""), old);
    only(&out, "tdx.advisories", "INTEL-SA-00002");
    assert!(by(&listed("\"INTEL-SA-00002\""), old).accepted());
    only(&by(&listed("\"INTEL-SA-00001\""), old), "tdx.advisories", "INTEL-SA-00002");
    assert!(by(&listed(""), |_| {}).accepted(), "up to date needs none");
    let with_advisory =
        |c: &mut Case| c.tcb_info["tcbLevels"][0]["advisoryIDs"] = vec!["INTEL-SA-00008"].into();
    assert!(by(&listed(""), with_advisory).accepted(), "nor does it mind any");
    let unchecked = policy(&[(status, "tcb_status = { unchecked = \"test\" }")]);
    let out = by(&unchecked, old);
    assert!(out.accepted() && out.factor("tdx.advisories").status == Status::Unchecked);
}

#[test]
fn policies_that_are_refused() {
    #[derive(Debug, serde::Deserialize)]
    struct File {
        #[serde(rename = "tdx")]
        _tdx: TdxPolicy,
    }
    let strict_text = crate::policy::STRICT_TDX;
    let refused = |from: &str, to: &str| {
        assert!(strict_text.contains(from), "{from}");
        toml::from_str::<File>(&strict_text.replacen(from, to, 1)).unwrap_err().to_string()
    };
    let status = "tcb_status = { exactly = \"UpToDate\" }";
    assert!(refused(status, "tcb_status = { exactly = \"Revoked\" }").contains("not to be trusted"));
    assert!(
        refused(status, "tcb_status = { any_of = [\"UpToDate\", \"Revoked\"] }")
            .contains("not to be trusted")
    );
    assert!(refused(status, "tcb_status = { exactly = \"uptodate\" }").contains("unknown TCB status"));
    assert!(
        refused(status, "tcb_status = { exactly = \"none: no TCB level matches\" }").contains("unknown TCB")
    );
    assert!(refused(status, "tcb_status = { at_least = \"UpToDate\" }").contains("no order"));
    let xfam = "xfam = { unchecked = \"no reference value is given\" }";
    assert!(refused(xfam, "xfam = { exactly = \"e7\" }").contains("16 hex digits"));
    assert!(refused(xfam, "xfam = { at_least = \"e702060000000000\" }").contains("no order"));
    assert!(refused("[tdx.platform]", "[tdx.platforms]").contains("platform"));
    assert!(refused("debug = ", "debugging = ").contains("debug"));
    // Every line is mandatory.
    for line in strict_text.lines().filter(|l| l.contains(" = ") && !l.starts_with('#')) {
        assert!(refused(line, "").contains("missing field"), "{line}");
    }
    assert_eq!(strict().attributes.debug, Check::Exactly(crate::policy::Flag(0)));
}
