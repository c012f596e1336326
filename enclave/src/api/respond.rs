//! Bodies of responses.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Memory for an answer that is large and whole before a byte of it is sent: of all clients, and of its connection. Held until the answer has
/// gone, however slowly its client takes it.
#[derive(Clone)]
pub(crate) struct Room {
    _held: Arc<[OwnedSemaphorePermit; 2]>,
}

impl Room {
    /// For large answers of all clients together, in KiB: 64 MiB.
    const ALL: usize = 64 * 1024;
    /// Of one connection, in KiB: 16 MiB.
    pub(crate) const OF_CONNECTION: usize = 16 * 1024;

    /// Room for `kibibytes`, if there is any left.
    pub(crate) fn take(connection: &Arc<Semaphore>, kibibytes: usize) -> Option<Self> {
        static ANSWERS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(Room::ALL)));
        let permits = u32::try_from(kibibytes).ok()?;
        let take = |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_many_owned(permits).ok();
        let held = [take(connection)?, take(&ANSWERS)?];
        Some(Self { _held: Arc::new(held) })
    }
}

pub(crate) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).boxed_unsync()
}

pub(crate) fn json_response(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(whole(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Server-sent events (WHATWG HTML section 9.2), as they come.
pub(crate) fn event_stream(events: mpsc::Receiver<Bytes>) -> Response<Body> {
    let frames = ReceiverStream::new(events).map(|bytes| Ok(Frame::data(bytes)));
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// One event with a JSON object.
pub(crate) fn event(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

/// One event that has a name beside its JSON object.
pub(crate) fn named_event(name: &str, value: &Value) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {value}\n\n"))
}

/// A line that clients pass over.
pub(crate) fn comment(text: &str) -> Bytes {
    Bytes::from(format!(": {text}\n\n"))
}

/// The event that ends a stream of the OpenAI API.
pub(crate) fn done() -> Bytes {
    Bytes::from_static(b"data: [DONE]\n\n")
}
