//! A machine with all its hardware, and an attacker on the way from it to the client.

use std::collections::BTreeMap;

use super::snp::{MEASUREMENT, Processor};
use crate::appraisal::{RawEvidence, Refusal};
use crate::binding::{ChannelBinding, Role, gpu_nonce, leaf_data, leaf_hash, report_data};
use crate::nvidia::NVIDIA_GPU_MEDIA_TYPE;
use crate::nvidia::tests::factory::{Factory as Gpu, NOW};
use crate::policy::{Policy, strict};
use crate::result::{AttestationResult, Report, Status};
use crate::tdx::tests::factory::{Case, at};
use crate::wire::{
    AttestRequest, AttestResponse, EpochStatement, EvidenceItem, EvidenceSet, Mode, PrivacyFlags,
    SNP_REPORT_MEDIA_TYPE, TDX_QUOTE_MEDIA_TYPE,
};
use crate::{Digest, Endorsement, EndorsementKind, SignatureCache, UnixTime, tdx};

pub(super) const MODEL: Digest = Digest([0x11; 32]);
pub(super) const CONFIG: Digest = Digest([0x22; 32]);

pub(super) fn now() -> UnixTime {
    NOW.parse().unwrap()
}

pub(super) enum Cpu {
    Snp(Box<Processor>),
    Tdx(Box<Case>),
}

/// An enclave with its hardware.
pub(super) struct Machine {
    pub(super) cpu: Cpu,
    pub(super) gpus: Vec<Gpu>,
}

/// What an attacker changes on the way from hardware to client. The defaults change nothing.
pub(super) struct Change<'a> {
    /// What S says, before it is signed.
    pub(super) statement: &'a dyn Fn(&mut EpochStatement),
    /// What the nonces of the GPUs are made from: `None` for the leaf.
    pub(super) x: Option<[u8; 32]>,
    /// Which machine's evidence is sent for the GPUs.
    pub(super) sent: Option<&'a Machine>,
    /// What is sent beside S, after it was signed.
    pub(super) response: &'a dyn Fn(&mut AttestResponse),
}

impl Default for Change<'_> {
    fn default() -> Self {
        Self { statement: &|_| {}, x: Some([0x77; 32]), sent: None, response: &|_| {} }
    }
}

impl Machine {
    pub(super) fn snp(gpus: usize) -> Self {
        Self { cpu: Cpu::Snp(Box::new(Processor::new())), gpus: gpus_of_one_vendor(gpus) }
    }

    pub(super) fn tdx(gpus: usize) -> Self {
        let mut case = Case::new(5);
        for document in [&mut case.tcb_info, &mut case.qe_identity] {
            document["nextUpdate"] = "2026-12-01T00:00:00Z".into();
        }
        Self { cpu: Cpu::Tdx(Box::new(case)), gpus: gpus_of_one_vendor(gpus) }
    }

    /// The same machine with other GPUs of the same vendor: what a host with several of them has.
    pub(super) fn beside(&self) -> Self {
        let gpus = self.gpus.iter().map(Gpu::another).collect();
        Self { cpu: Cpu::Snp(Box::new(Processor::new())), gpus }
    }

    /// The strict policy for this machine's vendors, with reference values.
    pub(super) fn policy(&self) -> Policy {
        let mut text = strict();
        let rows = [
            ("measurement", format!("\"{}\"", hex::encode(MEASUREMENT))),
            ("mr_td", format!("\"{}\"", "44".repeat(48))),
            ("model", format!("\"{MODEL}\"")),
            ("config", format!("\"{CONFIG}\"")),
            ("gpu_mode", "\"on\"".to_owned()),
            ("count", self.gpus.len().to_string()),
        ];
        for (row, value) in rows {
            let old = text.lines().find(|line| line.starts_with(&format!("{row} = "))).unwrap().to_owned();
            text = text.replace(&old, &format!("{row} = {{ exactly = {value} }}"));
        }
        let mut policy = Policy::from_toml(&text).unwrap();
        match &self.cpu {
            Cpu::Snp(processor) => {
                let root = crate::snp::Root::InsecureSimulated(Box::new(processor.root()));
                policy.snp.as_mut().unwrap().root = root;
            }
            Cpu::Tdx(case) => policy.anchors.intel = case.anchor(),
        }
        if let Some(gpu) = self.gpus.first() {
            policy.anchors.nvidia = gpu.anchors();
        }
        policy
    }

    /// What the driver of this machine collects for an enclave that states `statement`.
    pub(super) fn evidence_of_gpus(&self, statement: &EpochStatement, x: [u8; 32]) -> EvidenceSet {
        let nonce = gpu_nonce(statement.boot_id, statement.epoch, statement.spki, x);
        let evidence = |gpu: &Gpu| {
            let report = gpu.report(|parts| parts.request[4..36].copy_from_slice(&nonce.0));
            crate::nvidia::GpuEvidence { x, ..gpu.gpu(&report) }.encode()
        };
        // In the order of the labels as text, as an enclave labels them.
        let mut labels: Vec<_> = (0..self.gpus.len()).map(|n| format!("gpu{n}")).collect();
        labels.sort_unstable();
        let items = labels.into_iter().zip(&self.gpus).map(|(label, gpu)| {
            let item = EvidenceItem { media_type: NVIDIA_GPU_MEDIA_TYPE.to_owned(), bytes: evidence(gpu) };
            (label, item)
        });
        EvidenceSet(items.collect())
    }

