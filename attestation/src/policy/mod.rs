//! The appraisal policy: what a relying party accepts, written as TOML.
//!
//! There is no default that means "any": every field must be there, and one that is not looked at says so and why.

mod check;
mod template;

pub use check::{Check, Criterion};
pub use template::SimulatedPolicy;

use serde::Deserialize;

use crate::snp::{Product, Root};
use crate::x509::Certificate;
use crate::{Digest, Error, Measurement};

/// A policy with every measurement of a large fleet stays far below this.
const MAX_LEN: usize = 256 * 1024;

/// A whole policy. Unknown keys are refused, missing ones too.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    version: u64,
    /// The TLS session.
    pub channel: ChannelPolicy,
    /// AMD SEV-SNP evidence.
    pub snp: SnpPolicy,
    /// What the enclave states about itself in S.
    pub claims: ClaimsPolicy,
    /// What the enclave promises about content.
    pub privacy: PrivacyPolicy,
}

/// Demands on the TLS session.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelPolicy {
    /// Key exchange.
    pub named_group: Check<NamedGroup>,
}

/// Demands on SNP evidence.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpPolicy {
    /// Where the chain must end.
    #[serde(deserialize_with = "root")]
    pub root: Root,
    /// Version of the report.
    pub version: Check<u64>,
    /// Launch digest.
    pub measurement: Check<Measurement>,
    /// POLICY bit 19.
    pub debug: Check<Flag>,
    /// Privilege level that asked for the report.
    pub vmpl: Check<Flag>,
}

/// Demands on S.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimsPolicy {
    /// Digest of the model manifest; every model that is served must pass.
    pub model: Check<Digest>,
    /// Digest of the enclave's configuration.
    pub config: Check<Digest>,
    /// Digest of the release manifest.
    pub release: Check<Digest>,
    /// Confidential-computing mode of the GPUs, `none` without.
    pub gpu_mode: Check<String>,
}

/// Demands on the promises about content.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivacyPolicy {
    /// Padding profile of responses.
    pub padding: Check<u64>,
    /// 0: content cannot reach a log.
    pub content_logged: Check<Flag>,
    /// 0: clients share no cached prefixes.
    pub shared_prefix_cache: Check<Flag>,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// `Misuse`, with the place, for a syntax error, an unknown or missing key, an empty list or reason.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_LEN {
            return Err(Error::misuse(format!(
                "policy of {} bytes, at most {MAX_LEN} are allowed",
                text.len()
            )));
        }
        let policy: Self = toml::from_str(text).map_err(|e| {
            let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count();
            let key =
                text.lines().nth(line).and_then(|line| line.split('=').next()).unwrap_or_default().trim();
            let what = e.message().replace('\n', ", ");
            Error::misuse(format!("policy, line {} ({key}): {what}", line.saturating_add(1)))
        })?;
        if policy.version != 1 {
            return Err(Error::misuse(format!("policy: version {} is unknown, expected 1", policy.version)));
        }
        Ok(policy)
    }
}

/// A number without an order that a policy could rely on: more is not better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Deserialize)]
#[serde(transparent)]
pub struct Flag(pub u64);

impl std::fmt::Display for Flag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A key exchange that `cocoon/1` allows, by its number in the IANA registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub struct NamedGroup(pub u16);

const NAMED_GROUPS: [(&str, u16); 2] = [("X25519MLKEM768", 0x11ec), ("X25519", 0x001d)];

impl std::fmt::Display for NamedGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match NAMED_GROUPS.iter().find(|(_, code)| *code == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{:#06x}", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for NamedGroup {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let name = String::deserialize(d)?;
        let found = NAMED_GROUPS.iter().find(|(known, _)| *known == name);
        found.map(|(_, code)| Self(*code)).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "unknown key exchange {name}, expected X25519MLKEM768 or X25519"
            ))
        })
    }
}

