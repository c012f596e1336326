//! The appraisal policy: what a relying party accepts, written as TOML.
//!
//! There is no default that means "any": every field must be there, and one that is not looked at says so and why.

mod check;
mod demand;
mod explain;
mod floors;
mod nvidia;
mod platform;
mod quorum;
mod release;
mod released;
mod snp;
mod tcb;
mod tdx;
mod template;

pub use check::{Check, Criterion};
pub use demand::Demand;
pub use floors::TcbFloors;
pub use nvidia::NvidiaPolicy;
pub use platform::{MachineId, PlatformPolicy};
pub use quorum::{Quorum, QuorumDemand};
pub use release::{LogDemand, LogPolicy, ReleasePolicy};
pub use released::Released;
pub use snp::{SnpGuestPolicy, SnpPlatform, SnpPolicy};
pub use tcb::{SignedFloors, TcbDemand};
#[cfg(test)]
pub(crate) use tdx::SECTION as STRICT_TDX;
pub use tdx::{TdxAttributes, TdxPlatform, TdxPolicy, Xfam};
pub use template::{SimulatedPolicy, init, init_released, init_simulated, strict};

use serde::Deserialize;

use crate::x509::Certificate;
use crate::{Digest, Error};

/// A policy with every measurement of a large fleet stays far below this.
const MAX_LEN: usize = 256 * 1024;

/// A whole policy. Unknown keys are refused, missing ones too; a kind of evidence without a section is not accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The TLS session.
    pub channel: ChannelPolicy,
    /// AMD SEV-SNP evidence.
    pub snp: Option<SnpPolicy>,
    /// Intel TDX evidence.
    pub tdx: Option<TdxPolicy>,
    /// Evidence of NVIDIA GPUs.
    pub nvidia: Option<NvidiaPolicy>,
    /// Which machine.
    pub platform: PlatformPolicy,
    /// The release that the enclave states; rows that say `"release"` mean what it says.
    pub release: Option<ReleasePolicy>,
    /// What the enclave states about itself in S.
    pub claims: ClaimsPolicy,
    /// What the enclave promises about content.
    pub privacy: PrivacyPolicy,
    /// What is trusted beside the text.
    pub(crate) anchors: Anchors,
}

/// What a policy does not write down: the vendors' roots that are built in, and the lowest firmware versions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Anchors {
    pub(crate) intel: Certificate,
    pub(crate) nvidia: crate::nvidia::Anchors,
    pub(crate) floors: TcbFloors,
}

/// The text of a policy.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sections {
    version: u64,
    channel: ChannelPolicy,
    snp: Option<SnpPolicy>,
    tdx: Option<TdxPolicy>,
    nvidia: Option<NvidiaPolicy>,
    platform: PlatformPolicy,
    release: Option<ReleasePolicy>,
    claims: ClaimsPolicy,
    privacy: PrivacyPolicy,
}

/// Demands on the TLS session.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelPolicy {
    /// Key exchange.
    pub named_group: Check<NamedGroup>,
}

