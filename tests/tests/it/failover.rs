//! Several enclaves behind one handle, of which some hang, break or fail: who is waited for, who is asked again, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cocoon_attestation::snp::Product;
use cocoon_attestation::wire::{FrameKind, encode_frame};
use cocoon_channel::frames::read_frame;
use cocoon_channel::identity::Identity;
use cocoon_channel::session::Session;
use cocoon_client::{ChatRequest, Client, Error, Policy};
use cocoon_tests::enclave::InProcess;
use cocoon_tests::factory::Processor;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_stream::wrappers::ReceiverStream;

/// Longer than anything takes that does not wait for an enclave which says nothing: that would be 20 s.
const SOON: Duration = Duration::from_secs(15);

type Body = BoxBody<Bytes, std::io::Error>;

/// An enclave with genuine hardware that attests as it should, and answers as a test says.
#[derive(Default)]
struct Fickle {
    connections: AtomicUsize,
    questions: AtomicUsize,
    /// What it does with a question: see [`Fickle::answer`].
    mood: AtomicUsize,
    /// Lets go of questions that hang.
    enough: Notify,
}

/// It refuses the question, as enclaves do: that is an answer.
const ANSWERS: usize = 0;
/// The stream ends before anything of an answer.
const ENDS: usize = 1;
/// It says that an answer comes, and breaks off.
const BREAKS: usize = 2;
/// The same, when the test says so.
const HANGS: usize = 3;
/// On its first connection streams end; on later ones it answers.
const ENDS_AT_FIRST: usize = 4;

impl Fickle {
    /// Gives a handle for it alone.
    async fn start(mood: usize) -> (Client, Arc<Self>) {
        let processor = Processor::of(Product::Genoa);
        let policy = Policy::from_toml(&processor.policy()).unwrap();
        let enclave = Arc::new(Self { mood: mood.into(), ..Self::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = Arc::clone(&enclave);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&served).serve(tcp, processor.clone()));
            }
        });
        let client = Client::builder().policy(policy).padding(false).endpoint(address).build().unwrap();
        (client, enclave)
    }

    async fn serve(self: Arc<Self>, tcp: TcpStream, processor: Processor) {
        let connection = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let session = Session::accept(tcp, &Identity::generate().unwrap()).await.unwrap();
        let mut stream = session.stream();
        let request = read_frame(&mut stream, FrameKind::AttestRequest).await.unwrap();
        let response = processor.respond(&session.binding(&request).unwrap(), &request, |_| ()).encode();
        stream.write_all(&encode_frame(FrameKind::AttestResponse, &response).unwrap()).await.unwrap();
        stream.flush().await.unwrap();
        let service = service_fn(|request: Request<Incoming>| {
            let enclave = Arc::clone(&self);
            async move { enclave.answer(connection, request.uri().path()).await }
        });
        let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ended = http.serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(&self, connection: usize, path: &str) -> std::io::Result<Response<Body>> {
        if path == "/v1/models" {
            return Ok(whole(StatusCode::OK, r#"{"data":[{"id":"m"}]}"#));
        }
        self.questions.fetch_add(1, Ordering::Relaxed);
        let mood = self.mood.load(Ordering::Relaxed);
        match mood {
            ENDS => return Err(std::io::Error::other("ended")),
            ENDS_AT_FIRST if connection == 1 => return Err(std::io::Error::other("ended")),
            HANGS => self.enough.notified().await,
            _ => {}
        }
        if [ANSWERS, ENDS_AT_FIRST].contains(&mood) {
            return Ok(whole(StatusCode::BAD_REQUEST, "{}"));
        }
        // The headers are on their way before it breaks.
        let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Frame<Bytes>>>(1);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            sender.send(Err(std::io::Error::other("broken"))).await
        });
        Ok(Response::new(BodyExt::boxed(StreamBody::new(ReceiverStream::new(receiver)))))
    }

    fn is_now(&self, mood: usize) {
        self.mood.store(mood, Ordering::Relaxed);
    }

    /// Connections and questions so far.
    fn seen(&self) -> (usize, usize) {
        (self.connections.load(Ordering::Relaxed), self.questions.load(Ordering::Relaxed))
    }
}

fn whole(status: StatusCode, body: &'static str) -> Response<Body> {
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {});
    let mut response = Response::new(body.boxed());
    *response.status_mut() = status;
    response
}

