//! The enclave's TLS key, with a self-signed certificate that says nothing: all trust comes from the evidence.

use std::sync::Arc;

use cocoon_attestation::{Digest, wire::ALPN};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::ServerConfig;
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use zeroize::Zeroize;

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
        Self::from_key(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_no_random| NO_KEY)?)
    }

    /// The identity of an existing PKCS#8 key. For tests that play an attacker who knows the key: an enclave generates its own.
    ///
    /// # Errors
    /// When the key is not a P-256 key in PKCS#8.
    pub fn dangerous_from_pkcs8(pkcs8: &[u8]) -> Result<Self, Error> {
        Self::from_key(KeyPair::try_from(pkcs8).map_err(|_not_a_key| NO_KEY)?)
    }

    fn from_key(mut key: KeyPair) -> Result<Self, Error> {
        // No names, and validity that tells nothing about when the enclave was started.
        let certificate = CertificateParams::default().self_signed(&key).map_err(|_cannot_sign| NO_KEY);
        let spki = Digest::of(&key.subject_public_key_info());
        let mut pkcs8 = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signing = any_ecdsa_type(&pkcs8);
        // What is left is the parsed key inside rustls and ring.
        pkcs8.zeroize();
        key.zeroize();
        let certified = CertifiedKey::new(vec![certificate?.der().clone()], signing?);
        Ok(Self { spki, config: Arc::new(server_config(certified)?) })
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

fn server_config(certified: CertifiedKey) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(hybrid::provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // No tickets, no resumption, no early data, no data before the client's Finished (RFC 8446 sections 4.6.1, 2.3, 4.4.4).
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    Ok(config)
}
