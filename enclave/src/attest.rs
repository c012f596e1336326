//! One hardware report for many clients: leaves that wait together share a Merkle root and a report.
//!
//! This is the only code that asks the hardware, and [`ReportData`] is the only thing that it asks to be signed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cocoon_attestation::binding::{
    MAX_TREE_SIZE, leaf_data, leaf_hash, merkle_path, merkle_root, report_data,
};
use cocoon_attestation::wire::{AttestRequest, AttestResponse, EvidenceSet, Mode};
use cocoon_attestation::{Digest, Endorsement};
use cocoon_channel::session::Session;
use tokio::sync::{mpsc, oneshot};

use crate::events::{Event, EventLog};
use crate::node::{Epoch, Node};
use crate::platform::{Attester, PlatformEvidence};

/// How long the first client waits for company.
const WINDOW: Duration = Duration::from_millis(20);

/// A report takes a second on the slowest platform. Hardware that takes longer is treated as failed, and left alone: a client that
/// waits for it is turned away, and the next one starts a new attempt.
pub const REPORT_DEADLINE: Duration = Duration::from_secs(10);

/// Clients that wait for a report; more are turned away at once.
const MAX_WAITING: usize = 4096;

/// What the hardware signs. Only [`AttestationService`] makes one, from leaves: there is no way to have other bytes signed.
#[derive(Debug)]
pub struct ReportData([u8; 64]);

impl ReportData {
    /// The bytes for the report.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 64] {
        &self.0
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
}

/// Handle to the one task that talks to the hardware.
#[derive(Clone, Debug)]
pub struct AttestationService {
    jobs: mpsc::Sender<Job>,
    node_id: Digest,
}

impl AttestationService {
    /// Starts the task.
    pub fn start(attester: Arc<dyn Attester>, node: Arc<Node>, events: EventLog) -> Self {
        let (jobs, waiting) = mpsc::channel(MAX_WAITING);
        let node_id = node.node_id();
        tokio::spawn(Worker { attester, node, events, waiting, deferred: VecDeque::new() }.run());
        Self { jobs, node_id }
    }

    /// Answers an AttestRequest that came over `session`.
    ///
    /// # Errors
    /// [`AttestError`]; the connection is to be closed without a word.
    pub async fn respond(&self, session: &Session, request: &[u8]) -> Result<Vec<u8>, AttestError> {
        let parsed = AttestRequest::decode(request).map_err(|_malformed| AttestError::Malformed)?;
        if parsed.node_id.is_some_and(|wanted| wanted != self.node_id) {
            return Err(AttestError::OtherNode);
        }
        let binding = session.binding(request).map_err(|_no_exporter| AttestError::NoReport)?;
        let leaf = leaf_hash(&leaf_data(&binding, request));
        let (reply, answer) = oneshot::channel();
        let job = Job { leaf, mode: parsed.mode, spki: binding.spki, reply };
        self.jobs.try_send(job).map_err(|_full| AttestError::NoReport)?;
        answer.await.map_err(|_worker_gone| AttestError::NoReport)??.response(&parsed)
    }
}

impl Place {
    fn response(self, request: &AttestRequest) -> Result<Vec<u8>, AttestError> {
        let Self { batch, index } = self;
        let path = merkle_path(&batch.leaves, index).ok_or(AttestError::NoReport)?;
        let is_missing = |item: &&Endorsement| !request.held.contains(&item.digest());
        let endorsements = batch.endorsements.iter().filter(is_missing).cloned().collect();
        let response = AttestResponse {
            statement: batch.epoch.statement.clone(),
            evidence: batch.evidence.clone(),
            index: index as u64,
            size: batch.leaves.len() as u64,
            path,
            endorsements,
            release: None,
        };
        Ok(response.encode())
    }
}

struct Worker {
    attester: Arc<dyn Attester>,
    node: Arc<Node>,
    events: EventLog,
    waiting: mpsc::Receiver<Job>,
    /// Jobs of another mode than the running batch: they come next.
    deferred: VecDeque<Job>,
}

impl Worker {
    async fn run(mut self) {
        let mut under_load = false;
        loop {
            let first = match self.deferred.pop_front() {
                Some(job) => job,
                None => match self.waiting.recv().await {
                    Some(job) => job,
                    None => return,
                },
            };
            if !under_load {
                tokio::time::sleep(WINDOW).await;
            }
            let jobs = self.collect(first);
            self.serve(jobs).await;
            under_load = !self.deferred.is_empty() || !self.waiting.is_empty();
        }
    }

    fn collect(&mut self, first: Job) -> Vec<Job> {
        let mode = first.mode;
        let mut jobs = vec![first];
        let mut rest = std::mem::take(&mut self.deferred);
        while (jobs.len() as u64) < MAX_TREE_SIZE {
            match rest.pop_front().or_else(|| self.waiting.try_recv().ok()) {
                Some(job) if job.mode == mode => jobs.push(job),
                Some(job) => self.deferred.push_back(job),
                None => break,
            }
        }
        self.deferred.append(&mut rest);
        jobs
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
        let evidence = self.report(mode, &epoch, &leaves).await;
        let Some(PlatformEvidence { item, endorsements }) = evidence else {
            self.events.log(&Event::ReportFailed);
            return; // Dropping the jobs tells the clients.
        };
        self.events.log(&Event::Report { leaves: leaves.len() as u64 });
        let batch =
            Arc::new(Batch { epoch, evidence: EvidenceSet::cpu(item).encode(), endorsements, leaves });
        for (index, job) in jobs.into_iter().enumerate() {
            let _gone = job.reply.send(Ok(Place { batch: batch.clone(), index }));
        }
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
