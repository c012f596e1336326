//! How evidence is tied to one TLS session (`protocol.md`, Binding). All integers big-endian.

mod merkle;

pub use merkle::{MAX_TREE_SIZE, merkle_path, merkle_root, root_from_path};

use crate::wire::Mode;
use crate::{Digest, crypto};

/// Which side attests. Part of the leaf and of the exporter context: evidence of one side cannot be reflected as the other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// 1
    Enclave,
    /// 2
    Client,
}

impl Role {
    /// The byte on the wire.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Enclave => 1,
            Self::Client => 2,
        }
    }
}

/// What is particular to one TLS session, as seen by one of its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelBinding {
    /// The side that attests.
    pub role: Role,
    /// TLS cipher suite, as in the IANA registry.
    pub cipher_suite: u16,
    /// TLS named group of the key exchange, as in the IANA registry.
    pub named_group: u16,
    /// SHA-256 of the SubjectPublicKeyInfo of the attesting side.
    pub spki: Digest,
    /// SHA-256 of the SubjectPublicKeyInfo of the other side, if it has a certificate.
    pub peer_spki: Option<Digest>,
    /// The TLS exporter's output for [`exporter_context`].
    pub exported: [u8; 32],
}

/// Context of the TLS exporter: `role || reqhash`.
#[must_use]
pub fn exporter_context(role: Role, request: &[u8]) -> [u8; 33] {
    let mut context = [0; 33];
    let reqhash = Digest::of(request).0;
    for (to, from) in context.iter_mut().zip(std::iter::once(role.code()).chain(reqhash)) {
        *to = from;
    }
    context
}

/// `leafdata` (165 bytes) for the session `channel` and the AttestRequest as it was sent.
#[must_use]
pub fn leaf_data(channel: &ChannelBinding, request: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(165);
    out.extend_from_slice(&label("cocoon/attest/leaf/v1"));
    out.push(channel.role.code());
    out.extend_from_slice(&channel.cipher_suite.to_be_bytes());
    out.extend_from_slice(&channel.named_group.to_be_bytes());
    out.extend_from_slice(&channel.spki.0);
    out.extend_from_slice(&channel.exported);
    out.extend_from_slice(&Digest::of(request).0);
    out.extend_from_slice(&channel.peer_spki.map_or([0; 32], |digest| digest.0));
    out
}

/// `leaf = H256(0x00 || leafdata)`
#[must_use]
pub fn leaf_hash(leaf_data: &[u8]) -> Digest {
    Digest(crypto::sha256(&[&[0], leaf_data]))
}

/// What the hardware signs: `H512(label || mode || H256(S) || root || size)`.
#[must_use]
pub fn report_data(mode: Mode, statement: &[u8], root: Digest, size: u32) -> [u8; 64] {
    crypto::sha512(&[
        &label("cocoon/attest/report-data/v1"),
        &[mode.code()],
        &Digest::of(statement).0,
        &root.0,
        &size.to_be_bytes(),
    ])
}

/// The nonce of a GPU's measurement request; `x`: 32 random bytes of the epoch (mode 0), or the leaf (mode 1).
#[must_use]
pub fn gpu_nonce(boot_id: [u8; 16], epoch: u64, spki: Digest, x: [u8; 32]) -> Digest {
    let label = label("cocoon/attest/gpu-nonce/v1");
    Digest(crypto::sha256(&[&label, &boot_id, &epoch.to_be_bytes(), &spki.0, &x]))
}

/// What a host gives a launch as HOST_DATA, so that the report says for which configuration and models it was:
/// `H256(label || config digest || model manifest digests, in the order of S)`.
#[must_use]
pub fn host_data(config: Digest, models: &[Digest]) -> Digest {
    let label = label("cocoon/host-data/v1");
    let mut parts: Vec<&[u8]> = vec![&label, &config.0];
    parts.extend(models.iter().map(|model| model.0.as_slice()));
    Digest(crypto::sha256(&parts))
}

/// `L("x")`: ASCII, zero-padded to 32 bytes.
fn label(text: &str) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel() -> ChannelBinding {
        ChannelBinding {
            role: Role::Enclave,
            cipher_suite: 0x1302,
            named_group: 0x11ec,
            spki: Digest([1; 32]),
            peer_spki: None,
            exported: [2; 32],
        }
    }

    #[test]
    fn every_input_changes_the_leaf() {
        let base = leaf_data(&channel(), b"request");
        assert_eq!(base.len(), 165);
        let others = [
            leaf_data(&ChannelBinding { role: Role::Client, ..channel() }, b"request"),
            leaf_data(&ChannelBinding { cipher_suite: 0x1301, ..channel() }, b"request"),
            leaf_data(&ChannelBinding { named_group: 29, ..channel() }, b"request"),
            leaf_data(&ChannelBinding { spki: Digest([9; 32]), ..channel() }, b"request"),
            leaf_data(&ChannelBinding { peer_spki: Some(Digest([9; 32])), ..channel() }, b"request"),
            leaf_data(&ChannelBinding { exported: [9; 32], ..channel() }, b"request"),
            leaf_data(&channel(), b"requesT"),
        ];
        for other in others {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn every_input_changes_the_report_data() {
        let base = report_data(Mode::FreshCpu, b"S", Digest([1; 32]), 1);
        assert_ne!(base, report_data(Mode::FreshCpuAndGpu, b"S", Digest([1; 32]), 1));
        assert_ne!(base, report_data(Mode::FreshCpu, b"T", Digest([1; 32]), 1));
        assert_ne!(base, report_data(Mode::FreshCpu, b"S", Digest([2; 32]), 1));
        assert_ne!(base, report_data(Mode::FreshCpu, b"S", Digest([1; 32]), 2));
    }

    #[test]
    fn exporter_context_is_role_then_hash() {
        let context = exporter_context(Role::Client, b"request");
        assert_eq!(context[0], 2);
        assert_eq!(context[1..], Digest::of(b"request").0);
    }
}
