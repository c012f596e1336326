//! Servers that misbehave: the client refuses them, sends them nothing, and says what they did.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cocoon_attestation::appraisal::{RawEvidence, Refusal};
use cocoon_attestation::result::Status;
use cocoon_attestation::snp::Product;
use cocoon_attestation::wire::{
    ALPN, AttestRequest, AttestResponse, EPOCH_HEADER, FrameKind, REATTEST_PATH, STATUS_PATH, encode_frame,
};
use cocoon_attestation::{Digest, Endorsement, UnixTime};
use cocoon_channel::frames::{read_frame, write_frame};
use cocoon_channel::hybrid;
use cocoon_channel::identity::Identity;
use cocoon_channel::session::Session;
use cocoon_client::{Error, Policy, UnverifiedChannel, connect};
use cocoon_tests::enclave::{InProcess, now};
use cocoon_tests::factory::{Processor, offset};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A TLS server with the certificate of one key and the signatures of another, if `forged`.
fn tls(forged: bool, protocols: &[&[u8]]) -> ServerConfig {
    tls_of(hybrid::provider(), &rustls::version::TLS13, forged, protocols)
}

fn tls_of(
    provider: rustls::crypto::CryptoProvider,
    version: &'static rustls::SupportedProtocolVersion,
    forged: bool,
    protocols: &[&[u8]],
) -> ServerConfig {
    let certified = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
    let key = if forged { rcgen::KeyPair::generate().unwrap() } else { certified.signing_key };
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
    let chain: Vec<CertificateDer<'static>> = vec![certified.cert.der().clone()];
    let resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.send_tls13_tickets = 0;
    config
}

/// What a client sent after the handshake, connection by connection.
type Received = Arc<Mutex<Vec<Vec<u8>>>>;

/// Accepts with `config`, reads once, writes `answer` and ends the connection.
async fn serve(config: ServerConfig, answer: Vec<u8>) -> (String, Received) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let received = Received::default();
    let kept = Arc::clone(&received);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, answer, kept) = (acceptor.clone(), answer.clone(), Arc::clone(&kept));
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                let mut got = vec![0; 8192];
                let n = tls.read(&mut got).await.unwrap_or_default();
                kept.lock().unwrap().push(got[..n].to_vec());
                let _gone = tls.write_all(&answer).await;
                let _gone = tls.shutdown().await;
            });
        }
    });
    (address, received)
}