    pub(super) fn endorsements(&self) -> Vec<Endorsement> {
        let of_cpu = match &self.cpu {
            Cpu::Snp(processor) => processor.endorsements(),
            Cpu::Tdx(case) => case.endorsements(),
        };
        [of_cpu, self.endorsements_of_gpus()].concat()
    }

    pub(super) fn endorsements_of_gpus(&self) -> Vec<Endorsement> {
        let mut out = Vec::new();
        let item = |kind| move |bytes| Endorsement { kind, bytes };
        let rims = self.gpus.first().map(Gpu::rims).unwrap_or_default();
        out.extend(rims.into_iter().map(item(EndorsementKind::NvidiaRim)));
        for (n, gpu) in self.gpus.iter().enumerate() {
            // Those about the manifests' signers are the same for all.
            let responses = gpu.responses().into_iter().take(if n == 0 { 4 } else { 2 });
            out.extend(responses.map(item(EndorsementKind::NvidiaOcsp)));
        }
        out
    }

    /// What the processor signs over `data`.
    pub(super) fn sign(&mut self, data: &[u8; 64]) -> EvidenceItem {
        let (media_type, bytes) = match &mut self.cpu {
            Cpu::Snp(processor) => (SNP_REPORT_MEDIA_TYPE, processor.report(data)),
            Cpu::Tdx(case) => {
                case.set(520, data);
                case.set(at::RTMR0 + 3 * 48, &tdx::expected_rtmr3(&CONFIG, &[MODEL]));
                (TDX_QUOTE_MEDIA_TYPE, case.quote())
            }
        };
        EvidenceItem { media_type: media_type.to_owned(), bytes }
    }

    /// A session in `mode` with this machine, over which an attacker changes what it can.
    pub(super) fn session(&mut self, mode: Mode, change: &Change<'_>) -> RawEvidence {
        let channel = ChannelBinding {
            role: Role::Enclave,
            cipher_suite: 0x1301,
            named_group: 0x11ec,
            spki: Digest([0x66; 32]),
            peer_spki: None,
            exported: [0x55; 32],
        };
        let request = AttestRequest { nonce: [9; 32], mode, node_id: None, held: Vec::new() }.encode();
        let leaf = leaf_hash(&leaf_data(&channel, &request));
        let mut statement = statement(channel.spki);
        let x = change.x.unwrap_or(leaf.0);
        let gpus = self.evidence_of_gpus(&statement, x);
        statement.gpu_evidence = (!gpus.0.is_empty()).then(|| Digest::of(&gpus.encode()));
        statement.gpu_ids = self.gpus.iter().map(|gpu| gpu.boot_rom.certificate.serial().to_vec()).collect();
        if self.gpus.is_empty() {
            statement.gpu_mode = "none".to_owned();
        }
        (change.statement)(&mut statement);
        let sent = change.sent.map_or(gpus, |other| other.evidence_of_gpus(&statement, x));
        let statement = statement.encode();
        let cpu = self.sign(&report_data(mode, &statement, leaf, 1));
        let evidence: BTreeMap<_, _> = sent.0.into_iter().chain([("cpu".to_owned(), cpu)]).collect();
        let mut response = AttestResponse {
            statement,
            evidence: EvidenceSet(evidence).encode(),
            index: 0,
            size: 1,
            path: Vec::new(),
            endorsements: [
                self.endorsements(),
                change.sent.map(Machine::endorsements_of_gpus).unwrap_or_default(),
            ]
            .concat(),
            release: None,
        };
        (change.response)(&mut response);
        RawEvidence { request, response: response.encode(), channel }
    }

    pub(super) fn verify(&mut self, mode: Mode, change: &Change<'_>) -> Result<AttestationResult, Report> {
        let policy = self.policy();
        self.verify_by(&policy, mode, change)
    }

    pub(super) fn verify_by(
        &mut self,
        policy: &Policy,
        mode: Mode,
        change: &Change<'_>,
    ) -> Result<AttestationResult, Report> {
        match self.session(mode, change).verify(policy, now(), &SignatureCache::new()) {
            Ok(result) => Ok(result),
            Err(Refusal::Rejected(rejection)) => Err(*rejection.report),
            Err(Refusal::Malformed(error)) => panic!("{error}"),
        }
    }

    /// Names of the factors that failed.
    pub(super) fn failed(&mut self, mode: Mode, change: &Change<'_>) -> Vec<&'static str> {
        failed(&self.verify(mode, change).unwrap_err())
    }
}

pub(super) fn gpus_of_one_vendor(count: usize) -> Vec<Gpu> {
    let first = Gpu::new();
    let others: Vec<_> = (1..count).map(|_| first.another()).collect();
    if count == 0 { Vec::new() } else { std::iter::once(first).chain(others).collect() }
}

pub(super) fn failed(report: &Report) -> Vec<&'static str> {
    report.factors.iter().filter(|f| f.status == Status::Fail).map(|f| f.name).collect()
}

pub(super) fn statement(spki: Digest) -> EpochStatement {
    EpochStatement {
        boot_id: [1; 16],
        epoch: 3,
        not_before: now(),
        not_after: UnixTime(now().0 + 3600),
        node_id: Digest([5; 32]),
        spki,
        receipt_key: [7; 32],
        gpu_evidence: None,
        gpu_ids: Vec::new(),
        gpu_mode: "on".to_owned(),
        models: vec![MODEL],
        config: CONFIG,
        release: Digest([0; 32]),
        privacy: PrivacyFlags { padding: 1, content_logged: 0, shared_prefix_cache: 0 },
    }
}
