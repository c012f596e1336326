//! One hardware report for many clients: leaves that wait together share a Merkle root and a report.
//!
//! This is the only code that asks the hardware, and [`ReportData`] is the only thing that it asks to be signed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cocoon_attestation::binding::{
    MAX_TREE_SIZE, leaf_data, leaf_hash, merkle_path, merkle_root, report_data,
};
use cocoon_attestation::wire::{AttestRequest, AttestResponse, EvidenceSet, MAX_RESPONSE_LEN, Mode};
use cocoon_attestation::{Digest, Endorsement};
use cocoon_channel::session::Session;
use tokio::sync::{mpsc, oneshot};

use crate::events::{Event, EventLog};
use crate::node::{Epoch, Node};
use crate::platform::{Attester, PlatformEvidence};
use crate::release::ReleaseFile;

/// How long the first client waits for company.
const WINDOW: Duration = Duration::from_millis(20);

/// A report takes a second on the slowest platform. Hardware that takes longer is treated as failed, and left alone: a client that
/// waits for it is turned away, and the next one starts a new attempt.
pub const REPORT_DEADLINE: Duration = Duration::from_secs(10);

/// Reports of GPUs take a second or two each.
const GPU_DEADLINE: Duration = Duration::from_secs(40);

/// Clients that wait for a report; more are turned away at once.
const MAX_WAITING: usize = 4096;

/// Clients that wait for evidence that GPUs make for them alone; more are turned away. Each takes seconds.
const MAX_WAITING_FOR_GPUS: usize = 8;

/// What an AttestResponse has room for.
const MAX_ENDORSEMENTS: usize = 64;

/// What CBOR puts around an endorsement in an AttestResponse: its digest as the key, and the headers of both.
const ENDORSEMENT_OVERHEAD: usize = 34 + 5;

/// What CBOR puts around all of them.
const ENDORSEMENTS_OVERHEAD: usize = 4;

/// What the hardware signs. Only [`AttestationService`] makes one, from leaves: there is no way to have other bytes signed.
#[derive(Debug)]
pub struct ReportData([u8; 64]);

impl ReportData {
    /// The bytes for the report.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 64] {
        &self.0
    }

    #[cfg(test)]
    pub(crate) fn for_test(byte: u8) -> Self {
        Self([byte; 64])
    }
}

/// Why there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttestError {
    /// The request is not one.
    #[error("malformed request")]
    Malformed,
    /// The client wants another node.
    #[error("another node is wanted")]
    OtherNode,
    /// The connection runs on a TLS key that was replaced.
    #[error("the TLS key was replaced: connect again")]
    OldKey,
    /// The hardware gave no report, or too many wait for one.
    #[error("no report")]
    NoReport,
}

/// An answer to an AttestRequest.
#[derive(Debug)]
pub struct Stated {
    /// The encoded AttestResponse.
    pub response: Vec<u8>,
    /// Digest of S in it.
    pub statement: Digest,
}

struct Job {
    leaf: Digest,
    mode: Mode,
    spki: Digest,
    reply: oneshot::Sender<Result<Place, AttestError>>,
}

/// A client's place in a batch.
struct Place {
    batch: Arc<Batch>,
    index: usize,
}

struct Batch {
    epoch: Arc<Epoch>,
    evidence: Vec<u8>,
    endorsements: Vec<Endorsement>,
    leaves: Vec<Digest>,
    /// Whether it was logged that endorsements do not fit.
    too_many: AtomicBool,
}

/// Handle to the one task that talks to the hardware.
#[derive(Clone, Debug)]
pub struct AttestationService {
    jobs: mpsc::Sender<Job>,
    node_id: Digest,
    events: EventLog,
    release: Option<Arc<ReleaseFile>>,
}

impl AttestationService {
    /// Starts the task.
    pub fn start(attester: Arc<dyn Attester>, node: Arc<Node>, events: EventLog) -> Self {
        let (jobs, waiting) = mpsc::channel(MAX_WAITING);
        let node_id = node.node_id();
        let log = events.clone();
        tokio::spawn(Worker { attester, node, events, waiting, queues: Queues::default() }.run());
        Self { jobs, node_id, events: log, release: None }
    }

