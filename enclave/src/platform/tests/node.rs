//! The whole enclave over fake hardware with captured evidence: TLS, gate, batching, statement, response, and what the Verifier says.
//! The nonces of captured evidence are not ours, and that is all that may be wrong with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cocoon_attestation::appraisal::{RawEvidence, Refusal};
use cocoon_attestation::binding::{gpu_nonce, leaf_data, leaf_hash};
use cocoon_attestation::nvidia::GpuEvidence;
use cocoon_attestation::policy::Policy;
use cocoon_attestation::result::{Report, Status};
use cocoon_attestation::wire::{
    AttestRequest, AttestResponse, EpochStatement, EvidenceSet, FrameKind, MAX_RESPONSE_LEN, Mode,
};
use cocoon_attestation::{Digest, Endorsement, EndorsementBundle, EndorsementKind, SignatureCache, UnixTime};
use cocoon_channel::frames::{read_frame, write_frame};
use cocoon_channel::session::Session;

use super::certificates::{ASK, VCEK, table};
use super::kernel::FakeKernel;
use super::{corpus, log};
use crate::attest::AttestationService;
use crate::events::EventLog;
use crate::gate;
use crate::node::{Claims, Node, NodeError};
use crate::platform::nvidia::NvmlError;
use crate::platform::{
    Attester, EndorsementFile, GpuAttester, GpuError, GpuNonce, GpuReport, SnpAttester, Stapled, TdxAttester,
};

const NOW: UnixTime = UnixTime(1_790_000_000);

fn claims() -> Claims {
    Claims { models: vec![Digest([1; 32])], config: Digest([2; 32]), release: Digest([0; 32]) }
}

/// GPUs that answer what they are told to.
#[derive(Default)]
struct FakeGpus {
    reports: Mutex<Vec<GpuReport>>,
    fails: AtomicBool,
    nonces: Mutex<Vec<[u8; 32]>>,
    ready: Mutex<Vec<bool>>,
}

impl GpuAttester for FakeGpus {
    fn attest(&self, nonce: &GpuNonce) -> Result<Vec<GpuReport>, GpuError> {
        self.nonces.lock().unwrap().push(*nonce.bytes());
        if self.fails.load(Ordering::Relaxed) {
            return Err(NvmlError::Off.into());
        }
        Ok(self.reports.lock().unwrap().clone())
    }

    fn set_ready(&self, ready: bool) -> Result<(), GpuError> {
        self.ready.lock().unwrap().push(ready);
        Ok(())
    }
}

impl FakeGpus {
    /// The four H100 of one captured machine.
    fn four() -> Option<Arc<Self>> {
        let read = |n, name| corpus(&format!("nvidia/h100-590.12-multigpu-{n}/{name}"));
        let gpu = |n| Some(GpuReport { report: read(n, "report.bin")?, chain: read(n, "chain.pem")? });
        // Not in the order of their identities.
        let reports = [2, 0, 3, 1].into_iter().map(gpu).collect::<Option<_>>()?;
        Some(Arc::new(Self { reports: Mutex::new(reports), ..Self::default() }))
    }

    fn ready(&self) -> Vec<bool> {
        self.ready.lock().unwrap().clone()
    }
}

/// An enclave, and what its log says.
struct Enclave {
    node: Arc<Node>,
    attestation: AttestationService,
}

impl Enclave {
    fn start(attester: Arc<dyn Attester>, gpus: Option<Arc<FakeGpus>>, events: EventLog) -> Self {
        let gpus = gpus.map(|gpus| gpus as Arc<dyn GpuAttester>);
        let node = Arc::new(Node::boot_with_gpus(claims(), Arc::new(|| NOW), gpus).unwrap());
        let attestation = AttestationService::start(attester, node.clone(), events);
        Self { node, attestation }
    }

    /// What a client gets that connects and asks for `mode`. `None` if it is dropped.
    async fn attest(&self, mode: Mode) -> Option<RawEvidence> {
        let (client, enclave) = tokio::io::duplex(1 << 20);
        let client = async {
            let session = Session::connect(client).await.unwrap();
            let request = AttestRequest { mode, ..AttestRequest::new([7; 32]) }.encode();
            let mut stream = session.stream();
            write_frame(&mut stream, FrameKind::AttestRequest, &request).await.unwrap();
            let response = read_frame(&mut stream, FrameKind::AttestResponse).await.ok()?;
            let channel = session.binding(&request).unwrap();
            Some(RawEvidence { request, response, channel })
        };
        let (evidence, _) = tokio::join!(client, gate::pass(enclave, &self.node, &self.attestation));
        evidence
    }
}

