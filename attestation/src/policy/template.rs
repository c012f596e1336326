//! Policies as text, with comments: the strict one, one to fill in, and one for a simulated enclave.

use super::{nvidia, platform, snp, tdx};
use crate::{Digest, Measurement};

const CHANNEL: &str = r#"[channel]
# Key exchange: the hybrid of X25519 and ML-KEM-768 withstands recording now and a quantum computer later.
named_group = { any_of = ["X25519MLKEM768"] }
"#;

const STATEMENTS: &str = r#"[claims]
# `cocoon-measure model digest FILE` prints this for a model file.
model = {model}
config = {config}
release = {release}
gpu_mode = {gpu_mode}

[privacy]
# 1: responses of constant size and rate.
padding = { unchecked = "padding is not yet offered" }
content_logged = { exactly = 0 }
shared_prefix_cache = { exactly = 0 }
"#;

/// The policy that `cocoon inspect` applies without `--policy`: everything that does not depend on a release is strict.
#[must_use]
pub fn strict() -> String {
    let stated = "{ unchecked = \"only a policy for a release can say what it must be\" }";
    fill(
        &[snp::SECTION, tdx::SECTION, nvidia::SECTION],
        "# The strict policy for evidence of any release.",
        &[
            ("root", "\"amd\""),
            ("product", "{ any_of = [\"Genoa\", \"Turin\"] }"),
            ("tcb", "\"floors\""),
            ("measurement", stated),
            ("host_data", stated),
            ("platform_id", "{ unchecked = \"any machine\" }"),
            ("tier", "{ unchecked = \"evidence does not show where a machine stands\" }"),
            ("model", stated),
            ("config", stated),
            ("release", stated),
            ("gpu_mode", stated),
            ("gpu_count", stated),
        ],
    )
}

/// A strict policy to fill in, for enclaves with `gpus` GPUs: as it is, it accepts no enclave.
#[must_use]
pub fn init(gpus: u64) -> String {
    let (digest, measurement) = ("0".repeat(64), "0".repeat(96));
    let (digest, measurement) =
        (format!("{{ any_of = [\"{digest}\"] }}"), format!("{{ any_of = [\"{measurement}\"] }}"));
    let measured = ["mr_td", "rtmr0", "rtmr1", "rtmr2"].iter().fold(tdx::SECTION.to_owned(), |text, row| {
        let stated = format!("\n{row} = {{ unchecked = \"no reference value is given\" }}");
        text.replace(&stated, &format!("\n{row} = {measurement}"))
    });
    // Cocoon's hosts set none of these.
    let measured = ["mr_config_id", "mr_owner", "mr_owner_config"].iter().fold(measured, |text, row| {
        let stated = format!("\n{row} = {{ unchecked = \"no reference value is given\" }}");
        text.replace(&stated, &format!("\n{row} = {{ exactly = \"{}\" }}", "0".repeat(96)))
    });
    let (cpus, with_gpus) = ([snp::SECTION, &measured], [snp::SECTION, &measured, nvidia::SECTION]);
    let gpu_mode = format!("{{ exactly = \"{}\" }}", if gpus == 0 { "none" } else { "on" });
    fill(
        if gpus == 0 { &cpus } else { &with_gpus },
        "# A strict policy. As it is, it accepts no enclave: put the values of the release and of the models that you\n\
         # want instead of the zeros. Every field must be there and is one of\n\
         #   { exactly = v }   { any_of = [v, ..] }   { at_least = n }   { unchecked = \"why\" }\n\
         # `cocoon policy explain FILE` says in words what it accepts.",
        &[
            ("root", "\"amd\""),
            ("product", "{ any_of = [\"Genoa\", \"Turin\"] }"),
            ("tcb", "\"floors\""),
            ("measurement", &measurement),
            ("host_data", "{ unchecked = \"S states configuration and models\" }"),
            ("platform_id", "{ unchecked = \"any machine of the tier\" }"),
            ("tier", "{ any_of = [\"datacenter\"] }"),
            ("model", &digest),
            ("config", &digest),
            ("release", "{ unchecked = \"releases are not yet signed\" }"),
            ("gpu_mode", &gpu_mode),
            ("gpu_count", &format!("{{ exactly = {gpus} }}")),
        ],
    )
}

fn fill(platforms: &[&str], head: &str, values: &[(&str, &str)]) -> String {
    let sections = [&[head, "version = 1\n", CHANNEL], platforms, &[platform::SECTION, STATEMENTS]].concat();
    let text = sections.join("\n");
    values.iter().fold(text, |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

/// Accepts every enclave on the simulated platform whose root is `root_pem`, whatever it runs: for development.
#[must_use]
pub fn init_simulated(root_pem: &str) -> String {
    let development = "{ unchecked = \"any enclave of this developer's simulated platform\" }";
    simulated(
        root_pem,
        "any",
        &[
            ("measurement", development),
            ("model", development),
            ("config", development),
            ("release", development),
            ("gpu_mode", development),
        ],
    )
}

fn simulated(root_pem: &str, which: &str, values: &[(&str, &str)]) -> String {
    let unchecked = "{ unchecked = \"a simulated processor\" }";
    let head = format!(
        "# Accepts {which} SIMULATED enclave. There is no protection by hardware: whoever holds the\n\
         # simulated root's key, which lies on the developer's disk, can read everything. For development only."
    );
    let root = format!("{{ insecure_simulated = \"\"\"\n{}\n\"\"\" }}", root_pem.trim());
    let common = [
        ("root", root.as_str()),
        ("product", unchecked),
        ("tcb", "\"floors\""),
        ("host_data", unchecked),
        ("platform_id", unchecked),
        ("tier", "{ exactly = \"owner\" }"),
    ];
    fill(&[snp::SECTION], &head, &[&common[..], values].concat())
}

/// What a policy that accepts exactly one simulated enclave names.
#[derive(Clone, Debug)]
pub struct SimulatedPolicy<'a> {
    /// The developer's own root, PEM.
    pub root_pem: &'a str,
    /// Launch digest of the enclave.
    pub measurement: Measurement,
    /// Digests of its models.
    pub models: &'a [Digest],
    /// Digest of its configuration.
    pub config: Digest,
}

impl SimulatedPolicy<'_> {
    /// Commented TOML that [`super::Policy::from_toml`] reads.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let models = self.models.iter().map(|digest| format!("\"{digest}\"")).collect::<Vec<_>>().join(", ");
        simulated(
            self.root_pem,
            "exactly one",
            &[
                ("measurement", &format!("{{ exactly = \"{}\" }}", self.measurement)),
                ("model", &format!("{{ any_of = [{models}] }}")),
                ("config", &format!("{{ exactly = \"{}\" }}", self.config)),
                ("release", "{ unchecked = \"a simulated enclave is not released\" }"),
                ("gpu_mode", "{ exactly = \"none\" }"),
            ],
        )
    }
}