    /// The same, with a release that every response carries. It must be the one that S names.
    #[must_use]
    pub fn with_release(self, release: Option<Arc<ReleaseFile>>) -> Self {
        Self { release, ..self }
    }

    /// Answers an AttestRequest that came over `session`.
    ///
    /// # Errors
    /// [`AttestError`]; the connection is to be closed without a word.
    pub async fn respond(&self, session: &Session, request: &[u8]) -> Result<Stated, AttestError> {
        let parsed = AttestRequest::decode(request).map_err(|_malformed| AttestError::Malformed)?;
        if parsed.node_id.is_some_and(|wanted| wanted != self.node_id) {
            return Err(AttestError::OtherNode);
        }
        let binding = session.binding(request).map_err(|_no_exporter| AttestError::NoReport)?;
        let leaf = leaf_hash(&leaf_data(&binding, request));
        let (reply, answer) = oneshot::channel();
        let job = Job { leaf, mode: parsed.mode, spki: binding.spki, reply };
        self.jobs.try_send(job).map_err(|_full| AttestError::NoReport)?;
        let release = self.release.as_ref().map(|release| release.bytes().to_vec());
        let place = answer.await.map_err(|_worker_gone| AttestError::NoReport)??;
        place.response(&parsed, release, &self.events)
    }
}

impl Place {
    fn response(
        self,
        request: &AttestRequest,
        release: Option<Vec<u8>>,
        events: &EventLog,
    ) -> Result<Stated, AttestError> {
        let Self { batch, index } = self;
        let path = merkle_path(&batch.leaves, index).ok_or(AttestError::NoReport)?;
        let mut response = AttestResponse {
            statement: batch.epoch.statement.clone(),
            evidence: batch.evidence.clone(),
            index: index as u64,
            size: batch.leaves.len() as u64,
            path,
            endorsements: Vec::new(),
            release,
        };
        let room = MAX_RESPONSE_LEN.saturating_sub(response.encode().len() + ENDORSEMENTS_OVERHEAD);
        let is_missing = |item: &&Endorsement| !request.held.contains(&item.digest());
        let (fitting, left_out) = fit(batch.endorsements.iter().filter(is_missing), room);
        if left_out > 0 && !batch.too_many.swap(true, Ordering::Relaxed) {
            events.log(&Event::EndorsementsLeftOut { count: left_out });
        }
        response.endorsements = fitting;
        Ok(Stated { response: response.encode(), statement: Digest::of(&response.statement) })
    }
}

/// Those that fit into `room` bytes of an AttestResponse, in order, and how many do not. A large one does not push out small ones
/// behind it.
fn fit<'a>(items: impl Iterator<Item = &'a Endorsement>, mut room: usize) -> (Vec<Endorsement>, u64) {
    let (mut fitting, mut left_out) = (Vec::new(), 0);
    for item in items {
        let len = item.encode().len() + ENDORSEMENT_OVERHEAD;
        match room.checked_sub(len) {
            Some(rest) if fitting.len() < MAX_ENDORSEMENTS => {
                room = rest;
                fitting.push(item.clone());
            }
            _ => left_out += 1,
        }
    }
    (fitting, left_out)
}

/// Jobs that came and were not served yet.
#[derive(Default)]
struct Queues {
    /// Those that share a report with others of their mode.
    shared: VecDeque<Job>,
    /// Those for each of which the GPUs make evidence.
    alone: VecDeque<Job>,
    /// Whether one of `alone` was served last: then it is the others' turn.
    was_alone: bool,
}

impl Queues {
    fn push(&mut self, job: Job, has_gpus: bool) {
        if job.mode != Mode::FreshCpuAndGpu || !has_gpus {
            self.shared.push_back(job);
        } else if self.alone.len() < MAX_WAITING_FOR_GPUS {
            self.alone.push_back(job);
        } else {
            let _gone = job.reply.send(Err(AttestError::NoReport));
        }
    }

    fn is_empty(&self) -> bool {
        self.shared.is_empty() && self.alone.is_empty()
    }

