//! Every case, manifest, OCSP response and recipe of the corpus, with the outcome that it names.

use super::*;
use crate::nvidia::chain::DeviceChain;
use crate::nvidia::ocsp::{self, OcspResponse};
use crate::result::Claim;

/// A case of the corpus, as `cocoon inspect nvidia` would read it.
#[derive(Clone)]
struct Case {
    report: Vec<u8>,
    chain: Vec<u8>,
    rims: Vec<(String, Vec<u8>)>,
    ocsp: Vec<Vec<u8>>,
    nonce: Option<[u8; 32]>,
    at: UnixTime,
}

impl Case {
    fn of(case: &Value) -> Self {
        let file = |key: &str| case["files"][key].as_str().map(|path| corpus(path).unwrap());
        let rim = |key: &str| file(key).map(|bytes| (key.to_owned(), bytes));
        Self {
            report: file("report").unwrap(),
            chain: file("chain_pem").unwrap(),
            rims: ["driver_rim", "vbios_rim"].into_iter().filter_map(rim).collect(),
            ocsp: Vec::new(),
            nonce: Some(crate::types::parse_hex(case["nonce"].as_str().unwrap()).unwrap()),
            at: case["verify_at"].as_str().unwrap().parse().unwrap(),
        }
    }

    fn named(id: &str) -> Option<Self> {
        let manifest = manifest()?;
        let mut cases = manifest["cases"].as_array().unwrap().iter();
        Some(Self::of(cases.find(|case| case["id"] == id).unwrap()))
    }

    fn e2e() -> Option<Self> {
        Self::named("h100-550.90.07-e2e")
    }

    fn gpu(&self) -> Result<GpuEvidence, crate::Error> {
        GpuEvidence::from_parts(&self.report, &self.chain)
    }

    fn verdict(&self, missing: Missing) -> Result<Verdict, crate::Error> {
        let signatures = SignatureCache::new();
        let ctx = Context { now: self.at, missing, signatures: &signatures };
        let rims: Vec<_> = self.rims.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        let ocsp: Vec<_> = self.ocsp.iter().map(Vec::as_slice).collect();
        let given = Endorsements::for_one(&rims, &ocsp)?;
        Ok(inspect(&self.gpu()?, &given, &Anchors::nvidia()?, self.nonce, ctx))
    }

    fn bytes(&mut self, file: &str) -> &mut Vec<u8> {
        match file {
            "report" => &mut self.report,
            "chain_pem" => &mut self.chain,
            _ => &mut self.rims.iter_mut().find(|(name, _)| name == file).unwrap().1,
        }
    }
}

/// Indices of the corpus's comparison, by source and as they are reported.
fn mismatches(case: &Value, source: &str) -> String {
    let list = case["measurement_comparison"]["mismatched_indices"].as_array().unwrap().iter();
    let indices: Vec<_> =
        list.filter(|m| m["source"] == source).map(|m| m["index"].as_u64().unwrap().to_string()).collect();
    indices.join(", ")
}

