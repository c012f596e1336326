//! Every genuine case and evaluation of the corpus, and its synthetic vectors.

use super::*;
use crate::result::Claim;
use crate::tdx::{EventLog, claims, intel_root};

#[test]
fn the_built_in_root_is_the_one_that_was_published() {
    let Some(manifest) = json("roots/manifest.json") else { return };
    let all = manifest["certificates"].as_array().unwrap();
    let published = all.iter().find(|c| c["name"] == "sgx_root_ca").unwrap();
    let root = intel_root().unwrap();
    assert_eq!(crate::Digest::of(root.der()).to_string(), published["sha256_der"].as_str().unwrap());
    assert!(root.is_issued_by(&root, &SignatureCache::new()) && root.is_authority());
}

/// Genuine evidence gets the outcome of the manifest: crypto, TCB status with advisories, and the strict policy.
#[test]
fn every_evaluation_of_genuine_evidence() {
    let Some(manifest) = json("tdx/manifest.json") else { return };
    let mut accepted = 0;
    for case in manifest["cases"].as_array().unwrap() {
        let bytes = tdx_file(case["files"]["quote"].as_str().unwrap());
        for evaluation in case["evaluations"].as_array().unwrap() {
            let expected = &evaluation["expected"];
            if expected["crypto"] == "not applicable" {
                assert!(Quote::parse(&bytes).unwrap_err().to_string().contains("version 3 is an SGX quote"));
                continue;
            }
            let label = format!("{} at {}", case["id"], evaluation["verify_at"]);
            let quote = Quote::parse(&bytes).unwrap();
            let given = set(evaluation["collateral"].as_str().unwrap());
            let now = time(evaluation["verify_at"].as_str().unwrap());
            let out = run(&quote, &given, &intel_root().unwrap(), now, &strict());
            assert_eq!(expected["crypto"], "valid", "{label}: the manifest has only valid ones");
            assert!(out.who.is_authentic(), "{label}: {:?}", out.failed());
            assert_eq!(out.status(), expected["tcb_status"].as_str().unwrap(), "{label}");
            advisories(&out, &evaluation["tcb"], &label);
            let want = expected["default_policy"].as_str().unwrap();
            assert_eq!(out.accepted(), want.starts_with("accept"), "{label}: {:?}", out.failed());
            assert_eq!(
                want.contains("debuggable"),
                out.failed().contains(&"tdx.attributes.debug"),
                "{label}"
            );
            assert_eq!(
                want.contains("SEPT_VE_DISABLE"),
                out.failed().contains(&"tdx.attributes.sept_ve_disable"),
                "{label}"
            );
            assert_eq!(want.contains("TCB status"), out.failed().contains(&"tdx.tcb_status"), "{label}");
            fields(&quote, &out, case, &label);
            accepted += usize::from(out.accepted());
        }
    }
    assert_eq!(accepted, 5);
}

/// The union of what the manifest lists for platform and module.
fn advisories(out: &Outcome, tcb: &Value, label: &str) {
    let listed = |key: &str| tcb[key].as_array().cloned().unwrap_or_default();
    let mut want: Vec<String> = ["advisories", "tdx_module_advisories"]
        .into_iter()
        .flat_map(listed)
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    want.sort();
    want.dedup();
    if !out.status().starts_with("none") {
        assert_eq!(out.who.tcb.as_ref().unwrap().advisory_ids, want, "{label}");
    }
}

/// Claims are the fields that the manifest lists.
fn fields(quote: &Quote, out: &Outcome, case: &Value, label: &str) {
    let claims = claims(quote, &out.who);
    let mut compared = 0;
    for (name, want) in case["fields"].as_object().unwrap() {
        let name = if name == "tee_tcb_svn2" { "tee_tcb_svn_2" } else { name };
        match claims.get(name) {
            Some(Claim::Text(text)) => assert_eq!(text, want.as_str().unwrap(), "{label} {name}"),
            Some(other) => panic!("{label} {name}: {other:?}"),
            None => continue,
        }
        compared += 1;
    }
    assert!(compared >= 16, "{label}: {compared}");
    assert_eq!(claims["version"], Claim::Number(case["quote_version"].as_u64().unwrap()));
    assert_eq!(claims["fmspc"], Claim::Text(case["fmspc"].as_str().unwrap().to_owned()));
    assert_eq!(claims["tcb_status"], Claim::Text(out.status()));
    assert!(claims.contains_key("ppid") && claims.contains_key("advisory_ids"));
    let components: Vec<u64> = quote.pck.components.iter().map(|svn| u64::from(*svn)).collect();
    assert_eq!(serde_json::json!(components), case["pck_tcb"]["sgx_components"], "{label}");
    assert_eq!(u64::from(quote.pck.pce_svn), case["pck_tcb"]["pcesvn"].as_u64().unwrap(), "{label}");
    assert_eq!(hex::encode(quote.pck.pce_id), case["pck_tcb"]["pceid"].as_str().unwrap(), "{label}");
}

