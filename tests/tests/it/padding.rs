//! What a host sees of padded answers, and that an answer is held against its receipt.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cocoon_attestation::wire::{CELL_LEN, MIN_PADDED, PAD_HEADER, RECEIPT_TRAILER};
use cocoon_client::{AttestedSession, Error, Policy, ReceiptError, connect};
use cocoon_enclave::api::Api;
use cocoon_enclave::gate;
use cocoon_tests::enclave::{InProcess, limits};
use cocoon_tests::programs::EnclaveProcess;
use cocoon_tests::recorder::Recorder;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;

const CHAT: &str = "/v1/chat/completions";

fn question(model: &str, words: usize, tokens: u32) -> Vec<u8> {
    let content = "rainbow ".repeat(words);
    let messages = json!([{ "role": "user", "content": content }]);
    json!({ "model": model, "max_tokens": tokens, "stream": true, "messages": messages })
        .to_string()
        .into_bytes()
}

async fn session(enclave: &EnclaveProcess, address: &str) -> AttestedSession {
    connect(address, Policy::from_toml(&enclave.policy_text()).unwrap()).await.unwrap()
}

/// Lengths of the DATA frames of the answer to a request.
async fn frames(session: &AttestedSession, body: Vec<u8>) -> Vec<usize> {
    let request = Request::post(format!("https://enclave{CHAT}")).body(Full::new(Bytes::from(body))).unwrap();
    let mut response = session.request(request).await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()[PAD_HEADER].as_bytes()), (200, &b"1"[..]));
    let mut lens = Vec::new();
    while let Some(frame) = response.body_mut().frame().await {
        lens.extend(frame.unwrap().data_ref().map(Bytes::len));
    }
    lens.retain(|len| *len > 0); // the end of the stream
    lens
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_cells_of_whole_seconds_whatever_is_in_them() {
    let enclave = EnclaveProcess::start(&[]);
    let session = session(&enclave, &enclave.address).await;
    let model = session.models().await.unwrap().remove(0).id;
    // Errors, a word, some words: nothing but for how many seconds.
    for body in [b"{".to_vec(), question("no-such", 1, 1), question(&model, 1, 1), question(&model, 3, 20)] {
        let lens = frames(&session, body).await;
        assert!(!lens.is_empty() && lens.len().is_multiple_of(20), "{} cells", lens.len());
        assert!(lens.iter().all(|len| *len == CELL_LEN), "{lens:?}");
    }
}

/// Bytes that a client sends for a request.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_other_lengths_look_the_same() {
    let enclave = EnclaveProcess::start(&[]);
    let sent = async |words: usize| {
        let recorder = Recorder::start(enclave.address.clone()).await;
        let session = session(&enclave, &recorder.address.to_string()).await;
        let before = recorder.sent();
        // Refused at once, so that nothing else is sent.
        let mut answer = session.post(CHAT, &question("no-such", words, 1)).await.unwrap();
        assert_eq!(answer.status, 404);
        answer.collect(1 << 16).await.unwrap();
        recorder.sent() - before
    };
    // HTTP/2 and TLS add what they need to go on: some dozen bytes, whatever was sent.
    let (short, longer, longest) = (sent(1).await, sent(40).await, sent(200).await);
    assert!(short >= MIN_PADDED && short.abs_diff(longer) < 100, "{short} and {longer}");
    assert!(longest > short + MIN_PADDED / 2, "{longest}");
}

/// What a broken or lying enclave does with an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    FlipsABit,
    LeavesOut,
    Exchanges,
    Cuts,
    NoReceipt,
    OldReceipt,
    NoPadding,
}

/// An address of an enclave, attested as it is, whose answers are changed on their way out.
async fn faulty(enclave: &InProcess, fault: Fault) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let inner = Arc::clone(&enclave.enclave);
    tokio::spawn(async move {
        let earlier: Arc<Mutex<Option<HeaderMap>>> = Arc::default();
        while let Ok((tcp, _)) = listener.accept().await {
            let attested = gate::pass(tcp, &inner.node, &inner.attestation).await.unwrap();
            let api = Arc::new(Api::new(Arc::clone(&inner), attested, limits()));
            let io = TokioIo::new(api.session().stream());
            let earlier = Arc::clone(&earlier);
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (api, earlier) = (Arc::clone(&api), Arc::clone(&earlier));
                async move { Ok::<_, Infallible>(change(fault, api.handle(request).await, &earlier).await) }
            });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(async move { http.serve_connection(io, service).await });
        }
    });
    address
}

