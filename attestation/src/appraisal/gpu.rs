//! Evidence of the GPUs, and how it is tied to the statement S.

use std::collections::BTreeMap;

use crate::binding::gpu_nonce;
use crate::nvidia::{self, Authenticity, GpuEvidence, NVIDIA_GPU_MEDIA_TYPE};
use crate::policy::Policy;
use crate::result::{Claim, Factor};
use crate::wire::{EpochStatement, EvidenceItem, EvidenceSet, Mode};
use crate::{Context, Digest, Endorsement, Error};

/// Parsed evidence of all GPUs, with what was given to verify it.
#[derive(Clone, Debug)]
pub(super) struct Gpus {
    /// By label.
    each: Vec<(String, GpuEvidence)>,
    /// Of the collection without the CPU; `None` without GPUs.
    digest: Option<Digest>,
    given: nvidia::Endorsements,
}

impl Gpus {
    /// From a collection without its CPU.
    pub(super) fn parse(set: BTreeMap<String, EvidenceItem>, given: &[Endorsement]) -> Result<Self, Error> {
        let set = EvidenceSet(set);
        let digest = (!set.0.is_empty()).then(|| Digest::of(&set.encode()));
        let each = set.0.into_iter().map(|(label, item)| {
            if item.media_type != NVIDIA_GPU_MEDIA_TYPE {
                return Err(Error::malformed(
                    "evidence collection",
                    "GPU evidence of a type that is not known",
                ));
            }
            Ok((label, GpuEvidence::decode(&item.bytes)?))
        });
        Ok(Self {
            each: each.collect::<Result<_, _>>()?,
            digest,
            given: nvidia::Endorsements::from_stapled(given)?,
        })
    }

    /// Signatures and chains of each.
    pub(super) fn authenticate(&self, policy: &Policy, ctx: Context<'_>) -> Vec<Authenticity> {
        let anchors = &policy.anchors.nvidia;
        self.each.iter().map(|(_, gpu)| nvidia::authenticate(gpu, &self.given, anchors, ctx)).collect()
    }

    /// Every factor: who signed, is it bound to S, and the rows of the policy. `leaf`: this session's, `None` where there is none.
    pub(super) fn factors(
        &self,
        who: &[Authenticity],
        statement: &EpochStatement,
        session: Option<(Mode, Digest)>,
        policy: &Policy,
    ) -> Vec<Factor> {
        let Some(rows) = &policy.nvidia else {
            let help = "the policy has no section for this kind of evidence";
            let want = "no GPU: the policy has no section [nvidia]";
            let refuse = || Factor::fail("evidence.platform", "nvidia", want, help);
            let none = self.each.is_empty() && statement.gpu_evidence.is_none();
            return if none { Vec::new() } else { vec![refuse()] };
        };
        let mut out = self.bound(who, statement);
        for ((label, gpu), who) in self.each.iter().zip(who) {
            let mut own = who.factors.clone();
            own.extend(session.map(|session| nonce_source(gpu, session)));
            let nonce = gpu_nonce(statement.boot_id, statement.epoch, statement.spki, gpu.x);
            own.extend(nvidia::appraise(gpu, who, Some(nonce.0), rows));
            own.extend(policy.platform.gpu_factors(&who.ueid));
            out.extend(own.into_iter().map(|factor| labelled(factor, label, self.each.len())));
        }
        let ueids: Vec<&str> = who.iter().map(|who| who.ueid.as_str()).collect();
        out.extend(nvidia::appraise_all(&ueids, rows));
        out
    }

    /// What S says about the GPUs is what their evidence says.
    fn bound(&self, who: &[Authenticity], statement: &EpochStatement) -> Vec<Factor> {
        let shown = |digest: Option<Digest>| digest.map_or("none".to_owned(), |digest| digest.to_string());
        let (got, want) = (shown(self.digest), shown(statement.gpu_evidence));
        let help = "the evidence of these GPUs was not made for this enclave";
        let evidence = Factor::of("nvidia.evidence", self.digest == statement.gpu_evidence, got, want, help);
        let own: Vec<String> = who.iter().map(|who| who.ueid.clone()).collect();
        let stated: Vec<String> = statement.gpu_ids.iter().map(hex::encode).collect();
        let help = "the enclave states other GPUs than those that attest";
        let ids = Factor::of("nvidia.ids", own == stated, list(&own), list(&stated), help);
        vec![evidence, ids]
    }

    pub(super) fn claims(&self, who: &[Authenticity]) -> BTreeMap<&'static str, Claim> {
        if self.each.is_empty() {
            return BTreeMap::new();
        }
        BTreeMap::from([("gpu_ueids", Claim::List(who.iter().map(|who| who.ueid.clone()).collect()))])
    }
}

/// In mode 1 the nonce is of this session; in mode 0 it is of the epoch, and any 32 bytes will do.
fn nonce_source(gpu: &GpuEvidence, (mode, leaf): (Mode, Digest)) -> Factor {
    let help = "fresh evidence was asked for, and older one was sent";
    match mode {
        Mode::FreshCpu => Factor::pass("nvidia.freshness", "of this epoch"),
        Mode::FreshCpuAndGpu => {
            let fresh = gpu.x == leaf.0;
            Factor::of(
                "nvidia.freshness",
                fresh,
                if fresh { "of this session" } else { "of another" },
                "of this session",
                help,
            )
        }
    }
}

fn list(ids: &[String]) -> String {
    if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
}

/// With several GPUs, each factor says whose it is.
fn labelled(factor: Factor, label: &str, count: usize) -> Factor {
    if count < 2 {
        return factor;
    }
    let got = factor.got.as_deref().unwrap_or("-");
    Factor { got: Some(format!("{label}: {got}")), ..factor }
}