#[test]
fn every_case_has_its_outcome() {
    let Some(manifest) = manifest() else { return };
    let cases = manifest["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let id = case["id"].as_str().unwrap();
        let v = Case::of(case).verdict(Missing::Unchecked).unwrap();
        let (expected, checks) = (&case["expected"], &case["checks"]);
        assert_eq!(v.authentic, expected["evidence"] == "valid", "{id}");
        let passes = |name| v.status(name) == Status::Pass;
        assert_eq!(passes("nvidia.signature"), checks["report_signature"] == true, "{id}");
        assert_eq!(passes("nvidia.chain"), checks["chain_valid_at_T"] == true, "{id}");
        // What the manifest does not compare is a report without FWID: a failure here.
        assert_eq!(passes("nvidia.fwid"), checks["fwid_matches_leaf"] == true, "{id}");
        assert_eq!(passes("nvidia.measurements"), expected["end_to_end"] == true, "{id}");
        assert_eq!(passes("nvidia.arch"), case["kind"] == "nvidia-gpu", "{id}");
        assert!(passes("nvidia.nonce"), "{id}");
        assert_eq!(v.status("nvidia.ocsp"), Status::Unchecked, "{id}");
        let rims = expected["rims"].as_str().unwrap();
        let want = match rims {
            "valid" => Status::Pass,
            "not available offline" => Status::Unchecked,
            _ => Status::Fail,
        };
        assert_eq!(v.status("nvidia.rim"), want, "{id}");
        if case["measurement_comparison"].is_object() {
            for (source, role) in [("driver", "driver"), ("vbios", "VBIOS")] {
                let list = mismatches(case, source);
                let said = v.got("nvidia.measurements").contains(&format!("differ at {list} ({role})"));
                assert_eq!(said, !list.is_empty(), "{id}: {}", v.got("nvidia.measurements"));
            }
        }
        // In a session nothing may be missing.
        let session = Case::of(case).verdict(Missing::Fails).unwrap();
        assert_eq!(session.authentic, v.authentic, "{id}");
        assert_eq!(session.status("nvidia.ocsp"), Status::Fail, "{id}");
        assert!(!session.accepted, "{id}");
    }
}

#[test]
fn the_complete_case_is_accepted_and_says_so() {
    let Some(case) = Case::e2e() else { return };
    let v = case.verdict(Missing::Unchecked).unwrap();
    assert!(v.accepted);
    assert_eq!(v.got("nvidia.measurements"), "32 compared");
    assert_eq!(v.got("nvidia.rim"), "550.90.07, 96.00.9F.00.01");
    let v = Case { nonce: None, ..case }.verdict(Missing::Unchecked).unwrap();
    assert_eq!(v.status("nvidia.nonce"), Status::Unchecked);
}

/// What is altered or expired is said, with its date.
#[test]
fn faults_of_rims_are_named() {
    let Some(case) = Case::named("h100-570.124.03-expired") else { return };
    let v = case.verdict(Missing::Unchecked).unwrap();
    for said in
        ["expired at 2025-01-02T00:00:00Z", "expired at 2025-09-05T08:39:09Z", "altered after it was signed"]
    {
        assert!(v.got("nvidia.rim").contains(said), "{}", v.got("nvidia.rim"));
    }
    assert!(v.authentic && !v.accepted);
}

#[test]
fn fields_and_rim_names_are_those_of_the_manifest() {
    let Some(manifest) = manifest() else { return };
    for case in manifest["cases"].as_array().unwrap() {
        let (id, want) = (case["id"].as_str().unwrap(), &case["report"]);
        let gpu = Case::of(case).gpu().unwrap();
        let opaque = &gpu.report.opaque;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        assert_eq!(hex::encode(gpu.report.nonce), text(&case["nonce"]).unwrap(), "{id}");
        let responder = text(&want["response"]["responder_nonce"]);
        assert_eq!(Some(hex::encode(gpu.report.responder_nonce)), responder, "{id}");
        assert_eq!(
            gpu.report.measurements.len() as u64,
            want["response"]["nblocks"].as_u64().unwrap(),
            "{id}"
        );
        assert_eq!(opaque.driver_version().map(str::to_owned), text(&want["driver_version"]), "{id}");
        assert_eq!(opaque.vbios_version(), text(&want["vbios_version"]), "{id}");
        assert_eq!(opaque.fwid().map(hex::encode), text(&want["fwid"]), "{id}");
        let listed = want["opaque_fields"].as_array().unwrap();
        let listed: std::collections::BTreeSet<_> =
            listed.iter().map(|f| f["id"].as_u64().unwrap()).collect();
        assert_eq!(
            opaque.numbers().map(u64::from).collect::<std::collections::BTreeSet<_>>(),
            listed,
            "{id}"
        );
        let anchors = Anchors::nvidia().unwrap();
        let chain = DeviceChain::new(&gpu.chain, &anchors.device);
        let ids = rim_ids(&gpu.report, &chain.chip()).map(Vec::from);
        let want_ids: Vec<_> =
            ["driver_rim_id", "vbios_rim_id"].iter().filter_map(|k| text(&want[k])).collect();
        assert_eq!(ids.unwrap_or_default(), want_ids, "{id}");
        assert_eq!(hex::encode(chain.dice().unwrap().fwid), text(&case["leaf_fwid"]).unwrap(), "{id}");
        let serial =
            |n: usize| case["chain"][n]["serial"].as_str().unwrap().trim_start_matches("0x").to_owned();
        assert_eq!((chain.key_serial(), chain.ueid()), (serial(0), serial(1)), "{id}");
        assert_eq!(gpu.report.to_bytes(), Case::of(case).report, "{id}");
        let (off, status) = (opaque.is_nvdec0_off(), want["nvdec0_status"].as_str());
        assert_eq!(off, status.is_some_and(|s| s.starts_with("disabled")), "{id}");
        let pcie = want["protected_pcie"].as_str();
        let pcie = pcie.map_or("unstated", |s| if s.starts_with("PPCIE on") { "on" } else { "off" });
        assert_eq!(opaque.protected_pcie(), pcie, "{id}");
    }
}