fn rejected(evidence: RawEvidence) -> Report {
    let refusal = evidence.verify(&Policy::strict().unwrap(), NOW, &SignatureCache::new()).unwrap_err();
    match refusal {
        Refusal::Rejected(rejection) => *rejection.report,
        other @ (Refusal::Malformed(_) | _) => panic!("{other}"),
    }
}

#[track_caller]
fn expect(report: &Report, status: Status, names: &[&str]) {
    for name in names {
        let mut factors = report.factors.iter().filter(|factor| factor.name == *name).peekable();
        assert!(factors.peek().is_some(), "{name} is not there");
        assert!(factors.all(|factor| factor.status == status), "{name}: {report:?}");
    }
}

/// A genuine SNP machine, but for the nonce.
fn snp() -> Option<Arc<FakeKernel>> {
    let read = |name| corpus(&format!("snp/genoa-v3-vcek-azure/{name}"));
    let certificates = table(&[(VCEK, &read("vcek.der")?), (ASK, &read("ask.der")?)]);
    Some(FakeKernel::new("sev_guest", &read("report.bin")?, Some(&certificates)))
}

#[tokio::test]
async fn an_snp_machine() {
    let Some(kernel) = snp() else { return };
    let (events, lines) = log();
    let attester = Arc::new(SnpAttester::tsm(kernel.tsm(), events.clone()));
    let enclave = Enclave::start(attester, None, events);
    let report = rejected(enclave.attest(Mode::FreshCpu).await.unwrap());
    expect(&report, Status::Pass, &["snp.signature", "snp.chain", "snp.hwid", "snp.vcek_tcb", "snp.vmpl"]);
    expect(&report, Status::Fail, &["channel.binding"]);
    assert!(lines().contains("\"report\"") && !lines().contains("attester_failed"), "{}", lines());
    // What was asked for is what the Verifier would have expected.
    let evidence = enclave.attest(Mode::FreshCpu).await.unwrap();
    let statement = AttestResponse::decode(&evidence.response).unwrap().statement;
    let leaf = leaf_hash(&leaf_data(&evidence.channel, &evidence.request));
    let want = cocoon_attestation::binding::report_data(Mode::FreshCpu, &statement, leaf, 1);
    assert_eq!(kernel.written().last().unwrap(), &("inblob".to_owned(), want.to_vec()));
}

#[tokio::test]
async fn a_tdx_machine() {
    let Some(quote) = corpus("tdx/v5-90c06f/quote.bin") else { return };
    let kernel = FakeKernel::new("tdx_guest", &quote, None);
    let (events, _) = log();
    let attester = Arc::new(TdxAttester::tsm(kernel.tsm(), events.clone()));
    let report = rejected(Enclave::start(attester, None, events).attest(Mode::FreshCpu).await.unwrap());
    assert_eq!(report.platform, "tdx");
    expect(&report, Status::Pass, &["tdx.signature"]);
    expect(&report, Status::Fail, &["channel.binding", "tdx.rtmr3.replay"]);
}

#[tokio::test]
async fn a_machine_that_gives_no_report_drops_its_clients() {
    let kernel = FakeKernel::new("sev_guest", b"", None);
    let (events, lines) = log();
    let attester = Arc::new(SnpAttester::tsm(kernel.tsm(), events.clone()));
    assert!(Enclave::start(attester, None, events).attest(Mode::FreshCpu).await.is_none());
    assert!(lines().contains("attester_failed") && lines().contains("report_failed"), "{}", lines());
}

/// The processor's and the GPUs' evidence of a response, and S.
fn parts(evidence: &RawEvidence) -> (EpochStatement, EvidenceSet, Digest) {
    let response = AttestResponse::decode(&evidence.response).unwrap();
    let mut set = EvidenceSet::decode(&response.evidence).unwrap();
    set.0.remove("cpu").unwrap();
    let leaf = leaf_hash(&leaf_data(&evidence.channel, &evidence.request));
    (EpochStatement::decode(&response.statement).unwrap(), set, leaf)
}

