//! One HTTP/1.1 request with limits: the only TLS client of the host.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, RETRY_AFTER, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The largest answer is a manifest in JSON, 60 KiB.
const MAX_BODY: usize = 1024 * 1024;
/// Issuer chains travel in headers, 4 KiB each.
const MAX_HEAD: usize = 64 * 1024;
/// A service that asks for more patience than this is down, for our purposes.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Asks services, with a deadline for each request.
#[derive(Clone)]
pub struct Client {
    tls: TlsConnector,
    deadline: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// What a service said with status 200.
#[derive(Debug)]
pub(super) struct Answer {
    headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Trying again may help; not before this time has passed, if the service said so.
    Passing { why: String, wait: Option<Duration> },
    /// It will not help.
    Final(String),
}

impl Client {
    /// TLS 1.3, or 1.2, which is all that Intel's documentation promises; roots are Mozilla's, built in. What is fetched is signed, and
    /// verified by others: TLS keeps from the network which machine is asked about.
    ///
    /// # Errors
    /// None with the cryptography that this is built with.
    pub fn new(deadline: Duration) -> Result<Self, rustls::Error> {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), deadline })
    }

    /// GET, or POST of an OCSP request.
    pub(super) async fn ask(&self, url: &str, body: Option<Vec<u8>>) -> Result<Answer, Failure> {
        match tokio::time::timeout(self.deadline, self.exchange(url, body)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(passing(format!("no answer within {} s", self.deadline.as_secs_f32()))),
        }
    }

    async fn exchange(&self, url: &str, body: Option<Vec<u8>>) -> Result<Answer, Failure> {
        let uri: Uri = url.parse().map_err(|_quotes_input| Failure::Final("not a URL".to_owned()))?;
        let host = uri.host().ok_or_else(|| Failure::Final("a URL without host".to_owned()))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            // Answers are signed, but a request says which machine is asked about.
            Some("http") if is_loopback(host) => false,
            _ => return Err(Failure::Final("only https, or http to this machine".to_owned())),
        };
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let stream = TcpStream::connect((name.as_str(), port))
            .await
            .map_err(|e| passing(format!("cannot connect: {e}")))?;
        let request = request(&uri, host, body)?;
        if !tls {
            return send(stream, request).await;
        }
        let name = ServerName::try_from(name)
            .map_err(|_quotes_input| Failure::Final("not a host name".to_owned()))?;
        let stream =
            self.tls.connect(name, stream).await.map_err(|e| passing(format!("no TLS connection: {e}")))?;
        send(stream, request).await
    }
}

fn passing(why: String) -> Failure {
    Failure::Passing { why, wait: None }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn request(uri: &Uri, host: &str, body: Option<Vec<u8>>) -> Result<Request<Full<Bytes>>, Failure> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let builder = Request::builder().uri(path).header(HOST, host).header(USER_AGENT, "cocoon-host");
    let request = match body {
        None => builder.body(Full::default()),
        Some(body) => {
            builder.method("POST").header(CONTENT_TYPE, "application/ocsp-request").body(Full::from(body))
        }
    };
    request.map_err(|e| Failure::Final(e.to_string()))
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |e: hyper::Error| passing(format!("the connection broke: {e}"));
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Ends with the stream, when the answer was read or given up.
    let connection = tokio::spawn(connection);
    let result = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            return Err(of_status(head.status, &head.headers));
        }
        let body = Limited::new(body, MAX_BODY).collect().await;
        let body = body.map_err(|e| match e.downcast_ref::<http_body_util::LengthLimitError>() {
            Some(_) => Failure::Final(format!("an answer of more than {MAX_BODY} bytes")),
            None => passing(format!("the answer broke off: {e}")),
        })?;
        Ok(Answer { headers: head.headers, body: body.to_bytes() })
    }
    .await;
    connection.abort();
    result
}

fn of_status(status: StatusCode, headers: &HeaderMap) -> Failure {
    let why = format!("the service says {status}");
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let wait = seconds.map(Duration::from_secs);
    match status.as_u16() {
        _ if wait.is_some_and(|wait| wait > MAX_RETRY_AFTER) => {
            Failure::Final(format!("{why}, and asks to wait longer than {} s", MAX_RETRY_AFTER.as_secs()))
        }
        408 | 429 | 500..=599 => Failure::Passing { why, wait },
        300..=399 => Failure::Final(format!("{why}: redirections are not followed")),
        404 => Failure::Final(format!("{why}: it does not know what was asked for")),
        _ => Failure::Final(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_https_or_this_machine() {
        let client = Client::new(Duration::from_secs(5)).unwrap();
        for url in
            ["http://example.com/", "ftp://127.0.0.1/", "http://", "/path", "http://127.0.0.1.example.com/"]
        {
            assert!(matches!(client.ask(url, None).await, Err(Failure::Final(_))), "{url}");
        }
        assert!(is_loopback("[::1]") && is_loopback("127.0.0.1") && !is_loopback("10.0.0.1"));
    }
}
