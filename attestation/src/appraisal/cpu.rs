//! Evidence of the processor, whichever it is.

use std::collections::BTreeMap;

use crate::policy::Policy;
use crate::release::ReleaseManifest;
use crate::result::{Claim, Factor};
use crate::wire::{EpochStatement, EvidenceItem, SNP_REPORT_MEDIA_TYPE, TDX_QUOTE_MEDIA_TYPE};
use crate::{Context, Endorsement, Error, snp, tdx};

/// Parsed evidence of a processor with what was given to verify it.
#[derive(Clone, Debug)]
pub(super) enum Cpu {
    Snp { report: Box<snp::Report>, given: snp::Endorsements },
    Tdx { quote: Box<tdx::Quote>, given: tdx::Endorsements },
}

/// The same after its signatures were looked at.
#[derive(Clone, Debug)]
pub(super) enum Who {
    Snp(snp::Authenticity),
    Tdx(tdx::Authenticity),
}

const NO_SECTION: &str = "the policy has no section for this kind of evidence";

impl Cpu {
    pub(super) fn parse(item: &EvidenceItem, endorsements: &[Endorsement]) -> Result<Self, Error> {
        match item.media_type.as_str() {
            SNP_REPORT_MEDIA_TYPE => Ok(Self::Snp {
                report: Box::new(snp::Report::parse(&item.bytes)?),
                given: snp::Endorsements::from_stapled(endorsements)?,
            }),
            TDX_QUOTE_MEDIA_TYPE => Ok(Self::Tdx {
                quote: Box::new(tdx::Quote::parse(&item.bytes)?),
                given: tdx::Endorsements::new(endorsements)?,
            }),
            _ => Err(Error::malformed("evidence collection", "CPU evidence of a type that is not known")),
        }
    }

    pub(super) fn platform(&self) -> &'static str {
        match self {
            Self::Snp { .. } => "snp",
            Self::Tdx { .. } => "tdx",
        }
    }

    /// What the enclave asked to be signed.
    pub(super) fn report_data(&self) -> &[u8; 64] {
        match self {
            Self::Snp { report, .. } => &report.report_data,
            Self::Tdx { quote, .. } => &quote.body.report_data,
        }
    }

    /// Signatures, chains, revocation.
    pub(super) fn authenticate(&self, policy: &Policy, ctx: Context<'_>) -> Who {
        match self {
            Self::Snp { report, given } => {
                let root = policy.snp.as_ref().map_or(&snp::Root::Amd, |snp| &snp.root);
                Who::Snp(snp::authenticate(report, given, root, ctx))
            }
            Self::Tdx { quote, given } => {
                Who::Tdx(tdx::authenticate(quote, given, &policy.anchors.intel, ctx))
            }
        }
    }

    /// The rows of the policy, but for REPORT_DATA; `release` is the verified one, if there is one.
    pub(super) fn appraise(
        &self,
        who: &Who,
        policy: &Policy,
        release: Option<&ReleaseManifest>,
    ) -> Vec<Factor> {
        let (rows, id) = match (self, who) {
            (Self::Snp { report, .. }, Who::Snp(who)) => {
                let rows = policy.snp.as_ref().zip(Some(&policy.anchors.floors));
                (
                    rows.map(|(rows, floors)| snp::appraise(report, who, rows, floors, release)),
                    crate::types::to_hex(&report.chip_id),
                )
            }
            (Self::Tdx { quote, .. }, Who::Tdx(who)) => {
                let rows = policy.tdx.as_ref();
                (
                    rows.map(|rows| tdx::appraise(quote, who, rows, release)),
                    crate::types::to_hex(&quote.pck.ppid),
                )
            }
            (Self::Snp { .. }, Who::Tdx(_)) | (Self::Tdx { .. }, Who::Snp(_)) => (None, String::new()),
        };
        let no_section = || {
            let want = "a platform that the policy has a section for";
            vec![Factor::fail("evidence.platform", self.platform(), want, NO_SECTION)]
        };
        let mut out = rows.unwrap_or_else(no_section);
        out.extend(policy.platform.factors(&id));
        out
    }

    /// What the hardware measured after launch, against what the enclave states about itself.
    pub(super) fn appraise_statement(&self, statement: &EpochStatement) -> Vec<Factor> {
        match self {
            Self::Snp { .. } => Vec::new(),
            Self::Tdx { quote, .. } => vec![tdx::rtmr3_factor(quote, &statement.config, &statement.models)],
        }
    }

    pub(super) fn claims(&self, who: &Who) -> BTreeMap<&'static str, Claim> {
        match (self, who) {
            (Self::Snp { report, .. }, Who::Snp(who)) => snp::claims(report, who),
            (Self::Tdx { quote, .. }, Who::Tdx(who)) => tdx::claims(quote, who),
            (Self::Snp { .. }, Who::Tdx(_)) | (Self::Tdx { .. }, Who::Snp(_)) => BTreeMap::new(),
        }
    }
}

impl Who {
    pub(super) fn factors(&self) -> &[Factor] {
        match self {
            Self::Snp(who) => &who.factors,
            Self::Tdx(who) => &who.factors,
        }
    }

    pub(super) fn is_authentic(&self) -> bool {
        match self {
            Self::Snp(who) => who.is_authentic(),
            Self::Tdx(who) => who.is_authentic(),
        }
    }

    pub(super) fn product(&self) -> &'static str {
        match self {
            Self::Snp(who) => who.product.map_or("unknown", snp::Product::name),
            Self::Tdx(_) => "TDX",
        }
    }
}
