//! Demands on which machine it is.

use std::cmp::Ordering;
use std::fmt;

use serde::Deserialize;

use super::{Check, Criterion};
use crate::result::Factor;

/// More machines than this belong into several policies.
const MAX_LIST: usize = 4096;

/// The section `[platform]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlatformPolicy {
    /// Machines that are never accepted.
    #[serde(deserialize_with = "machines")]
    pub deny: Vec<MachineId>,
    /// Machines that are accepted.
    pub id: Check<MachineId>,
    /// Machines known to stand in a data centre. All others are in their owner's hands.
    #[serde(deserialize_with = "machines")]
    pub datacenter: Vec<MachineId>,
    /// `datacenter` or `owner`.
    pub tier: Check<String>,
}

/// CHIP_ID of SNP, PPID of TDX or UEID of a GPU, lower-case hex. Zeros at the end do not count: Turin's CHIP_ID is 8 bytes and 56 zeros,
/// and its VCEK has the 8 bytes alone.
#[derive(Clone, Debug)]
pub struct MachineId(String);

impl MachineId {
    fn significant(&self) -> &str {
        self.0.trim_end_matches('0')
    }

    /// Whether the evidence does not tell.
    fn is_hidden(&self) -> bool {
        self.significant().is_empty()
    }
}

impl PartialEq for MachineId {
    fn eq(&self, other: &Self) -> bool {
        self.significant() == other.significant()
    }
}

impl PartialOrd for MachineId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.significant().partial_cmp(other.significant())
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_hidden() { "none" } else { &self.0 })
    }
}

impl Criterion for MachineId {
    const ORDERED: bool = false;
}

impl<'de> Deserialize<'de> for MachineId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let id = Self(String::deserialize(d)?);
        let is_hex = id.0.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !is_hex || !id.0.len().is_multiple_of(2) {
            return Err(serde::de::Error::custom("a machine's identity is not bytes in lower-case hex"));
        }
        if id.is_hidden() {
            return Err(serde::de::Error::custom(
                "a machine's identity is empty or zero, which no machine has",
            ));
        }
        Ok(id)
    }
}

impl PlatformPolicy {
    /// The factors for one device, known as `id`; an empty one, or one of zeros, is hidden.
    pub(crate) fn factors(&self, id: &str) -> Vec<Factor> {
        let mut out = self.gpu_factors(id);
        let tier = if self.datacenter.contains(&MachineId(id.to_owned())) { "datacenter" } else { "owner" };
        let help = "whoever has a machine in hand can listen on its memory bus (TEE.fail, WireTap, Battering RAM): \
                    name it in platform.datacenter, or accept the tier owner";
        out.push(self.tier.factor("platform.tier", &tier.to_owned(), help));
        out
    }

    /// The factors for a device that stands where its machine does.
    pub(crate) fn gpu_factors(&self, id: &str) -> Vec<Factor> {
        let id = MachineId(id.to_owned());
        let help = "this machine is on the policy's list of machines that are not accepted";
        let denied = self.deny.contains(&id) || (id.is_hidden() && !self.deny.is_empty());
        vec![
            Factor::of("platform.deny", !denied, id.to_string(), "not on the list", help),
            self.id.factor("platform.id", &id, "the policy accepts other machines"),
        ]
    }
}

fn machines<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<MachineId>, D::Error> {
    let list = Vec::<MachineId>::deserialize(d)?;
    if list.len() > MAX_LIST {
        return Err(serde::de::Error::custom(format!("more than {MAX_LIST} machines")));
    }
    Ok(list)
}

/// The strict section. `{platform_id}`, `{tier}` are filled in.
pub(super) const SECTION: &str = r#"[platform]
# Machines by CHIP_ID (SNP), PPID (TDX) and UEID (GPU), lower-case hex: `cocoon verify --json` shows them as claims.
deny = []
id = {platform_id}
# Machines that you know to stand in a data centre. A machine in its owner's hands can be attacked on its memory bus, which no
# evidence shows: accepting the tier "owner" is a decision.
datacenter = []
tier = {tier}
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Status;

    fn policy(text: &str) -> Result<PlatformPolicy, toml::de::Error> {
        toml::from_str(text)
    }

    fn failed(policy: &PlatformPolicy, id: &str) -> Vec<&'static str> {
        policy.factors(id).into_iter().filter(|f| f.status == Status::Fail).map(|f| f.name).collect()
    }

    #[test]
    fn lists_and_tiers() {
        let strict = policy("deny = [\"bad1\"]\nid = { any_of = [\"aa\", \"bad1\"] }\ndatacenter = [\"aa\"]\ntier = { exactly = \"datacenter\" }").unwrap();
        assert!(failed(&strict, "aa").is_empty());
        assert_eq!(failed(&strict, "bad1"), ["platform.deny", "platform.tier"]);
        assert_eq!(failed(&strict, "bb"), ["platform.id", "platform.tier"]);
        assert_eq!(
            failed(&strict, "0000"),
            ["platform.deny", "platform.id", "platform.tier"],
            "a hidden identity"
        );
        let turin = policy("deny = [\"aabbccddeeff0011\"]\nid = { exactly = \"aabb\" }\ndatacenter = [\"aabb00\"]\ntier = { exactly = \"datacenter\" }").unwrap();
        let chip_id = |id: &str| format!("{id}{}", "0".repeat(128 - id.len()));
        assert_eq!(
            failed(&turin, &chip_id("aabbccddeeff0011")),
            ["platform.deny", "platform.id", "platform.tier"],
            "as its VCEK has it"
        );
        assert!(failed(&turin, &chip_id("aabb")).is_empty());
        let any = "deny = []\nid = { unchecked = \"x\" }\ndatacenter = []\ntier = { any_of = [\"owner\", \"datacenter\"] }";
        assert!(failed(&policy(any).unwrap(), "").is_empty());
    }

    #[test]
    fn refuses_what_is_not_an_identity() {
        let with = |list: &str| {
            policy(&format!(
                "deny = {list}\nid = {{ unchecked = \"x\" }}\ndatacenter = []\ntier = {{ exactly = \"owner\" }}"
            ))
        };
        assert!(with("[\"aa\"]").is_ok());
        for bad in ["[\"AA\"]", "[\"aab\"]", "[\"\"]", "[\"0000\"]", "[\"xyz\"]", "[1]", "\"aa\""] {
            assert!(with(bad).is_err(), "{bad}");
        }
        let many = format!("{:?}", vec!["aa"; MAX_LIST + 1]);
        assert!(with(&many).unwrap_err().to_string().contains("4096"));
    }
}
