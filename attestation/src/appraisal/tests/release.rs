//! Releases in evidence: what S names, what was measured, what the release says.

use super::machine::{CONFIG, Change, Cpu, Machine, failed, now};
use crate::appraisal::Refusal;
use crate::policy::{Check, Policy, Released};
use crate::release::tests::{manifest, section, vouched};
use crate::release::{ReleaseBundle, ReleaseManifest};
use crate::result::{Report, Status};
use crate::wire::{AttestResponse, EpochStatement, Mode};
use crate::{Context, Digest, Measurement, Missing, SignatureCache, UnixTime};

/// The release of `machine`: what it measures is one of the reference values.
fn release_of(machine: &Machine) -> ReleaseManifest {
    let mut manifest = manifest();
    manifest.configs = [CONFIG].into();
    if let Cpu::Tdx(case) = &machine.cpu {
        let quote = crate::tdx::Quote::parse(&case.quote()).unwrap();
        let [rtmr0, rtmr1, rtmr2, _] = quote.body.rtmr;
        let mut fitting = manifest.tdx.pop_first().unwrap();
        let mut shape = fitting.shapes.pop_first().unwrap();
        shape.rtmr0 = rtmr0;
        fitting.shapes = [shape].into();
        (fitting.mr_td, fitting.rtmr1, fitting.rtmr2) = (quote.body.mr_td, rtmr1, rtmr2);
        manifest.tdx.insert(fitting);
    }
    manifest
}

/// The machine's policy, with every row that a release can say left to it.
fn policy_of(machine: &Machine) -> Policy {
    let mut policy = machine.policy();
    let text = format!("{}\n{}", crate::policy::init(0), section());
    policy.release = Policy::from_toml(&text).unwrap().release;
    if let Some(snp) = &mut policy.snp {
        snp.measurement = Released::Release;
    }
    if let Some(tdx) = &mut policy.tdx {
        for row in [&mut tdx.mr_td, &mut tdx.rtmr0, &mut tdx.rtmr1, &mut tdx.rtmr2] {
            *row = Released::Release;
        }
    }
    (policy.claims.config, policy.claims.release) = (Released::Release, Released::Release);
    policy
}

struct Session {
    machine: Machine,
    policy: Policy,
    bundle: ReleaseBundle,
    stated: Digest,
}

impl Session {
    fn of(machine: Machine) -> Self {
        let bundle = vouched(release_of(&machine));
        Self { policy: policy_of(&machine), stated: bundle.digest(), bundle, machine }
    }

    fn verify(&mut self, sent: Option<&[u8]>) -> Result<Report, Report> {
        let stated = self.stated;
        let statement = |s: &mut EpochStatement| s.release = stated;
        let response = |r: &mut AttestResponse| r.release = sent.map(<[u8]>::to_vec);
        let change = Change { statement: &statement, response: &response, ..Change::default() };
        let raw = self.machine.session(Mode::FreshCpu, &change);
        match raw.verify(&self.policy, now(), &SignatureCache::new()) {
            Ok(result) => Ok(result.report().clone()),
            Err(Refusal::Rejected(rejection)) => Err(*rejection.report),
            Err(Refusal::Malformed(error)) => Err(Report::malformed(&error)),
        }
    }

    fn failed(&mut self) -> Vec<&'static str> {
        let sent = self.bundle.encode();
        self.verify(Some(&sent)).map_or_else(|report| failed(&report), |_| Vec::new())
    }
}

#[test]
fn a_released_machine_is_accepted() {
    for machine in [Machine::snp(1), Machine::tdx(1)] {
        let mut session = Session::of(machine);
        let sent = session.bundle.encode();
        let report = session.verify(Some(&sent)).unwrap_or_else(|report| panic!("{:?}", failed(&report)));
        let rows = report.factors.iter().filter(|f| f.name.starts_with("release."));
        assert!(rows.clone().count() == 7 && rows.clone().all(|f| f.status == Status::Pass));
        assert_eq!(report.claims["release_version"], crate::result::Claim::Text("1.2.3".to_owned()));
        // The same offline.
        let stated = session.stated;
        let statement = |s: &mut EpochStatement| s.release = stated;
        let response = |r: &mut AttestResponse| r.release = Some(sent.clone());
        let change = Change { statement: &statement, response: &response, ..Change::default() };
        let saved = session.machine.session(Mode::FreshCpu, &change).response;
        let signatures = SignatureCache::new();
        let ctx = Context { now: now(), missing: Missing::Fails, signatures: &signatures };
        let report = crate::appraisal::inspect::bundle(&saved, &session.policy, ctx);
        assert!(report.accepted, "{:?}", failed(&report));
    }
}