/// Demands on S.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimsPolicy {
    /// Digest of the model manifest; every model that is served must pass.
    pub model: Check<Digest>,
    /// Digest of the enclave's configuration.
    pub config: Released<Digest>,
    /// Digest of the release manifest.
    pub release: Released<Digest>,
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
        let sections: Sections = toml::from_str(text).map_err(|e| {
            let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count();
            let key =
                text.lines().nth(line).and_then(|line| line.split('=').next()).unwrap_or_default().trim();
            let what = e.message().replace('\n', ", ");
            Error::misuse(format!("policy, line {} ({key}): {what}", line.saturating_add(1)))
        })?;
        let Sections { version, channel, snp, tdx, nvidia, platform, release, claims, privacy } = sections;
        if version != 1 {
            return Err(Error::misuse(format!("policy: version {version} is unknown, expected 1")));
        }
        if snp.is_none() && tdx.is_none() {
            let why = "policy: neither a section [snp] nor [tdx], so no evidence would be accepted";
            return Err(Error::misuse(why));
        }
        let anchors = Anchors {
            intel: crate::tdx::intel_root()?,
            nvidia: crate::nvidia::Anchors::nvidia()?,
            floors: TcbFloors::built_in()?,
        };
        let policy = Self { channel, snp, tdx, nvidia, platform, release, claims, privacy, anchors };
        match policy.released_rows().first().filter(|_| policy.release.is_none()) {
            Some(row) => Err(Error::misuse(format!(
                "policy: {row} = \"release\", but there is no section [release] that says which releases are accepted"
            ))),
            None => Ok(policy),
        }
    }

    /// Rows that say `"release"`.
    fn released_rows(&self) -> Vec<&'static str> {
        let mut rows = vec![
            ("claims.config", self.claims.config.is_release()),
            ("claims.release", self.claims.release.is_release()),
        ];
        rows.extend(self.snp.iter().map(|snp| ("snp.measurement", snp.measurement.is_release())));
        rows.extend(self.tdx.iter().flat_map(TdxPolicy::released));
        rows.into_iter().filter(|(_, is_release)| *is_release).map(|(name, _)| name).collect()
    }

    /// The policy that `inspect` applies when none is given: strict, with what only a release can say left unchecked.
    ///
    /// # Errors
    /// `Misuse` if the built-in text is wrong; a test holds that it is not.
    pub fn strict() -> Result<Self, Error> {
        Self::from_toml(&strict())
    }

    /// The file of signed TCB floors that `snp.tcb` names and that was not given yet, as it is written there.
    #[must_use]
    pub fn floors_file(&self) -> Option<&str> {
        let TcbDemand::SignedFloors(signed) = &self.snp.as_ref()?.tcb else { return None };
        signed.floors.is_none().then_some(&signed.file)
    }

    /// Gives the content of [`Policy::floors_file`] and of its signature (128 hexadecimal digits). A policy that names such a file
    /// accepts no SNP evidence before.
    ///
    /// # Errors
    /// `Misuse` if the policy names no such file, the signature is not of the key that the policy names, the text is no floors file,
    /// or it is older than the built-in one.
    pub fn give_floors(&mut self, text: &str, signature: &str) -> Result<(), Error> {
        match self.snp.as_mut().map(|snp| &mut snp.tcb) {
            Some(TcbDemand::SignedFloors(signed)) => signed.give(text, signature),
            _ => Err(Error::misuse("policy: snp.tcb names no signed floors")),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snp::{Product, Root};

    #[test]
    fn a_value_of_another_type_is_named_by_its_line() {
        let text = init(1);
        assert!(Policy::from_toml(&text).is_ok());
        let places: Vec<usize> = text.match_indices(" = ").map(|(at, _)| at).collect();
        let mut refused = 0;
        for at in places {
            let end = text[at..].find('\n').map_or(text.len(), |len| at + len);
            for value in
                ["5", "{ exactly = 5.5 }", "{ exactly = [] }", "{ any_of = [5.5] }", "{ at_least = false }"]
            {
                let changed = format!("{} = {value}{}", &text[..at], &text[end..]);
                if let Err(error) = Policy::from_toml(&changed) {
                    assert!(
                        error.to_string().contains("line") || error.to_string().contains("version"),
                        "{error}"
                    );
                    refused += 1;
                }
            }
        }
        assert!(refused > 200, "{refused}");
    }

    #[test]
    fn floors_are_given_to_a_policy_that_names_them() {
        let mut policy = Policy::strict().unwrap();
        assert_eq!(policy.floors_file(), None);
        assert!(policy.give_floors("", "").unwrap_err().to_string().contains("names no signed floors"));
        policy.snp = None;
        assert_eq!(policy.floors_file(), None);
        assert!(NvidiaPolicy::strict(0).is_err());
    }

    #[test]
    fn reads_a_policy() {
        let policy = Policy::strict().unwrap();
        let snp = policy.snp.unwrap();
        assert_eq!(snp.root, Root::Amd);
        assert_eq!(snp.product, Check::AnyOf(vec![Product::Genoa, Product::Turin]));
        assert_eq!(policy.channel.named_group, Check::AnyOf(vec![NamedGroup(0x11ec)]));
        assert_eq!(snp.vmpl, Check::Exactly(Flag(0)));
        assert_eq!(snp.tcb, TcbDemand::Floors);
        assert!(Policy::from_toml(&init(0)).is_ok() && Policy::from_toml(&init(8)).is_ok());
    }

    #[test]
    fn refuses_unknown_missing_and_empty() {
        let text = strict();
        let refused = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            Policy::from_toml(&text.replace(from, to)).unwrap_err().to_string()
        };
        assert!(refused("vmpl = { exactly = 0 }", "vmpl = { exactly = 0 }\nvmlp = 1").contains("vmlp"));
        assert!(refused("vmpl = { exactly = 0 }", "").contains("vmpl"));
        assert!(refused("[claims]", "[claim]").contains("claim"));
        assert_eq!(refused("vmpl = {", "vmpl == {").lines().count(), 1, "one line");
        assert!(refused("version = 1", "version = 2").contains("version 2 is unknown"));
        assert!(refused("{ any_of = [\"X25519MLKEM768\"] }", "{ any_of = [] }").contains("empty"));
        assert!(refused("\"X25519MLKEM768\"", "\"secp256r1\"").contains("unknown key exchange"));
        assert!(refused("{ unchecked = \"either is safe\" }", "{ unchecked = \" \" }").contains("why"));
        let padding = "padding = { at_least = 1 }";
        assert!(refused("vmpl = { exactly = 0 }", "vmpl = { at_least = 0 }").contains("at_least"));
        assert!(refused(padding, "padding = { at_least = 0 }").contains("every value"));
        assert!(refused("{ at_least = 3 }", "{ at_least = 0 }").contains("every value"));
        assert!(refused("{ any_of = [\"VCEK\"] }", "{ at_least = \"VCEK\" }").contains("at_least"));
        assert!(refused("{ any_of = [\"VCEK\"] }", "{ any = true }").contains("any"));
        assert!(refused("{ any_of = [\"VCEK\"] }", "\"VCEK\"").contains("signing_key"));
        assert!(refused("[\"Genoa\", \"Turin\"]", "[]").contains("empty"));
        assert!(refused("[\"Genoa\", \"Turin\"]", "[\"Rome\"]").contains("Rome"));
        assert!(refused("root = \"amd\"", "root = { insecure_simulated = \"x\" }").contains("certificate"));
        assert!(refused("root = \"amd\"", "root = \"intel\"").contains("root"));
        assert!(refused("tcb = \"floors\"", "tcb = \"any\"").contains("tcb"));
        let measurement = text.lines().find(|line| line.starts_with("measurement")).unwrap();
        assert!(refused(measurement, "measurement = { exactly = \"00\" }").contains("hex digits"));
        let snp = text.find("[snp]").unwrap();
        let without = format!("{}{}", &text[..snp], &text[text.find("\n[platform]").unwrap()..]);
        assert!(Policy::from_toml(&without).unwrap_err().to_string().contains("neither a section"));
        assert!(Policy::from_toml(&" ".repeat(MAX_LEN + 1)).unwrap_err().to_string().contains("at most"));
    }
}
