//! Serves the counts over HTTP/1 to this machine only.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{Metrics, text};
use crate::Error;

/// How long a scraper may take to send its request headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a scraper may take in all; each connection serves one request.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// Scrapers at the same time. One Prometheus needs one; the rest is for people.
const MAX_CONNECTIONS: usize = 16;
/// hyper's least, and far above what a scraper sends.
const MAX_HEADER_BYTES: usize = 8192;
/// How long accepting rests after an error.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// A bound metrics server; serves once [`Server::serve`] runs.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

/// Opens the listener at a loopback address, as made by [`crate::address::loopback`].
///
/// # Errors
///
/// [`Error::Listen`].
pub async fn bind(address: SocketAddr) -> Result<Server, Error> {
    let failed = |source| Error::Listen { address: address.into(), option: "--metrics", source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Server { listener, address })
}

impl Server {
    /// The address that it got.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves for ever; drop the future to stop.
    pub async fn serve(self, metrics: Arc<Metrics>) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // A closed semaphore is the only error, and nobody closes this one.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let Ok((stream, _)) = self.listener.accept().await else {
                sleep(ACCEPT_REST).await;
                continue;
            };
            let metrics = Arc::clone(&metrics);
            tokio::spawn(async move {
                // What a scraper does wrong is its own affair.
                let _theirs = timeout(CONNECTION_TIMEOUT, one_request(stream, &metrics)).await;
                drop(slot);
            });
        }
    }
}

async fn one_request(stream: TcpStream, metrics: &Metrics) -> hyper::Result<()> {
    let service =
        service_fn(|request| async move { Ok::<_, Infallible>(answer(&request, || metrics.text())) });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn answer(request: &Request<Incoming>, page: impl FnOnce() -> String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    if request.uri().path() != "/metrics" {
        *response.status_mut() = StatusCode::NOT_FOUND;
    } else if request.method() != Method::GET {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    } else {
        *response.body_mut() = Full::from(page());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(text::CONTENT_TYPE));
    }
    response
}
