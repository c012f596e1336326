//! The HTTP that clients speak inside the attested channel.
//!
//! | Route | What |
//! |---|---|
//! | `POST /v1/chat/completions` | an answer, streamed or whole, that ends with a receipt; padded unless the request says otherwise |
//! | `POST /v1/completions` | the same for a text instead of a conversation |
//! | `POST /v1/responses` | the same in OpenAI's newer shape |
//! | `POST /v1/embeddings` | vectors of texts |
//! | `POST /v1/tokens/count` | how many tokens a prompt has |
//! | `GET /v1/models` | the models |
//! | `GET /.well-known/cocoon/status` | whether the model is loaded |
//! | `POST /.well-known/cocoon/attest` | attestation again, on this very connection |

mod account;
mod answer;
mod calls;
mod chat;
mod chat_request;
mod completions;
mod embeddings;
mod error;
mod fields;
mod format;
mod json;
mod logprobs;
mod messages;
mod padded;
mod receipted;
mod respond;
mod responses;
mod tools;
mod wanted;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cocoon_attestation::Digest;
use cocoon_attestation::wire::{EPOCH_HEADER, MAX_REQUEST_LEN, PAD_HEADER, REATTEST_PATH, STATUS_PATH};
use cocoon_channel::session::Session;
use cocoon_inference::{CacheSalt, ClientId};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::Enclave;
use crate::attest::AttestError;
use crate::gate::Attested;
use crate::model::{Served, Work};
use account::Account;
use error::ApiError;
use json::Object;
use padded::{Rate, padded};
use receipted::receipted;
use respond::{Body, Room, json_response, whole};
use wanted::{Outcome, Wanted};

/// More text than the largest prompt, with JSON around it.
const MAX_BODY: usize = 2 * 1024 * 1024;

/// For a body of that size over a slow network.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// Bodies of all clients together, in KiB: 64 MiB. What does not fit is told to come back.
static BODIES: Semaphore = Semaphore::const_new(64 * 1024);

/// Answers here are larger than elsewhere.
const EMBEDDINGS: &str = "/v1/embeddings";

/// All there are.
const URLS: [&str; 8] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    EMBEDDINGS,
    "/v1/tokens/count",
    "/v1/models",
    STATUS_PATH,
    REATTEST_PATH,
];

/// Connections so far.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// A name that no other connection has.
fn next_client() -> [u8; 32] {
    let mut client = [0; 32];
    let number = CONNECTIONS.fetch_add(1, Ordering::Relaxed).to_le_bytes();
    client.iter_mut().zip(number).for_each(|(to, byte)| *to = byte);
    client
}

/// What one client may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub max_connections: u32,
    /// Time for one request, waiting included.
    pub request_deadline: Duration,
}

/// The API on one attested connection.
#[derive(Debug)]
pub struct Api {
    enclave: Arc<Enclave>,
    session: Session,
    /// Digest of the S that the client got last: what receipts name, since this one it can have verified.
    statement: Mutex<Digest>,
    limits: Limits,
    last_request: Mutex<Instant>,
    /// Who this is to the engine: a client is a connection, since nothing says whether two are of one person.
    client: [u8; 32],
    /// For large answers, in KiB.
    answers: Arc<Semaphore>,
}

impl Api {
    /// The API for the client at the other end of an attested connection.
    #[must_use]
    pub fn new(enclave: Arc<Enclave>, attested: Attested, limits: Limits) -> Self {
        let Attested { session, statement } = attested;
        let (statement, last_request) = (Mutex::new(statement), Mutex::new(Instant::now()));
        let answers = Arc::new(Semaphore::new(Room::OF_CONNECTION));
        Self { enclave, session, statement, limits, last_request, client: next_client(), answers }
    }

