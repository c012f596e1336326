//! Answers: out of their padding, and held against their receipts.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use cocoon_attestation::Digest;
use cocoon_attestation::receipt::{ReceiptBundle, ReceiptError, SignedReceipt};
use cocoon_attestation::wire::{Cell, Cells, PAD_HEADER, RECEIPT_TRAILER, padded_len};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use ring::digest::{Context, SHA256};
use serde::Deserialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::pool::Busy;
use crate::session::{AttestedSession, uri};

/// As the enclave: a request is not filled up beyond what it takes.
const MAX_REQUEST: usize = 2 * 1024 * 1024;

/// Errors of the enclave are small.
const MAX_ERROR: usize = 64 * 1024;

/// An answer on its way: status and headers are here, the body comes.
#[expect(missing_debug_implementations, reason = "answers must not be printable by accident")]
pub struct Answer {
    /// What the enclave says about it.
    pub status: StatusCode,
    /// Type of the content, when to come back..
    pub headers: HeaderMap,
    /// What it says.
    pub body: AnswerBody,
}

/// The body of an answer. Dropping it before its end cancels the request.
#[expect(missing_debug_implementations, reason = "answers must not be printable by accident")]
pub struct AnswerBody {
    session: AttestedSession,
    /// Whether it must have a receipt: something was computed.
    is_answer: bool,
    request: Digest,
    incoming: Option<Incoming>,
    /// If it is padded.
    cells: Option<Cells>,
    ready: VecDeque<Bytes>,
    hash: Context,
    signed: Option<Vec<u8>>,
    receipt: Option<ReceiptBundle>,
    /// When it must be whole.
    deadline: Option<Instant>,
    /// Counts it among the requests of an endpoint.
    busy: Option<Busy>,
}

/// What stands before a padded body.
#[derive(Deserialize)]
struct Head {
    status: u16,
    headers: BTreeMap<String, String>,
}

impl Head {
    /// The head and what stands behind it; nothing if there is more to come.
    fn parse(bytes: &[u8]) -> Result<Option<(Self, &[u8])>, Error> {
        let Some((len, rest)) = bytes.split_first_chunk() else { return Ok(None) };
        let Some((head, body)) = rest.split_at_checked(u16::from_be_bytes(*len).into()) else {
            return Ok(None);
        };
        let head: Self =
            serde_json::from_slice(head).map_err(|_not_json| Error::BadAnswer("it has no head"))?;
        Ok(Some((head, body)))
    }
}

impl AttestedSession {
    /// Posts JSON to a URL of the OpenAI API and returns the answer as it comes. Both are padded, unless
    /// [`AttestedSession::without_padding`] says otherwise.
    ///
    /// # Errors
    /// As [`AttestedSession::request`], and [`Error::BadAnswer`].
    pub async fn post(&self, path: &str, json: &[u8]) -> Result<Answer, Error> {
        let padded = self.is_padded();
        let mut body = Zeroizing::new(json.to_vec());
        if padded {
            body.resize(padded_len(json.len(), MAX_REQUEST), b' '); // JSON may have spaces behind it
        }
        let request = Request::post(uri(path))
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(PAD_HEADER, if padded { "1" } else { "0" })
            .body(Full::new(Bytes::copy_from_slice(&body)))
            .map_err(|e| Error::Misuse(e.to_string()))?;
        let response = self.request(request).await?;
        let is_padded = response.headers().get(PAD_HEADER).is_some_and(|profile| profile == "1");
        if padded && !is_padded {
            return Err(Error::BadAnswer("it is not padded, though that was asked for"));
        }
        Answer::begin(self.clone(), Digest::of(&body), response, is_padded).await
    }
}

impl Answer {
    /// Of a request that computes nothing: it is not padded and has no receipt.
    pub(crate) fn plain(session: AttestedSession, response: Response<Incoming>) -> Self {
        let (parts, incoming) = response.into_parts();
        let mut body = AnswerBody::new(session, Digest([0; 32]), incoming, false);
        body.is_answer = false;
        Self { status: parts.status, headers: parts.headers, body }
    }

    async fn begin(
        session: AttestedSession,
        request: Digest,
        response: Response<Incoming>,
        is_padded: bool,
    ) -> Result<Self, Error> {
        let (parts, incoming) = response.into_parts();
        let mut body = AnswerBody::new(session, request, incoming, is_padded);
        let (status, headers) = if is_padded { body.head().await? } else { (parts.status, parts.headers) };
        body.is_answer = status == StatusCode::OK;
        Ok(Self { status, headers, body })
    }

    /// The whole body, if it has at most `max` bytes.
    ///
    /// # Errors
    /// As [`AnswerBody::next`].
    pub async fn collect(&mut self, max: usize) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut all = Zeroizing::new(Vec::new());
        while let Some(bytes) = self.body.next().await? {
            if all.len().saturating_add(bytes.len()) > max {
                return Err(Error::BadAnswer("it is too long"));
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    /// The error that this answer is, in OpenAI's shape if it has it.
    pub async fn into_error(mut self) -> Error {
        let body = self.collect(MAX_ERROR).await.unwrap_or_default();
        Error::of_api(self.status.as_u16(), &body)
    }
}

impl AnswerBody {
    fn new(session: AttestedSession, request: Digest, incoming: Incoming, is_padded: bool) -> Self {
        Self {
            session,
            is_answer: true,
            request,
            incoming: Some(incoming),
            cells: is_padded.then(Cells::default),
            ready: VecDeque::new(),
            hash: Context::new(&SHA256),
            signed: None,
            receipt: None,
            deadline: None,
            busy: None,
        }
    }

    /// When it must be whole; later there is only [`Error::Timeout`].
    pub(crate) fn until(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// Keeps the count of requests up until this is dropped or at its end.
    pub(crate) fn hold(&mut self, busy: Busy) {
        self.busy = Some(busy);
    }

    /// The next bytes; `None` at the end, once the receipt was verified.
    ///
    /// # Errors
    /// [`Error::BadAnswer`] if it breaks off, [`Error::Receipt`] if what came is not what the enclave signed, [`Error::Timeout`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.hash.update(&bytes);
                return Ok(Some(bytes));
            }
            if !self.more().await? {
                self.verify().await?;
                self.busy = None;
                return Ok(None);
            }
        }
    }