#[test]
fn software_that_is_not_in_the_release() {
    let mut session = Session::of(Machine::snp(1));
    let changed = |change: &dyn Fn(&mut ReleaseManifest)| {
        let mut session = Session::of(Machine::snp(1));
        let mut manifest = session.bundle.manifest.clone();
        change(&mut manifest);
        session.bundle = vouched(manifest);
        session.stated = session.bundle.digest();
        session.failed()
    };
    assert!(session.failed().is_empty());
    assert_eq!(changed(&|m| m.snp.clear()), ["snp.measurement"]);
    let other = |m: &mut ReleaseManifest| m.snp.retain(|one| one.measurement != Measurement([0x4d; 48]));
    assert_eq!(changed(&other), ["snp.measurement"]);
    // The launch digest is right, the guest's policy is not.
    let of_policy = |policy| {
        move |m: &mut ReleaseManifest| {
            let mut one = m.snp.pop_first().unwrap();
            one.policy = Some(policy);
            m.snp = [one].into();
        }
    };
    assert!(changed(&of_policy(0x3_0000)).is_empty());
    assert_eq!(changed(&of_policy(0x2_0000)), ["snp.measurement"]);
    assert_eq!(changed(&|m| m.configs = [Digest([1; 32])].into()), ["claims.config"]);
    assert_eq!(changed(&|m| m.configs.clear()), ["claims.config"]);
}

#[test]
fn parts_of_different_reference_values_do_not_fit_together() {
    let changed = |change: &dyn Fn(&mut crate::release::TdxReference, &mut crate::release::TdxReference)| {
        let mut session = Session::of(Machine::tdx(1));
        let mut manifest = session.bundle.manifest.clone();
        let mr_td = Measurement([0x44; 48]);
        let mut fitting = manifest.tdx.iter().find(|one| one.mr_td == mr_td).unwrap().clone();
        let mut other = manifest.tdx.iter().find(|one| one.mr_td != mr_td).unwrap().clone();
        change(&mut fitting, &mut other);
        manifest.tdx = [fitting, other].into();
        session.bundle = vouched(manifest);
        session.stated = session.bundle.digest();
        session.failed()
    };
    assert!(changed(&|_, _| ()).is_empty());
    assert_eq!(changed(&|fitting, _| fitting.mr_td = Measurement([9; 48])), ["tdx.mr_td"]);
    assert_eq!(changed(&|fitting, _| fitting.shapes.clear()), ["tdx.rtmr0"], "no shape is no wildcard");
    assert_eq!(changed(&|fitting, _| fitting.rtmr1 = Measurement([9; 48])), ["tdx.rtmr1"]);
    let swapped = |fitting: &mut crate::release::TdxReference, other: &mut crate::release::TdxReference| {
        std::mem::swap(&mut fitting.rtmr2, &mut other.rtmr2);
    };
    assert_eq!(changed(&swapped), ["tdx.rtmr2"], "each part was released, but not together");
}

#[test]
fn another_release_than_the_enclave_states() {
    let mut session = Session::of(Machine::snp(1));
    session.stated = Digest([7; 32]);
    let all = ["release.manifest", "snp.measurement", "claims.config", "claims.release"];
    assert_eq!(session.failed(), all);
    // Also for a policy that does not ask: what is sent belongs to what is stated.
    session.policy.release = None;
    session.policy.snp.as_mut().unwrap().measurement =
        Released::Check(Check::Unchecked { why: "test".into() });
    let unchecked = || Released::Check(Check::Unchecked { why: "test".into() });
    (session.policy.claims.config, session.policy.claims.release) = (unchecked(), unchecked());
    assert_eq!(session.failed(), ["release.manifest"]);
    session.stated = session.bundle.digest();
    assert!(session.failed().is_empty());
}

#[test]
fn no_release_or_one_that_is_not_vouched_for() {
    let mut session = Session::of(Machine::snp(1));
    let report = session.verify(None).unwrap_err();
    let unvouched =
        ["release.signatures", "release.log", "release.expiry", "release.witnesses", "release.rebuilds"];
    let none = [&unvouched[..1], &["release.created"], &unvouched[1..]].concat();
    let rest = ["snp.measurement", "claims.config", "claims.release"];
    assert_eq!(failed(&report), [&none[..], &rest[..]].concat());
    assert!(report.authentic, "whose word counts is the policy's");
    session.bundle = ReleaseBundle::new(session.bundle.manifest.clone());
    assert_eq!(session.failed(), [&unvouched[..], &rest[..]].concat());
}

#[test]
fn a_malformed_release_is_a_malformed_response() {
    let mut session = Session::of(Machine::snp(1));
    let mut sent = session.bundle.encode();
    sent.push(0);
    assert_eq!(failed(&session.verify(Some(&sent)).unwrap_err()), ["evidence.format"]);
    let signatures = SignatureCache::new();
    let ctx = Context { now: UnixTime(0), missing: Missing::Fails, signatures: &signatures };
    let response = |r: &mut AttestResponse| r.release = Some(vec![1]);
    let change = Change { response: &response, ..Change::default() };
    let saved = session.machine.session(Mode::FreshCpu, &change).response;
    let report = crate::appraisal::inspect::bundle(&saved, &session.policy, ctx);
    assert_eq!(failed(&report), ["evidence.format"]);
}
