//! A channel whose other end was not verified yet: it can be verified or dropped, nothing else.

use std::time::Duration;

use cocoon_attestation::appraisal::RawEvidence;
use cocoon_attestation::wire::{AttestRequest, FrameKind};
use cocoon_channel::frames::{read_frame, write_frame};
use cocoon_channel::session::Session;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::net::TcpStream;

use crate::error::Error;
use crate::session::AttestedSession;
use crate::{Policy, clock, known};

/// For name look-up and TCP.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// For TLS and a hardware report, which can take a second and may wait for another one.
const ATTEST_DEADLINE: Duration = Duration::from_secs(20);

/// TLS is up and the evidence is here; what it says is not known yet.
#[derive(Debug)]
pub struct UnverifiedChannel {
    endpoint: String,
    session: Session,
    evidence: RawEvidence,
}

impl UnverifiedChannel {
    /// Connects to `endpoint` (`HOST:PORT`) and asks for evidence. Nothing but a random number is sent.
    ///
    /// # Errors
    /// [`Error::Unreachable`] or [`Error::NotAnEnclave`].
    pub async fn open(endpoint: &str) -> Result<Self, Error> {
        let elapsed = |_| Error::unreachable(endpoint, "no answer in time");
        let tcp =
            tokio::time::timeout(CONNECT_DEADLINE, TcpStream::connect(endpoint)).await.map_err(elapsed)?;
        let tcp = tcp
            .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp))
            .map_err(|e| Error::unreachable(endpoint, e))?;
        let attested = tokio::time::timeout(ATTEST_DEADLINE, attest(tcp)).await.map_err(elapsed)?;
        let (session, evidence) = attested.map_err(|e| Error::channel(endpoint, &e))?;
        Ok(Self { endpoint: endpoint.to_owned(), session, evidence })
    }

    /// The evidence, to keep or to look at.
    #[must_use]
    pub fn evidence(&self) -> &RawEvidence {
        &self.evidence
    }

    /// Appraises the evidence; the channel is closed without a word if `policy` does not accept it.
    ///
    /// # Errors
    /// [`Error::Rejected`] with every factor, [`Error::Malformed`].
    pub async fn verify(self, policy: Policy) -> Result<AttestedSession, Error> {
        match self.evidence.verify(&policy, clock::now(), known::signatures()) {
            Ok(result) => AttestedSession::start(self.endpoint, self.session, policy, result).await,
            Err(refusal) => {
                self.session.close().await;
                Err(refusal.into())
            }
        }
    }
}

async fn attest(tcp: TcpStream) -> Result<(Session, RawEvidence), cocoon_channel::Error> {
    let session = Session::connect(tcp).await?;
    let request = fresh_request().ok_or(cocoon_channel::Error::Session("no random bytes"))?;
    let mut stream = session.stream();
    write_frame(&mut stream, FrameKind::AttestRequest, &request).await?;
    let response = read_frame(&mut stream, FrameKind::AttestResponse).await?;
    let channel = session.binding(&request)?;
    Ok((session, RawEvidence { request, response, channel }))
}

/// An encoded AttestRequest with a fresh nonce; `None` when the system has no randomness.
pub(crate) fn fresh_request() -> Option<Vec<u8>> {
    let mut nonce = [0; 32];
    SystemRandom::new().fill(&mut nonce).ok()?;
    Some(AttestRequest::new(nonce).encode())
}
