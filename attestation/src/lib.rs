//! The Verifier of Cocoon and every wire format around it.
//!
//! Everything here is a function of its arguments: bytes, a policy and a time go in, a result comes out. There is no clock, no
//! file, no socket and no environment, so that the same code appraises evidence in a client, a test, a fuzzer or an audit.
//!
//! Trust is a type. Each arrow consumes the left side and is the only way to the right:
//!
//! ```text
//! RawEvidence --parse--> Evidence --authenticate--> AuthenticEvidence --appraise--> AttestationResult
//! ```
//!
//! | Module | What |
//! |---|---|
//! | [`wire`] | `cocoon/1` messages: frames, AttestRequest, AttestResponse, the epoch statement S, CMW evidence, model manifest |
//! | [`binding`] | how evidence is tied to one TLS session: leaf, Merkle tree, REPORT_DATA |
//! | [`snp`] | AMD SEV-SNP: report, VCEK or VLEK, chain to a pinned root, revocation list |
//! | [`tdx`] | Intel TDX: quote, PCK chain, TCB info, QE identity |
//! | [`nvidia`] | NVIDIA GPUs: SPDM measurement report, device chain, RIMs, OCSP responses |
//! | [`x509`] | certificates, paths, revocation lists |
//! | [`policy`] | what a relying party accepts, as TOML |
//! | [`receipt`] | what an enclave signs about each answer |
//! | [`release`] | what was released: manifest, signatures, log proof, rebuilds |
//! | [`appraisal`] | the pipeline above |
//! | [`result`](mod@result) | factors and the Attestation Result |

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

pub mod appraisal;
pub mod binding;
mod cbor;
mod context;
mod crypto;
mod endorsement;
mod error;
pub mod nvidia;
pub mod policy;
mod reader;
pub mod receipt;
pub mod release;
pub mod result;
pub mod snp;
pub mod tdx;
#[cfg(test)]
mod tests;
mod types;
pub mod wire;
pub mod x509;

pub use context::{Context, Missing};
pub use crypto::SignatureCache;
pub use endorsement::{
    About, ENDORSEMENT_KINDS, Endorsement, EndorsementBundle, EndorsementKind, vcek_subject,
};
pub use error::Error;
pub use types::{Digest, Id, Measurement, UnixTime};
