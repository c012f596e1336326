//! Mutations of genuine evidence: the corpus's recipes, every bit flipped, every prefix.

use super::*;
use crate::tdx::intel_root;

/// A case of the corpus with one of its evaluations, as files that a recipe changes.
struct Mutable {
    quote: Vec<u8>,
    given: Vec<Endorsement>,
    now: UnixTime,
    want_report_data: Option<String>,
}

impl Mutable {
    /// The last evaluation: the recipes say so by their dates.
    fn of(case: &Value, evaluation: &Value) -> Self {
        Self {
            quote: tdx_file(case["files"]["quote"].as_str().unwrap()),
            given: set(evaluation["collateral"].as_str().unwrap()),
            now: time(evaluation["verify_at"].as_str().unwrap()),
            want_report_data: None,
        }
    }

    fn kind(name: &str) -> EndorsementKind {
        match name {
            "tcb_info" => EndorsementKind::IntelTcbInfo,
            "qe_identity" => EndorsementKind::IntelQeIdentity,
            "pck.crl" => EndorsementKind::IntelPckCrl,
            other => panic!("unknown file {other}"),
        }
    }

    fn bytes(&mut self, name: &str) -> &mut Vec<u8> {
        if name == "quote" {
            return &mut self.quote;
        }
        let kind = Self::kind(name);
        &mut self.given.iter_mut().find(|e| e.kind == kind).unwrap().bytes
    }

    fn apply(&mut self, op: &Value, manifest: &Value) {
        let number = |key: &str| usize::try_from(op[key].as_u64().unwrap()).unwrap();
        let text = |key: &str| op[key].as_str().unwrap();
        match text("op") {
            "xor" => self.bytes(text("file"))[number("offset")] ^= u8::try_from(number("value")).unwrap(),
            "write" => {
                let (at, new) = (number("offset"), hex::decode(text("hex")).unwrap());
                self.bytes(text("file"))[at..at + new.len()].copy_from_slice(&new);
            }
            "append" => self.bytes(text("file")).extend(hex::decode(text("hex")).unwrap()),
            "truncate" => self.bytes(text("file")).truncate(number("length")),
            "set_time" => self.now = time(text("verify_at")),
            "expect" => self.want_report_data = Some(text("report_data").to_owned()),
            "remove_file" => self.given.retain(|e| e.kind != Self::kind(text("file"))),
            "replace_file" => *self.bytes(text("file")) = file(text("with")).unwrap(),
            "use_evaluation" => {}
            "splice" => {
                let other = find(manifest, text("from_case"));
                let other = tdx_file(other["files"]["quote"].as_str().unwrap());
                self.quote[..632].copy_from_slice(&other[..632]);
            }
            _ => self.apply_to_text(op),
        }
    }

    fn apply_to_text(&mut self, op: &Value) {
        let bytes = self.bytes(op["file"].as_str().unwrap());
        let old = String::from_utf8(bytes.clone()).unwrap();
        let new = match op["op"].as_str().unwrap() {
            "text_replace" => old.replace(op["from"].as_str().unwrap(), op["to"].as_str().unwrap()),
            "json_reserialise" => old.replace("\":", "\": ").replace(",\"", ", \""),
            "text_replace_hex_digit" => {
                let at = old.find("\"signature\":\"").unwrap() + "\"signature\":\"".len();
                let digit = if &old[at..=at] == "0" { "1" } else { "0" };
                format!("{}{digit}{}", &old[..at], &old[at + 1..])
            }
            other => panic!("unknown operation {other}"),
        };
        assert_ne!(old, new);
        *bytes = new.into_bytes();
    }

    fn outcome(&self) -> Result<Outcome, crate::Error> {
        let quote = Quote::parse(&self.quote)?;
        let mut out = run(&quote, &self.given, &intel_root().unwrap(), self.now, &strict());
        if let Some(want) = &self.want_report_data {
            let ok = hex::encode(quote.body.report_data) == *want;
            out.policy.push(Factor::of("report_data", ok, "", "", ""));
        }
        Ok(out)
    }
}

fn find<'a>(manifest: &'a Value, id: &str) -> &'a Value {
    manifest["cases"].as_array().unwrap().iter().find(|c| c["id"] == id).unwrap()
}

