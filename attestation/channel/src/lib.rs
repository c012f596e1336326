//! What both ends of the attested channel `cocoon/1` share: TLS parameters, session binding, frame I/O.
//!
//! The messages themselves, and what they mean, are in `cocoon-attestation`; this crate moves them over a TLS 1.3 connection.
//!
//! | Module | What |
//! |---|---|
//! | [`hybrid`] | the X25519MLKEM768 key exchange for rustls |
//! | [`identity`] | the enclave's TLS key and self-signed certificate |
//! | [`session`] | handshakes of both sides, and the session that comes out of them |
//! | [`frames`] | reading and writing frames |

#![forbid(unsafe_code)]

pub mod frames;
pub mod hybrid;
pub mod identity;
pub mod session;
mod stream;
mod tickets;

pub use stream::{SharedTls, Transport};

/// Why a channel could not be set up or went down.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes of the peer are not what the specification says.
    #[error(transparent)]
    Malformed(#[from] cocoon_attestation::Error),
    /// The first bytes are not the ClientHello of a `cocoon/1` client.
    #[error("not a cocoon/1 client: {0:?}")]
    ClientHello(cocoon_attestation::wire::ClientHelloFault),
    /// TLS was negotiated, but not as `cocoon/1` demands.
    #[error("not a cocoon/1 session: {0}")]
    Session(&'static str),
    /// The TLS handshake failed.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The connection failed.
    #[error("connection: {0}")]
    Io(#[from] std::io::Error),
    /// The peer sent another frame than the protocol has at this place.
    #[error("unexpected frame")]
    UnexpectedFrame,
    /// The peer ended the connection in an orderly way.
    #[error("the peer closed the channel")]
    Closed,
}