    /// Waits until there is something of it, or its end.
    ///
    /// # Errors
    /// [`Error::BadAnswer`] if it breaks off.
    pub async fn wait(&mut self) -> Result<(), Error> {
        while self.ready.is_empty() && self.more().await? {}
        Ok(())
    }

    /// The receipt, after the end. Errors of the enclave have none.
    #[must_use]
    pub fn receipt(&self) -> Option<&ReceiptBundle> {
        self.receipt.as_ref()
    }

    /// Takes what comes next; `false` at the end.
    async fn more(&mut self) -> Result<bool, Error> {
        let Some(incoming) = &mut self.incoming else { return Ok(false) };
        let frame = match self.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, incoming.frame())
                .await
                .map_err(|_elapsed| Error::Timeout("answer"))?,
            None => incoming.frame().await,
        };
        let Some(frame) = frame else {
            self.incoming = None;
            return match &self.cells {
                Some(_) => Err(Error::BadAnswer("it broke off before its end")),
                None => Ok(false),
            };
        };
        let frame = frame.map_err(|_broken| Error::BadAnswer("the connection broke"))?;
        if let Some(trailers) = frame.trailers_ref() {
            let receipt = trailers.get(RECEIPT_TRAILER).map(HeaderValue::as_bytes);
            self.signed = receipt.and_then(|hex| hex::decode(hex).ok());
        } else if let Ok(bytes) = frame.into_data() {
            self.take(bytes)?;
        }
        Ok(true)
    }

    fn take(&mut self, bytes: Bytes) -> Result<(), Error> {
        let Some(cells) = &mut self.cells else {
            self.ready.push_back(bytes);
            return Ok(());
        };
        for cell in cells.push(&bytes).map_err(|_malformed| Error::BadAnswer("its padding is malformed"))? {
            match cell {
                Cell::Content(content) => self.ready.push_back(content.into()),
                Cell::Receipt(receipt) => self.signed = Some(receipt),
                Cell::End | _ => {}
            }
        }
        if cells.ended()
            && let Some(rest) = self.incoming.take()
        {
            // To the last cell: whoever hangs up when the answer ends, says when it ended.
            tokio::spawn(async move { drain(rest).await });
        }
        Ok(())
    }

    /// Status and headers, which stand before a padded body.
    async fn head(&mut self) -> Result<(StatusCode, HeaderMap), Error> {
        let mut bytes: Vec<u8> = Vec::new();
        loop {
            if let Some((head, body)) = Head::parse(&bytes)? {
                if !body.is_empty() {
                    self.ready.push_front(Bytes::copy_from_slice(body));
                }
                let status = StatusCode::from_u16(head.status);
                let status = status.map_err(|_unknown| Error::BadAnswer("it has no status"))?;
                return Ok((status, headers(head.headers)));
            }
            match self.ready.pop_front() {
                Some(more) => bytes.extend_from_slice(&more),
                None if !self.more().await? => return Err(Error::BadAnswer("it has no head")),
                None => {}
            }
        }
    }

    /// Holds the answer against its receipt.
    async fn verify(&mut self) -> Result<(), Error> {
        if self.receipt.is_some() {
            return Ok(());
        }
        let Some(signed) = self.signed.take() else {
            return if self.is_answer { Err(Error::BadAnswer("it ends without a receipt")) } else { Ok(()) };
        };
        let signed = SignedReceipt::decode(&signed).map_err(ReceiptError::from)?;
        let (receipt, statement) = self.session.verify_receipt(&signed).await?;
        let mut response = Digest([0; 32]);
        response.0.copy_from_slice(self.hash.clone().finish().as_ref());
        receipt.is_for(self.request, response)?;
        self.receipt = Some(ReceiptBundle { signed, statement });
        Ok(())
    }
}

async fn drain(mut rest: Incoming) {
    while let Some(Ok(_filler)) = rest.frame().await {}
}

/// What is no header is left out.
fn headers(all: BTreeMap<String, String>) -> HeaderMap {
    let header = |(name, value): (String, String)| {
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
    };
    all.into_iter().filter_map(header).collect()
}

/// For fuzzing: cells, the head in them, the events behind it, and what is in those.
pub(crate) fn take_apart(bytes: &[u8]) {
    let Ok(cells) = Cells::default().push(bytes) else { return };
    let mut all = Vec::new();
    for cell in cells {
        if let Cell::Content(content) = cell {
            all.extend(content);
        }
    }
    if let Ok(Some((_, body))) = Head::parse(&all) {
        let events = crate::sse::Events::default().push(body).unwrap_or_default();
        let _any = events.iter().filter(|event| crate::chat::is_chunk(event)).count();
    }
}
