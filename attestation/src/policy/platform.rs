//! Demands on which machine it is.

use serde::Deserialize;

use super::Check;
use crate::result::Factor;

/// More machines than this belong into several policies.
const MAX_LIST: usize = 4096;

/// The section `[platform]`. Identities are lower-case hex: CHIP_ID of SNP (of which Turin uses 8 bytes, the rest is zero), PPID of TDX,
/// UEID of a GPU.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlatformPolicy {
    /// Machines that are never accepted.
    #[serde(deserialize_with = "identities")]
    pub deny: Vec<String>,
    /// Machines that are accepted.
    pub id: Check<String>,
    /// Machines known to stand in a data centre. All others are in their owner's hands.
    #[serde(deserialize_with = "identities")]
    pub datacenter: Vec<String>,
    /// `datacenter` or `owner`.
    pub tier: Check<String>,
}

impl PlatformPolicy {
    /// The factors for one device, known as `id`; an empty one is unknown.
    pub(crate) fn factors(&self, id: &str) -> Vec<Factor> {
        let mut out = self.gpu_factors(id);
        let known = !id.chars().all(|c| c == '0');
        let tier =
            if known && self.datacenter.iter().any(|place| place == id) { "datacenter" } else { "owner" };
        let help = "whoever has a machine in hand can listen on its memory bus (TEE.fail, WireTap, Battering RAM): \
                    name it in platform.datacenter, or accept the tier owner";
        out.push(self.tier.factor("platform.tier", &tier.to_owned(), help));
        out
    }

    /// The factors for a device that stands where its machine does.
    pub(crate) fn gpu_factors(&self, id: &str) -> Vec<Factor> {
        let shown = if id.chars().all(|c| c == '0') { "none" } else { id };
        let known = shown == id;
        let help = "this machine is on the policy's list of machines that are not accepted";
        let denied = self.deny.iter().any(|denied| denied == id) || (!known && !self.deny.is_empty());
        vec![
            Factor::of("platform.deny", !denied, shown, "not on the list", help),
            self.id.factor("platform.id", &shown.to_owned(), "the policy accepts other machines"),
        ]
    }
}

fn identities<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    let list = Vec::<String>::deserialize(d)?;
    if list.len() > MAX_LIST {
        return Err(serde::de::Error::custom(format!("more than {MAX_LIST} machines")));
    }
    let is_hex = |id: &String| !id.is_empty() && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match list.iter().find(|id| !is_hex(id)) {
        Some(_) => Err(serde::de::Error::custom("a machine's identity is not lower-case hex")),
        None => Ok(list),
    }
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
        for bad in ["[\"AA\"]", "[\"\"]", "[\"xyz\"]", "[1]", "\"aa\""] {
            assert!(with(bad).is_err(), "{bad}");
        }
        let many = format!("{:?}", vec!["aa"; MAX_LIST + 1]);
        assert!(with(&many).unwrap_err().to_string().contains("4096"));
    }
}
