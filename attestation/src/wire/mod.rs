//! The messages of `cocoon/1`, to the byte (`docs/protocol.md`). Sans-I/O: callers move the bytes.

mod cell;
mod client_hello;
mod epoch;
mod evidence;
mod frame;
mod model;
mod request;
mod response;

pub use cell::{CELL_CONTENT, CELL_LEN, Cell, Cells, MIN_PADDED, encode_cell, padded_len};
pub use client_hello::{
    ClientHelloFault, MAX_CLIENT_HELLO_LEN, TLS_RECORD_HEADER_LEN, check_client_hello, client_hello_len,
};
pub use epoch::{EpochStatement, MAX_EPOCH_SECONDS, PrivacyFlags};
pub use evidence::{EvidenceItem, EvidenceSet, SNP_REPORT_MEDIA_TYPE, TDX_QUOTE_MEDIA_TYPE};
pub use frame::{FRAME_HEADER_LEN, FrameHeader, FrameKind, MAX_REQUEST_LEN, MAX_RESPONSE_LEN, encode_frame};
pub use model::{ModelFile, ModelManifest, config_digest};
pub use request::{AttestRequest, Mode};
pub use response::AttestResponse;

/// ALPN protocol name of the channel.
pub const ALPN: &[u8] = b"cocoon/1";

/// Label of the TLS exporter that binds evidence to a session.
pub const EXPORTER_LABEL: &[u8] = b"EXPERIMENTAL cocoon attest v1";

/// Path of re-attestation over HTTP/2 on a live connection: the body is an AttestRequest, the answer an AttestResponse.
pub const REATTEST_PATH: &str = "/.well-known/cocoon/attest";

/// Path of the enclave's state over HTTP/2: JSON, see `docs/protocol.md`.
pub const STATUS_PATH: &str = "/.well-known/cocoon/status";

/// Response header that carries the number of the current epoch, so that a client notices a new one.
pub const EPOCH_HEADER: &str = "cocoon-epoch";

/// Header of requests and answers that names the padding profile: `1` constant size and rate, which is what a request without it gets;
/// `0` none.
pub const PAD_HEADER: &str = "cocoon-pad";

/// Trailer of answers without padding: the signed receipt, in hexadecimal.
pub const RECEIPT_TRAILER: &str = "cocoon-receipt";

#[cfg(test)]
pub(crate) mod samples {
    pub(crate) use super::client_hello::tests::{good, hello};
    pub(crate) use super::epoch::tests::statement;
}
