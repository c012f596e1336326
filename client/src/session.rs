//! A session with an enclave that was verified.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use cocoon_attestation::appraisal::RawEvidence;
use cocoon_attestation::receipt::{Receipt, ReceiptError, SignedReceipt};
use cocoon_attestation::result::AttestationResult;
use cocoon_attestation::wire::{EPOCH_HEADER, EpochStatement, MAX_RESPONSE_LEN, REATTEST_PATH, STATUS_PATH};
use cocoon_channel::session::Session;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::Deserialize;

use crate::channel::fresh_request;
use crate::error::Error;
use crate::pool::Model;
use crate::{Policy, clock, known};

/// Attest again this long before the epoch statement runs out.
const RENEW_BEFORE_SECONDS: u64 = 120;

/// A host that stops forwarding is noticed by a ping that is not answered.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// For a hardware report on the live connection, and for answers that the enclave has at hand.
const SMALL_DEADLINE: Duration = Duration::from_secs(20);

/// Epochs that an answer may have taken.
const EARLIER: usize = 4;

/// Error texts and lists of models are small.
const MAX_SMALL_BODY: usize = 64 * 1024;

/// A verified enclave at the other end of a TLS connection, over which requests are multiplexed. Cheap to clone.
///
/// There is no other way to one than a result of the Verifier for this very connection.
#[derive(Clone, Debug)]
pub struct AttestedSession(Arc<Inner>, Padding);

/// Whether what goes over the connection has constant sizes and rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Padding {
    On,
    Off,
}

#[derive(Debug)]
struct Inner {
    endpoint: String,
    session: Session,
    policy: Policy,
    http: http2::SendRequest<Full<Bytes>>,
    driver: tokio::task::AbortHandle,
    result: RwLock<Arc<AttestationResult>>,
    /// Statements before the last one: receipts of answers that began then name them.
    earlier: Mutex<VecDeque<EpochStatement>>,
    /// Epoch that the enclave named in its last answer.
    seen_epoch: AtomicU64,
    /// The enclave was refused when it attested again: nothing is sent any more.
    refused: AtomicBool,
    /// One re-attestation at a time.
    renewing: tokio::sync::Mutex<()>,
}

/// How far the model is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ModelStatus {
    /// `loading`, `ready`, or `failed`.
    pub state: String,
    /// Bytes read so far.
    pub model_bytes_read: u64,
    /// Bytes in all, 0 while that is not known.
    pub model_bytes: u64,
}

#[derive(Deserialize)]
struct Models {
    data: Vec<serde_json::Value>,
}

impl AttestedSession {
    pub(crate) async fn start(
        endpoint: String,
        session: Session,
        policy: Policy,
        result: AttestationResult,
    ) -> Result<Self, Error> {
        let io = TokioIo::new(session.stream());
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(io);
        let (http, connection) = handshake.await.map_err(|e| Error::unreachable(&endpoint, e))?;
        // Ends when the session is dropped or the connection breaks; requests report the latter.
        let driver = tokio::spawn(connection).abort_handle();
        let seen_epoch = AtomicU64::new(result.statement().epoch);
        let (result, renewing) = (RwLock::new(Arc::new(result)), tokio::sync::Mutex::default());
        let refused = AtomicBool::new(false);
        let inner = Inner {
            endpoint,
            session,
            policy,
            http,
            driver,
            result,
            earlier: Mutex::default(),
            seen_epoch,
            refused,
            renewing,
        };
        Ok(Self(Arc::new(inner), Padding::On))
    }

    /// The same session, whose requests and answers have the sizes that they have and come when they come. A host can tell much of a
    /// conversation from that; it costs less.
    #[must_use]
    pub fn without_padding(self) -> Self {
        Self(self.0, Padding::Off)
    }

    pub(crate) fn is_padded(&self) -> bool {
        self.1 == Padding::On
    }

