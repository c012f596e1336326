//! The OpenAI API for programs on this machine.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cocoon_client::{Answer, Client, EndpointStatus, Error};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use zeroize::Zeroizing;

use super::errors::{self, Problem};
use super::receipts;

/// As the enclave.
const MAX_BODY: usize = 2 * 1024 * 1024;
/// The longest answer that is not streamed.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// For a body from this machine.
const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// Names the file of the receipt.
const RECEIPT_HEADER: HeaderName = HeaderName::from_static("cocoon-receipt-id");

pub(super) type Body = BoxBody<Bytes, std::io::Error>;

/// The proxy.
pub(super) struct Proxy {
    pub(super) client: Client,
    /// Whoever asks must know it.
    pub(super) token: Option<Zeroizing<String>>,
    /// Where receipts are kept.
    pub(super) receipts: Option<PathBuf>,
}

/// What of a request the proxy looks at.
#[derive(Deserialize)]
struct Peek {
    #[serde(default)]
    stream: bool,
}

impl Proxy {
    /// Answers one request; whatever goes wrong is an answer too.
    pub(super) async fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        Ok(self.route(request).await.unwrap_or_else(|problem| problem.response()))
    }

    async fn route(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
        self.admit(request.headers())?;
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::GET, "/v1/models") => self.models().await,
            (&Method::GET, _) if path.starts_with("/v1/models/") => {
                self.model(path.trim_start_matches("/v1/models/")).await
            }
            (&Method::GET, "/.well-known/cocoon/attestation") => {
                let _failures = self.client.verify().await;
                Ok(json_response(StatusCode::OK, &attestation(&self.client.endpoints())))
            }
            (&Method::POST, _) if path.starts_with("/v1/") => self.answer(&path, request).await,
            _ => Err(Problem::new(StatusCode::NOT_FOUND, "unknown_url", "there is nothing at this URL")),
        }
    }

    /// Only programs that know the token; without one, only programs of this machine, and no page in its browser.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(token) = &self.token {
            let given = text(AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
            return match given {
                Some(given) if is_same(given, token) => Ok(()),
                _ => Err(errors::unauthorized()),
            };
        }
        let origin = text(ORIGIN).map(|origin| origin.split_once("://").map_or(origin, |(_, host)| host));
        match [text(HOST), origin].into_iter().flatten().find(|host| !is_loopback(host)) {
            None => Ok(()),
            Some(_) => Err(errors::not_from_here()),
        }
    }

    async fn models(&self) -> Result<Response<Body>, Problem> {
        let data = self.client.list_models().await.map_err(|error| errors::failed(&error))?;
        Ok(json_response(StatusCode::OK, &json!({ "object": "list", "data": data })))
    }

    async fn model(&self, id: &str) -> Result<Response<Body>, Problem> {
        let models = self.client.list_models().await.map_err(|error| errors::failed(&error))?;
        let model = models.iter().find(|model| model["id"] == id);
        Ok(json_response(StatusCode::OK, model.ok_or_else(|| errors::failed(&Error::NoSuchModel))?))
    }

    async fn answer(
        self: Arc<Self>,
        path: &str,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Problem> {
        let body = read(request).await?;
        let peek = serde_json::from_slice::<Peek>(&body).unwrap_or(Peek { stream: false });
        let answer = self.client.post(path, &body).await.map_err(|error| errors::failed(&error))?;
        let receipt = self.receipts.clone().map(receipts::Place::new);
        if peek.stream && answer.status == StatusCode::OK {
            Ok(streamed(answer, receipt))
        } else {
            whole(answer, receipt).await
        }
    }
}

/// What is known of each enclave, with all factors.
fn attestation(all: &[EndpointStatus]) -> Value {
    let one = |status: &EndpointStatus| {
        json!({
            "endpoint": status.endpoint, "usable": status.is_usable, "error": status.message, "result": status.report,
        })
    };
    json!({ "upstreams": all.iter().map(one).collect::<Vec<_>>() })
}

