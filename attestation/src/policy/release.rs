//! Demands on the release that an enclave states.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::Check;
use super::quorum::{Quorum, QuorumDemand, reason};
use crate::UnixTime;
use crate::release::{PublicKey, is_key_name};

/// Ten years: a proof that is older says nothing.
const MAX_AGE_DAYS: u64 = 3650;

/// The section `[release]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Rows")]
pub struct ReleasePolicy {
    /// Who signs releases.
    pub signers: Quorum,
    /// When the release was made, as its signers say: older ones stay signed and logged for ever.
    pub created: Check<UnixTime>,
    /// The public log that releases are in.
    pub log: LogDemand,
    /// Who watches the log.
    pub witnesses: QuorumDemand,
    /// Who rebuilds releases.
    pub rebuilds: QuorumDemand,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    signers: Quorum,
    created: Check<UnixTime>,
    log: LogDemand,
    witnesses: QuorumDemand,
    rebuilds: QuorumDemand,
}

/// `{ origin = "name", key = "hex", max_age_days = n }`, or `{ unchecked = "why" }`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RawLogDemand")]
pub enum LogDemand {
    /// The release must be in this log.
    Required(LogPolicy),
    /// It need not be in any, for a reason.
    Unchecked {
        /// The reason, for people.
        why: String,
    },
}

/// Which log (C2SP tlog-checkpoint), and how long its word is good.
#[derive(Clone, Debug, PartialEq)]
pub struct LogPolicy {
    origin: String,
    key: PublicKey,
    max_age_days: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLogDemand {
    origin: Option<String>,
    key: Option<PublicKey>,
    max_age_days: Option<u64>,
    unchecked: Option<String>,
}

impl ReleasePolicy {
    /// One that demands signatures of `signers` only, and gives `why` for the rest.
    #[must_use]
    pub fn of_signers(signers: Quorum, why: &str) -> Self {
        let why = why.to_owned();
        Self {
            signers,
            created: Check::Unchecked { why: why.clone() },
            log: LogDemand::Unchecked { why: why.clone() },
            witnesses: QuorumDemand::Unchecked { why: why.clone() },
            rebuilds: QuorumDemand::Unchecked { why },
        }
    }

    /// Rows in which a key is still to be filled in.
    pub(super) fn placeholders(&self) -> Vec<&'static str> {
        let quorum = |demand: &QuorumDemand| match demand {
            QuorumDemand::Required(quorum) => quorum.has_placeholder(),
            QuorumDemand::Unchecked { .. } => false,
        };
        let log = matches!(&self.log, LogDemand::Required(log) if log.key.is_placeholder());
        let rows = [
            ("release.signatures", self.signers.has_placeholder()),
            ("release.log", log),
            ("release.witnesses", quorum(&self.witnesses)),
            ("release.rebuilds", quorum(&self.rebuilds)),
        ];
        rows.into_iter().filter(|(_, open)| *open).map(|(name, _)| name).collect()
    }

    /// Everybody has one part: who signs is no witness of himself.
    fn check_parts(&self) -> Result<(), String> {
        let of = |demand: &'_ QuorumDemand| match demand {
            QuorumDemand::Required(quorum) => quorum.public_keys(),
            QuorumDemand::Unchecked { .. } => Vec::new(),
        };
        let log = match &self.log {
            LogDemand::Required(log) => vec![log.key],
            LogDemand::Unchecked { .. } => Vec::new(),
        };
        let all = [self.signers.public_keys(), log, of(&self.witnesses), of(&self.rebuilds)];
        let mut seen = BTreeSet::new();
        for key in all.concat().into_iter().filter(|key| !key.is_placeholder()) {
            if !seen.insert(key) {
                return Err(format!(
                    "the key {key} has two parts: signer, log, witness and rebuilder are different parties"
                ));
            }
        }
        Ok(())
    }
}

impl TryFrom<Rows> for ReleasePolicy {
    type Error = String;

    fn try_from(rows: Rows) -> Result<Self, String> {
        let Rows { signers, created, log, witnesses, rebuilds } = rows;
        if let (LogDemand::Unchecked { .. }, QuorumDemand::Required(_)) = (&log, &witnesses) {
            return Err("witnesses: there is nothing to witness without a log".to_owned());
        }
        if let QuorumDemand::Required(quorum) = &witnesses
            && let Some(name) = quorum.keys().map(|(name, _)| name).find(|name| !is_key_name(name))
        {
            return Err(format!("witnesses: {name:?} is no name of a key in a signed note"));
        }
        let policy = Self { signers, created, log, witnesses, rebuilds };
        policy.check_parts()?;
        Ok(policy)
    }
}

impl TryFrom<RawLogDemand> for LogDemand {
    type Error = String;

    fn try_from(raw: RawLogDemand) -> Result<Self, String> {
        match raw {
            RawLogDemand {
                origin: Some(origin),
                key: Some(key),
                max_age_days: Some(max_age_days),
                unchecked: None,
            } => LogPolicy::new(origin, key, max_age_days).map(Self::Required),
            RawLogDemand { origin: None, key: None, max_age_days: None, unchecked: Some(why) } => {
                reason(why).map(|why| Self::Unchecked { why })
            }
            _ => Err("expected origin, key and max_age_days, or unchecked alone".to_owned()),
        }
    }
}

impl LogPolicy {
    fn new(origin: String, key: PublicKey, max_age_days: u64) -> Result<Self, String> {
        if !is_key_name(&origin) {
            return Err(format!("origin: {origin:?} is no name of a key in a signed note"));
        }
        if !(1..=MAX_AGE_DAYS).contains(&max_age_days) {
            return Err(format!("max_age_days: {max_age_days}, expected 1 to {MAX_AGE_DAYS}"));
        }
        Ok(Self { origin, key, max_age_days })
    }

    /// First line of the log's checkpoints, and name of its key.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The log's key.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// How old the log's word for a checkpoint may be.
    #[must_use]
    pub fn max_age_days(&self) -> u64 {
        self.max_age_days
    }
}

/// The section to fill in.
pub(super) const SECTION: &str = r#"[release]
# Which releases are accepted, instead of which measurements. Keys are Ed25519 in hex: `cocoon-measure key create` prints them.
# So many of these must have signed the release. Name several, and demand more than one.
signers = { threshold = 1, keys = { "release signer" = "{key}" } }
# Raise this when a release turns out to have a hole, for example { at_least = "2026-11-24T08:00:00Z" }: older releases stay signed and
# logged for ever.
created = { unchecked = "no release of these signers has a known hole" }
# The public log that it must be in, so that nobody can be given a release that others do not see. The log's word for it may be so
# old at most: a host cannot hold back a newer release for longer.
log = { origin = "log.example/releases", key = "{key}", max_age_days = 30 }
# Parties that watch the log and cosign what they saw, by the names of their keys.
witnesses = { threshold = 1, keys = { "witness.example" = "{key}" } }
# Independent parties that built the same source and got the same.
rebuilds = { threshold = 1, keys = { "rebuilder" = "{key}" } }
"#;