#[test]
fn claims_have_the_documented_names() {
    let Some(case) = Case::e2e() else { return };
    let signatures = SignatureCache::new();
    let ctx = Context { now: case.at, missing: Missing::Unchecked, signatures: &signatures };
    let gpu = case.gpu().unwrap();
    let who = authenticate(&gpu, &Endorsements::default(), &Anchors::nvidia().unwrap(), ctx);
    let claims = claims(&gpu, &who);
    let text = |text: &str| Claim::Text(text.to_owned());
    assert_eq!(claims["arch"], text("Hopper"));
    assert_eq!(claims["driver_version"], text("550.90.07"));
    assert_eq!(claims["vbios_version"], text("96.00.9f.00.01"));
    assert_eq!(claims["nonce"], text(&hex::encode(case.nonce.unwrap())));
    assert_eq!(claims["measurements"], Claim::Number(64));
    assert_eq!(claims["ueid"], text("41431d480fe5e87274"));
    assert_eq!(claims["fwid"], text(&hex::encode(who.fwid.unwrap())));
    assert_eq!(
        claims["rim_ids"],
        Claim::List(vec![
            "NV_GPU_DRIVER_GH100_550.90.07".into(),
            "NV_GPU_VBIOS_1010_0200_882_96009F0001".into()
        ])
    );
}

#[test]
fn gpus_of_one_machine_are_told_apart() {
    let ids = [
        "h100-590.12-multigpu-0",
        "h100-590.12-multigpu-1",
        "h100-590.12-multigpu-2",
        "h100-590.12-multigpu-3",
    ];
    let anchors = Anchors::nvidia().unwrap();
    let mut ueids = Vec::new();
    for id in ids {
        let Some(case) = Case::named(id) else { return };
        let gpu = case.gpu().unwrap();
        ueids.push(DeviceChain::new(&gpu.chain, &anchors.device).ueid());
    }
    let mut ueids: Vec<_> = ueids.iter().map(String::as_str).collect();
    let policy = NvidiaPolicy::strict(4).unwrap();
    assert!(appraise_all(&ueids, &policy).iter().all(|f| f.status == Status::Pass));
    ueids[3] = ueids[0];
    let failed = |ueids: &[&str]| -> Vec<_> {
        let all = appraise_all(ueids, &policy);
        all.into_iter().filter(|f| f.status == Status::Fail).map(|f| f.name).collect()
    };
    assert_eq!(failed(&ueids), ["nvidia.distinct"]);
    assert_eq!(failed(&ueids[..3]), ["nvidia.count"]);
    ueids[3] = "";
    assert_eq!(failed(&ueids), ["nvidia.distinct"], "an unknown one is not distinct");
}

