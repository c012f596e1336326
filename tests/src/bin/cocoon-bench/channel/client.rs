//! Clients of both doors, which differ in the attestation alone.

use bytes::Bytes;
use cocoon_attestation::wire::STATUS_PATH;
use cocoon_channel::session::Session;
use cocoon_client::{AttestedSession, Policy, connect};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// A way into the enclave.
#[derive(Clone)]
pub struct Door {
    /// Where it listens.
    pub address: String,
    /// What clients accept behind it; `None` where there is no gate.
    pub policy: Option<Policy>,
}

/// An open connection.
pub enum Client {
    /// Of the SDK.
    Attested(AttestedSession),
    /// TLS and HTTP/2 as in the SDK, without attestation.
    Bare(SendRequest<Full<Bytes>>),
}

impl Door {
    /// Connects.
    pub async fn enter(&self) -> anyhow::Result<Client> {
        match &self.policy {
            Some(policy) => Ok(Client::Attested(connect(&self.address, policy.clone()).await?)),
            None => Ok(Client::Bare(without_attestation(&self.address).await?)),
        }
    }
}

async fn without_attestation(address: &str) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let session = Session::connect(tcp).await?;
    let (http, connection) = handshake(TokioExecutor::new(), TokioIo::new(session.stream())).await?;
    // Ends when the client is dropped.
    tokio::spawn(connection);
    Ok(http)
}

impl Client {
    /// Asks for the status, the smallest request that there is.
    pub async fn ask(&self) -> anyhow::Result<()> {
        let request = Request::get(format!("https://enclave{STATUS_PATH}")).body(Full::default())?;
        let response = match self {
            Self::Attested(session) => session.request(request).await?,
            Self::Bare(http) => {
                let mut http = http.clone();
                http.ready().await?;
                http.send_request(request).await?
            }
        };
        anyhow::ensure!(response.status().is_success(), "the enclave answered {}", response.status());
        response.into_body().collect().await?;
        Ok(())
    }
}