fn root<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Root, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Choice {
        Amd(Vec<Product>),
        InsecureSimulated(String),
    }
    match Choice::deserialize(d)? {
        Choice::Amd(products) if products.is_empty() => {
            Err(serde::de::Error::custom("amd: no product is named"))
        }
        Choice::Amd(products) => Ok(Root::Amd(products)),
        Choice::InsecureSimulated(pem) => {
            let root = Certificate::from_pem_or_der(pem.as_bytes()).map_err(serde::de::Error::custom)?;
            Ok(Root::InsecureSimulated(Box::new(root)))
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const STRICT: &str = r#"
version = 1
[channel]
named_group = { any_of = ["X25519MLKEM768"] }
[snp]
root = { amd = ["Genoa", "Turin"] }
version = { at_least = 3 }
measurement = { any_of = ["000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"] }
debug = { exactly = 0 }
vmpl = { exactly = 0 }
[claims]
model = { any_of = ["0505050505050505050505050505050505050505050505050505050505050505"] }
config = { unchecked = "not released yet" }
release = { unchecked = "not released yet" }
gpu_mode = { exactly = "none" }
[privacy]
padding = { at_least = 1 }
content_logged = { exactly = 0 }
shared_prefix_cache = { exactly = 0 }
"#;

    #[test]
    fn reads_a_policy() {
        let policy = Policy::from_toml(STRICT).unwrap();
        assert_eq!(policy.snp.root, Root::Amd(vec![Product::Genoa, Product::Turin]));
        assert_eq!(policy.channel.named_group, Check::AnyOf(vec![NamedGroup(0x11ec)]));
        assert_eq!(policy.snp.vmpl, Check::Exactly(Flag(0)));
    }

    #[test]
    fn refuses_unknown_missing_and_empty() {
        let refused = |from: &str, to: &str| {
            assert!(STRICT.contains(from), "{from}");
            Policy::from_toml(&STRICT.replace(from, to)).unwrap_err().to_string()
        };
        assert!(refused("vmpl = { exactly = 0 }", "vmpl = { exactly = 0 }\nvmlp = 1").contains("vmlp"));
        assert!(refused("vmpl = { exactly = 0 }", "").contains("vmpl"));
        assert!(refused("[claims]", "[claim]").contains("claim"));
        assert_eq!(refused("vmpl = {", "vmpl == {").lines().count(), 1, "one line");
        assert!(refused("version = 1", "version = 2").contains("version 2 is unknown"));
        assert!(refused("{ any_of = [\"X25519MLKEM768\"] }", "{ any_of = [] }").contains("empty"));
        assert!(refused("\"X25519MLKEM768\"", "\"secp256r1\"").contains("unknown key exchange"));
        assert!(refused("{ unchecked = \"not released yet\" }", "{ unchecked = \" \" }").contains("why"));
        assert!(refused("{ exactly = \"none\" }", "{ at_least = \"none\" }").contains("at_least"));
        assert!(refused("vmpl = { exactly = 0 }", "vmpl = { at_least = 0 }").contains("at_least"));
        assert!(refused("padding = { at_least = 1 }", "padding = { at_least = 0 }").contains("every value"));
        assert!(refused("{ at_least = 3 }", "{ at_least = 0 }").contains("every value"));
        assert!(refused("{ exactly = \"none\" }", "{ any = true }").contains("any"));
        assert!(refused("{ exactly = \"none\" }", "\"none\"").contains("gpu_mode"));
        assert!(refused("amd = [\"Genoa\", \"Turin\"]", "amd = []").contains("no product"));
        assert!(refused("amd = [\"Genoa\", \"Turin\"]", "amd = [\"Rome\"]").contains("Rome"));
        assert!(
            refused("amd = [\"Genoa\", \"Turin\"]", "insecure_simulated = \"x\"").contains("certificate")
        );
        assert!(refused("050505", "05").contains("hex digits"));
        assert!(Policy::from_toml(&" ".repeat(MAX_LEN + 1)).unwrap_err().to_string().contains("at most"));
    }
}