#[test]
fn roots_are_those_of_the_corpus() {
    let Some(bytes) = read(&format!("{EVIDENCE}/roots/manifest.json")) else { return };
    let manifest: Value = serde_json::from_slice(&bytes).unwrap();
    let anchors = Anchors::nvidia().unwrap();
    for (name, root) in [("device_identity_ca", &anchors.device), ("corim_signing_root_ca", &anchors.rim)] {
        let mut all = manifest["certificates"].as_array().unwrap().iter();
        let entry = all.find(|entry| entry["name"] == name).unwrap();
        assert_eq!(entry["sha256_der"].as_str().unwrap(), crate::Digest::of(root.der()).to_string());
        assert!(root.is_issued_by(root, &SignatureCache::new()) && root.is_authority());
    }
}

#[test]
fn every_rim_has_its_outcome() {
    let Some(manifest) = manifest() else { return };
    let rims = manifest["rims"].as_array().unwrap();
    assert_eq!(rims.len(), 7);
    let (anchors, signatures) = (Anchors::nvidia().unwrap(), SignatureCache::new());
    for entry in rims {
        let (id, checks) = (entry["id"].as_str().unwrap(), &entry["checks"]);
        let rim = Rim::parse(&corpus(entry["file"].as_str().unwrap()).unwrap()).unwrap();
        let now = entry["verify_at"].as_str().unwrap().parse().unwrap();
        let ctx = Context { now, missing: Missing::Unchecked, signatures: &signatures };
        let faults = rim.signature.faults(&anchors.rim, ctx);
        assert_eq!(faults.is_empty(), entry["expected"] == "valid", "{id}: {faults:?}");
        assert_eq!(rim.version, entry["colloquial_version"].as_str().unwrap(), "{id}");
        assert_eq!(rim.product, entry["product"].as_str().unwrap(), "{id}");
        assert_eq!(rim.active.len() as u64, entry["active_measurements"].as_u64().unwrap(), "{id}");
        assert_eq!(rim.signature.digest_fits, checks["xml_signature"]["digest"] == true, "{id}");
        let said = faults.iter().any(|fault| fault.contains("does not verify"));
        assert_eq!(!said, checks["xml_signature"]["signature_value"] == true, "{id}");
        let path = rim.signature.path(&anchors.rim, ctx).unwrap();
        let chained =
            path.faults(now, &signatures).iter().all(|f| !f.contains("missing") && !f.contains("not signed"));
        assert_eq!(chained, checks["chain_to_rim_root"] == true, "{id}");
        let late = Context { now: "2029-01-01T00:00:00Z".parse().unwrap(), ..ctx };
        assert!(rim.signature.faults(&anchors.rim, late).iter().any(|f| f.contains("expired at 20")), "{id}");
    }
}

/// Each OCSP response says good about its certificate in its day, and nothing before and after.
#[test]
fn every_ocsp_response_has_its_outcome() {
    let (Some(manifest), Some(case)) = (manifest(), Case::e2e()) else { return };
    let (anchors, signatures) = (Anchors::nvidia().unwrap(), SignatureCache::new());
    let gpu = case.gpu().unwrap();
    let rims: Vec<_> = case.rims.iter().map(|(_, bytes)| Rim::parse(bytes).unwrap()).collect();
    let mut known = gpu.chain.clone();
    known.extend(rims.iter().flat_map(|rim| rim.signature.certificates.clone()));
    known.extend([anchors.device.clone(), anchors.rim.clone()]);
    let entries = manifest["ocsp"].as_array().unwrap();
    assert_eq!(entries.len(), 7);
    for entry in entries {
        let bytes = corpus(entry["file"].as_str().unwrap()).unwrap();
        let response = OcspResponse::parse(&bytes).unwrap();
        let serial =
            |c: &crate::x509::Certificate| hex::encode(c.serial()).trim_start_matches('0').to_owned();
        let want = entry["cert_serial"].as_str().unwrap().trim_start_matches("0x").to_owned();
        let about = known.iter().find(|c| serial(c) == want).unwrap();
        let issuer = known.iter().find(|c| about.names_issuer(c)).unwrap();
        let time =
            |key: &str| entry[key].as_str().unwrap().replace("+00:00", "Z").parse::<UnixTime>().unwrap();
        let (from, until) = (time("this_update"), time("next_update"));
        let ask = |response: &OcspResponse, now| {
            let ctx = Context { now, missing: Missing::Fails, signatures: &signatures };
            ocsp::status([response].into_iter(), about, issuer, ctx)
        };
        assert_eq!(ask(&response, from), Some(vec![]), "{want}");
        assert_eq!(ask(&response, until), Some(vec![]), "{want}");
        let before = ask(&response, UnixTime(from.0 - 301)).unwrap();
        assert!(before[0].contains(&format!("not valid before {from}")), "{before:?}");
        let after = ask(&response, UnixTime(until.0 + 1)).unwrap();
        assert!(after[0].contains(&format!("expired at {until}")), "{after:?}");
        // About no other certificate of these.
        for other in known.iter().filter(|c| c.serial() != about.serial()) {
            let ctx = Context { now: from, missing: Missing::Fails, signatures: &signatures };
            assert_eq!(ocsp::status([&response].into_iter(), other, issuer, ctx), None);
        }
        // No bit of it can be flipped; those outside of what is signed are the responder's certificate or the signature.
        for n in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[n] ^= 1;
            let faults = OcspResponse::parse(&bytes).ok().and_then(|response| ask(&response, from));
            assert_ne!(faults, Some(vec![]), "{want} byte {n}");
        }
        for n in 0..bytes.len() {
            assert!(OcspResponse::parse(&bytes[..n]).is_err());
        }
    }
}