fn x(set: &EvidenceSet, label: &str) -> [u8; 32] {
    GpuEvidence::decode(&set.0[label].bytes).unwrap().x
}

#[tokio::test]
async fn gpus_are_stated_and_attest_beside_the_processor() {
    let (Some(kernel), Some(gpus)) = (snp(), FakeGpus::four()) else { return };
    let (events, _) = log();
    let attester = Arc::new(SnpAttester::tsm(kernel.tsm(), events.clone()));
    let enclave = Enclave::start(attester, Some(gpus.clone()), events);
    assert_eq!(gpus.ready(), [true], "only after the first evidence");

    // Mode 0: the evidence of the epoch, for everybody.
    let evidence = enclave.attest(Mode::FreshCpu).await.unwrap();
    let (statement, set, _) = parts(&evidence);
    assert_eq!((set.0.len(), statement.gpu_ids.len(), statement.gpu_mode.as_str()), (4, 4, "on"));
    assert_eq!(statement.gpu_evidence, Some(Digest::of(&set.encode())));
    assert!(statement.gpu_ids.is_sorted());
    let epoch_x = x(&set, "gpu0");
    let nonce = gpu_nonce(statement.boot_id, 0, statement.spki, epoch_x);
    assert_eq!(*gpus.nonces.lock().unwrap(), [nonce.0], "asked once, with the nonce of the epoch");
    let report = rejected(evidence);
    expect(&report, Status::Pass, &["nvidia.evidence", "nvidia.ids", "nvidia.signature", "nvidia.freshness"]);
    expect(&report, Status::Fail, &["nvidia.nonce", "channel.binding"]);

    // Mode 1: each client gets its own, under its own S.
    let (one, two) = tokio::join!(enclave.attest(Mode::FreshCpuAndGpu), enclave.attest(Mode::FreshCpuAndGpu));
    for evidence in [one.unwrap(), two.unwrap()] {
        let (own, set, leaf) = parts(&evidence);
        assert_eq!((x(&set, "gpu0"), x(&set, "gpu3")), (leaf.0, leaf.0));
        assert_ne!(own.gpu_evidence, statement.gpu_evidence);
        assert_eq!(
            EpochStatement { gpu_evidence: statement.gpu_evidence, ..own },
            statement,
            "all else is same"
        );
        let response = AttestResponse::decode(&evidence.response).unwrap();
        assert_eq!((response.index, response.size, response.path.len()), (0, 1, 0), "a report of its own");
        let nonce = gpu_nonce(statement.boot_id, 0, statement.spki, leaf.0);
        assert!(gpus.nonces.lock().unwrap().contains(&nonce.0));
        let report = rejected(evidence);
        expect(&report, Status::Pass, &["nvidia.evidence", "nvidia.ids", "nvidia.freshness"]);
    }
    let after = enclave.attest(Mode::FreshCpu).await.unwrap();
    assert_eq!(x(&parts(&after).1, "gpu0"), epoch_x, "the epoch goes on as it was");
    enclave.node.retire();
    assert_eq!(gpus.ready(), [true, false]);
}

#[tokio::test]
async fn gpus_that_fail_or_change_end_nothing_but_what_needs_them() {
    let (Some(kernel), Some(gpus)) = (snp(), FakeGpus::four()) else { return };
    let (events, lines) = log();
    let attester = Arc::new(SnpAttester::tsm(kernel.tsm(), events.clone()));
    let enclave = Enclave::start(attester, Some(gpus.clone()), events);
    let before = enclave.node.current().statement.clone();

    gpus.fails.store(true, Ordering::Relaxed);
    assert_eq!(enclave.node.rotate(), Err(NodeError::Gpus(NvmlError::Off.into())));
    assert_eq!(enclave.node.current().statement, before, "the old epoch runs on");
    assert_eq!(gpus.ready(), [true, false], "but nothing new may use the GPUs");
    assert!(enclave.attest(Mode::FreshCpuAndGpu).await.is_none());
    assert!(lines().contains("gpus_failed"), "{}", lines());
    assert!(enclave.attest(Mode::FreshCpu).await.is_some());

    gpus.fails.store(false, Ordering::Relaxed);
    assert_eq!(enclave.node.rotate(), Ok(1), "tried again");
    assert_eq!(gpus.ready(), [true, false, true]);

    // Other GPUs than those that the model runs on: no epoch any more.
    assert_eq!(enclave.node.confirm_gpus(), Ok(()));
    gpus.reports.lock().unwrap().pop();
    assert!(enclave.attest(Mode::FreshCpuAndGpu).await.is_none());
    assert_eq!(enclave.node.confirm_gpus(), Err(NodeError::Gpus(GpuError::Changed)));
    assert_eq!(enclave.node.rotate(), Err(NodeError::Gpus(GpuError::Changed)));
    assert_eq!(gpus.ready(), [true, false, true, false]);
}

