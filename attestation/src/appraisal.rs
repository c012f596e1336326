//! The pipeline: `RawEvidence -> Evidence -> AuthenticEvidence -> AttestationResult`.

mod claims;
mod cpu;
mod gpu;
pub mod inspect;
mod policy;
#[cfg(test)]
mod tests;

use self::cpu::{Cpu, Who};
use self::gpu::Gpus;
use crate::binding::{ChannelBinding, leaf_data, leaf_hash, report_data, root_from_path};
use crate::policy::Policy;
use crate::release::{self, ReleaseBundle};
use crate::result::{AttestationResult, Factor, Rejection, Report, none_failed};
use crate::wire::{AttestRequest, AttestResponse, EpochStatement, EvidenceSet};
use crate::{Context, Digest, Error, Missing, SignatureCache, UnixTime, nvidia};

/// What a client sent, what it got, and the session it happened on. Nothing was looked at yet.
#[derive(Clone, Debug)]
pub struct RawEvidence {
    /// The AttestRequest as it was sent.
    pub request: Vec<u8>,
    /// The AttestResponse as it was received.
    pub response: Vec<u8>,
    /// This session, as the client sees it: mandatory, because evidence that is not bound to it proves nothing.
    pub channel: ChannelBinding,
}

/// Parsed and well-formed; not yet authentic.
#[derive(Clone, Debug)]
pub struct Evidence {
    request: AttestRequest,
    statement: EpochStatement,
    cpu: Cpu,
    gpus: Gpus,
    /// What vouches for the release that the statement names.
    release: Option<ReleaseBundle>,
    channel: ChannelBinding,
    /// This session's, from which REPORT_DATA follows.
    leaf: Digest,
    /// What the hardware must have signed for this session; `None` when the Merkle path leads nowhere.
    expected_report_data: Option<[u8; 64]>,
}

/// Signatures and chains hold, under the anchors of this policy and at this time.
#[derive(Clone, Debug)]
pub struct AuthenticEvidence<'a> {
    evidence: Evidence,
    who: Signers,
    policy: &'a Policy,
    now: UnixTime,
}

/// Who signed the evidence of each device.
#[derive(Clone, Debug)]
struct Signers {
    cpu: Who,
    gpus: Vec<nvidia::Authenticity>,
    /// Not part of `authentic`: whose word counts for releases is the policy's.
    release: release::Appraised,
    /// `None`: all signatures were looked at.
    budget: Option<Factor>,
}

impl Signers {
    fn are_authentic(&self) -> bool {
        self.budget.is_none()
            && self.cpu.is_authentic()
            && self.gpus.iter().all(nvidia::Authenticity::is_authentic)
    }
}

impl RawEvidence {
    /// Parses request, response, S, evidence and report.
    ///
    /// # Errors
    /// `Malformed`, saying which structure is not as specified.
    pub fn parse(self) -> Result<Evidence, Error> {
        let request = AttestRequest::decode(&self.request)?;
        let response = AttestResponse::decode(&self.response)?;
        let statement = EpochStatement::decode(&response.statement)?;
        let leaf = leaf_hash(&leaf_data(&self.channel, &self.request));
        let expected_report_data = root_from_path(leaf, response.index, response.size, &response.path)
            .zip(u32::try_from(response.size).ok())
            .map(|(root, size)| report_data(request.mode, &response.statement, root, size));
        let release = response.release.as_deref().map(ReleaseBundle::decode).transpose()?;
        let (cpu, gpus) = devices(&response)?;
        let channel = self.channel;
        Ok(Evidence { cpu, gpus, release, leaf, channel, request, statement, expected_report_data })
    }

    /// All steps at once.
    ///
    /// # Errors
    /// [`Refusal`]: malformed bytes, or a rejection with every factor.
    pub fn verify(
        self,
        policy: &Policy,
        now: UnixTime,
        signatures: &SignatureCache,
    ) -> Result<AttestationResult, Refusal> {
        Ok(self.parse()?.authenticate(policy, now, signatures)?.appraise()?)
    }
}

impl Evidence {
    /// Verifies signatures and chains.
    ///
    /// # Errors
    /// A rejection that reports the factors of authenticity and, for information, what the policy says of the rest.
    pub fn authenticate<'a>(
        self,
        policy: &'a Policy,
        now: UnixTime,
        signatures: &SignatureCache,
    ) -> Result<AuthenticEvidence<'a>, Rejection> {
        let signatures = &signatures.for_one_appraisal();
        let ctx = Context { now, missing: Missing::Fails, signatures };
        let (cpu, gpus) = (self.cpu.authenticate(policy, ctx), self.gpus.authenticate(policy, ctx));
        let (bundle, accepted) = (self.release.as_ref(), policy.release.as_ref());
        let release = release::appraise(bundle, self.statement.release, accepted, ctx);
        let who = Signers { cpu, gpus, release, budget: ctx.budget_factor() };
        if who.are_authentic() {
            return Ok(AuthenticEvidence { evidence: self, who, policy, now });
        }
        let factors = self.factors(&who, policy, now);
        Err(Rejection { report: Box::new(self.report(&who, false, factors)) })
    }

    fn factors(&self, who: &Signers, policy: &Policy, now: UnixTime) -> Vec<Factor> {
        let mut factors = who.cpu.factors().to_vec();
        factors.extend(who.budget.clone());
        factors.extend(policy::factors(self, who, policy, now));
        let session = Some((self.request.mode, self.leaf));
        factors.extend(self.gpus.factors(&who.gpus, &self.statement, session, policy));
        factors
    }

    fn report(&self, who: &Signers, accepted: bool, factors: Vec<Factor>) -> Report {
        let mut claims = self.cpu.claims(&who.cpu);
        claims.extend(self.gpus.claims(&who.gpus));
        claims.extend(claims::of(&self.statement));
        claims.extend(who.release.verified().into_iter().flat_map(claims::of_release));
        Report {
            platform: self.cpu.platform(),
            product: who.cpu.product(),
            authentic: who.are_authentic(),
            accepted,
            factors,
            claims,
        }
    }
}

impl AuthenticEvidence<'_> {
    /// Applies the policy, row by row.
    ///
    /// # Errors
    /// A rejection with every factor.
    pub fn appraise(self) -> Result<AttestationResult, Rejection> {
        let factors = self.evidence.factors(&self.who, self.policy, self.now);
        let accepted = none_failed(&factors);
        let report = self.evidence.report(&self.who, accepted, factors);
        if !accepted {
            return Err(Rejection { report: Box::new(report) });
        }
        Ok(AttestationResult { report, statement: self.evidence.statement })
    }
}

/// The evidence of each device in a response.
fn devices(response: &AttestResponse) -> Result<(Cpu, Gpus), Error> {
    let mut evidence = EvidenceSet::decode(&response.evidence)?;
    let cpu = evidence
        .0
        .remove("cpu")
        .ok_or_else(|| Error::malformed("evidence collection", "no evidence of a CPU"))?;
    let gpus = Gpus::parse(evidence.0, &response.endorsements)?;
    Ok((Cpu::parse(&cpu, &response.endorsements)?, gpus))
}

/// Why [`RawEvidence::verify`] did not accept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The bytes are not what the specification says.
    #[error(transparent)]
    Malformed(#[from] Error),
    /// Well-formed, but not authentic or not what the policy accepts.
    #[error(transparent)]
    Rejected(#[from] Rejection),
}