    /// `HOST:PORT`, as it was given.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.0.endpoint
    }

    /// Whether requests can be sent: the connection is open, and the enclave was not refused.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.0.refused.load(Ordering::Acquire) && !self.0.http.is_closed()
    }

    /// Whether both are of one connection.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Verifies a receipt against what this session knows of the enclave; attests again if it is of a new epoch.
    pub(crate) async fn verify_receipt(
        &self,
        signed: &SignedReceipt,
    ) -> Result<(Receipt, EpochStatement), Error> {
        let known = |statement: &EpochStatement| Some((signed.verify(statement).ok()?, statement.clone()));
        let now = self.result();
        let current = match signed.verify(now.statement()) {
            Ok(receipt) => return Ok((receipt, now.statement().clone())),
            Err(ReceiptError::OtherEpoch) => now,
            Err(error) => return Err(error.into()),
        };
        let earlier = self.0.earlier.lock().unwrap_or_else(PoisonError::into_inner).iter().find_map(known);
        if let Some(found) = earlier {
            return Ok(found);
        }
        let _one_at_a_time = self.0.renewing.lock().await;
        let renewed = self.result();
        let renewed = if renewed.statement() == current.statement() { self.renew().await? } else { renewed };
        Ok((signed.verify(renewed.statement())?, renewed.statement().clone()))
    }

    /// What was verified, last time.
    #[must_use]
    pub fn result(&self) -> Arc<AttestationResult> {
        self.0.result.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a request, after attesting again if the epoch ended or is about to.
    ///
    /// # Errors
    /// [`Error::Rejected`] if the enclave is not accepted any more: then nothing was sent, and the session is over
    /// ([`Error::Ended`]). [`Error::Unreachable`].
    pub async fn request(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        self.renew_if_due().await?;
        self.send(request).await
    }

    /// Attests again on this connection.
    ///
    /// # Errors
    /// As [`AttestedSession::request`].
    pub async fn attest_again(&self) -> Result<Arc<AttestationResult>, Error> {
        let _one_at_a_time = self.0.renewing.lock().await;
        self.renew().await
    }

    /// Attests again, by whoever holds `renewing`. An enclave that does not pass loses the connection, with everything on it.
    async fn renew(&self) -> Result<Arc<AttestationResult>, Error> {
        let renewed = self.in_time(self.fresh_result()).await.inspect_err(|error| {
            if error.is_rejection() || matches!(error, Error::BadAnswer(_)) {
                self.0.refused.store(true, Ordering::Release);
                self.0.driver.abort();
            }
        })?;
        self.0.seen_epoch.store(renewed.statement().epoch, Ordering::Relaxed);
        let mut result = self.0.result.write().unwrap_or_else(PoisonError::into_inner);
        let mut earlier = self.0.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        earlier.push_front(result.statement().clone());
        earlier.truncate(EARLIER);
        *result = renewed.clone();
        Ok(renewed)
    }

    async fn fresh_result(&self) -> Result<Arc<AttestationResult>, Error> {
        let body =
            fresh_request().ok_or_else(|| Error::Misuse("the system has no random bytes".to_owned()))?;
        let request = post(REATTEST_PATH, "application/cbor", Bytes::from(body.clone()))?;
        let response = self.send(request).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::CONFLICT => return Err(Error::Ended("the enclave has a new TLS key")),
            _ => return Err(api_error(response).await),
        }
        let response = read(response, MAX_RESPONSE_LEN).await?;
        let channel = self.0.session.binding(&body).map_err(|e| Error::channel(&self.0.endpoint, &e))?;
        let evidence = RawEvidence { request: body, response: response.to_vec(), channel };
        Ok(Arc::new(evidence.verify(&self.0.policy, clock::now(), known::signatures())?))
    }

    /// For what takes a second at most when nobody holds it up.
    async fn in_time<T>(&self, step: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let late = |_| Error::unreachable(&self.0.endpoint, "no answer in time");
        tokio::time::timeout(SMALL_DEADLINE, step).await.map_err(late)?
    }

    /// How far the model is.
    ///
    /// # Errors
    /// As [`AttestedSession::request`], and [`Error::BadAnswer`].
    pub async fn model_status(&self) -> Result<ModelStatus, Error> {
        self.get_json(STATUS_PATH).await
    }

    /// The models, as the enclave lists them: `id`, `manifest_digest`, `context_length`..
    ///
    /// # Errors
    /// As [`AttestedSession::request`], and [`Error::BadAnswer`].
    pub async fn list_models(&self) -> Result<Vec<serde_json::Value>, Error> {
        let models: Models = self.get_json("/v1/models").await?;
        Ok(models.data)
    }

    /// The models.
    ///
    /// # Errors
    /// As [`AttestedSession::request`], and [`Error::BadAnswer`].
    pub async fn models(&self) -> Result<Vec<Model>, Error> {
        self.list_models().await?.into_iter().map(Model::of).collect()
    }

    async fn get_json<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.in_time(self.get_json_at_leisure(path)).await
    }

    async fn get_json_at_leisure<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let request = Request::builder().method(Method::GET).uri(uri(path)).body(Full::default());
        let response = self.request(request.map_err(|e| Error::Misuse(e.to_string()))?).await?;
        if response.status() != StatusCode::OK {
            return Err(api_error(response).await);
        }
        let body = read(response, MAX_SMALL_BODY).await?;
        serde_json::from_slice(&body).map_err(|_not_json| Error::BadAnswer("not the JSON that was asked for"))
    }

    async fn renew_if_due(&self) -> Result<(), Error> {
        if !self.is_due() {
            return Ok(());
        }
        let _one_at_a_time = self.0.renewing.lock().await;
        if self.is_due() {
            self.renew().await?;
        }
        Ok(())
    }

    fn is_due(&self) -> bool {
        let result = self.result();
        let statement = result.statement();
        let new_epoch = self.0.seen_epoch.load(Ordering::Relaxed) != statement.epoch;
        new_epoch || clock::now().0.saturating_add(RENEW_BEFORE_SECONDS) >= statement.not_after.0
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        if self.0.refused.load(Ordering::Acquire) {
            return Err(Error::Ended("the enclave was refused when it attested again"));
        }
        let mut http = self.0.http.clone();
        if http.is_closed() {
            return Err(Error::Ended(
                "its connection was closed, as enclaves do with idle ones and when they stop",
            ));
        }
        let broken =
            |e: hyper::Error| Error::unreachable(&self.0.endpoint, format!("the connection broke: {e}"));
        http.ready().await.map_err(broken)?;
        let response = http.send_request(request).await.map_err(broken)?;
        let epoch = response.headers().get(EPOCH_HEADER).and_then(|v| v.to_str().ok()?.parse().ok());
        if let Some(epoch) = epoch {
            self.0.seen_epoch.store(epoch, Ordering::Relaxed);
        }
        Ok(response)
    }
}

/// The authority is not looked at: the connection says who is meant.
pub(crate) fn uri(path: &str) -> String {
    format!("https://enclave{path}")
}

fn post(path: &str, content_type: &str, body: Bytes) -> Result<Request<Full<Bytes>>, Error> {
    Request::builder()
        .method(Method::POST)
        .uri(uri(path))
        .header(http::header::CONTENT_TYPE, content_type)
        .body(Full::new(body))
        .map_err(|e| Error::Misuse(e.to_string()))
}

async fn read(response: Response<Incoming>, max: usize) -> Result<Bytes, Error> {
    let collected = Limited::new(response.into_body(), max).collect().await;
    collected
        .map(http_body_util::Collected::to_bytes)
        .map_err(|_cut| Error::BadAnswer("it broke off or is too long"))
}

/// The error that the enclave answered with.
async fn api_error(response: Response<Incoming>) -> Error {
    let status = response.status().as_u16();
    Error::of_api(status, &read(response, MAX_SMALL_BODY).await.unwrap_or_default())
}
