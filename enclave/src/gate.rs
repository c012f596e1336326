//! Attestation before the first byte of HTTP.

use std::time::Duration;

use cocoon_attestation::Digest;
use cocoon_attestation::wire::{ClientHelloFault, FrameKind};
use cocoon_channel::frames::{read_frame, write_frame};
use cocoon_channel::session::Session;
use cocoon_channel::{Error, Transport};

use crate::attest::{AttestError, AttestationService};
use crate::events::Refusal;
use crate::node::Node;

/// A handshake takes a millisecond of work; the rest is for slow networks.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// `protocol.md`: any other first frame, or 5 s: close.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

/// For writing a response of some kilobytes to a slow peer.
const RESPONSE_DEADLINE: Duration = Duration::from_secs(10);

/// A connection that may speak HTTP/2.
#[derive(Debug)]
pub struct Attested {
    /// The connection.
    pub session: Session,
    /// Digest of the S that its client got.
    pub statement: Digest,
}

/// TLS handshake, AttestRequest, AttestResponse.
///
/// # Errors
/// Why the connection is to be dropped; the peer is told nothing.
pub async fn pass(
    transport: impl Transport,
    node: &Node,
    attestation: &AttestationService,
) -> Result<Attested, Refusal> {
    let identity = node.current().identity.clone();
    let session = within(HANDSHAKE_DEADLINE, Session::accept(transport, &identity)).await?;
    let mut stream = session.stream();
    let request = within(REQUEST_DEADLINE, read_frame(&mut stream, FrameKind::AttestRequest)).await?;
    let stated = attestation.respond(&session, &request).await.map_err(|e| match e {
        AttestError::Malformed => Refusal::Malformed,
        AttestError::OtherNode => Refusal::OtherNode,
        AttestError::OldKey | AttestError::NoReport => Refusal::NoReport,
    })?;
    within(RESPONSE_DEADLINE, write_frame(&mut stream, FrameKind::AttestResponse, &stated.response)).await?;
    Ok(Attested { session, statement: stated.statement })
}

async fn within<T>(limit: Duration, step: impl Future<Output = Result<T, Error>>) -> Result<T, Refusal> {
    match tokio::time::timeout(limit, step).await {
        Ok(result) => result.map_err(|e| refusal(&e)),
        Err(_elapsed) => Err(Refusal::TooSlow),
    }
}

fn refusal(error: &Error) -> Refusal {
    match error {
        Error::ClientHello(fault) => match fault {
            ClientHelloFault::OldVersion => Refusal::OldTls,
            ClientHelloFault::WrongProtocol => Refusal::WrongProtocol,
            ClientHelloFault::Resumption => Refusal::Resumption,
            ClientHelloFault::ServerName => Refusal::ServerName,
            ClientHelloFault::NotTls | _ => Refusal::NotTls,
        },
        Error::UnexpectedFrame => Refusal::WrongFrame,
        Error::Malformed(_) => Refusal::Malformed,
        Error::Session(_) | Error::Tls(_) => Refusal::Handshake,
        // tokio-rustls reports a failed handshake as an I/O error with this kind.
        Error::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => Refusal::Handshake,
        Error::Io(_) | Error::Closed | _ => Refusal::Disconnected,
    }
}