async fn open(address: &str) -> Error {
    match UnverifiedChannel::open(address).await {
        Err(error) => error,
        Ok(_) => panic!("there is a channel"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_the_key_of_its_certificate_is_refused() {
    let frame = encode_frame(FrameKind::AttestResponse, b"whatever").unwrap();
    let (address, received) = serve(tls(true, &[ALPN]), frame.clone()).await;
    let refused = open(&address).await;
    assert!(matches!(&refused, Error::NotAnEnclave { why, .. } if why.contains("BadSignature")), "{refused}");
    assert!(refused.is_rejection());
    assert!(received.lock().unwrap().iter().all(Vec::is_empty), "nothing was sent to it");
    // The control: the same server with the right key gets as far as the evidence.
    let (address, received) = serve(tls(false, &[ALPN]), frame).await;
    let evidence = UnverifiedChannel::open(&address).await.unwrap().evidence().clone();
    assert_eq!(evidence.response, b"whatever");
    let sent = encode_frame(FrameKind::AttestRequest, &evidence.request).unwrap();
    assert_eq!(*received.lock().unwrap(), [sent], "a request, and nothing else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_tls_1_2_is_refused() {
    let provider = rustls::crypto::ring::default_provider();
    let old = tls_of(provider, &rustls::version::TLS12, false, &[ALPN]);
    let (address, received) = serve(old, Vec::new()).await;
    let refused = open(&address).await;
    assert!(
        matches!(&refused, Error::NotAnEnclave { why, .. } if why.contains("ProtocolVersion")),
        "{refused}"
    );
    assert!(received.lock().unwrap().iter().all(Vec::is_empty), "nothing was sent to it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_protocol_is_refused() {
    let frame = encode_frame(FrameKind::AttestResponse, b"whatever").unwrap();
    for (protocols, why) in
        [(vec![], "another application protocol"), (vec![&b"h2"[..]], "NoApplicationProtocol")]
    {
        let (address, received) = serve(tls(false, &protocols), frame.clone()).await;
        let refused = open(&address).await;
        assert!(matches!(&refused, Error::NotAnEnclave { why: got, .. } if got.contains(why)), "{refused}");
        assert!(received.lock().unwrap().iter().all(Vec::is_empty), "nothing was sent to it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_frames_are_refused() {
    let header = |len: u32, kind: u8| [&len.to_be_bytes()[..], &[kind]].concat();
    let not_an_enclave = [
        (encode_frame(FrameKind::AttestRequest, b"request").unwrap(), "unexpected frame"),
        (header(256 * 1024 + 1, 2), "allows 262144"),
        (header(u32::MAX, 2), "allows 262144"),
        (header(0, 3), "unknown type 3"),
        (header(1, 255), "allows 0"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "unknown type 47"),
    ];
    for (answer, why) in not_an_enclave {
        let (address, _) = serve(tls(false, &[ALPN]), answer).await;
        let refused = open(&address).await;
        assert!(matches!(&refused, Error::NotAnEnclave { why: got, .. } if got.contains(why)), "{refused}");
    }
    let unreachable = [
        (encode_frame(FrameKind::Close, b"").unwrap(), "closed the channel"),
        (Vec::new(), "closed during attestation"),
        (header(100, 2)[..4].to_vec(), "closed during attestation"),
        ([&header(100, 2)[..], &[0; 99]].concat(), "closed during attestation"),
        (header(256 * 1024, 2), "closed during attestation"),
    ];
    for (answer, why) in unreachable {
        let (address, _) = serve(tls(false, &[ALPN]), answer).await;
        let refused = open(&address).await;
        assert!(matches!(&refused, Error::Unreachable { why: got, .. } if got.contains(why)), "{refused}");
        assert!(!refused.is_rejection(), "nothing is known about that enclave");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_closes_at_once_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let refused = open(&address).await;
    assert!(matches!(refused, Error::Unreachable { .. }), "{refused}");
}

/// What an enclave answers when it is asked to attest again: status and body, for this session and request.
type Again = Box<dyn Fn(&Session, &[u8]) -> (StatusCode, Vec<u8>) + Send + Sync>;

/// An enclave with genuine hardware that attests as it should at the gate, and as a test says after it.
struct Traitor {
    processor: Processor,
    identity: Identity,
    /// The response of the gate, and what follows its frame.
    first: Mutex<Vec<u8>>,
    trailing: Vec<u8>,
    again: Again,
    /// Paths of all HTTP requests.
    paths: Mutex<Vec<String>>,
}

impl Traitor {
    async fn start(
        trailing: &[u8],
        again: impl Fn(&Processor, &Session, &[u8]) -> (StatusCode, Vec<u8>) + Send + Sync + 'static,
    ) -> (String, Policy, Arc<Self>) {
        let processor = Processor::of(Product::Genoa);
        let policy = Policy::from_toml(&processor.policy()).unwrap();
        let hardware = processor.clone();
        let traitor = Arc::new(Self {
            processor,
            identity: Identity::generate().unwrap(),
            first: Mutex::default(),
            trailing: trailing.to_vec(),
            again: Box::new(move |session, request| again(&hardware, session, request)),
            paths: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let enclave = Arc::clone(&traitor);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&enclave).serve(tcp));
            }
        });
        (address, policy, traitor)
    }

    async fn serve(self: Arc<Self>, tcp: TcpStream) {
        let session = Session::accept(tcp, &self.identity).await.unwrap();
        let mut stream = session.stream();
        let request = read_frame(&mut stream, FrameKind::AttestRequest).await.unwrap();
        let response = genuine(&self.processor, &session, &request);
        let frame = encode_frame(FrameKind::AttestResponse, &response).unwrap();
        *self.first.lock().unwrap() = response;
        stream.write_all(&[&frame[..], &self.trailing].concat()).await.unwrap();
        stream.flush().await.unwrap();
        let service = service_fn(|request| self.answer(&session, request));
        let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ended = http.serve_connection(TokioIo::new(stream), service).await;
    }

    fn answer(
        self: &Arc<Self>,
        session: &Session,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static {
        let (enclave, session) = (Arc::clone(self), session.clone());
        async move {
            let path = request.uri().path().to_owned();
            enclave.paths.lock().unwrap().push(path.clone());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let (status, body) = match path.as_str() {
                REATTEST_PATH => (enclave.again)(&session, &body),
                _ => (
                    StatusCode::OK,
                    br#"{"state":"ready","model_bytes_read":0,"model_bytes":0,"epoch":0}"#.to_vec(),
                ),
            };
            // Another epoch than the one that was verified: the next request is due to attest again.
            let response = Response::builder().status(status).header(EPOCH_HEADER, "1");
            Ok(response.body(Full::new(Bytes::from(body))).unwrap())
        }
    }
}

fn genuine(processor: &Processor, session: &Session, request: &[u8]) -> Vec<u8> {
    processor.respond(&session.binding(request).unwrap(), request, |_| ()).encode()
}

fn failed(error: &Error) -> Vec<&'static str> {
    let Error::Rejected(rejection) = error else { panic!("refused for another reason: {error}") };
    rejection.report.failures().map(|factor| factor.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_connection_with_the_same_hardware_attests_again() {
    // The control of the tests below: what they spoil is accepted when it is not spoilt.
    let (address, policy, traitor) = Traitor::start(b"", |hardware, session, request| {
        (StatusCode::OK, genuine(hardware, session, request))
    })
    .await;
    let session = connect(&address, policy).await.unwrap();
    session.attest_again().await.unwrap();
    session.model_status().await.unwrap();
    assert_eq!(traitor.paths.lock().unwrap().len(), 2);
}

/// Connects, attests again, and demands that the session then sends nothing more.
async fn refused_again(
    again: impl Fn(&Processor, &Session, &[u8]) -> (StatusCode, Vec<u8>) + Send + Sync + 'static,
) -> Error {
    let (address, policy, traitor) = Traitor::start(b"", again).await;
    let session = connect(&address, policy).await.unwrap();
    let refused = session.attest_again().await.unwrap_err();
    let ended = session.model_status().await.unwrap_err();
    assert!(matches!(ended, Error::Ended(_)), "after \"{refused}\" the session goes on: {ended}");
    assert_eq!(*traitor.paths.lock().unwrap(), [REATTEST_PATH], "nothing else was sent");
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_the_place_of_fresh_evidence_ends_the_session() {
    for garbage in [&b"garbage"[..], b"", b"\xa0"] {
        let refused = refused_again(move |_, _, _| (StatusCode::OK, garbage.to_vec())).await;
        assert!(matches!(refused, Error::Malformed(_)), "{refused}");
    }
    // A frame is not a body.
    let framed = refused_again(|hardware, session, request| {
        let body = genuine(hardware, session, request);
        (StatusCode::OK, encode_frame(FrameKind::AttestResponse, &body).unwrap())
    });
    assert!(matches!(framed.await, Error::Malformed(_)));
    let trailing = refused_again(|hardware, session, request| {
        (StatusCode::OK, [&genuine(hardware, session, request)[..], &[0]].concat())
    });
    assert!(matches!(trailing.await, Error::Malformed(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_of_another_time_or_place_ends_the_session() {
    let gate: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
    // What the enclave said of another request on this very connection.
    let refused = refused_again(|hardware, session, _| {
        (StatusCode::OK, genuine(hardware, session, &AttestRequest::new([9; 32]).encode()))
    });
    assert_eq!(failed(&refused.await), ["channel.binding"]);
    // What it said to another client: the response of the first one, to the second.
    let recorded = Arc::clone(&gate);
    let (address, policy, _) = Traitor::start(b"", move |hardware, session, request| {
        let fresh = genuine(hardware, session, request);
        (StatusCode::OK, recorded.lock().unwrap().get_or_insert(fresh).clone())
    })
    .await;
    let (one, other) =
        (connect(&address, policy.clone()).await.unwrap(), connect(&address, policy).await.unwrap());
    one.attest_again().await.unwrap();
    assert_eq!(failed(&other.attest_again().await.unwrap_err()), ["channel.binding"]);
    assert!(matches!(other.model_status().await, Err(Error::Ended(_))));
    // And to the first one again.
    assert_eq!(failed(&one.attest_again().await.unwrap_err()), ["channel.binding"]);
    assert!(matches!(one.model_status().await, Err(Error::Ended(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enclave_that_changed_ends_the_session() {
    let refused = refused_again(|hardware, session, request| {
        let mut other = hardware.clone();
        other.report.set(offset::MEASUREMENT, &[0]);
        (StatusCode::OK, genuine(&other, session, request))
    });
    assert_eq!(failed(&refused.await), ["snp.measurement"]);
    let refused = refused_again(|_, session, request| {
        (StatusCode::OK, genuine(&Processor::of_another_hierarchy(Product::Genoa), session, request))
    });
    assert_eq!(failed(&refused.await), ["snp.chain", "snp.crl"]);
    let refused = refused_again(|hardware, session, request| {
        let binding = session.binding(request).unwrap();
        let response = hardware.respond(&binding, request, |s| {
            (s.not_before, s.not_after) = (UnixTime(now().0 - 4000), UnixTime(now().0 - 400));
        });
        (StatusCode::OK, response.encode())
    });
    assert_eq!(failed(&refused.await), ["epoch.window"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enclave_that_does_not_attest_again_is_not_sent_requests() {
    let answers: [(StatusCode, usize); 3] =
        [(StatusCode::INTERNAL_SERVER_ERROR, 0), (StatusCode::OK, 256 * 1024 + 1), (StatusCode::CONFLICT, 0)];
    for (status, len) in answers {
        let (address, policy, traitor) = Traitor::start(b"", move |_, _, _| (status, vec![0; len])).await;
        let session = connect(&address, policy).await.unwrap();
        let before = session.result();
        session.model_status().await.unwrap();
        let refused = session.model_status().await.unwrap_err();
        let as_expected = match status {
            StatusCode::CONFLICT => matches!(refused, Error::Ended(_)),
            StatusCode::OK => matches!(refused, Error::BadAnswer(_)),
            _ => matches!(refused, Error::Api { status: 500, .. }),
        };
        assert!(as_expected, "{status} with {len} bytes: {refused}");
        assert!(Arc::ptr_eq(&before, &session.result()), "the last result stays the last one");
        // It may be asked for evidence another time, and for nothing else.
        assert!(session.model_status().await.is_err());
        let paths = traitor.paths.lock().unwrap();
        assert_eq!(paths.iter().filter(|path| *path == STATUS_PATH).count(), 1, "{paths:?}");
        assert_eq!(paths[1], REATTEST_PATH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_after_the_frame_are_not_read_as_evidence() {
    // They are what HTTP/2 begins with, and no HTTP/2 begins like this.
    let (address, policy, traitor) = Traitor::start(&[0x42; 64], |hardware, session, request| {
        (StatusCode::OK, genuine(hardware, session, request))
    })
    .await;
    let channel = UnverifiedChannel::open(&address).await.unwrap();
    assert_eq!(channel.evidence().response, *traitor.first.lock().unwrap());
    // Either the connection is refused at once or with the first request.
    if let Ok(session) = channel.verify(policy).await {
        let broken = session.model_status().await.unwrap_err();
        assert!(matches!(broken, Error::Unreachable { .. } | Error::Ended(_)), "{broken}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_is_of_one_request_and_one_session() {
    let enclave = InProcess::start(None).await;
    let evidence = UnverifiedChannel::open(&enclave.address).await.unwrap().evidence().clone();
    let verify = |change: &dyn Fn(&mut RawEvidence)| {
        let mut changed = evidence.clone();
        change(&mut changed);
        match changed.verify(&enclave.policy(), now(), &cocoon_attestation::SignatureCache::new()) {
            Ok(_) => Vec::new(),
            Err(Refusal::Rejected(rejection)) => {
                assert!(rejection.report.authentic);
                rejection.report.failures().map(|factor| factor.name).collect()
            }
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(verify(&|_| ()), [""; 0]);
    assert_eq!(verify(&|e| e.channel.exported[31] ^= 1), ["channel.binding"]);
    assert_eq!(verify(&|e| e.channel.cipher_suite ^= 1), ["channel.binding"]);
    assert_eq!(verify(&|e| e.channel.role = cocoon_attestation::binding::Role::Client), ["channel.binding"]);
    assert_eq!(verify(&|e| e.channel.peer_spki = Some(Digest([0; 32]))), [""; 0], "no peer is 32 zeros");
    assert_eq!(verify(&|e| e.channel.peer_spki = Some(Digest([1; 32]))), ["channel.binding"]);
    assert_eq!(verify(&|e| e.channel.spki.0[0] ^= 1), ["channel.binding", "channel.spki"]);
    assert_eq!(verify(&|e| e.channel.named_group = 0x001d), ["channel.binding", "channel.named_group"]);
    assert_eq!(verify(&|e| e.request = AttestRequest::new([0; 32]).encode()), ["channel.binding"]);
}

/// Evidence for `request`, as a client of its own gets it.
async fn evidence(enclave: &InProcess, request: &AttestRequest) -> RawEvidence {
    let session = Session::connect(TcpStream::connect(&enclave.address).await.unwrap()).await.unwrap();
    let (mut stream, request) = (session.stream(), request.encode());
    write_frame(&mut stream, FrameKind::AttestRequest, &request).await.unwrap();
    let response = read_frame(&mut stream, FrameKind::AttestResponse).await.unwrap();
    RawEvidence { channel: session.binding(&request).unwrap(), request, response }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_that_was_asked_for_must_answer() {
    let enclave = InProcess::start(None).await;
    let wanted = |node_id| AttestRequest { node_id: Some(Digest(node_id)), ..AttestRequest::new([7; 32]) };
    let genuine = evidence(&enclave, &wanted(enclave.node.node_id().0)).await;
    let result =
        genuine.clone().verify(&enclave.policy(), now(), &cocoon_attestation::SignatureCache::new()).unwrap();
    let factor = result.report().factors.iter().find(|factor| factor.name == "epoch.node_id").unwrap();
    assert_eq!(factor.status, Status::Pass);
    // Another node is wanted than the one that answered.
    let forged = RawEvidence { request: wanted([1; 32]).encode(), ..genuine };
    let Err(Refusal::Rejected(refused)) =
        forged.verify(&enclave.policy(), now(), &cocoon_attestation::SignatureCache::new())
    else {
        panic!("accepted")
    };
    let failed: Vec<_> = refused.report.failures().map(|factor| factor.name).collect();
    assert_eq!(failed, ["channel.binding", "epoch.node_id"]);
    // A node that answers although it is not meant; genuine hardware, bound to this session and this request.
    let (request, channel) =
        (wanted([1; 32]).encode(), UnverifiedChannel::open(&enclave.address).await.unwrap());
    let channel = channel.evidence().channel.clone();
    let processor = Processor::of(Product::Genoa);
    let response = processor.respond(&channel, &request, |s| s.node_id = Digest([2; 32])).encode();
    let policy = Policy::from_toml(&processor.policy()).unwrap();
    let verified = RawEvidence { request, response, channel }.verify(
        &policy,
        now(),
        &cocoon_attestation::SignatureCache::new(),
    );
    let Err(Refusal::Rejected(refused)) = verified else { panic!("accepted") };
    let failed: Vec<_> = refused.report.failures().map(|factor| factor.name).collect();
    assert_eq!(failed, ["epoch.node_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn endorsements_that_the_client_holds_are_not_sent() {
    let enclave = InProcess::start(None).await;
    let all = AttestResponse::decode(&evidence(&enclave, &AttestRequest::new([7; 32])).await.response)
        .unwrap()
        .endorsements;
    assert_eq!(all.len(), 3, "VCEK, ASK and revocation list");
    let holding = |held: Vec<Digest>| AttestRequest { held, ..AttestRequest::new([8; 32]) };
    for digest in all.iter().map(Endorsement::digest) {
        let got = evidence(&enclave, &holding(vec![digest])).await;
        let sent = AttestResponse::decode(&got.response).unwrap().endorsements;
        assert_eq!(sent.len(), 2);
        assert!(sent.iter().all(|item| item.digest() != digest));
    }
    let bare = evidence(&enclave, &holding(all.iter().map(Endorsement::digest).collect())).await;
    let mut response = AttestResponse::decode(&bare.response).unwrap();
    assert!(response.endorsements.is_empty());
    // Without them there is nothing to verify with; with those that the client held, there is.
    let refused = bare
        .clone()
        .verify(&enclave.policy(), now(), &cocoon_attestation::SignatureCache::new())
        .unwrap_err();
    assert!(refused.to_string().contains("snp.chain"), "{refused}");
    response.endorsements = all;
    let completed = RawEvidence { response: response.encode(), ..bare };
    completed.verify(&enclave.policy(), now(), &cocoon_attestation::SignatureCache::new()).unwrap();
    // What it does not have, it cannot leave out.
    let other = evidence(&enclave, &holding(vec![Digest([0; 32])])).await;
    assert_eq!(AttestResponse::decode(&other.response).unwrap().endorsements.len(), 3);
}