async fn ask(client: &Client) -> Result<StatusCode, Error> {
    client.post("/v1/chat/completions", br#"{"model":"m"}"#).await.map(|answer| answer.status)
}

/// Somebody who accepts connections and says nothing.
fn silent() -> (std::net::TcpListener, String) {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    (silent, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_an_enclave_that_says_nothing_while_another_answers() {
    let enclave = InProcess::with_model().await;
    let (_silent, silent) = silent();
    let start = Instant::now();
    let builder = || Client::builder().policy(enclave.policy()).endpoint(&silent).endpoint(&enclave.address);
    let client = builder().connect().await.unwrap();
    let mut request = ChatRequest::new("m", "What is a rainbow?");
    request.max_tokens = Some(1);
    for _ in 0..2 {
        client.complete(&request).await.unwrap();
        assert_eq!(client.models().await.unwrap().len(), 1);
    }
    let took = start.elapsed();
    assert!(took < SOON, "{took:?}");
    let status = client.endpoints();
    assert!(!status[0].is_usable && status[0].message.is_none(), "it is still waited for, by nobody");
    assert!(status[1].is_usable);
    // It may have a model that the other one has not: then there is nothing but to wait.
    request = ChatRequest::new("no-such", "What is a rainbow?");
    let client = builder().connect_timeout(Duration::from_millis(500)).build().unwrap();
    let Err(Error::NoneVerified(failures)) = client.complete(&request).await else { panic!("answered") };
    assert_eq!([&failures[0].endpoint, &failures[1].endpoint], [&silent, &enclave.address]);
    assert!(
        failures[0].message.contains("in time") && failures[1].message.contains("does not serve this model")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_broke_unnoticed_is_made_anew_for_the_request() {
    let (client, enclave) = Fickle::start(ENDS_AT_FIRST).await;
    assert!(client.verify().await.is_empty());
    assert_eq!(ask(&client).await.unwrap(), StatusCode::BAD_REQUEST);
    assert_eq!(enclave.seen(), (2, 2), "asked on both connections");
    assert_eq!(ask(&client).await.unwrap(), StatusCode::BAD_REQUEST);
    assert_eq!(enclave.seen(), (2, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_asked_again_once_at_most() {
    let (client, enclave) = Fickle::start(ENDS).await;
    assert!(client.verify().await.is_empty());
    let error = ask(&client).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert_eq!(enclave.seen(), (2, 2));
    // The new connection was tried: now it is left alone.
    let error = ask(&client).await.unwrap_err();
    assert!(matches!(error, Error::NoneVerified(_)), "{error}");
    assert_eq!(enclave.seen(), (2, 2));
}

/// Asks again and again, until that is so.
async fn ask_until(client: &Client, mut done: impl FnMut(&Result<StatusCode, Error>) -> bool) -> Duration {
    let start = Instant::now();
    while !done(&ask(client).await) {
        assert!(start.elapsed() < Duration::from_secs(60), "in vain");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_grow_until_there_is_an_answer_whatever_attests() {
    let (client, enclave) = Fickle::start(BREAKS).await;
    // Without growing pauses it would be asked every half second.
    let start = Instant::now();
    let asked = |enclave: &Fickle| enclave.seen().1;
    ask_until(&client, |_| asked(&enclave) == 3).await;
    assert!(start.elapsed() > Duration::from_millis(1400), "asked after {:?}", start.elapsed());
    // The pause after the next one would be of 4 s, if there was no answer before it.
    enclave.is_now(ANSWERS);
    ask_until(&client, Result::is_ok).await;
    enclave.is_now(BREAKS);
    assert!(matches!(ask(&client).await, Err(Error::BadAnswer(_))));
    let before = asked(&enclave);
    let pause = ask_until(&client, |_| asked(&enclave) > before).await;
    assert!(pause < Duration::from_secs(4), "a pause of {pause:?} after an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_request_that_fails_leaves_the_newer_session_alone() {
    let (client, enclave) = Fickle::start(HANGS).await;
    assert!(client.verify().await.is_empty());
    let old = client.clone();
    let old = tokio::spawn(async move { ask(&old).await });
    while enclave.seen().1 == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Another one loses the session of both.
    enclave.is_now(BREAKS);
    assert!(matches!(ask(&client).await, Err(Error::BadAnswer(_))));
    enclave.is_now(ANSWERS);
    ask_until(&client, Result::is_ok).await;
    assert_eq!(enclave.seen().0, 2);
    enclave.is_now(HANGS);
    enclave.enough.notify_one();
    assert!(matches!(old.await.unwrap(), Err(Error::BadAnswer(_))));
    enclave.is_now(ANSWERS);
    assert!(client.endpoints()[0].is_usable);
    ask(&client).await.unwrap();
    assert_eq!(enclave.seen().0, 2, "still the second connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callers_own_mistake_costs_no_session() {
    let (client, enclave) = Fickle::start(ANSWERS).await;
    ask(&client).await.unwrap();
    let error = client.post("/v1/no such url", b"{}").await.err().unwrap();
    assert!(matches!(error, Error::Misuse(_)), "{error}");
    ask(&client).await.unwrap();
    assert_eq!(enclave.seen().0, 1);
}