type Changed = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>>;

async fn change(
    fault: Fault,
    response: Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>,
    earlier: &Mutex<Option<HeaderMap>>,
) -> Changed {
    let (mut parts, body) = response.into_parts();
    if fault == Fault::NoPadding {
        parts.headers.remove(PAD_HEADER);
    }
    let collected = std::pin::pin!(body).collect().await.unwrap();
    let trailers = collected.trailers().cloned();
    let mut bytes = collected.to_bytes().to_vec();
    let Some(mut trailers) = trailers else {
        return Response::from_parts(parts, Full::new(Bytes::from(bytes)).boxed_unsync());
    };
    let middle = bytes.len() / 2;
    let letter = |byte: u8| if byte == b'a' { b'b' } else { b'a' };
    match fault {
        Fault::None | Fault::NoPadding => {}
        Fault::FlipsABit => bytes[middle] = letter(bytes[middle]),
        Fault::LeavesOut => drop(bytes.drain(middle..middle + 7)),
        Fault::Exchanges => bytes.rotate_left(middle),
        Fault::Cuts => bytes.truncate(middle),
        Fault::NoReceipt => drop(trailers.remove(RECEIPT_TRAILER)),
        Fault::OldReceipt => {
            let old = earlier.lock().unwrap().replace(trailers.clone());
            trailers = old.unwrap_or(trailers);
        }
    }
    let frames = [Ok(Frame::data(Bytes::from(bytes))), Ok(Frame::trailers(trailers))];
    Response::from_parts(parts, BodyExt::boxed_unsync(StreamBody::new(tokio_stream::iter(frames))))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_what_was_signed_is_an_error() {
    let enclave = InProcess::with_model().await;
    let ask = async |session: &AttestedSession, words: usize| {
        let mut answer = session.post(CHAT, &question("m", words, 4)).await?;
        answer.collect(1 << 20).await.map(|_body| answer.body.receipt().cloned())
    };
    for (fault, want) in [
        (Fault::None, None),
        (Fault::FlipsABit, Some(ReceiptError::OtherResponse)),
        (Fault::LeavesOut, Some(ReceiptError::OtherResponse)),
        (Fault::Exchanges, Some(ReceiptError::OtherResponse)),
        (Fault::Cuts, Some(ReceiptError::OtherResponse)),
        (Fault::OldReceipt, Some(ReceiptError::OtherRequest)),
    ] {
        let address = faulty(&enclave, fault).await;
        let session = connect(&address, enclave.policy()).await.unwrap().without_padding();
        if fault == Fault::OldReceipt {
            ask(&session, 1).await.unwrap();
        }
        match (ask(&session, 2).await, want) {
            (Ok(receipt), None) => assert!(receipt.is_some()),
            (Err(Error::Receipt(got)), Some(want)) => assert_eq!(got, want, "{fault:?}"),
            (got, want) => panic!("{fault:?}: {:?}, not {want:?}", got.map(|_| ())),
        }
    }
    let address = faulty(&enclave, Fault::NoReceipt).await;
    let session = connect(&address, enclave.policy()).await.unwrap().without_padding();
    let error = ask(&session, 1).await.err().unwrap();
    assert!(error.to_string().contains("without a receipt"), "{error}");
}

/// A padding that was asked for and is not given is noticed before the answer is.
#[tokio::test(flavor = "multi_thread")]
async fn an_enclave_that_does_not_pad_is_noticed() {
    let enclave = InProcess::with_model().await;
    let address = faulty(&enclave, Fault::NoPadding).await;
    let session = connect(&address, enclave.policy()).await.unwrap();
    let error = session.post(CHAT, &question("m", 1, 1)).await.err().unwrap();
    assert!(error.to_string().contains("not padded"), "{error}");
}
