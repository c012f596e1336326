//! Evidence of the processor, whichever it is.

use std::collections::BTreeMap;

use crate::policy::Policy;
use crate::result::{Claim, Factor};
use crate::wire::{EvidenceItem, SNP_REPORT_MEDIA_TYPE};
use crate::{Context, Endorsement, Error, snp};

/// Parsed evidence of a processor with what was given to verify it.
#[derive(Clone, Debug)]
pub(super) enum Cpu {
    Snp { report: Box<snp::Report>, given: snp::Endorsements },
}

/// The same after its signatures were looked at.
#[derive(Clone, Debug)]
pub(super) enum Who {
    Snp(snp::Authenticity),
}

const NO_SECTION: &str = "the policy has no section for this kind of evidence";

impl Cpu {
    pub(super) fn parse(item: &EvidenceItem, endorsements: &[Endorsement]) -> Result<Self, Error> {
        match item.media_type.as_str() {
            SNP_REPORT_MEDIA_TYPE => Ok(Self::Snp {
                report: Box::new(snp::Report::parse(&item.bytes)?),
                given: snp::Endorsements::from_stapled(endorsements)?,
            }),
            _ => Err(Error::malformed("evidence collection", "CPU evidence of a type that is not known")),
        }
    }

    pub(super) fn platform(&self) -> &'static str {
        match self {
            Self::Snp { .. } => "snp",
        }
    }

    /// What the enclave asked to be signed.
    pub(super) fn report_data(&self) -> &[u8; 64] {
        match self {
            Self::Snp { report, .. } => &report.report_data,
        }
    }

    /// Signatures, chains, revocation.
    pub(super) fn authenticate(&self, policy: &Policy, ctx: Context<'_>) -> Who {
        match self {
            Self::Snp { report, given } => {
                let root = policy.snp.as_ref().map_or(&snp::Root::Amd, |snp| &snp.root);
                Who::Snp(snp::authenticate(report, given, root, ctx))
            }
        }
    }

    /// The rows of the policy, but for REPORT_DATA.
    pub(super) fn appraise(&self, who: &Who, policy: &Policy) -> Vec<Factor> {
        match (self, who) {
            (Self::Snp { report, .. }, Who::Snp(who)) => {
                let mut out = match (&policy.snp, policy.floors()) {
                    (Some(rows), Ok(floors)) => snp::appraise(report, who, rows, floors),
                    _ => vec![Factor::fail(
                        "evidence.platform",
                        "snp",
                        "a platform that the policy has a section for",
                        NO_SECTION,
                    )],
                };
                out.extend(policy.platform.factors(&hex::encode(report.chip_id)));
                out
            }
        }
    }

    pub(super) fn claims(&self, who: &Who) -> BTreeMap<&'static str, Claim> {
        match (self, who) {
            (Self::Snp { report, .. }, Who::Snp(who)) => snp::claims(report, who),
        }
    }
}

impl Who {
    pub(super) fn factors(&self) -> &[Factor] {
        match self {
            Self::Snp(who) => &who.factors,
        }
    }

    pub(super) fn is_authentic(&self) -> bool {
        match self {
            Self::Snp(who) => who.is_authentic(),
        }
    }

    pub(super) fn product(&self) -> &'static str {
        match self {
            Self::Snp(who) => who.product.map_or("unknown", snp::Product::name),
        }
    }
}