/// An answer whose receipt was verified.
async fn whole(mut answer: Answer, receipt: Option<receipts::Place>) -> Result<Response<Body>, Problem> {
    let body = answer.collect(MAX_ANSWER).await.map_err(|error| errors::failed(&error))?;
    let mut response = Response::new(full(Bytes::copy_from_slice(&body)));
    // Errors of the enclave have none.
    if let (Some(place), Some(bundle)) = (receipt, answer.body.receipt()) {
        place.keep(bundle).await?;
        name_receipt(&mut response, &place);
    }
    *response.status_mut() = answer.status;
    for name in [CONTENT_TYPE, RETRY_AFTER] {
        if let Some(value) = answer.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    Ok(response)
}

/// Says where the receipt is, or will be when a stream has ended.
fn name_receipt(response: &mut Response<Body>, place: &receipts::Place) {
    if let Ok(id) = HeaderValue::try_from(place.id()) {
        response.headers_mut().insert(RECEIPT_HEADER, id);
    }
}

/// An answer as it comes. Its last event goes on only when the receipt was verified.
fn streamed(answer: Answer, receipt: Option<receipts::Place>) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(4);
    let (headers, place) = (answer.headers.clone(), receipt.clone());
    tokio::spawn(async move {
        if let Err(problem) = pass_on(answer, &sender, receipt).await {
            let event = format!("data: {}\n\n", problem.json());
            let _gone = sender.send(Ok(Frame::data(Bytes::from(event)))).await;
        }
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(ReceiverStream::new(receiver))));
    let kind = headers.get(CONTENT_TYPE).cloned();
    let kind = kind.unwrap_or_else(|| HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Some(place) = place {
        name_receipt(&mut response, &place);
    }
    response
}

async fn pass_on(
    mut answer: Answer,
    to: &mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>,
    receipt: Option<receipts::Place>,
) -> Result<(), Problem> {
    let (mut held, mut line_starts) = (Vec::new(), true);
    while let Some(bytes) = next(&mut answer, to).await.map_err(|error| errors::failed(&error))? {
        held.extend_from_slice(&bytes);
        let goes = last_event(&held, line_starts);
        line_starts = held[..goes].last().map_or(line_starts, |byte| *byte == b'\n');
        if goes > 0 && to.send(Ok(Frame::data(held.drain(..goes).collect()))).await.is_err() {
            return Ok(()); // nobody reads: dropping the answer cancels the request
        }
    }
    if let (Some(place), Some(bundle)) = (receipt, answer.body.receipt()) {
        place.keep(bundle).await?;
    }
    let _gone = to.send(Ok(Frame::data(held.into()))).await;
    Ok(())
}

/// The next bytes; also ends when nobody reads them any more.
async fn next(
    answer: &mut Answer,
    to: &mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>,
) -> Result<Option<Bytes>, Error> {
    tokio::select! {
        bytes = answer.body.next() => bytes,
        () = to.closed() => Ok(None),
    }
}

/// Where the event begins that ends a stream; all bytes, if it is not there. Events begin lines, which no text of an answer can do: JSON has no
/// line breaks in it. `line_starts`: whether these bytes begin a line.
fn last_event(bytes: &[u8], line_starts: bool) -> usize {
    const ENDS: [&[u8]; 4] = [
        b"data: [DONE]",
        b"event: response.completed",
        b"event: response.incomplete",
        b"event: response.failed",
    ];
    let lines = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    let ends = |at: &usize| {
        let line = &bytes[*at..];
        // A piece of one may be at the end.
        ENDS.iter().any(|end| line.starts_with(end) || (!line.is_empty() && end.starts_with(line)))
    };
    line_starts.then_some(0).into_iter().chain(lines).find(ends).unwrap_or(bytes.len())
}

async fn read(request: Request<Incoming>) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let body = Limited::new(request.into_body(), MAX_BODY).collect();
    match tokio::time::timeout(BODY_DEADLINE, body).await {
        Ok(Ok(body)) => Ok(Zeroizing::new(body.to_bytes().to_vec())),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(errors::too_large(MAX_BODY)),
        Ok(Err(_)) => Err(errors::incomplete(StatusCode::BAD_REQUEST, "the body broke off")),
        Err(_elapsed) => {
            Err(errors::incomplete(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"))
        }
    }
}

pub(super) fn json_response(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

/// `localhost`, `127.0.0.0/8` or `[::1]`, with a port or without.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Without revealing, by time, where the first difference is.
fn is_same(a: &str, b: &str) -> bool {
    let digest = |text: &str| ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest(a).as_ref() == digest(b).as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_these_names() {
        for host in
            ["localhost", "LOCALHOST:8787", "127.0.0.1", "127.0.0.1:80", "127.1.2.3", "[::1]", "[::1]:8787"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.com",
            "localhost.example.com",
            "10.0.0.1:8787",
            "[fe80::1]",
            "127.0.0.1.nip.io",
            "0.0.0.0",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn the_last_event_is_held_back_however_it_is_cut() {
        let events: &[u8] = b"data: {\"a\": \"data: [DONE]\"}\n\n";
        for end in
            ["data: [DONE]", "event: response.completed\ndata: {}", "event: response.incomplete\ndata: {}"]
        {
            let stream = [events, end.as_bytes(), b"\n\n"].concat();
            for cut in 0..stream.len() {
                let (mut held, mut sent, mut line_starts) = (Vec::new(), Vec::new(), true);
                for piece in [&stream[..cut], &stream[cut..]] {
                    held.extend_from_slice(piece);
                    sent.extend(held.drain(..last_event(&held, line_starts)));
                    line_starts = sent.last().is_none_or(|byte| *byte == b'\n');
                }
                assert_eq!(sent, events, "{end} at {cut}");
            }
        }
        // Nothing waits for what comes next.
        assert_eq!(last_event(events, true), events.len());
    }
}
