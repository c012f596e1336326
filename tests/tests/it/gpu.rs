//! GPU evidence in a session: what ties it to the enclave, and that another machine's does not pass.
//!
//! The report is a genuine one from the corpus. It was asked for by somebody else, so `nvidia.nonce` fails in every case; what else
//! fails is the point.

use cocoon_attestation::appraisal::{RawEvidence, Refusal, inspect};
use cocoon_attestation::binding::{ChannelBinding, Role};
use cocoon_attestation::nvidia::{GpuEvidence, NVIDIA_GPU_MEDIA_TYPE};
use cocoon_attestation::policy::{Policy, init};
use cocoon_attestation::snp::Product;
use cocoon_attestation::wire::{AttestRequest, EpochStatement, EvidenceItem, EvidenceSet, Mode};
use cocoon_attestation::{Context, Digest, Endorsement, EndorsementKind, Missing, SignatureCache};
use cocoon_tests::enclave::now;
use cocoon_tests::factory::Processor;

use super::corpus::corpus;

const CASE: &str = "nvidia/h100-590.12-multigpu";

/// GPU `n` of one machine.
fn gpu(n: usize) -> Option<GpuEvidence> {
    let dir = corpus()?.join(format!("{CASE}-{n}"));
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    Some(GpuEvidence {
        x: [7; 32],
        ..GpuEvidence::from_parts(&read("report.bin"), &read("chain.pem")).unwrap()
    })
}

fn collection(gpus: &[GpuEvidence]) -> EvidenceSet {
    let item = |gpu: &GpuEvidence| EvidenceItem {
        media_type: NVIDIA_GPU_MEDIA_TYPE.to_owned(),
        bytes: gpu.encode(),
    };
    EvidenceSet(gpus.iter().enumerate().map(|(n, gpu)| (format!("gpu{n}"), item(gpu))).collect())
}

/// What identifies the GPU, as `inspect` claims it.
fn ueid(gpu: &GpuEvidence) -> Vec<u8> {
    let ctx = Context { now: now(), missing: Missing::Unchecked, signatures: &SignatureCache::new() };
    let report = inspect::nvidia(gpu, &Default::default(), &Policy::strict().unwrap(), None, ctx);
    hex::decode(serde_json::to_value(&report.claims["ueid"]).unwrap().as_str().unwrap()).unwrap()
}

/// S for these GPUs.
fn state(s: &mut EpochStatement, gpus: &[GpuEvidence]) {
    s.gpu_evidence = Some(Digest::of(&collection(gpus).encode()));
    s.gpu_ids = gpus.iter().map(ueid).collect();
    s.gpu_mode = "on".to_owned();
}

fn policy(count: usize) -> Policy {
    let text = Processor::of(Product::Genoa)
        .policy()
        .replace("gpu_mode = { exactly = \"none\" }", "gpu_mode = { exactly = \"on\" }");
    let with_gpus = init(u64::try_from(count).unwrap());
    let section = &with_gpus[with_gpus.find("[nvidia]").unwrap()..with_gpus.find("[platform]").unwrap()];
    Policy::from_toml(&format!("{text}\n{section}")).unwrap()
}

/// Names of the factors that fail for an enclave that states `stated` and sends `sent`, beyond those of a foreign nonce and of
/// endorsements that are not there.
fn failed(mode: Mode, stated: &[GpuEvidence], sent: &[GpuEvidence], policy: &Policy) -> Vec<&'static str> {
    let channel = ChannelBinding {
        role: Role::Enclave,
        cipher_suite: 0x1302,
        named_group: 0x11ec,
        spki: Digest([6; 32]),
        peer_spki: None,
        exported: [0xee; 32],
    };
    let request = AttestRequest { mode, ..AttestRequest::new([7; 32]) }.encode();
    let mut response = Processor::of(Product::Genoa).respond(&channel, &request, |s| {
        if !stated.is_empty() {
            state(s, stated);
        }
    });
    let mut evidence = EvidenceSet::decode(&response.evidence).unwrap();
    evidence.0.extend(collection(sent).0);
    response.evidence = evidence.encode();
    response
        .endorsements
        .push(Endorsement { kind: EndorsementKind::NvidiaRim, bytes: b"<nonsense/>".to_vec() });
    let raw = RawEvidence { request, response: response.encode(), channel };
    let refusal = raw.verify(policy, now(), &SignatureCache::new()).unwrap_err();
    let Refusal::Rejected(rejection) = refusal else { panic!("{refusal}") };
    let expected = [
        "nvidia.nonce",
        "nvidia.rim",
        "nvidia.measurements",
        "nvidia.ocsp",
        "nvidia.protected_pcie",
        "nvidia.feature",
    ];
    let mut names: Vec<_> = rejection.report.failures().map(|factor| factor.name).collect();
    for always in expected {
        assert_eq!(
            names.contains(&always),
            !sent.is_empty() && policy.nvidia.is_some(),
            "{always} in {names:?}"
        );
    }
    names.retain(|name| !expected.contains(name));
    names
}

#[test]
fn gpus_of_another_machine_and_other_numbers_are_refused() {
    let (Some(a), Some(b)) = (gpu(0), gpu(1)) else { return };
    let one = std::slice::from_ref(&a);
    let both = [a.clone(), b.clone()];
    let cpu = Mode::FreshCpu;
    assert_eq!(failed(cpu, one, one, &policy(1)), [""; 0], "the control");
    assert_eq!(failed(cpu, &both, &both, &policy(2)), [""; 0], "the control with two");
    assert_eq!(
        failed(cpu, one, std::slice::from_ref(&b), &policy(1)),
        ["nvidia.evidence", "nvidia.ids"],
        "spliced"
    );
    let other_x = [GpuEvidence { x: [8; 32], ..a.clone() }];
    assert_eq!(
        failed(cpu, one, &other_x, &policy(1)),
        ["nvidia.evidence"],
        "the same GPU, another nonce's source"
    );
    assert_eq!(failed(cpu, one, one, &policy(2)), ["nvidia.count"]);
    assert_eq!(failed(cpu, one, &both, &policy(1)), ["nvidia.evidence", "nvidia.ids", "nvidia.count"]);
    let twice = [a.clone(), a.clone()];
    assert_eq!(failed(cpu, &twice, &twice, &policy(2)), ["nvidia.distinct"]);
    assert_eq!(
        failed(cpu, one, &[], &policy(1)),
        ["nvidia.evidence", "nvidia.ids", "nvidia.count"],
        "left out"
    );
    assert_eq!(
        failed(cpu, &[], one, &policy(1)),
        ["claims.gpu_mode", "nvidia.evidence", "nvidia.ids"],
        "not stated"
    );
    assert_eq!(
        failed(Mode::FreshCpuAndGpu, one, one, &policy(1)),
        ["nvidia.freshness"],
        "x is not this session's leaf"
    );
    let without = Policy::from_toml(&Processor::of(Product::Genoa).policy()).unwrap();
    assert_eq!(
        failed(cpu, one, one, &without),
        ["claims.gpu_mode", "evidence.platform"],
        "a policy without GPUs"
    );
}
