//! Factors and the Attestation Result.

use std::collections::BTreeMap;

use crate::wire::EpochStatement;

/// Outcome of one factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Checked and as demanded.
    Pass,
    /// Checked and not as demanded, or missing.
    Fail,
    /// The policy does not look at it.
    Unchecked,
}

/// One thing that was appraised. Names are stable: `docs/factors.md` lists them all.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Factor {
    /// Dotted name.
    pub name: &'static str,
    /// Outcome.
    pub status: Status,
    /// What the evidence says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub got: Option<String>,
    /// What the policy demands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub want: Option<String>,
    /// What to do about a failure, or why the policy does not look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Factor {
    /// A factor that is as demanded.
    #[must_use]
    pub fn pass(name: &'static str, got: impl Into<String>) -> Self {
        Self { name, status: Status::Pass, got: Some(got.into()), want: None, help: None }
    }

    /// A factor that is not as demanded.
    #[must_use]
    pub fn fail(name: &'static str, got: impl Into<String>, want: impl Into<String>, help: &str) -> Self {
        let (got, want) = (Some(got.into()), Some(want.into()));
        Self { name, status: Status::Fail, got, want, help: Some(help.to_owned()) }
    }

    /// A factor that the policy does not look at, for the reason `why`.
    #[must_use]
    pub fn unchecked(name: &'static str, got: impl Into<String>, why: &str) -> Self {
        Self {
            name,
            status: Status::Unchecked,
            got: Some(got.into()),
            want: None,
            help: Some(why.to_owned()),
        }
    }

    /// `pass` or `fail`, by `ok`.
    #[must_use]
    pub fn of(
        name: &'static str,
        ok: bool,
        got: impl Into<String>,
        want: impl Into<String>,
        help: &str,
    ) -> Self {
        if ok { Self::pass(name, got) } else { Self::fail(name, got, want, help) }
    }
}

/// Whether no factor failed.
pub(crate) fn none_failed(factors: &[Factor]) -> bool {
    factors.iter().all(|factor| factor.status != Status::Fail)
}

/// Everything that was found, accepted or not: the JSON of `cocoon verify --json`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// `snp`, or `unknown` for bytes that are not evidence; with a simulated root still `snp`, because it is the same path: the factor `snp.root` tells.
    pub platform: &'static str,
    /// The processor's product name, or `unknown`.
    pub product: &'static str,
    /// Every signature and chain holds at the time of verification.
    pub authentic: bool,
    /// Authentic, and every factor of the policy passes.
    pub accepted: bool,
    /// In the order in which they were appraised.
    pub factors: Vec<Factor>,
    /// What the evidence claims.
    pub claims: BTreeMap<&'static str, Claim>,
}

impl Report {
    /// The report for bytes that could not even be parsed.
    #[must_use]
    pub fn malformed(error: &crate::Error) -> Self {
        let help = "the other side is not a Cocoon enclave of a version that this client knows";
        Self::without_evidence(Factor::fail(
            "evidence.format",
            error.to_string(),
            "well-formed evidence",
            help,
        ))
    }

    /// The report for a peer that does not speak the channel's protocol; `why` says what it did.
    #[must_use]
    pub fn not_an_enclave(why: &str) -> Self {
        let help = "something else answers at this address, or somebody is in between";
        Self::without_evidence(Factor::fail("channel.protocol", why, "cocoon/1", help))
    }

    fn without_evidence(factor: Factor) -> Self {
        let (platform, product) = ("unknown", "unknown");
        Self {
            platform,
            product,
            authentic: false,
            accepted: false,
            factors: vec![factor],
            claims: BTreeMap::new(),
        }
    }

    /// The factors that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Factor> {
        self.factors.iter().filter(|factor| factor.status == Status::Fail)
    }
}

/// A value of a claim.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum Claim {
    /// A number.
    Number(u64),
    /// A text, mostly hex.
    Text(String),
    /// Several texts.
    List(Vec<String>),
    /// Named numbers.
    Numbers(BTreeMap<&'static str, u64>),
}

/// Evidence was appraised and accepted. Only [`crate::appraisal`] makes one, and a session needs one.
#[derive(Clone, Debug)]
pub struct AttestationResult {
    pub(crate) report: Report,
    pub(crate) statement: EpochStatement,
}

impl AttestationResult {
    /// All factors and claims.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The epoch statement that the hardware signed for.
    #[must_use]
    pub fn statement(&self) -> &EpochStatement {
        &self.statement
    }
}

/// Evidence was not accepted: why, factor by factor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the enclave is not accepted: {}", self.summary())]
pub struct Rejection {
    /// All factors, the failed ones among them.
    pub report: Box<Report>,
}

impl Rejection {
    fn summary(&self) -> String {
        self.report.failures().map(|factor| factor.name).collect::<Vec<_>>().join(", ")
    }
}
