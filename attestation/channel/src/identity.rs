//! The enclave's TLS key, with a self-signed certificate that says nothing: all trust comes from the evidence.

use std::sync::Arc;

use cocoon_attestation::{Digest, wire::ALPN};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use zeroize::Zeroizing;

use crate::{Error, hybrid};

/// A TLS key and what goes with it. The private key is inside rustls and ring: it cannot be printed or read.
pub struct Identity {
    spki: Digest,
    config: Arc<ServerConfig>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("spki", &self.spki).finish_non_exhaustive()
    }
}

impl Identity {
    /// A fresh P-256 key.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate() -> Result<Self, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_no_random| NO_KEY)?;
        Self::from_key(&key)
    }

    /// The identity of an existing PKCS#8 key. For tests that play an attacker who knows the key: an enclave generates its own.
    ///
    /// # Errors
    /// When the key is not a P-256 key in PKCS#8.
    pub fn dangerous_from_pkcs8(pkcs8: &[u8]) -> Result<Self, Error> {
        let key = KeyPair::try_from(pkcs8).map_err(|_not_a_key| NO_KEY)?;
        Self::from_key(&key)
    }

    fn from_key(key: &KeyPair) -> Result<Self, Error> {
        // No names, and validity that tells nothing about when the enclave was started.
        let params = CertificateParams::default();
        let certificate = params.self_signed(key).map_err(|_cannot_sign| NO_KEY)?;
        let secret = Zeroizing::new(key.serialize_der());
        Ok(Self {
            spki: Digest::of(&key.subject_public_key_info()),
            config: Arc::new(server_config(certificate.der().clone(), &secret)?),
        })
    }

    /// SHA-256 of the SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki(&self) -> Digest {
        self.spki
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }
}

const NO_KEY: Error = Error::Session("the TLS key could not be made or read");

fn server_config(certificate: CertificateDer<'static>, pkcs8: &[u8]) -> Result<ServerConfig, Error> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.to_vec()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(hybrid::provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // No tickets, no resumption, no early data, no data before the client's Finished (RFC 8446 sections 4.6.1, 2.3, 4.4.4).
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    Ok(config)
}
