//! Policies as text, with comments: the strict one, one to fill in, and one for a simulated enclave.

use super::{nvidia, platform, release, snp, tdx};
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
padding = { at_least = 1 }
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
    let zeros = |digits| format!("{{ any_of = [\"{}\"] }}", "0".repeat(digits));
    let release = "{ unchecked = \"the measurements say which release it is\" }";
    to_fill_in(gpus, &[], &zeros(96), &zeros(64), release)
}

/// The same for releases: who signs them, where they are logged, who rebuilds them. As it is, it accepts no enclave.
#[must_use]
pub fn init_released(gpus: u64) -> String {
    let section = release::SECTION.replace("{key}", &"0".repeat(64));
    to_fill_in(gpus, &[&section], "\"release\"", "\"release\"", "\"release\"")
}

/// With `more` sections, and with these rows for measurements, configuration and release.
fn to_fill_in(gpus: u64, more: &[&str], measurement: &str, config: &str, release: &str) -> String {
    let open = |row: &str| format!("\n{row} = {{ unchecked = \"no reference value is given\" }}");
    let measured = ["mr_td", "rtmr0", "rtmr1", "rtmr2"].iter().fold(tdx::SECTION.to_owned(), |text, row| {
        text.replace(&open(row), &format!("\n{row} = {measurement}"))
    });
    // Cocoon's hosts set none of these.
    let measured = ["mr_config_id", "mr_owner", "mr_owner_config"].iter().fold(measured, |text, row| {
        text.replace(&open(row), &format!("\n{row} = {{ exactly = \"{}\" }}", "0".repeat(96)))
    });
    let mut sections = vec![snp::SECTION, measured.as_str()];
    sections.extend((gpus > 0).then_some(nvidia::SECTION));
    sections.extend(more);
    fill(
        &sections,
        "# A strict policy. As it is, it accepts no enclave: put the values of the release and of the models that you\n\
         # want instead of the zeros. Every field must be there and is one of\n\
         #   { exactly = v }   { any_of = [v, ..] }   { at_least = n }   { unchecked = \"why\" }\n\
         # `cocoon policy explain FILE` says in words what it accepts.",
        &[
            ("root", "\"amd\""),
            ("product", "{ any_of = [\"Genoa\", \"Turin\"] }"),
            ("tcb", "\"floors\""),
            ("measurement", measurement),
            ("host_data", "{ unchecked = \"S states configuration and models\" }"),
            ("platform_id", "{ unchecked = \"any machine of the tier\" }"),
            ("tier", "{ any_of = [\"datacenter\"] }"),
            ("model", &format!("{{ any_of = [\"{}\"] }}", "0".repeat(64))),
            ("config", config),
            ("release", release),
            ("gpu_mode", &format!("{{ exactly = \"{}\" }}", if gpus == 0 { "none" } else { "on" })),
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
