//! The pipeline: `RawEvidence -> Evidence -> AuthenticEvidence -> AttestationResult`.

mod authenticate;
mod claims;
mod policy;

use crate::binding::{ChannelBinding, leaf_data, leaf_hash, report_data, root_from_path};
use crate::policy::Policy;
use crate::result::{AttestationResult, Factor, Rejection, Report};
use crate::snp;
use crate::wire::{AttestRequest, AttestResponse, EpochStatement, EvidenceSet, SNP_REPORT_MEDIA_TYPE};
use crate::{Error, UnixTime};

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
    report: snp::Report,
    endorsements: Vec<Vec<u8>>,
    channel: ChannelBinding,
    /// What the hardware must have signed for this session; `None` when the Merkle path leads nowhere.
    expected_report_data: Option<[u8; 64]>,
}

/// Signatures and chains hold.
#[derive(Clone, Debug)]
pub struct AuthenticEvidence {
    evidence: Evidence,
    factors: Vec<Factor>,
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
        let mut evidence = EvidenceSet::decode(&response.evidence)?;
        let cpu = evidence
            .0
            .remove("cpu")
            .ok_or_else(|| Error::malformed("evidence collection", "no evidence of a CPU"))?;
        if !evidence.0.is_empty() || statement.gpu_evidence.is_some() {
            return Err(Error::malformed(
                "evidence collection",
                "GPU evidence, which this version cannot appraise",
            ));
        }
        if cpu.media_type != SNP_REPORT_MEDIA_TYPE {
            return Err(Error::malformed("evidence collection", "CPU evidence of a type that is not known"));
        }
        let leaf = leaf_hash(&leaf_data(&self.channel, &self.request));
        let expected_report_data = root_from_path(leaf, response.index, response.size, &response.path)
            .zip(u32::try_from(response.size).ok())
            .map(|(root, size)| report_data(request.mode, &response.statement, root, size));
        Ok(Evidence {
            report: snp::Report::parse(&cpu.bytes)?,
            endorsements: response.endorsements.into_values().collect(),
            channel: self.channel,
            request,
            statement,
            expected_report_data,
        })
    }

    /// All steps at once.
    ///
    /// # Errors
    /// [`Refusal`]: malformed bytes, or a rejection with every factor.
    pub fn verify(self, policy: &Policy, now: UnixTime) -> Result<AttestationResult, Refusal> {
        Ok(self.parse()?.authenticate(policy, now)?.appraise(policy, now)?)
    }
}

impl Evidence {
    /// Verifies signature and chain.
    ///
    /// # Errors
    /// A rejection that reports the factors of authenticity and, for information, what the policy says of the rest.
    pub fn authenticate(self, policy: &Policy, now: UnixTime) -> Result<AuthenticEvidence, Rejection> {
        let mut factors = authenticate::factors(&self, policy, now);
        if passed(&factors) {
            return Ok(AuthenticEvidence { evidence: self, factors });
        }
        factors.extend(policy::factors(&self, policy, now));
        Err(Rejection { report: Box::new(self.report(false, false, factors)) })
    }

    fn report(&self, authentic: bool, accepted: bool, factors: Vec<Factor>) -> Report {
        let product = self.report.product().map_or("unknown", snp::Product::name);
        Report { platform: "snp", product, authentic, accepted, factors, claims: claims::of(self) }
    }
}

impl AuthenticEvidence {
    /// Applies the policy, row by row.
    ///
    /// # Errors
    /// A rejection with every factor.
    pub fn appraise(mut self, policy: &Policy, now: UnixTime) -> Result<AttestationResult, Rejection> {
        self.factors.extend(policy::factors(&self.evidence, policy, now));
        let accepted = passed(&self.factors);
        let report = self.evidence.report(true, accepted, self.factors);
        if !accepted {
            return Err(Rejection { report: Box::new(report) });
        }
        Ok(AttestationResult { report, statement: self.evidence.statement })
    }
}

fn passed(factors: &[Factor]) -> bool {
    factors.iter().all(|factor| factor.status != crate::result::Status::Fail)
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