    /// The connection.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// What the client may use.
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// When the last request came, or the connection.
    pub(crate) fn last_request(&self) -> Instant {
        *self.last_request.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers one request; whatever goes wrong is an answer too. Answers of models are padded, if the request does not refuse that.
    pub async fn handle(self: &Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        *self.last_request.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let of_model = request.method() == Method::POST && request.uri().path().starts_with("/v1/");
        let profile = request.headers().get(PAD_HEADER).map(HeaderValue::as_bytes);
        let node = Arc::clone(&self.enclave.node);
        let mut response = match profile {
            _ if !of_model => self.respond(request).await,
            None | Some(b"1") => {
                let rate = if request.uri().path() == EMBEDDINGS { Rate::Vectors } else { Rate::Text };
                let api = Arc::clone(self);
                padded(async move { api.respond(request).await }, node, rate)
            }
            Some(b"0") => receipted(self.respond(request).await, node),
            Some(_) => {
                let error = "is a padding profile: 1 (constant size and rate) or 0 (none)";
                ApiError::invalid(PAD_HEADER, error).response()
            }
        };
        response.headers_mut().insert(EPOCH_HEADER, HeaderValue::from(self.enclave.node.current().number));
        response
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Body> {
        self.route(request).await.unwrap_or_else(|e| e.response())
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        match (path.as_str(), method) {
            ("/v1/chat/completions", Method::POST) => self.generate(request, chat_request::parse).await,
            ("/v1/completions", Method::POST) => self.generate(request, completions::parse).await,
            ("/v1/responses", Method::POST) => self.generate(request, responses::parse).await,
            (EMBEDDINGS, Method::POST) => self.embed(request).await,
            ("/v1/tokens/count", Method::POST) => self.count(request).await,
            ("/v1/models", Method::GET) => self.models(),
            (STATUS_PATH, Method::GET) => Ok(self.status()),
            (REATTEST_PATH, Method::POST) => self.attest_again(request).await,
            (path, _) if URLS.contains(&path) => {
                Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this URL has another method"))
            }
            _ => {
                Err(ApiError::new(StatusCode::NOT_FOUND, "there is nothing at this URL").code("unknown_url"))
            }
        }
    }

    /// An answer, in the shape of the endpoint that `parse` belongs to.
    async fn generate(
        &self,
        request: Request<Incoming>,
        parse: fn(&[u8]) -> Result<Wanted, ApiError>,
    ) -> Result<Response<Body>, ApiError> {
        let deadline = Instant::now() + self.limits.request_deadline;
        let body = read_body(request, MAX_BODY).await?;
        let mut wanted = parse(&body)?;
        wanted.generate.client = Some(ClientId(self.client));
        // What one connection had computed can be found again by that connection only: nobody learns from the time of
        // an answer what others asked.
        wanted.generate.cache_salt = Some(CacheSalt(self.client));
        let served = self.check_model(&wanted.model)?;
        let account = self.account(&body, &served);
        drop(body);
        answer::answer(&self.enclave, &served, wanted, deadline, account).await
    }

    /// Vectors of texts.
    async fn embed(&self, request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
        let deadline = Instant::now() + self.limits.request_deadline;
        let body = read_body(request, MAX_BODY).await?;
        let wanted = embeddings::read(Object::parse(&body)?)?;
        let served = self.check_model(&wanted.model)?;
        let account = self.account(&body, &served);
        drop(body);
        embeddings::answer(&served, wanted, deadline, account, &self.answers).await
    }

    async fn count(&self, request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
        let body = read_body(request, MAX_BODY).await?;
        let object = Object::parse(&body)?;
        // Without a model nobody knows what the body should be.
        let named = object.peek("model").and_then(Value::as_str);
        let served = named.map(|name| self.check_model(name)).transpose()?;
        let account = served.as_ref().map(|served| self.account(&body, served));
        let (Some(served), Some(account)) = (served, account) else {
            return Err(read_any(object).err().unwrap_or_else(|| ApiError::invalid("model", "is required")));
        };
        let count = if matches!(served.work, Work::Embeds(_)) {
            embeddings::count(&served, embeddings::read(object)?.texts).await?
        } else {
            let wanted = read_any(object)?;
            let (generate, names) = (wanted.generate, wanted.names);
            let count = answer::on_engine(&served, move |engine| Ok(engine.count(&generate)?)).await;
            count.map_err(|error| error.with_names(names))?
        };
        let mut response =
            json_response(StatusCode::OK, &json!({ "object": "token_count", "prompt_tokens": count }));
        account.settle(Outcome { prompt_tokens: 0, completion_tokens: 0, finish_reason: "counted" });
        response.extensions_mut().insert(account);
        Ok(response)
    }

    fn account(&self, body: &[u8], served: &Served) -> Account {
        let statement = *self.statement.lock().unwrap_or_else(PoisonError::into_inner);
        Account::new(statement, body, served.digest)
    }

    fn check_model(&self, wanted: &str) -> Result<Arc<Served>, ApiError> {
        let served = self.enclave.models.served().ok_or_else(|| self.loading())?;
        if let Some(served) = served.iter().find(|served| served.name == wanted) {
            return Ok(Arc::clone(served));
        }
        let message = "this model is not served here; GET /v1/models lists those that are";
        Err(ApiError::new(StatusCode::NOT_FOUND, message).param("model").code("model_not_found"))
    }

    fn models(&self) -> Result<Response<Body>, ApiError> {
        let served = self.enclave.models.served().ok_or_else(|| self.loading())?;
        let model = |served: &Arc<Served>| {
            let (kind, dimensions) = match &served.work {
                Work::Writes(_) => ("chat", None),
                Work::Embeds(embeds) => ("embedding", Some(embeds.embedder.dimensions())),
            };
            let mut model = json!({
                "id": served.name,
                "object": "model",
                "created": 0,
                "owned_by": "cocoon",
                "type": kind,
                "manifest_digest": served.digest,
                "context_length": served.context_length,
            });
            if served.is_broken() {
                model["state"] = "failed".into();
            }
            if let Some(dimensions) = dimensions {
                model["dimensions"] = dimensions.into();
            }
            model
        };
        let models: Vec<_> = served.iter().map(model).collect();
        Ok(json_response(StatusCode::OK, &json!({ "object": "list", "data": models })))
    }

    fn status(&self) -> Response<Body> {
        let (read, total) = self.enclave.models.progress();
        let state = match self.enclave.models.served() {
            Some(served) if served.iter().all(|served| served.is_broken()) => "failed",
            Some(_) => "ready",
            None => "loading",
        };
        let epoch = self.enclave.node.current().number;
        let status =
            json!({ "state": state, "model_bytes_read": read, "model_bytes": total, "epoch": epoch });
        json_response(StatusCode::OK, &status)
    }

    fn loading(&self) -> ApiError {
        let (read, total) = self.enclave.models.progress();
        let percent = read.saturating_mul(100).checked_div(total).unwrap_or(0);
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the model is still loading ({percent} % read)"),
        )
        .code("model_loading")
        .retry_after(1)
    }

    async fn attest_again(&self, request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
        let body = read_body(request, MAX_REQUEST_LEN).await?;
        let stated = self.enclave.attestation.respond(&self.session, &body).await.map_err(|e| match e {
            AttestError::Malformed => ApiError::new(StatusCode::BAD_REQUEST, "not an AttestRequest"),
            AttestError::OtherNode => ApiError::new(StatusCode::BAD_REQUEST, "this is another node"),
            AttestError::OldKey => {
                ApiError::new(StatusCode::CONFLICT, "the TLS key was replaced; connect again")
                    .code("reconnect")
            }
            AttestError::NoReport => {
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no hardware report").retry_after(1)
            }
        })?;
        *self.statement.lock().unwrap_or_else(PoisonError::into_inner) = stated.statement;
        let mut response = Response::new(whole(Bytes::from(stated.response)));
        response
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/cbor"));
        Ok(response)
    }
}

/// The body of any endpoint that answers with text.
fn read_any(object: Object) -> Result<Wanted, ApiError> {
    if object.has("input") {
        responses::read(object)
    } else if object.has("prompt") {
        completions::read(object)
    } else {
        chat_request::read(object)
    }
}

/// For fuzzing: a body of any endpoint.
pub(crate) fn fuzz_request(body: &[u8]) {
    for parse in [chat_request::parse, completions::parse, responses::parse] {
        let _any = parse(body).is_ok();
    }
    let _embeddings = Object::parse(body).and_then(embeddings::read).is_ok();
}

/// For fuzzing.
pub(crate) use calls::fuzz as fuzz_calls;

/// The whole body, in memory that is wiped.
async fn read_body(request: Request<Incoming>, max: usize) -> Result<Zeroizing<Vec<u8>>, ApiError> {
    let too_large =
        || ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {max} bytes"));
    let announced = request
        .headers()
        .get(http::header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|len| len > max) {
        return Err(too_large());
    }
    let max = announced.unwrap_or(max);
    let kibibytes = u32::try_from(max.div_ceil(1024)).map_err(|_too_many| too_large())?;
    let _room = BODIES.try_acquire_many(kibibytes).map_err(|_full| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests are being read")
            .code("busy")
            .retry_after(1)
    })?;
    let collected = tokio::time::timeout(BODY_DEADLINE, Limited::new(request.into_body(), max).collect())
        .await
        .map_err(|_elapsed| ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"))?;
    match collected {
        Ok(body) => Ok(Zeroizing::new(body.to_bytes().to_vec())),
        Err(e) if e.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Err(_) => Err(ApiError::new(StatusCode::BAD_REQUEST, "the body broke off")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_connections_are_one_client() {
        let clients: std::collections::BTreeSet<_> = (0..1000).map(|_| next_client()).collect();
        assert_eq!(clients.len(), 1000);
    }
}
