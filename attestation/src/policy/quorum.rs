//! So many of these keys.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;

use crate::release::{MAX_STATEMENTS, PublicKey};

/// Longest name of a signer.
const MAX_NAME: usize = 64;

/// So many of these keys: `{ threshold = n, keys = { name = "hex", .. } }`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RawQuorum")]
pub struct Quorum {
    threshold: usize,
    keys: BTreeMap<String, PublicKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawQuorum {
    threshold: usize,
    keys: BTreeMap<String, PublicKey>,
}

/// A [`Quorum`], or `{ unchecked = "why" }`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RawQuorumDemand")]
pub enum QuorumDemand {
    /// So many must have signed.
    Required(Quorum),
    /// Nobody needs to, for a reason.
    Unchecked {
        /// The reason, for people.
        why: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawQuorumDemand {
    threshold: Option<usize>,
    keys: Option<BTreeMap<String, PublicKey>>,
    unchecked: Option<String>,
}

impl Quorum {
    /// `threshold` of `keys`.
    ///
    /// # Errors
    /// When the threshold is 0 or more than there are keys, there are more than sixteen, a name is empty, longer than 64 bytes or
    /// has other than visible characters, or a key is there twice.
    pub fn new(threshold: usize, keys: BTreeMap<String, PublicKey>) -> Result<Self, String> {
        if keys.len() > MAX_STATEMENTS {
            return Err(format!("{} keys, at most {MAX_STATEMENTS} are allowed", keys.len()));
        }
        if !(1..=keys.len()).contains(&threshold) {
            return Err(format!(
                "threshold {threshold} of {} keys: expected 1 to as many as there are",
                keys.len()
            ));
        }
        let visible = |name: &String| {
            (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        };
        if let Some(name) = keys.keys().find(|name| !visible(name)) {
            return Err(format!("{name:?}: a name is 1 to {MAX_NAME} visible ASCII characters"));
        }
        let distinct: BTreeSet<_> = keys.values().collect();
        if distinct.len() < keys.len() {
            return Err("a key is there twice, under two names".to_owned());
        }
        Ok(Self { threshold, keys })
    }

    /// How many must have signed.
    #[must_use]
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// The keys by name.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &PublicKey)> {
        self.keys.iter().map(|(name, key)| (name.as_str(), key))
    }

    /// The keys, to compare.
    pub(super) fn public_keys(&self) -> Vec<PublicKey> {
        self.keys.values().copied().collect()
    }

    /// Whether a key is still to be filled in.
    pub(super) fn has_placeholder(&self) -> bool {
        self.keys.values().any(PublicKey::is_placeholder)
    }
}

impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.keys.keys().map(String::as_str).collect();
        write!(f, "{} of {}", self.threshold, names.join(", "))
    }
}

impl TryFrom<RawQuorum> for Quorum {
    type Error = String;

    fn try_from(raw: RawQuorum) -> Result<Self, String> {
        Self::new(raw.threshold, raw.keys)
    }
}

impl TryFrom<RawQuorumDemand> for QuorumDemand {
    type Error = String;

    fn try_from(raw: RawQuorumDemand) -> Result<Self, String> {
        match raw {
            RawQuorumDemand { threshold: Some(threshold), keys: Some(keys), unchecked: None } => {
                Quorum::new(threshold, keys).map(Self::Required)
            }
            RawQuorumDemand { threshold: None, keys: None, unchecked: Some(why) } => {
                reason(why).map(|why| Self::Unchecked { why })
            }
            _ => Err("expected threshold and keys, or unchecked alone".to_owned()),
        }
    }
}

/// Why something is not looked at: some words.
pub(super) fn reason(why: String) -> Result<String, String> {
    if why.trim().is_empty() { Err("unchecked: say why".to_owned()) } else { Ok(why) }
}
