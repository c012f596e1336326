//! Raw requests, for what speaks [`tower_service::Service`].

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use cocoon_attestation::receipt::ReceiptBundle;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame};
use tower_service::Service;

use crate::answer::{Answer, AnswerBody};
use crate::error::Error;
use crate::pool::Client;
use crate::session::{AttestedSession, uri};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The body of a response; it ends without an error only if its receipt was verified. Dropping it before cancels the request.
#[expect(missing_debug_implementations, reason = "answers must not be printable by accident")]
pub struct ResponseBody(State);

/// The body, and what came of it.
type Step = (Box<AnswerBody>, Result<Option<Bytes>, Error>);

enum State {
    Idle(Box<AnswerBody>),
    Waiting(Boxed<Step>),
    Ended(Option<Box<ReceiptBundle>>),
}

impl ResponseBody {
    /// The receipt, after the end. Errors of the enclave, and what computes nothing, have none.
    #[must_use]
    pub fn receipt(&self) -> Option<&ReceiptBundle> {
        match &self.0 {
            State::Ended(receipt) => receipt.as_deref(),
            State::Idle(_) | State::Waiting(_) => None,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let state = &mut self.get_mut().0;
        loop {
            match state {
                State::Idle(_) => {
                    let State::Idle(mut body) = std::mem::replace(state, State::Ended(None)) else {
                        continue;
                    };
                    *state = State::Waiting(Box::pin(async move {
                        let next = body.next().await;
                        (body, next)
                    }));
                }
                State::Waiting(step) => {
                    let Poll::Ready((body, next)) = step.as_mut().poll(context) else { return Poll::Pending };
                    return Poll::Ready(match next {
                        Ok(Some(bytes)) => {
                            *state = State::Idle(body);
                            Some(Ok(Frame::data(bytes)))
                        }
                        Ok(None) => {
                            *state = State::Ended(body.receipt().cloned().map(Box::new));
                            None
                        }
                        Err(error) => {
                            *state = State::Ended(None);
                            Some(Err(error))
                        }
                    });
                }
                State::Ended(_) => return Poll::Ready(None),
            }
        }
    }
}

/// Requests to one verified enclave. `POST /v1/..` goes as JSON, padded and with a receipt, as [`AttestedSession::post`] sends it; anything else
/// as it is. Of the headers only `content-type` is sent, and the authority of the URL is not looked at.
impl Service<Request<Full<Bytes>>> for AttestedSession {
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = Boxed<Result<Self::Response, Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let ended = || Error::Ended("its connection was closed, or the enclave was refused");
        Poll::Ready(if self.is_open() { Ok(()) } else { Err(ended()) })
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let session = self.clone();
        Box::pin(async move {
            let request = Raw::of(request).await;
            let answer = match request.is_asking() {
                true => session.post(&request.path, &request.body).await?,
                false => request.send(session).await?,
            };
            Ok(response(answer))
        })
    }
}

/// Requests to whichever verified enclave is the best, as [`Client::post`] sends them; always ready. Anything else than `POST /v1/..` goes to the
/// least busy one as it is.
impl Service<Request<Full<Bytes>>> for Client {
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = Boxed<Result<Self::Response, Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let client = self.clone();
        Box::pin(async move {
            let request = Raw::of(request).await;
            let answer = match request.is_asking() {
                true => client.post(&request.path, &request.body).await?,
                false => request.send(client.session().await?).await?,
            };
            Ok(response(answer))
        })
    }
}

/// What of a request goes on.
struct Raw {
    method: Method,
    path: String,
    content_type: Option<http::HeaderValue>,
    body: Bytes,
}

impl Raw {
    async fn of(request: Request<Full<Bytes>>) -> Self {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let content_type = parts.headers.get(http::header::CONTENT_TYPE).cloned();
        let Ok(body) = body.collect().await;
        Self { method: parts.method, path, content_type, body: body.to_bytes() }
    }

    /// Whether something is computed.
    fn is_asking(&self) -> bool {
        self.method == Method::POST && self.path.starts_with("/v1/")
    }

    async fn send(self, session: AttestedSession) -> Result<Answer, Error> {
        let mut request = Request::builder().method(self.method).uri(uri(&self.path));
        if let Some(content_type) = self.content_type {
            request = request.header(http::header::CONTENT_TYPE, content_type);
        }
        let request = request.body(Full::new(self.body)).map_err(|e| Error::Misuse(e.to_string()))?;
        let response = session.request(request).await?;
        Ok(Answer::plain(session, response))
    }
}

fn response(answer: Answer) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody(State::Idle(Box::new(answer.body))));
    (*response.status_mut(), *response.headers_mut()) = (answer.status, answer.headers);
    response
}
