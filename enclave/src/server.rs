//! Listeners, limits, shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cocoon_channel::Transport;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, lookup_host};
use tokio::sync::{Semaphore, watch};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};

use crate::api::{Api, Limits};
use crate::events::{Event, Listening, Refusal};
use crate::settings::ListenAddress;
use crate::{Enclave, gate};

/// Requests at once on one connection.
const MAX_STREAMS: u32 = 64;
/// Bytes that a connection can make the enclave hold before anybody reads them.
const WINDOW: u32 = 256 * 1024;
/// OpenAI clients send a few hundred bytes of headers.
const MAX_HEADERS: u32 = 16 * 1024;
/// A peer that is gone is noticed by a ping that is not answered.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection on which nothing was asked for so long gives its place to somebody else.
const IDLE_LIMIT: Duration = Duration::from_secs(15 * 60);
/// Clients that come at once and are not yet accepted; with fewer, the rest would try again a second later.
const BACKLOG: u32 = 1024;
/// After a failure of accept, for instance for lack of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// A bound socket.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// vsock.
    Vsock(VsockListener),
}

impl Listener {
    /// Binds.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: &ListenAddress) -> std::io::Result<Self> {
        match address {
            ListenAddress::Tcp(address) => bind_tcp(address).await.map(Self::Tcp),
            ListenAddress::Vsock(port) => {
                VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, *port)).map(Self::Vsock)
            }
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> std::io::Result<Listening> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Listening::Tcp),
            Self::Vsock(listener) => listener.local_addr().map(|a| Listening::Vsock(a.cid(), a.port())),
        }
    }

    async fn accept(&self) -> std::io::Result<Box<dyn Transport>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _): (_, SocketAddr) = listener.accept().await?;
                // Tokens are small and must not wait for each other. It fails for a peer that is gone already: its connection will too.
                let _gone = stream.set_nodelay(true);
                Ok(Box::new(stream))
            }
            Self::Vsock(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

/// The first address that `text` stands for and that can be bound.
async fn bind_tcp(text: &str) -> std::io::Result<TcpListener> {
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in lookup_host(text).await? {
        let bound = (|| {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // A restart must not wait for connections of the last run to be forgotten.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        })();
        match bound {
            Ok(listener) => return Ok(listener),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Serves until `stop` becomes true, then lets running answers end for at most `drain`.
pub async fn serve(
    enclave: Arc<Enclave>,
    listener: Listener,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
    drain: Duration,
) {
    let max = limits.max_connections;
    let places = Arc::new(Semaphore::new(max as usize));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Ok(transport) = accepted else {
            enclave.events.log(&Event::AcceptFailed);
            tokio::time::sleep(ACCEPT_BACKOFF).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            enclave.events.log(&Event::ConnectionLimit);
            continue;
        };
        let (enclave, mut stop) = (enclave.clone(), stop.clone());
        tokio::spawn(async move {
            let passed = tokio::select! {
                passed = gate::pass(transport, &enclave.node, &enclave.attestation) => passed,
                _ = stop.wait_for(|stop| *stop) => Err(Refusal::Stopping),
            };
            match passed {
                Ok(attested) => connection(Api::new(enclave, attested, limits), stop).await,
                Err(reason) => enclave.events.log(&Event::ChannelRefused { reason }),
            }
            drop(place);
        });
    }
    drop(listener);
    enclave.events.log(&Event::Stopping);
    let all_gone = tokio::time::timeout(drain, places.acquire_many(max)).await;
    let cut = if all_gone.is_ok() { 0 } else { u64::from(max) - places.available_permits() as u64 };
    enclave.events.log(&Event::Stopped { cut });
}

/// HTTP/2 on an attested session, until either side ends it or the client has not asked anything for a while.
pub async fn connection(api: Api, mut stop: watch::Receiver<bool>) {
    let io = TokioIo::new(api.session().stream());
    let api = Arc::new(api);
    let answering = api.clone();
    let service = service_fn(move |request| {
        let api = answering.clone();
        async move { Ok::<_, std::convert::Infallible>(api.handle(request).await) }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS)
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let mut http = std::pin::pin!(builder.serve_connection(io, service));
    // How a connection ended is nobody's business: clients come and go.
    tokio::select! {
        _ended = http.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => {}
        () = idle(&api) => {}
    }
    http.as_mut().graceful_shutdown();
    // Answers that run may end; a client that does not read its answer cannot hold the connection for longer than one may take.
    let _ended = tokio::time::timeout(api.limits().request_deadline + PING_INTERVAL, http).await;
}

/// Returns once no request has come for [`IDLE_LIMIT`].
async fn idle(api: &Api) {
    loop {
        match IDLE_LIMIT.checked_sub(api.last_request().elapsed()) {
            Some(rest) if !rest.is_zero() => tokio::time::sleep(rest).await,
            _ => return,
        }
    }
}
