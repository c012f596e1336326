//! Responses that are made to keep their verifier busy.

use super::machine::{Change, Machine, failed, now};
use crate::crypto::{MAX_VERIFICATIONS, SignatureScheme};
use crate::nvidia::tests::factory::{Factory, Ocsp, Party, time};
use crate::wire::{AttestResponse, Mode};
use crate::{Context, Endorsement, EndorsementKind, Missing, SignatureCache};

/// OCSP responses, each about a certificate of every GPU, that nobody of their issuers signed.
fn ocsp_of_nobody(machine: &Machine, count: usize) -> Vec<Endorsement> {
    let about = |gpu: &Factory| Ocsp::good(&gpu.boot_rom, &gpu.identity);
    let more: Vec<u8> = machine.gpus[1..].iter().flat_map(|gpu| about(gpu).single()).collect();
    let one = |number| {
        let response = about(&machine.gpus[0]).with(|o| {
            o.more.clone_from(&more);
            o.this_update = time(&format!("202611240000{number:02}Z"));
        });
        let bytes = response.signed(&machine.gpus[0].leaf, &[]);
        Endorsement { kind: EndorsementKind::NvidiaOcsp, bytes }
    };
    (0..count).map(one).collect()
}

#[test]
fn more_signatures_than_an_appraisal_verifies() {
    let mut machine = Machine::snp(16);
    let policy = machine.policy();
    for (count, exceeded) in [(2, false), (40, true)] {
        let useless = ocsp_of_nobody(&machine, count);
        let response = |r: &mut AttestResponse| {
            // Of the good ones, as many as there is room for.
            r.endorsements.truncate(64 - count);
            r.endorsements.extend(useless.clone());
        };
        let raw = machine.session(Mode::FreshCpu, &Change { response: &response, ..Change::default() });
        let signatures = SignatureCache::new();
        let ctx = Context { now: now(), missing: Missing::Fails, signatures: &signatures };
        let report = super::super::inspect::bundle(&raw.response, &policy, ctx);
        assert_eq!(failed(&report).contains(&"evidence.signatures"), exceeded, "{:?}", failed(&report));
        assert_eq!((report.authentic, report.accepted), (!exceeded, !exceeded), "{:?}", failed(&report));
        match raw.verify(&policy, now(), &SignatureCache::new()) {
            Ok(_) => assert!(!exceeded),
            Err(super::super::Refusal::Rejected(rejection)) => {
                assert!(exceeded && !rejection.report.authentic);
                assert!(failed(&rejection.report).contains(&"evidence.signatures"));
            }
            Err(super::super::Refusal::Malformed(error)) => panic!("{error}"),
        }
    }
}

#[test]
fn what_was_found_bad_is_not_verified_again_and_what_was_good_costs_nothing() {
    let cache = SignatureCache::new();
    let one = cache.for_one_appraisal();
    let verify = |cache: &SignatureCache, number: usize| {
        cache.verify(SignatureScheme::Ed25519, &[1; 32], &number.to_be_bytes(), &[0; 64])
    };
    for number in 0..MAX_VERIFICATIONS {
        assert!(!verify(&one, number) && !verify(&one, number) && !one.is_exceeded(), "{number}");
    }
    assert!(!verify(&one, MAX_VERIFICATIONS) && one.is_exceeded());
    let next = cache.for_one_appraisal();
    assert!(!verify(&next, 0) && !next.is_exceeded(), "the next appraisal begins anew");
    assert!(!verify(&cache, 0) && !cache.is_exceeded());
    let ca = Party::new("a", None, |_| {});
    assert!(ca.certificate.is_issued_by(&ca.certificate, &next));
    assert!(ca.certificate.is_issued_by(&ca.certificate, &one), "known from the other appraisal");
}