/// Where each recipe must stop: a factor, or `parse` with words of the error.
fn stops_at(id: &str) -> (&'static str, &'static str) {
    match id.strip_prefix("tdx-").unwrap() {
        "flip-header-user-data"
        | "flip-tee-tcb-svn"
        | "flip-mr-seam"
        | "flip-td-attributes-debug"
        | "flip-mr-td"
        | "flip-rtmr3"
        | "flip-report-data"
        | "flip-quote-sig-r"
        | "flip-quote-sig-s"
        | "mixed-quote-halves" => ("tdx.signature", "invalid"),
        "flip-attestation-key" | "ak-off-curve" => ("tdx.signature", "invalid, and the key is not"),
        "flip-qe-report-mrsigner" => ("tdx.qe_identity", "another MRSIGNER"),
        "flip-qe-report-data" | "flip-qe-auth-data" => ("tdx.signature", "did not report"),
        "flip-qe-report-sig" => ("tdx.qe_report", "invalid"),
        "version-4-header-on-v5" => ("parse", "truncated"),
        "version-6" => ("parse", "version 6"),
        "tee-type-sgx" => ("parse", "SGX enclave"),
        "key-type-p384" => ("parse", "attestation key type 3"),
        "qe-vendor" => ("parse", "not by Intel's"),
        "body-type-unknown" | "body-size-huge" => ("parse", "body of type"),
        "sigdata-len-huge" | "certdata-len-huge" | "authdata-len-ffff" => ("parse", "truncated"),
        "truncate-0" | "truncate-47" | "truncate-53" | "truncate-700" | "truncate-5005" => {
            ("parse", "truncated")
        }
        "certdata-type-4" => ("parse", "certification data of type 4"),
        "pck-base64-byte" => ("tdx.chain", ""),
        "tcbinfo-tamper" | "tcbinfo-sig-flip" => ("tdx.endorsements", "the TCB info is not signed"),
        "qeid-sig-flip" => ("tdx.endorsements", "the QE identity is not signed"),
        "tcbinfo-reserialised" => ("tdx.endorsements", "as Intel serves it"),
        "tcbinfo-other-fmspc" => ("tdx.endorsements", "no TCB info that was given is for FMSPC 90c06f000000"),
        "qeid-as-tcbinfo" => ("tdx.endorsements", "malformed TCB info: not {\"tcbInfo\""),
        "qeid-of-sgx" => ("tdx.endorsements", "QE of version 2, expected TD_QE"),
        "tcbinfo-of-sgx" => ("tdx.endorsements", "SGX of version 3, expected TDX"),
        "collateral-stale" => ("tdx.endorsements", "the TCB info expired at 2026-03-20T"),
        "collateral-future" => ("tdx.endorsements", "the TCB info is not valid before 2026-02-18T"),
        "time-before-pck" => {
            ("tdx.chain", "Intel SGX PCK Certificate is not valid before 2026-01-27T14:36:27Z")
        }
        "crl-swap" => ("tdx.crl", "no revocation list that was given is of Intel SGX PCK Platform CA"),
        "crl-flip" => ("tdx.crl", ""),
        "crl-missing" => ("tdx.crl", "not given"),
        "debug-td" => ("tdx.attributes.debug", "1"),
        "out-of-date" => ("tdx.tcb_status", "OutOfDate"),
        "wrong-report-data" => ("report_data", ""),
        other => panic!("no expectation for {other}"),
    }
}

/// Every recipe of the corpus stops where it must. Zeros after a quote are tolerated: the one that is not refused.
#[test]
fn every_recipe() {
    let Some(recipes) = json("invalid/recipes.json") else { return };
    let manifest = json("tdx/manifest.json").unwrap();
    let recipes = recipes.as_object().unwrap().values().filter_map(Value::as_array).flatten();
    let recipes: Vec<&Value> = recipes.filter(|r| r["family"] == "tdx").collect();
    assert_eq!(recipes.len(), 51);
    for recipe in recipes {
        let id = recipe["id"].as_str().unwrap();
        let case = find(&manifest, recipe["base"].as_str().unwrap());
        let evaluations = case["evaluations"].as_array().unwrap();
        let chosen = recipe["ops"].as_array().unwrap().iter().find_map(|op| op["index"].as_u64());
        // Those of the SGX documents' time begin with the first evaluation, those of v5 with the set they name.
        let first = id.ends_with("of-sgx");
        let index =
            chosen.map_or(if first { 0 } else { evaluations.len() - 1 }, |i| usize::try_from(i).unwrap());
        let mut files = Mutable::of(case, &evaluations[index]);
        recipe["ops"].as_array().unwrap().iter().for_each(|op| files.apply(op, &manifest));
        if id == "tdx-append" {
            assert!(files.outcome().unwrap().accepted());
            continue;
        }
        let (place, why) = stops_at(id);
        match files.outcome() {
            Err(error) => {
                assert_eq!(place, "parse", "{id}: {error}");
                assert!(error.to_string().contains(why), "{id}: {error}");
            }
            Ok(out) => {
                assert!(out.failed().contains(&place), "{id}: {:?}", out.failed());
                assert!(out.got(place).contains(why), "{id}: {}", out.got(place));
                assert_eq!(out.who.is_authentic(), recipe["expected"] == "reject", "{id}");
            }
        }
    }
}

/// A genuine quote that the strict policy accepts, with what it needs.
fn accepted(id: &str, set_name: &str, at: &str) -> Option<Mutable> {
    file("tdx/manifest.json")?;
    let quote = tdx_file(&format!("{id}/quote.bin"));
    let out = Mutable { quote, given: set(set_name), now: time(at), want_report_data: None };
    assert!(out.outcome().unwrap().accepted());
    Some(out)
}

