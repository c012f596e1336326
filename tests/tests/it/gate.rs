//! Whoever is not a `cocoon/1` client gets nothing, one fixed event is logged, and the enclave goes on.

use std::io::Write;
use std::net::TcpStream as StdTcp;
use std::process::Command;
use std::sync::Arc;

use cocoon_attestation::wire::{ALPN, AttestRequest, FrameKind, encode_frame};
use cocoon_channel::session::Session;
use cocoon_channel::{hybrid, identity};
use cocoon_enclave::attest::ReportData;
use cocoon_enclave::platform::{Attester, NoReport, PlatformEvidence};
use cocoon_tests::enclave::InProcess;
use cocoon_tests::programs::{EnclaveProcess, PATIENCE, cocoon, read_all};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Trusts anybody: this client is the one that misbehaves.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519]
    }
}

fn client_config() -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::new(hybrid::provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

struct Watched {
    enclave: EnclaveProcess,
    refused: usize,
}

impl Watched {
    fn new() -> Self {
        Self { enclave: EnclaveProcess::start(&[]), refused: 0 }
    }

    /// Exactly one more refusal was logged, for this reason.
    fn expect(&mut self, reason: &str) {
        self.refused += 1;
        let start = std::time::Instant::now();
        loop {
            let events = self.enclave.program.events("channel_refused");
            if events.len() >= self.refused {
                assert_eq!(events.len(), self.refused, "one event for one connection");
                assert_eq!(events[self.refused - 1]["reason"], reason);
                return;
            }
            assert!(start.elapsed() < PATIENCE, "no event {reason}:\n{}", self.enclave.program.output());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    fn raw(&mut self, bytes: &[u8], reason: &str) {
        let mut tcp = StdTcp::connect(&self.enclave.address).unwrap();
        tcp.write_all(bytes).unwrap();
        // The enclave may have closed already.
        let _closed = tcp.shutdown(std::net::Shutdown::Write);
        assert_eq!(read_all(&mut tcp), b"", "{reason}");
        self.expect(reason);
    }

    fn still_works(&self) {
        let verified = cocoon(&["verify", &self.enclave.address, "--policy", &self.enclave.policy()]);
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    }
}

#[test]
fn what_is_not_tls_gets_nothing() {
    let mut watched = Watched::new();
    watched.raw(b"GET / HTTP/1.1\r\nHost: enclave\r\n\r\n", "not_tls");
    watched.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "not_tls");
    watched.raw(&[0; 4096], "not_tls");
    watched.raw(&[0xff; 4096], "not_tls");
    watched.raw(b"\x16\x03\x01\xff\xff", "not_tls");
    watched.raw(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", "not_tls");
    watched.raw(b"", "disconnected");
    watched.raw(b"\x16\x03", "disconnected");
    watched.still_works();
}

/// OpenSSL as the client, through Python.
fn openssl(address: &str, setup: &str, name: &str) -> String {
    let (host, port) = address.split_once(':').unwrap();
    let script = format!(
        "import socket, ssl\n\
         c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE\n\
         {setup}\n\
         raw = socket.create_connection(('{host}', {port}))\n\
         try:\n    s = c.wrap_socket(raw, server_hostname={name}); s.settimeout(60); print('got', s.recv(1))\n\
         except Exception as e: print(type(e).__name__)\n"
    );
    let output = Command::new("python3").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn other_tls_clients_get_no_answer_not_even_an_alert() {
    let mut watched = Watched::new();
    let address = watched.enclave.address.clone();
    let cases = [
        ("c.maximum_version = ssl.TLSVersion.TLSv1_2; c.set_alpn_protocols(['cocoon/1'])", "None", "old_tls"),
        ("c.set_alpn_protocols(['h2'])", "None", "wrong_protocol"),
        ("c.set_alpn_protocols(['h2', 'cocoon/1'])", "None", "wrong_protocol"),
        ("", "None", "wrong_protocol"),
        ("c.set_alpn_protocols(['cocoon/1'])", "'enclave.example'", "server_name"),
    ];
    for (setup, name, reason) in cases {
        // An alert would be an SSLError of another kind.
        let got = openssl(&address, setup, name);
        assert!(got == "SSLEOFError" || got == "ConnectionResetError", "{reason}: {got}");
        watched.expect(reason);
    }
    // The positive control: what is refused above is not refused for another reason.
    let (host, port) = address.split_once(':').unwrap();
    let script = format!(
        "import socket, ssl\n\
         c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE\n\
         c.set_alpn_protocols(['cocoon/1'])\n\
         s = c.wrap_socket(socket.create_connection(('{host}', {port})))\n\
         print(s.version(), s.selected_alpn_protocol())\n"
    );
    let output = Command::new("python3").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "TLSv1.3 cocoon/1");
    watched.still_works();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_offers_a_ticket_is_dropped() {
    let mut watched = Watched::new();
    // A server of another kind gives this client a ticket under the name that it will use again.
    let tickets = ticket_server(&[ALPN]).await;
    let name = ServerName::from(std::net::Ipv4Addr::LOCALHOST);
    let config = Arc::new(client_config());
    let connector = tokio_rustls::TlsConnector::from(config);
    let mut first =
        connector.connect(name.clone(), TcpStream::connect(&tickets).await.unwrap()).await.unwrap();
    let mut byte = [0];
    first.read_exact(&mut byte).await.unwrap();
    let second = connector.connect(name, TcpStream::connect(&watched.enclave.address).await.unwrap()).await;
    assert!(second.is_err());
    tokio::task::spawn_blocking(move || {
        watched.expect("resumption");
        watched.still_works();
    })
    .await
    .unwrap();
}

/// A TLS server that gives tickets, sends one byte and then whatever it is asked for: nothing.
async fn ticket_server(protocols: &[&[u8]]) -> String {
    let key = rcgen_key();
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(hybrid::provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.0], key.1)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    config.send_tls13_tickets = 2;
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                let _gone = tls.write_all(b"!").await;
                let _closed = tls.read_u8().await;
            });
        }
    });
    address
}