#[test]
fn ocsp_counts_in_the_verdict() {
    let Some(mut case) = Case::e2e() else { return };
    let file = |name: &str| corpus(&format!("ocsp/h100-550.90.07-{name}.ocsp.der")).unwrap();
    case.ocsp = ["gpu_certificate_l2", "gpu_certificate_l3", "gpu_certificate_l4"].map(file).to_vec();
    case.at = "2025-08-21T12:00:00Z".parse().unwrap();
    let v = case.verdict(Missing::Unchecked).unwrap();
    assert_eq!(v.status("nvidia.ocsp"), Status::Unchecked, "the signers of the RIMs are not covered");
    assert!(v.accepted);
    case.rims.clear();
    let v = case.verdict(Missing::Fails).unwrap();
    assert_eq!((v.status("nvidia.ocsp"), v.got("nvidia.ocsp")), (Status::Pass, "3 good"));
    // A day later they say nothing any more, and a stale one is worse than none.
    case.at = "2025-08-22T12:00:00Z".parse().unwrap();
    let v = case.verdict(Missing::Unchecked).unwrap();
    assert_eq!(v.status("nvidia.ocsp"), Status::Fail);
    assert!(v.got("nvidia.ocsp").contains("expired at 2025-08-22T06:47:07Z"), "{}", v.got("nvidia.ocsp"));
    assert!(!v.authentic);
}

