//! Whole responses of enclaves with GPUs, made under test roots: everything in hand, nothing fetched.

#![expect(clippy::arithmetic_side_effects, reason = "an overflow here is a failed test")]

mod budget;
mod machine;
mod release;
mod snp;

use self::machine::{Change, Cpu, Machine, failed, now};
use super::RawEvidence;
use crate::policy::Check;
use crate::wire::{AttestResponse, EpochStatement, EvidenceSet, Mode};
use crate::{Digest, ENDORSEMENT_KINDS, Endorsement, EndorsementBundle, EndorsementKind, SignatureCache};

#[test]
fn a_whole_machine_is_accepted_offline() {
    for (mut machine, platform, gpus) in [
        (Machine::snp(1), "snp", 1),
        (Machine::tdx(1), "tdx", 1),
        (Machine::tdx(4), "tdx", 4),
        (Machine::snp(16), "snp", 16),
        (Machine::snp(0), "snp", 0),
    ] {
        for (mode, x) in [(Mode::FreshCpu, Some([0x77; 32])), (Mode::FreshCpuAndGpu, None)] {
            let mut policy = machine.policy();
            if gpus == 0 {
                policy.nvidia = None;
                policy.claims.gpu_mode = Check::Exactly("none".to_owned());
            }
            let accepted = machine.verify_by(&policy, mode, &Change { x, ..Change::default() });
            let accepted =
                accepted.unwrap_or_else(|report| panic!("{platform} {gpus}: {:?}", failed(&report)));
            let report = accepted.report();
            assert!(report.platform == platform && report.accepted && report.authentic);
            let of = |name| report.factors.iter().filter(|f| f.name == name).count();
            assert_eq!(
                (of("nvidia.measurements"), of("nvidia.ocsp"), of("nvidia.evidence")),
                (gpus, gpus, gpus.min(1))
            );
        }
    }
}

#[test]
fn evidence_of_other_gpus_does_not_pass() {
    for mut machine in [Machine::snp(1), Machine::tdx(1)] {
        let other = machine.beside();
        // Their own nonce is right: the host had them asked for this enclave, but the enclave did not state them.
        let spliced = Change { sent: Some(&other), ..Change::default() };
        assert_eq!(machine.failed(Mode::FreshCpu, &spliced), ["nvidia.evidence", "nvidia.ids"]);
        let ids: Vec<_> = other.gpus.iter().map(|gpu| gpu.boot_rom.certificate.serial().to_vec()).collect();
        let stated = |s: &mut EpochStatement| s.gpu_ids.clone_from(&ids);
        let spliced = Change { sent: Some(&other), statement: &stated, ..Change::default() };
        assert_eq!(machine.failed(Mode::FreshCpu, &spliced), ["nvidia.evidence"]);
    }
}

#[test]
fn every_tie_between_processor_and_gpus_has_a_refusal() {
    let mut machine = Machine::tdx(2);
    let changed = |machine: &mut Machine, statement: &dyn Fn(&mut EpochStatement)| {
        machine.failed(Mode::FreshCpu, &Change { statement, ..Change::default() })
    };
    // A nonce is of one boot and epoch: the GPUs were asked before S changed.
    assert_eq!(changed(&mut machine, &|s| s.epoch = 4), ["nvidia.nonce"; 2]);
    assert_eq!(changed(&mut machine, &|s| s.boot_id = [2; 16]), ["nvidia.nonce"; 2]);
    assert_eq!(changed(&mut machine, &|s| s.gpu_ids.reverse()), ["nvidia.ids"]);
    assert_eq!(changed(&mut machine, &|s| s.gpu_ids.truncate(1)), ["nvidia.ids"]);
    let none = |s: &mut EpochStatement| (s.gpu_evidence, s.gpu_ids) = (None, Vec::new());
    assert_eq!(changed(&mut machine, &none), ["nvidia.evidence", "nvidia.ids"]);
    assert_eq!(changed(&mut machine, &|s| s.gpu_evidence = Some(Digest([0; 32]))), ["nvidia.evidence"]);
    for mode in ["off", "devtools", "none"] {
        assert_eq!(changed(&mut machine, &|s| s.gpu_mode = mode.to_owned()), ["claims.gpu_mode"]);
    }
}