    /// A job that wants the GPUs, or as many as share a report. Both kinds take turns.
    fn next(&mut self) -> Vec<Job> {
        if (!self.was_alone || self.shared.is_empty())
            && let Some(job) = self.alone.pop_front()
        {
            self.was_alone = true;
            return vec![job];
        }
        self.was_alone = false;
        let Some(mode) = self.shared.front().map(|job| job.mode) else { return Vec::new() };
        let (mut jobs, mut others) = (Vec::new(), VecDeque::new());
        for job in std::mem::take(&mut self.shared) {
            let fits = job.mode == mode && (jobs.len() as u64) < MAX_TREE_SIZE;
            if fits { jobs.push(job) } else { others.push_back(job) }
        }
        self.shared = others;
        jobs
    }
}

impl Batch {
    /// The processor's evidence with that of the GPUs which S names.
    fn new(epoch: Arc<Epoch>, evidence: PlatformEvidence, leaves: Vec<Digest>) -> Self {
        let PlatformEvidence { item, endorsements } = evidence;
        let mut set = EvidenceSet::cpu(item);
        if let Some(gpus) = &epoch.gpus {
            set.0.extend(gpus.evidence().0.clone());
        }
        Self { epoch, evidence: set.encode(), endorsements, leaves, too_many: AtomicBool::new(false) }
    }
}

struct Worker {
    attester: Arc<dyn Attester>,
    node: Arc<Node>,
    events: EventLog,
    waiting: mpsc::Receiver<Job>,
    queues: Queues,
}

impl Worker {
    async fn run(mut self) {
        let mut under_load = false;
        let has_gpus = self.node.has_gpus();
        loop {
            if self.queues.is_empty() {
                match self.waiting.recv().await {
                    Some(job) => self.queues.push(job, has_gpus),
                    None => return,
                }
            }
            if !under_load {
                tokio::time::sleep(WINDOW).await;
            }
            while let Ok(job) = self.waiting.try_recv() {
                self.queues.push(job, has_gpus);
            }
            let jobs = self.queues.next();
            self.serve(jobs).await;
            under_load = !self.queues.is_empty() || !self.waiting.is_empty();
        }
    }

    async fn serve(&self, jobs: Vec<Job>) {
        let epoch = self.node.current();
        let (mut jobs, old): (Vec<Job>, Vec<Job>) =
            jobs.into_iter().partition(|job| job.spki == epoch.identity.spki());
        for job in old {
            let _gone = job.reply.send(Err(AttestError::OldKey));
        }
        // Clients that gave up meanwhile cost nothing.
        jobs.retain(|job| !job.reply.is_closed());
        let Some(mode) = jobs.first().map(|job| job.mode) else { return };
        let leaves: Vec<Digest> = jobs.iter().map(|job| job.leaf).collect();
        let Some(epoch) = self.with_gpus(mode, epoch, &leaves).await else {
            self.events.log(&Event::GpusFailed);
            return; // Dropping the jobs tells the clients.
        };
        let Some(evidence) = self.report(mode, &epoch, &leaves).await else {
            self.events.log(&Event::ReportFailed);
            return;
        };
        self.events.log(&Event::Report { leaves: leaves.len() as u64 });
        let batch = Arc::new(Batch::new(epoch, evidence, leaves));
        for (index, job) in jobs.into_iter().enumerate() {
            let _gone = job.reply.send(Ok(Place { batch: batch.clone(), index }));
        }
    }

    /// The epoch that is signed: in mode 1 with evidence that the GPUs make for this client.
    async fn with_gpus(&self, mode: Mode, epoch: Arc<Epoch>, leaves: &[Digest]) -> Option<Arc<Epoch>> {
        let ([leaf], Mode::FreshCpuAndGpu, true) = (leaves, mode, self.node.has_gpus()) else {
            return Some(epoch);
        };
        let (node, leaf) = (self.node.clone(), *leaf);
        let fresh = tokio::task::spawn_blocking(move || node.fresh(&epoch, leaf));
        tokio::time::timeout(GPU_DEADLINE, fresh).await.ok()?.ok()?.ok().map(Arc::new)
    }

