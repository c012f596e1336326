//! The text of a policy for one simulated enclave.

use crate::{Digest, Measurement};

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
        let Self { root_pem, measurement, config, .. } = self;
        let models = self.models.iter().map(|digest| format!("\"{digest}\"")).collect::<Vec<_>>().join(", ");
        format!(
            r#"# Accepts exactly one SIMULATED enclave. There is no protection by hardware: whoever holds the
# simulated root's key, which lies on the developer's disk, can read everything. For development only.
version = 1

[channel]
# Key exchange: the hybrid of X25519 and ML-KEM-768 withstands recording now and a quantum computer later.
named_group = {{ any_of = ["X25519MLKEM768"] }}

[snp]
# The root that signed this developer's simulated processor. Genuine hardware: root = {{ amd = ["Genoa", "Turin"] }}
root = {{ insecure_simulated = """
{root_pem}
""" }}
version = {{ at_least = 3 }}
# What was launched. On the simulated platform: a digest over the enclave's executable file.
measurement = {{ exactly = "{measurement}" }}
# 1 would let the host read the enclave's memory.
debug = {{ exactly = 0 }}
# Privilege level of the code that asked for the report.
vmpl = {{ exactly = 0 }}

[claims]
# `cocoon-measure model digest FILE` prints this for a model file.
model = {{ any_of = [{models}] }}
config = {{ exactly = "{config}" }}
release = {{ unchecked = "a simulated enclave is not released" }}
gpu_mode = {{ exactly = "none" }}

[privacy]
# 1: responses of constant size and rate.
padding = {{ unchecked = "padding is not yet offered" }}
content_logged = {{ exactly = 0 }}
shared_prefix_cache = {{ exactly = 0 }}
"#,
            root_pem = root_pem.trim()
        )
    }
}