#[test]
fn a_saved_response_without_its_parts_is_malformed() {
    let mut machine = Machine::tdx(1);
    let policy = machine.policy();
    let signatures = SignatureCache::new();
    let ctx = crate::Context { now: now(), missing: crate::Missing::Fails, signatures: &signatures };
    let good = machine.session(Mode::FreshCpu, &Change::default()).response;
    let report = super::inspect::bundle(&good, &policy, ctx);
    assert!(report.authentic && report.accepted, "{:?}", failed(&report));
    let response = AttestResponse::decode(&good).unwrap();
    let with = |change: &dyn Fn(&mut AttestResponse)| {
        let mut changed = response.clone();
        change(&mut changed);
        changed.encode()
    };
    let without_cpu = |response: &mut AttestResponse| {
        let mut set = EvidenceSet::decode(&response.evidence).unwrap();
        set.0.remove("cpu");
        response.evidence = set.encode();
    };
    let no_quote = |response: &mut AttestResponse| {
        let mut set = EvidenceSet::decode(&response.evidence).unwrap();
        set.0.get_mut("cpu").unwrap().bytes = vec![1];
        response.evidence = set.encode();
    };
    let endorsed = |kind| {
        move |response: &mut AttestResponse| {
            response.endorsements.retain(|e| e.kind != kind);
            response.endorsements.extend(vec![Endorsement { kind, bytes: b"x".to_vec() }; 1]);
        }
    };
    for (what, bytes) in [
        ("AttestResponse", Vec::new()),
        ("epoch statement", with(&|r| r.statement = vec![0])),
        ("evidence collection", with(&|r| r.evidence = vec![0])),
        ("no evidence of a CPU", with(&without_cpu)),
        ("TDX quote", with(&no_quote)),
        ("certificate", with(&endorsed(EndorsementKind::IntelTcbSigningChain))),
    ] {
        let report = super::inspect::bundle(&bytes, &policy, ctx);
        assert!(!report.authentic && !report.accepted);
        let said = format!("{:?}", report.factors);
        assert!(said.to_lowercase().contains(&what.to_lowercase()), "{what}: {said}");
    }
    let mut session = machine.session(Mode::FreshCpu, &Change::default());
    session.request.push(0);
    assert!(matches!(session.verify(&policy, now(), &signatures), Err(super::Refusal::Malformed(_))));
    let given = crate::snp::Endorsements::default;
    assert!(!super::inspect::snp(b"x", given(), &policy, None, ctx).authentic);
    assert!(
        !super::inspect::tdx(b"x", None, crate::tdx::Endorsements::default(), &policy, None, ctx).authentic
    );
    let list = [Endorsement { kind: EndorsementKind::AmdCrl, bytes: b"x".to_vec() }];
    assert!(crate::snp::Endorsements::from_stapled(&list).is_err());
}

#[test]
fn a_saved_response_of_another_vendor_or_with_too_much_is_refused() {
    let mut machine = Machine::tdx(1);
    let policy = machine.policy();
    let signatures = SignatureCache::new();
    let ctx = crate::Context { now: now(), missing: crate::Missing::Fails, signatures: &signatures };
    let good = machine.session(Mode::FreshCpu, &Change::default()).response;
    let response = AttestResponse::decode(&good).unwrap();
    // The vendor's section is not in the policy.
    let mut without = policy.clone();
    without.tdx = None;
    let report = super::inspect::bundle(&good, &without, ctx);
    assert!(report.authentic && failed(&report).contains(&"evidence.platform"));
    let many = |kind| {
        let new = |n: u8| Endorsement { kind, bytes: vec![n] };
        AttestResponse { endorsements: (0..24).map(new).collect(), ..response.clone() }.encode()
    };
    for kind in [EndorsementKind::IntelPckCrl, EndorsementKind::NvidiaRim] {
        let report = super::inspect::bundle(&many(kind), &policy, ctx);
        assert!(format!("{:?}", report.factors).contains("more than"), "{kind:?}");
    }
}

#[test]
fn fresh_evidence_of_gpus_is_of_this_session() {
    let mut machine = Machine::snp(1);
    let stale = Change::default();
    assert_eq!(machine.failed(Mode::FreshCpuAndGpu, &stale), ["nvidia.freshness"]);
}

#[test]
fn gpus_are_as_many_as_the_policy_says_and_distinct() {
    let mut machine = Machine::snp(2);
    let mut policy = machine.policy();
    policy.nvidia.as_mut().unwrap().count = Check::Exactly(1);
    let failed_by = |machine: &mut Machine, policy| {
        failed(&machine.verify_by(policy, Mode::FreshCpu, &Change::default()).unwrap_err())
    };
    assert_eq!(failed_by(&mut machine, &policy), ["nvidia.count"]);
    let mut policy = machine.policy();
    policy.nvidia = None;
    assert_eq!(failed_by(&mut machine, &policy), ["evidence.platform"]);
    let first = machine.gpus.remove(0);
    machine.gpus = vec![first.clone(), first];
    let policy = machine.policy();
    assert_eq!(failed_by(&mut machine, &policy), ["nvidia.distinct"]);
}

#[test]
fn gpus_that_are_stated_must_attest() {
    let mut machine = Machine::snp(1);
    let without = |response: &mut AttestResponse| {
        let mut set = EvidenceSet::decode(&response.evidence).unwrap();
        set.0.remove("gpu0");
        response.evidence = set.encode();
    };
    let change = Change { response: &without, ..Change::default() };
    assert_eq!(machine.failed(Mode::FreshCpu, &change), ["nvidia.evidence", "nvidia.ids", "nvidia.count"]);
}