    async fn report(&self, mode: Mode, epoch: &Epoch, leaves: &[Digest]) -> Option<PlatformEvidence> {
        let root = merkle_root(leaves)?;
        let size = u32::try_from(leaves.len()).ok()?;
        let data = ReportData(report_data(mode, &epoch.statement, root, size));
        let attester = self.attester.clone();
        let report = tokio::task::spawn_blocking(move || attester.attest(&data));
        tokio::time::timeout(REPORT_DEADLINE, report).await.ok()?.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use cocoon_attestation::EndorsementKind;

    use super::*;

    fn item(byte: u8, len: usize) -> Endorsement {
        Endorsement { kind: EndorsementKind::NvidiaRim, bytes: vec![byte; len] }
    }

    fn response(endorsements: Vec<Endorsement>) -> AttestResponse {
        AttestResponse {
            statement: vec![1; 500],
            evidence: vec![2; 9000],
            index: 0,
            size: 1,
            path: Vec::new(),
            endorsements,
            release: None,
        }
    }

    /// The largest that CBOR can make of the sizes around the lengths at which its headers grow.
    #[test]
    fn what_fits_is_what_fits() {
        let empty = response(Vec::new()).encode().len();
        for len in [1, 22, 23, 24, 250, 255, 256, 3000, 65_000, 65_535, 65_536, 100_000] {
            for count in [1_u8, 2, 23, 24, 64] {
                let items: Vec<_> = (0..count).map(|byte| item(byte, len)).collect();
                let whole = response(items.clone()).encode().len();
                let room = |total: usize| total.saturating_sub(empty + ENDORSEMENTS_OVERHEAD);
                // Never more than there is room for ..
                let (fitting, _) = fit(items.iter(), room(whole - 1));
                assert!(response(fitting).encode().len() < whole, "{count} of {len}");
                // .. and, with some bytes to spare for each, all.
                let spare = 8 * usize::from(count) + 8;
                assert_eq!(fit(items.iter(), room(whole + spare)), (items, 0), "{count} of {len}");
            }
        }
        let many: Vec<_> = (0..=64).map(|byte| item(byte, 1)).collect();
        let (fitting, left_out) = fit(many.iter(), 1 << 20);
        assert_eq!((fitting.len(), left_out), (MAX_ENDORSEMENTS, 1));
    }

    fn job(mode: Mode) -> (Job, oneshot::Receiver<Result<Place, AttestError>>) {
        let (reply, answer) = oneshot::channel();
        (Job { leaf: Digest([0; 32]), mode, spki: Digest([0; 32]), reply }, answer)
    }

    #[test]
    fn clients_of_gpus_and_others_take_turns() {
        let mut queues = Queues::default();
        let mut answers = Vec::new();
        for mode in [Mode::FreshCpuAndGpu, Mode::FreshCpu, Mode::FreshCpuAndGpu, Mode::FreshCpu] {
            let (job, answer) = job(mode);
            queues.push(job, true);
            answers.push(answer);
        }
        let mut next = || queues.next().iter().map(|job| job.mode).collect::<Vec<_>>();
        assert_eq!(next(), [Mode::FreshCpuAndGpu]);
        assert_eq!(next(), [Mode::FreshCpu; 2]);
        assert_eq!(next(), [Mode::FreshCpuAndGpu]);
        assert!(next().is_empty() && queues.is_empty());
    }

    #[test]
    fn few_wait_for_gpus_and_modes_do_not_mix() {
        let mut queues = Queues::default();
        let mut answers: Vec<_> = (0..=MAX_WAITING_FOR_GPUS)
            .map(|_| {
                let (job, answer) = job(Mode::FreshCpuAndGpu);
                queues.push(job, true);
                answer
            })
            .collect();
        let mut last = answers.pop().unwrap();
        assert!(matches!(last.try_recv(), Ok(Err(AttestError::NoReport))), "one too many is told so");
        assert!(answers.iter_mut().all(|answer| answer.try_recv().is_err()));
        // Without GPUs both modes are cheap, and are signed apart.
        let mut queues = Queues::default();
        let modes = [Mode::FreshCpu, Mode::FreshCpuAndGpu, Mode::FreshCpu];
        let _answers: Vec<_> = modes
            .map(|mode| {
                let (job, answer) = job(mode);
                queues.push(job, false);
                answer
            })
            .into();
        assert_eq!((queues.next().len(), queues.next().len(), queues.next().len()), (2, 1, 0));
    }
}