/// Synthetic vectors under their own roots: what must fail, and the TCB status where everything else holds.
#[test]
fn every_synthetic_vector() {
    const NO_SEPT: (&str, &str) =
        ("sept_ve_disable = { exactly = 1 }", "sept_ve_disable = { unchecked = \"test\" }");
    let Some(manifest) = json("tdx/synthetic/manifest.json") else { return };
    let cases = manifest["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 23);
    for case in cases {
        let id = case["id"].as_str().unwrap();
        let input = json(&format!("tdx/synthetic/{id}/input.json")).unwrap();
        let (quote, given, anchor, now) = synthetic(&input);
        let min = input["policy"]["min_tcb_evaluation_data_number"].as_u64().unwrap_or(1);
        let floor = format!("tcb_evaluation_number = {{ at_least = {min} }}");
        let policy = policy(&[NO_SEPT, ("tcb_evaluation_number = { at_least = 17 }", &floor)]);
        let out = run(&quote, &given, &anchor, now, &policy);
        let (failed, status) = expected(id);
        assert_eq!(out.failed(), failed, "{id}: {:?}", out.who.factors);
        assert_eq!(out.status(), status, "{id}");
        // Their policy accepts three more statuses.
        let other_statuses =
            ["SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded"];
        let accepted =
            out.accepted() || out.failed() == ["tdx.tcb_status"] && other_statuses.contains(&status);
        assert_eq!(accepted, case["expected"]["accepted"].as_bool().unwrap(), "{id}");
    }
}

/// Failed factors and TCB status of each vector.
fn expected(id: &str) -> (&'static [&'static str], &'static str) {
    // Without an authentic QE identity nothing is known about the TCB.
    const NO_IDENTITY: &[&str] = &[
        "tdx.endorsements",
        "tdx.qe_identity",
        "tdx.tcb_status",
        "tdx.advisories",
        "tdx.tcb_evaluation_number",
        "tdx.module",
    ];
    const NO_SIGNER: &[&str] =
        &["tdx.endorsements", "tdx.tcb_status", "tdx.advisories", "tdx.tcb_evaluation_number", "tdx.module"];
    match id.split('-').next().unwrap() {
        "328" | "329" | "334" => (&["tdx.crl"], "UpToDate"),
        "333" | "347" => (&["tdx.signature"], "UpToDate"),
        "335" => (NO_SIGNER, "unknown"),
        "336" | "337" => (&["tdx.qe_identity"], "UpToDate"),
        "338" => (&["tdx.endorsements"], "UpToDate"),
        "346" => (&["tdx.tcb_evaluation_number"], "UpToDate"),
        "348" | "349" => (NO_IDENTITY, "unknown"),
        "350" => (&[], "UpToDate"),
        "360" => (&["tdx.tcb_status"], "SWHardeningNeeded"),
        "361" => (&["tdx.tcb_status"], "ConfigurationNeeded"),
        "362" => (&["tdx.tcb_status"], "ConfigurationAndSWHardeningNeeded"),
        "363" => (&["tdx.tcb_status"], "OutOfDate"),
        "364" => (&["tdx.tcb_status"], "OutOfDateConfigurationNeeded"),
        "368" => (&["tdx.tcb_status"], "Revoked"),
        "401" => (&["tdx.attributes.debug"], "UpToDate"),
        "402" => (&["tdx.attributes.reserved"], "UpToDate"),
        "412" | "413" => (&["tdx.xfam.fixed"], "UpToDate"),
        other => panic!("no expectation for {other}"),
    }
}

fn synthetic(input: &Value) -> (Quote, Vec<Endorsement>, Certificate, UnixTime) {
    let given = &input["collateral"];
    let text = |key: &str| given[key].as_str().unwrap().as_bytes().to_vec();
    let given = [
        (EndorsementKind::IntelTcbInfo, text("tcb_info_json")),
        (EndorsementKind::IntelQeIdentity, text("qe_identity_json")),
        (EndorsementKind::IntelTcbSigningChain, text("tcb_info_issuer_chain_pem")),
        (EndorsementKind::IntelPckCrl, base64(given["pck_crl_der_b64"].as_str().unwrap())),
        (EndorsementKind::IntelPckCrlIssuerChain, text("pck_crl_issuer_chain_pem")),
        (EndorsementKind::IntelRootCaCrl, base64(given["root_crl_der_b64"].as_str().unwrap())),
    ]
    .map(|(kind, bytes)| Endorsement { kind, bytes });
    let anchor = input["collateral"]["intel_root_ca_pem"].as_str().unwrap();
    let anchor = Certificate::from_pem_or_der(anchor.as_bytes()).unwrap();
    let now = UnixTime(input["expiration_check_date_unix"].as_u64().unwrap());
    let quote = Quote::parse(&base64(input["quote_b64"].as_str().unwrap())).unwrap();
    (quote, given.to_vec(), anchor, now)
}

fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = Vec::new();
    for digit in text.trim_end_matches('=').bytes() {
        let value = ALPHABET.iter().position(|known| *known == digit).unwrap();
        bits.extend((0..6).rev().map(|bit| value >> bit & 1));
    }
    let byte = |bits: &[usize]| bits.iter().fold(0_usize, |byte, bit| byte << 1 | bit).try_into().unwrap();
    bits.chunks_exact(8).map(byte).collect()
}

/// The event log of a guest replays to the registers in its quote.
#[test]
fn event_log_replays_to_the_quote() {
    let Some(log) = file("tdx/v4-00806f-gcp/ccel_data.bin") else { return };
    let quote = Quote::parse(&tdx_file("v4-00806f-gcp/quote.bin")).unwrap();
    let parsed = EventLog::parse(&log).unwrap();
    assert_eq!(parsed.replay(), quote.body.rtmr);
    assert_eq!(parsed.events.len(), 43);
    // The area that firmware reserves is larger than the log.
    assert_eq!(EventLog::parse(&[&log[..], &[0xff; 512]].concat()).unwrap(), parsed);
    assert_eq!(EventLog::parse(&[&log[..], &[0; 512]].concat()).unwrap(), parsed);
    let mut other = log.clone();
    let place = log.windows(48).position(|w| w == parsed.events[7].digest).unwrap();
    other[place] ^= 1;
    assert_ne!(EventLog::parse(&other).unwrap().replay(), quote.body.rtmr);
    // A log cut in the middle of an event is refused, one cut between events does not replay to the same.
    for len in 0..log.len() {
        assert!(!EventLog::parse(&log[..len]).is_ok_and(|l| l == parsed), "{len}");
    }
}