/// One recipe of `invalid/recipes.json`, applied.
fn mutate(case: &mut Case, op: &Value) {
    let text = |key: &str| op[key].as_str().unwrap().to_owned();
    let number = |key: &str| usize::try_from(op[key].as_u64().unwrap()).unwrap();
    let evidence = |path: &str| read(&format!("{EVIDENCE}/{path}")).unwrap();
    let pems = |chain: &[u8]| -> Vec<String> {
        let all = String::from_utf8(chain.to_vec()).unwrap();
        all.split_inclusive("-----END CERTIFICATE-----")
            .map(str::to_owned)
            .filter(|p| p.contains("BEGIN"))
            .collect()
    };
    match op["op"].as_str().unwrap() {
        "xor" => case.bytes(&text("file"))[number("offset")] ^= u8::try_from(number("value")).unwrap(),
        "truncate" => case.bytes(&text("file")).truncate(number("length")),
        "append" => case.bytes(&text("file")).extend(hex::decode(text("hex")).unwrap()),
        "write" => {
            let new = hex::decode(text("hex")).unwrap();
            let at = number("offset");
            let place = &mut case.bytes(&text("file"))[at..at + new.len()];
            assert_ne!(place, new, "the recipe changes something");
            place.copy_from_slice(&new);
        }
        "expect" if op["nonce"].is_string() => {
            case.nonce = Some(crate::types::parse_hex(&text("nonce")).unwrap());
        }
        "replace_file" => *case.bytes(&text("file")) = evidence(&text("with")),
        "remove_file" => case.rims.retain(|(name, _)| *name != text("file")),
        "swap_files" => case.rims.reverse(),
        "pem_drop" => {
            let mut list = pems(&case.chain);
            list.remove(number("index"));
            case.chain = list.concat().into_bytes();
        }
        "pem_reverse" => {
            let list: Vec<_> = pems(&case.chain).iter().rev().map(|p| format!("{}\n", p.trim())).collect();
            case.chain = list.concat().into_bytes();
        }
        "text_replace" => {
            let old = String::from_utf8(case.bytes(&text("file")).clone()).unwrap();
            *case.bytes(&text("file")) = old.replace(&text("from"), &text("to")).into_bytes();
        }
        "text_insert" => {
            let at = number("offset");
            let new = text("text").into_bytes();
            case.bytes(&text("file")).splice(at..at, new);
        }
        "xml_remove" => {
            let xml = String::from_utf8(case.bytes(&text("file")).clone()).unwrap();
            let (from, to) = (xml.find("<ds:Signature ").unwrap(), xml.find("</ds:Signature>").unwrap());
            *case.bytes(&text("file")) = format!("{}{}", &xml[..from], &xml[to + 15..]).into_bytes();
        }
        "xml_wrap" => {
            let xml = String::from_utf8(case.bytes(&text("file")).clone()).unwrap();
            let (root, forged) =
                (&xml[..=xml.find('>').unwrap()], xml.replace("active=\"True\"", "active=\"False\""));
            let forged = &forged[forged.find("<ns0:Entity").unwrap()..forged.find("<ds:Signature").unwrap()];
            *case.bytes(&text("file")) = format!("{root}{forged}{xml}</SoftwareIdentity>").into_bytes();
        }
        "set_time" => case.at = text("verify_at").parse().unwrap(),
        other => panic!("{other} is not known"),
    }
}

#[test]
fn every_recipe_is_refused_where_it_says() {
    let Some(bytes) = read(&format!("{EVIDENCE}/invalid/recipes.json")) else { return };
    let recipes: Value = serde_json::from_slice(&bytes).unwrap();
    let of_nvidia = recipes["recipes"].as_array().unwrap().iter().filter(|r| r["family"] == "nvidia");
    let mut done = 0;
    for recipe in of_nvidia {
        done += 1;
        let id = recipe["id"].as_str().unwrap();
        // A RIM without a report: see `every_rim_has_its_outcome`. Exempting index 35 is no choice here.
        if id == "nv-rim-debug-root" || id == "nv-msr35-forced" {
            continue;
        }
        let mut case = Case::named(recipe["base"].as_str().unwrap()).unwrap();
        recipe["ops"].as_array().unwrap().iter().for_each(|op| mutate(&mut case, op));
        let verdict = case.verdict(Missing::Unchecked);
        // RIMs have no roles but those that their signed content gives them: their order does not matter.
        let valid = recipe["expected"].as_str().unwrap().starts_with("valid") || id == "nv-rim-roles-swapped";
        assert_eq!(verdict.as_ref().is_ok_and(|v| v.accepted), valid, "{id}");
        let failed = |v: &Verdict| -> Vec<_> {
            v.factors.iter().filter(|f| f.status == Status::Fail).map(|f| f.name).collect()
        };
        let Ok(v) = verdict else {
            assert!(id.starts_with("nv-flip") || id.starts_with("nv-truncate") || id == "nv-append", "{id}");
            continue;
        };
        let want: &[&str] = match id {
            "nv-stale-nonce" | "nv-responder-nonce-confusion" => &["nvidia.nonce"],
            "nv-rim-missing" => &["nvidia.measurements"],
            _ if id.starts_with("nv-rim") && !valid => &["nvidia.rim", "nvidia.measurements"],
            "nv-chain-swap" => &["nvidia.signature", "nvidia.fwid"],
            "nv-chain-no-intermediate" | "nv-chain-reversed" | "nv-leaf-is-brom" => &["nvidia.chain"],
            _ if valid => &[],
            _ => &["nvidia.signature"],
        };
        assert!(want.iter().all(|name| failed(&v).contains(name)), "{id}: {:?}", failed(&v));
        assert_eq!(v.authentic, valid || id.starts_with("nv-rim") || want == ["nvidia.nonce"], "{id}");
    }
    assert_eq!(done, 40);
}