#[test]
fn evidence_that_is_none_is_no_epoch() {
    let boot = |gpus: &Arc<FakeGpus>| {
        Node::boot_with_gpus(claims(), Arc::new(|| NOW), Some(gpus.clone()))
            .map(drop)
            .unwrap_err()
            .to_string()
    };
    let Some(gpus) = FakeGpus::four() else { return };
    let good = gpus.reports.lock().unwrap().clone();
    let set = |reports: Vec<GpuReport>| *gpus.reports.lock().unwrap() = reports;
    set(vec![good[0].clone(), good[0].clone()]);
    assert!(boot(&gpus).contains("same identity"));
    set(vec![good[0].clone(), GpuReport { report: good[1].report[1..].to_vec(), ..good[1].clone() }]);
    assert!(boot(&gpus).contains("GPU 1: malformed GPU report"));
    set(vec![GpuReport { chain: b"-----BEGIN".to_vec(), ..good[0].clone() }]);
    assert!(boot(&gpus).contains("GPU 0: malformed"));
    let text = String::from_utf8(good[0].chain.clone()).unwrap();
    let leaf = text.split_inclusive("-----END CERTIFICATE-----").next().unwrap();
    set(vec![GpuReport { chain: leaf.as_bytes().to_vec(), ..good[0].clone() }]);
    assert!(boot(&gpus).contains("names no device"));
    assert_eq!(gpus.ready(), [false; 4], "never ready");
}

#[tokio::test]
async fn without_gpus_mode_1_is_as_good_as_mode_0() {
    let Some(kernel) = snp() else { return };
    let (events, _) = log();
    let attester = Arc::new(SnpAttester::tsm(kernel.tsm(), events.clone()));
    let enclave = Enclave::start(attester, None, events);
    let (one, two) = tokio::join!(enclave.attest(Mode::FreshCpuAndGpu), enclave.attest(Mode::FreshCpuAndGpu));
    for evidence in [one.unwrap(), two.unwrap()] {
        let (statement, set, _) = parts(&evidence);
        assert_eq!((set.0.len(), statement.gpu_mode.as_str()), (0, "none"));
        assert_eq!(AttestResponse::decode(&evidence.response).unwrap().size, 2, "they share a report");
    }
}

#[tokio::test]
async fn endorsements_fill_a_response_and_never_overflow_it() {
    let (Some(kernel), Some(gpus)) = (snp(), FakeGpus::four()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bundle");
    let rim = |byte: u8, len| Endorsement { kind: EndorsementKind::NvidiaRim, bytes: vec![byte; len] };
    let mut items: Vec<_> = (0..6).map(|byte| rim(byte, 100_000)).collect();
    items.push(rim(9, 10));
    std::fs::write(&path, EndorsementBundle(items).encode()).unwrap();
    let (events, lines) = log();
    let attester = Arc::new(SnpAttester::tsm(kernel.tsm(), events.clone()));
    let file = Arc::new(EndorsementFile::open(&path, &events).unwrap());
    let enclave = Enclave::start(Arc::new(Stapled::new(attester, file)), Some(gpus), events);
    let evidence = enclave.attest(Mode::FreshCpu).await.unwrap();
    assert!(evidence.response.len() <= MAX_RESPONSE_LEN, "{}", evidence.response.len());
    assert_eq!(parts(&evidence).1.0.len(), 4, "evidence is never left out");
    let mut kept: Vec<usize> = AttestResponse::decode(&evidence.response)
        .unwrap()
        .endorsements
        .iter()
        .filter(|item| item.kind == EndorsementKind::NvidiaRim)
        .map(|item| item.bytes.len())
        .collect();
    kept.sort_unstable();
    assert_eq!(kept, [10, 100_000, 100_000], "a small one behind the large ones is sent");
    assert!(lines().contains("{\"event\":\"endorsements_left_out\",\"count\":4}"), "{}", lines());
}
