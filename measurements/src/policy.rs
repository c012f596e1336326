//! The policy that accepts one image in one shape, with its models: what a client needs before there is a release.

use cocoon_attestation::binding::host_data;
use cocoon_attestation::policy::{self, SimulatedPolicy};
use cocoon_attestation::{Digest, Measurement};

use crate::predict::tdx;

/// What is accepted.
#[derive(Clone, Debug)]
pub struct Accepted<'a> {
    /// Launch digest on SEV-SNP.
    pub snp: Measurement,
    /// Registers on TDX.
    pub tdx: tdx::Prediction,
    /// Digests of the model manifests, in the order of S.
    pub models: &'a [Digest],
    /// Digest of the configuration, from the image's manifest.
    pub config: Digest,
    /// Root of a simulated platform, PEM: then nothing else is accepted.
    pub simulated_root: Option<&'a str>,
}

impl Accepted<'_> {
    /// Commented TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        if let Some(root_pem) = self.simulated_root {
            let policy =
                SimulatedPolicy { root_pem, measurement: self.snp, models: self.models, config: self.config };
            return policy.to_toml();
        }
        let exactly = |value: String| format!("{{ exactly = \"{value}\" }}");
        let quoted: Vec<_> = self.models.iter().map(|digest| format!("\"{digest}\"")).collect();
        let models = match &quoted[..] {
            [one] => format!("{{ exactly = {one} }}"),
            several => format!("{{ any_of = [{}] }}", several.join(", ")),
        };
        let rows = [
            ("measurement", exactly(self.snp.to_string())),
            (
                "host_data",
                format!(
                    "{{ any_of = [\"{}\", \"{}\"] }}",
                    hex::encode(host_data(self.config, self.models).0),
                    "0".repeat(64)
                ),
            ),
            ("mr_td", exactly(self.tdx.mr_td.to_string())),
            ("rtmr0", "{ unchecked = \"depends on memory and devices (docs/measurements.md)\" }".to_owned()),
            ("rtmr1", exactly(self.tdx.rtmr1.to_string())),
            ("rtmr2", exactly(self.tdx.rtmr2.to_string())),
            ("model", models),
            ("config", exactly(self.config.to_string())),
        ];
        let template = policy::init(0);
        let mut lines = template.lines().map(|line| {
            let row =
                rows.iter().find(|(row, _)| line.split_once(" = ").is_some_and(|(name, _)| name == *row));
            row.map_or_else(|| line.to_owned(), |(row, value)| format!("{row} = {value}"))
        });
        // The template says that it is to be filled in, up to its first empty line.
        let filled: Vec<_> = lines.by_ref().skip_while(|line| line.starts_with('#')).collect();
        format!(
            "# Accepts one image, in one shape, with its models. `cocoon policy explain FILE` says so in words.\n{}\n",
            filled.join("\n")
        )
    }
}

#[cfg(test)]
mod tests {
    use cocoon_attestation::policy::{Check, Policy, Released};

    use super::*;

    const ACCEPTED: Accepted<'static> = Accepted {
        snp: Measurement([1; 48]),
        tdx: tdx::Prediction {
            mr_td: Measurement([2; 48]),
            rtmr1: Measurement([3; 48]),
            rtmr2: Measurement([4; 48]),
        },
        models: &[Digest([5; 32])],
        config: Digest([6; 32]),
        simulated_root: None,
    };

    #[test]
    fn names_every_value_and_leaves_no_zeros() {
        let policy = Policy::from_toml(&ACCEPTED.to_toml()).unwrap();
        assert_eq!(policy.snp.unwrap().measurement, Released::Check(Check::Exactly(Measurement([1; 48]))));
        let tdx = policy.tdx.unwrap();
        assert_eq!(tdx.mr_td, Released::Check(Check::Exactly(Measurement([2; 48]))));
        assert_eq!(tdx.rtmr1, Released::Check(Check::Exactly(Measurement([3; 48]))));
        assert_eq!(tdx.rtmr2, Released::Check(Check::Exactly(Measurement([4; 48]))));
        assert_eq!(policy.claims.model, Check::Exactly(Digest([5; 32])));
        assert_eq!(policy.claims.config, Released::Check(Check::Exactly(Digest([6; 32]))));
        let both = [Digest([5; 32]), Digest([7; 32])];
        let policy = Policy::from_toml(&Accepted { models: &both, ..ACCEPTED }.to_toml()).unwrap();
        assert_eq!(policy.claims.model, Check::AnyOf(both.to_vec()));
        assert!(!ACCEPTED.to_toml().contains("any_of = [\"0000"));
    }
}