/// Every byte is signed or is the signature.
#[test]
fn no_byte_and_no_prefix_passes() {
    let Some(case) = Case::e2e() else { return };
    let (anchors, signatures) = (Anchors::nvidia().unwrap(), SignatureCache::new());
    let ctx = Context { now: case.at, missing: Missing::Unchecked, signatures: &signatures };
    let given = Endorsements::default();
    let authentic = |report: &[u8]| {
        let gpu = GpuEvidence::from_parts(report, &case.chain);
        gpu.is_ok_and(|gpu| authenticate(&gpu, &given, &anchors, ctx).is_authentic())
    };
    assert!(authentic(&case.report));
    for n in 0..case.report.len() {
        let mut report = case.report.clone();
        report[n] ^= 1 << (n % 8);
        assert!(!authentic(&report), "byte {n}");
        assert!(Report::parse(&case.report[..n]).is_err(), "prefix {n}");
    }
}

/// No change of a byte makes another manifest. Every byte at the beginning and of the signature but for the certificates; of the
/// many measurements and the certificates every eleventh.
#[test]
fn no_byte_of_a_rim_changes_what_it_says() {
    let Some(case) = Case::e2e() else { return };
    let (anchors, signatures) = (Anchors::nvidia().unwrap(), SignatureCache::new());
    let ctx = Context { now: case.at, missing: Missing::Unchecked, signatures: &signatures };
    let bytes = &case.rims[0].1;
    let genuine = Rim::parse(bytes).unwrap();
    let at = |text: &str| bytes.windows(text.len()).position(|w| w == text.as_bytes()).unwrap();
    let (payload, signature, certificates) = (at("index=\"8\""), at("<ds:Signature"), at("<ds:X509Cert"));
    for n in 0..bytes.len() {
        if n % 11 != 0 && ((payload..signature).contains(&n) || n > certificates) {
            continue;
        }
        let mut changed = bytes.clone();
        changed[n] ^= 1;
        let Ok(rim) = Rim::parse(&changed) else { continue };
        if rim.signature.faults(&anchors.rim, ctx).is_empty() {
            assert_eq!((&rim.active, &rim.version), (&genuine.active, &genuine.version), "byte {n}");
        }
    }
    for n in (0..bytes.len()).step_by(101) {
        assert!(Rim::parse(&bytes[..n]).is_err(), "prefix {n}");
    }
}

#[test]
fn evidence_travels_unchanged() {
    let Some(case) = Case::e2e() else { return };
    let gpu = GpuEvidence { x: [7; 32], ..case.gpu().unwrap() };
    let bytes = gpu.encode();
    assert_eq!(GpuEvidence::decode(&bytes).unwrap(), gpu);
    for n in 0..bytes.len() {
        assert!(GpuEvidence::decode(&bytes[..n]).is_err(), "{n}");
    }
    let many = GpuEvidence { chain: gpu.chain.iter().cycle().take(9).cloned().collect(), ..gpu.clone() };
    assert!(GpuEvidence::decode(&many.encode()).unwrap_err().to_string().contains("at most 8"));
    let none = GpuEvidence { chain: Vec::new(), ..gpu.clone() };
    assert!(GpuEvidence::decode(&none.encode()).unwrap_err().to_string().contains("no certificate"));
    let mut other = bytes.clone();
    other[2] = 2;
    assert!(GpuEvidence::decode(&other).unwrap_err().to_string().contains("unknown version"));
    let long = vec![0; 32 * 1024 + 1];
    assert!(GpuEvidence::decode(&long).unwrap_err().to_string().contains("at most"));
}