fn samples() -> impl Iterator<Item = Mutable> {
    [
        ("v4-b0c06f-near", "b0c06f-2026-08", "2026-08-20T00:00:00Z"),
        ("v5-90c06f", "90c06f-2026-02b", "2026-02-25T00:00:00Z"),
    ]
    .into_iter()
    .filter_map(|(id, set, at)| accepted(id, set, at))
}

/// Every bit of a quote matters, but for the white space around and in the certificates' text, which is no part of what the quote
/// says or of its identity.
#[test]
fn every_flipped_bit_is_refused_or_is_white_space() {
    for sample in samples() {
        let (anchor, policy, signatures) = (intel_root().unwrap(), strict(), SignatureCache::new());
        let ctx = Context { now: sample.now, missing: Missing::Fails, signatures: &signatures };
        let given = Endorsements::new(&sample.given).unwrap();
        let good = Quote::parse(&sample.quote).unwrap();
        let pem = sample.quote.windows(10).position(|w| w == b"-----BEGIN").unwrap();
        for (place, bit) in (0..sample.quote.len()).flat_map(|place| [0, 5, 7].map(|bit| (place, bit))) {
            let mut bytes = sample.quote.clone();
            bytes[place] ^= 1 << bit;
            let Ok(quote) = Quote::parse(&bytes) else { continue };
            let who = authenticate(&quote, &given, &anchor, ctx);
            let out = Outcome { policy: appraise(&quote, &who, &policy, None), who };
            if out.accepted() {
                let old = sample.quote[place];
                assert!(place >= pem && (old.is_ascii_whitespace() || old == 0), "{place} {bit}: {old:#x}");
                assert!(bytes[place].is_ascii_whitespace() || bytes[place] == 0, "{place} {bit}");
                assert_eq!(quote.identity(), good.identity());
                assert_eq!(quote.pck.certificate, good.pck.certificate);
            }
        }
    }
}

#[test]
fn every_prefix_is_refused_and_padding_is_not() {
    for sample in samples() {
        let good = Quote::parse(&sample.quote).unwrap();
        for len in 0..sample.quote.len() {
            assert!(Quote::parse(&sample.quote[..len]).is_err(), "{len}");
        }
        let padded = |n: usize| [&sample.quote[..], &vec![0; n - sample.quote.len()]].concat();
        assert_eq!(Quote::parse(&padded(8000)).unwrap().identity(), good.identity());
        assert!(Quote::parse(&padded(16 * 1024)).is_ok());
        assert!(Quote::parse(&padded(16 * 1024 + 1)).unwrap_err().to_string().contains("at most 16384"));
        let mut tail = padded(8000);
        *tail.last_mut().unwrap() = 1;
        assert!(Quote::parse(&tail).unwrap_err().to_string().contains("what follows the signature data"));
    }
}

/// An ECDSA signature has a second form, (r, n - s). Both are accepted, and neither is part of a quote's identity.
#[test]
fn the_other_form_of_a_signature_is_the_same_quote() {
    const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    for mut sample in samples() {
        let good = Quote::parse(&sample.quote).unwrap();
        let at = good.signed().len() + 4 + 32;
        let mut borrow = 0;
        let order = hex::decode(ORDER).unwrap();
        for (byte, n) in sample.quote[at..at + 32].iter_mut().zip(&order).rev() {
            let difference = i16::from(*n) - i16::from(*byte) - borrow;
            borrow = i16::from(difference < 0);
            *byte = u8::try_from(difference.rem_euclid(256)).unwrap();
        }
        assert!(sample.outcome().unwrap().accepted());
        assert_eq!(Quote::parse(&sample.quote).unwrap().identity(), good.identity());
    }
}

/// Every bit of TCB info, QE identity and lists: refused, or not looked at and said to be so by nothing.
#[test]
fn flipped_endorsements_are_refused() {
    for sample in samples() {
        let (anchor, policy, signatures) = (intel_root().unwrap(), strict(), SignatureCache::new());
        let ctx = Context { now: sample.now, missing: Missing::Fails, signatures: &signatures };
        let quote = Quote::parse(&sample.quote).unwrap();
        for kind in [
            EndorsementKind::IntelTcbInfo,
            EndorsementKind::IntelQeIdentity,
            EndorsementKind::IntelPckCrl,
            EndorsementKind::IntelRootCaCrl,
        ] {
            let index = sample.given.iter().position(|e| e.kind == kind).unwrap();
            for place in 0..sample.given[index].bytes.len() {
                let mut given = sample.given.clone();
                given[index].bytes[place] ^= 1;
                let who = authenticate(&quote, &Endorsements::new(&given).unwrap(), &anchor, ctx);
                let out = Outcome { policy: appraise(&quote, &who, &policy, None), who };
                // White space after a document, and digits of the signature that have two cases.
                let same = sample.given[index].bytes[place].is_ascii_whitespace();
                assert!(!out.accepted() || same, "{kind:?} {place}: {:#x}", sample.given[index].bytes[place]);
            }
        }
    }
}