fn rcgen_key() -> (CertificateDer<'static>, rustls::pki_types::PrivateKeyDer<'static>) {
    let certified = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    (certified.cert.der().clone(), key.into())
}

#[tokio::test]
async fn an_enclave_that_offers_a_ticket_is_refused() {
    // It sends tickets right after the handshake, so they are here when the first frame is read.
    let address = ticket_server(&[ALPN]).await;
    let session = Session::connect(TcpStream::connect(&address).await.unwrap()).await.unwrap();
    let mut byte = [0];
    session.stream().read_exact(&mut byte).await.unwrap();
    let refused = session.binding(&AttestRequest::new([0; 32]).encode()).unwrap_err();
    assert!(refused.to_string().contains("ticket"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_first_frames_end_the_connection() {
    let mut watched = Watched::new();
    let request = AttestRequest::new([7; 32]).encode();
    let frame = |kind: FrameKind, body: &[u8]| encode_frame(kind, body).unwrap();
    let mut oversized = 4097u32.to_be_bytes().to_vec();
    oversized.push(1);
    let long_integer = [&request[..1], &[0x18, 0x00], &request[2..]].concat();
    let other_node =
        AttestRequest { node_id: Some(cocoon_attestation::Digest([1; 32])), ..AttestRequest::new([7; 32]) };
    let cases: [(Vec<u8>, &str); 8] = [
        (frame(FrameKind::AttestResponse, &request), "wrong_frame"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), "malformed"),
        (oversized, "malformed"),
        (frame(FrameKind::AttestRequest, &request[..request.len() - 1]), "malformed"),
        (frame(FrameKind::AttestRequest, &long_integer), "malformed"),
        (frame(FrameKind::AttestRequest, &[]), "malformed"),
        (frame(FrameKind::Close, &[]), "disconnected"),
        (frame(FrameKind::AttestRequest, &other_node.encode()), "other_node"),
    ];
    for (bytes, reason) in cases {
        let session =
            Session::connect(TcpStream::connect(&watched.enclave.address).await.unwrap()).await.unwrap();
        let mut stream = session.stream();
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        let mut got = Vec::new();
        let _end =
            tokio::time::timeout(PATIENCE, stream.read_to_end(&mut got)).await.expect("the connection ends");
        assert_eq!(got, b"", "{reason}");
        watched = tokio::task::spawn_blocking(move || {
            watched.expect(reason);
            watched
        })
        .await
        .unwrap();
    }
    tokio::task::spawn_blocking(move || watched.still_works()).await.unwrap();
}

#[test]
fn a_handshake_that_fails_ends_the_connection() {
    let mut watched = Watched::new();
    let name = ServerName::from(std::net::Ipv4Addr::LOCALHOST);
    let mut client = rustls::ClientConnection::new(Arc::new(client_config()), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let mut tcp = StdTcp::connect(&watched.enclave.address).unwrap();
    // A genuine ClientHello, and then a record that is none of a handshake.
    tcp.write_all(&[&hello[..], b"\x17\x03\x03\x00\x20", &[0x42; 32]].concat()).unwrap();
    let _answer = read_all(&mut tcp);
    watched.expect("handshake");
    watched.still_works();
}

/// Hardware that gives no reports.
struct Broken;

impl Attester for Broken {
    fn attest(&self, _: &ReportData) -> Result<PlatformEvidence, NoReport> {
        Err(NoReport)
    }
}

#[tokio::test]
async fn without_a_report_the_client_is_dropped_and_the_enclave_goes_on() {
    let enclave = InProcess::start_on(Arc::new(Broken)).await;
    for _ in 0..2 {
        let refused = cocoon_client::connect(&enclave.address, enclave.policy()).await.unwrap_err();
        assert!(matches!(refused, cocoon_client::Error::Unreachable { .. }), "{refused}");
    }
    let events = enclave.events();
    assert_eq!(events.matches("\"report_failed\"").count(), 2, "{events}");
    assert!(events.contains("\"reason\":\"no_report\""), "{events}");
}

/// Hardware that does not answer until the test is over.
struct Stuck(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);

impl Attester for Stuck {
    fn attest(&self, _: &ReportData) -> Result<PlatformEvidence, NoReport> {
        let _over = self.0.lock().unwrap().recv();
        Err(NoReport)
    }
}

#[tokio::test]
async fn hardware_that_does_not_answer_is_given_up() {
    let (over, stuck) = std::sync::mpsc::channel();
    let enclave = InProcess::start_on(Arc::new(Stuck(std::sync::Mutex::new(stuck)))).await;
    let refused = cocoon_client::connect(&enclave.address, enclave.policy()).await.unwrap_err();
    assert!(matches!(refused, cocoon_client::Error::Unreachable { .. }), "{refused}");
    assert!(enclave.events().contains("\"report_failed\""), "{}", enclave.events());
    drop(over);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_stops_forwarding_is_noticed() {
    let enclave = InProcess::start(None).await;
    let relay = cocoon_tests::recorder::Recorder::start(enclave.address.clone()).await;
    let session = cocoon_client::connect(&relay.address.to_string(), enclave.policy()).await.unwrap();
    session.model_status().await.unwrap();
    relay.stall();
    let stalled = tokio::time::timeout(PATIENCE, session.model_status()).await.expect("it does not hang");
    assert!(matches!(stalled, Err(cocoon_client::Error::Unreachable { .. })));
    let again = tokio::time::timeout(PATIENCE, session.attest_again()).await.expect("it does not hang");
    assert!(again.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_nothing_is_dropped() {
    let mut watched = Watched::new();
    let session =
        Session::connect(TcpStream::connect(&watched.enclave.address).await.unwrap()).await.unwrap();
    let mut got = Vec::new();
    let _end = tokio::time::timeout(PATIENCE, session.stream().read_to_end(&mut got))
        .await
        .expect("the connection ends");
    assert_eq!(got, b"");
    tokio::task::spawn_blocking(move || watched.expect("too_slow")).await.unwrap();
}

#[test]
fn identities_can_be_made_from_a_key() {
    assert!(identity::Identity::dangerous_from_pkcs8(b"not a key").is_err());
}