/// Every kind of endorsement is needed in a session, and its absence is named.
#[test]
fn a_missing_endorsement_is_named() {
    use EndorsementKind as Kind;
    for (mut machine, kind, want) in [
        (Machine::snp(1), Kind::AmdCertificate, vec!["snp.signature", "snp.chain"]),
        (Machine::snp(1), Kind::AmdCrl, vec!["snp.crl"]),
        (Machine::snp(1), Kind::NvidiaRim, vec!["nvidia.rim", "nvidia.measurements"]),
        (Machine::snp(1), Kind::NvidiaOcsp, vec!["nvidia.ocsp"]),
        (Machine::tdx(1), Kind::IntelTcbInfo, vec!["tdx.endorsements", "tdx.tcb_status"]),
        (Machine::tdx(1), Kind::IntelQeIdentity, vec!["tdx.endorsements", "tdx.tcb_status"]),
        (Machine::tdx(1), Kind::IntelTcbSigningChain, vec!["tdx.endorsements"]),
        (Machine::tdx(1), Kind::IntelPckCrl, vec!["tdx.crl"]),
        (Machine::tdx(1), Kind::IntelRootCaCrl, vec!["tdx.crl"]),
    ] {
        let drop = |response: &mut AttestResponse| response.endorsements.retain(|e| e.kind != kind);
        let failed = machine.failed(Mode::FreshCpu, &Change { response: &drop, ..Change::default() });
        for name in want {
            assert!(failed.contains(&name), "{kind:?}: {failed:?}");
        }
    }
}

#[test]
fn what_the_enclave_states_is_what_it_was_started_with() {
    let mut machine = Machine::tdx(1);
    let other = |s: &mut EpochStatement| s.models = vec![Digest([0x12; 32])];
    let failed = machine.failed(Mode::FreshCpu, &Change { statement: &other, ..Change::default() });
    assert_eq!(failed, ["tdx.rtmr3.replay", "claims.model"]);
}

/// The certificates in a quote are PEM, which has several spellings: see `tdx::tests::mutations` for those.
#[test]
fn no_turned_bit_of_what_is_signed_is_accepted() {
    for mut machine in [Machine::snp(1), Machine::tdx(1)] {
        let (policy, signatures) = (machine.policy(), SignatureCache::new());
        let raw = machine.session(Mode::FreshCpu, &Change::default());
        raw.clone().verify(&policy, now(), &signatures).unwrap();
        let response = AttestResponse::decode(&raw.response).unwrap();
        let turned = |n: usize, bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes[n] ^= 1 << (n % 8);
            bytes
        };
        let refused = |response: AttestResponse| {
            let raw = RawEvidence { response: response.encode(), ..raw.clone() };
            raw.verify(&policy, now(), &signatures).is_err()
        };
        for n in 0..response.statement.len() {
            let statement = turned(n, &response.statement);
            assert!(refused(AttestResponse { statement, ..response.clone() }), "byte {n} of S");
        }
        let len = if matches!(machine.cpu, Cpu::Snp(_)) { response.evidence.len() } else { 0 };
        for n in (0..len).step_by(3) {
            let evidence = turned(n, &response.evidence);
            assert!(refused(AttestResponse { evidence, ..response.clone() }), "byte {n} of the evidence");
        }
    }
}

/// Everything that is stapled is recognised by its bytes alone, and says what it is about.
#[test]
fn endorsements_are_recognised_by_what_they_are() {
    let mut all = Machine::snp(1).endorsements();
    all.extend(Machine::tdx(1).endorsements());
    let mut kinds = Vec::new();
    for item in &all {
        let same = std::slice::from_ref(item);
        assert_eq!(Endorsement::recognise(&item.bytes).unwrap(), same, "{:?}", item.kind);
        assert_eq!(Endorsement::recognise(&item.encode()).unwrap(), same);
        let about = item.about().unwrap();
        assert!(!about.subject.is_empty() && about.not_before < about.not_after, "{about:?}");
        kinds.push(item.kind);
    }
    kinds.sort();
    kinds.dedup();
    assert_eq!(kinds.len(), ENDORSEMENT_KINDS.len());
    assert_eq!(Endorsement::recognise(&EndorsementBundle(all.clone()).encode()).unwrap(), all);
    for bad in
        [&b""[..], b"{}", b"<a/>", b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", &[0x30, 0]]
    {
        assert!(Endorsement::recognise(bad).is_err());
    }
    // A certificate of the RIM's signer is of no kind that is stapled.
    let other = Machine::snp(1).gpus.remove(0).signer.certificate;
    assert!(Endorsement::recognise(other.der()).unwrap_err().to_string().contains("another issuer"));
}
