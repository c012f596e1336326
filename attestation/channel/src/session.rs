//! Handshakes of both sides, and the session that comes out of them.

use std::sync::Arc;

use cocoon_attestation::Digest;
use cocoon_attestation::binding::{ChannelBinding, Role, exporter_context};
use cocoon_attestation::wire::{
    ALPN, EXPORTER_LABEL, TLS_RECORD_HEADER_LEN, check_client_hello, client_hello_len,
};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, CommonState, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::identity::Identity;
use crate::stream::{SharedTls, Transport};
use crate::tickets::TicketAlarm;
use crate::{Error, hybrid};

/// An established TLS 1.3 session that fulfils `cocoon/1`. Nobody has attested anything yet.
#[derive(Clone, Debug)]
pub struct Session {
    stream: SharedTls,
    cipher_suite: u16,
    named_group: u16,
    enclave_spki: Digest,
    tickets: Arc<TicketAlarm>,
}

impl Session {
    /// The client's side of the handshake. The server's certificate is taken for its key only.
    ///
    /// # Errors
    /// When the handshake fails or negotiates something else than `cocoon/1` has.
    pub async fn connect(transport: impl Transport) -> Result<Self, Error> {
        let tickets = Arc::new(TicketAlarm::default());
        let config = client_config(&tickets)?;
        // No name goes over the wire (`enable_sni` is off); the type wants one all the same.
        let name = ServerName::from(std::net::Ipv4Addr::UNSPECIFIED);
        let transport: Box<dyn Transport> = Box::new(transport);
        let stream = TlsConnector::from(Arc::new(config)).connect(name, transport).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let spki = certificate
            .map(spki_digest)
            .transpose()?
            .ok_or(Error::Session("the enclave sent no certificate"))?;
        Self::new(stream.into(), spki, tickets)
    }

    /// The enclave's side. Bytes that do not start a `cocoon/1` session get no answer at all.
    ///
    /// # Errors
    /// When the peer is not a `cocoon/1` client or the handshake fails.
    pub async fn accept(transport: impl Transport, identity: &Identity) -> Result<Self, Error> {
        let (mut read, write) = tokio::io::split(transport);
        let mut record = vec![0; TLS_RECORD_HEADER_LEN];
        read.read_exact(&mut record).await?;
        let header = <[u8; TLS_RECORD_HEADER_LEN]>::try_from(record.as_slice());
        let len = header
            .map_or(Err(Error::Session("no header")), |h| client_hello_len(h).map_err(Error::ClientHello))?;
        record.resize(TLS_RECORD_HEADER_LEN + len, 0);
        let (_, body) = record.split_at_mut(TLS_RECORD_HEADER_LEN);
        read.read_exact(body).await?;
        check_client_hello(body).map_err(Error::ClientHello)?;
        let transport: Box<dyn Transport> =
            Box::new(tokio::io::join(std::io::Cursor::new(record).chain(read), write));
        let stream = TlsAcceptor::from(identity.config()).accept(transport).await?;
        Self::new(stream.into(), identity.spki(), Arc::default())
    }

    fn new(
        stream: TlsStream<Box<dyn Transport>>,
        enclave_spki: Digest,
        tickets: Arc<TicketAlarm>,
    ) -> Result<Self, Error> {
        let state: &CommonState = stream.get_ref().1;
        if state.protocol_version() != Some(rustls::ProtocolVersion::TLSv1_3) {
            return Err(Error::Session("not TLS 1.3"));
        }
        if state.alpn_protocol() != Some(ALPN) {
            return Err(Error::Session("another application protocol"));
        }
        let suite = state.negotiated_cipher_suite().ok_or(Error::Session("no cipher suite"))?;
        let group = state.negotiated_key_exchange_group().ok_or(Error::Session("no key exchange"))?;
        let (cipher_suite, named_group) = (suite.suite().into(), group.name().into());
        Ok(Self { stream: SharedTls::new(stream), cipher_suite, named_group, enclave_spki, tickets })
    }

    /// The stream, for frames and then for HTTP/2.
    #[must_use]
    pub fn stream(&self) -> SharedTls {
        self.stream.clone()
    }

    /// The binding of evidence that the enclave gives for `request` (an AttestRequest as it went over the wire).
    ///
    /// # Errors
    /// When the exporter fails, or when the peer offered a ticket.
    pub fn binding(&self, request: &[u8]) -> Result<ChannelBinding, Error> {
        if self.tickets.went_off() {
            return Err(Error::Session("the enclave offered a ticket"));
        }
        let context = exporter_context(Role::Enclave, request);
        let tls = self.stream.lock();
        // One label for one purpose; role and request are in the context, so two requests never share an output.
        let exported = match &*tls {
            TlsStream::Client(tls) => {
                tls.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, Some(&context))
            }
            TlsStream::Server(tls) => {
                tls.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, Some(&context))
            }
        }?;
        Ok(ChannelBinding {
            role: Role::Enclave,
            cipher_suite: self.cipher_suite,
            named_group: self.named_group,
            spki: self.enclave_spki,
            peer_spki: None,
            exported,
        })
    }

    /// Ends the connection without saying why.
    pub async fn close(self) {
        // The peer may be gone already: then there is nobody to tell.
        let _gone = self.stream().shutdown().await;
    }
}

fn spki_digest(certificate: &CertificateDer<'_>) -> Result<Digest, Error> {
    let parsed = webpki::EndEntityCert::try_from(certificate)
        .map_err(|_bad| Error::Session("the enclave's certificate cannot be read"))?;
    Ok(Digest::of(&parsed.subject_public_key_info()))
}

fn client_config(tickets: &Arc<TicketAlarm>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(hybrid::provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(KeyOnly(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = false;
    config.enable_early_data = false;
    config.resumption = Resumption::store(tickets.clone());
    Ok(config)
}

/// Accepts any certificate, and checks for real that the peer holds its key (CertificateVerify).
///
/// That alone would be no authentication: the evidence vouches for the key, and the client sends nothing before it was appraised.
#[derive(Debug)]
struct KeyOnly(Arc<CryptoProvider>);

impl ServerCertVerifier for KeyOnly {
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
        Err(rustls::Error::General("cocoon/1 is TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
