//! X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem): ring's X25519 beside a formally verified ML-KEM-768.
//!
//! Shares are `ML-KEM || X25519`, and so is the secret; breaking it takes breaking both.

use libcrux_ml_kem::mlkem768::{self, MlKem768Ciphertext, MlKem768KeyPair, MlKem768PublicKey};
use ring::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey, X25519};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::crypto::{
    ActiveKeyExchange, CompletedKeyExchange, CryptoProvider, SharedSecret, SupportedKxGroup,
};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{Error, NamedGroup, PeerMisbehaved};
use zeroize::Zeroizing;

const ML_KEM_SECRET_LEN: usize = 32;

/// The provider of both ends: TLS 1.3 suites of ring, the hybrid group first, X25519 for policies that allow it.
#[must_use]
pub fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    provider.kx_groups = vec![&X25519MlKem768, rustls::crypto::ring::kx_group::X25519];
    provider
}

/// The hybrid group.
#[derive(Clone, Copy, Debug)]
pub struct X25519MlKem768;

impl SupportedKxGroup for X25519MlKem768 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let x25519 = Classical::generate()?;
        let ml_kem = mlkem768::generate_key_pair(*random::<64>()?);
        let share = [ml_kem.public_key().as_slice(), x25519.share.as_ref()].concat();
        Ok(Box::new(Client { x25519, ml_kem, share }))
    }

    /// The server's half: encapsulates to the client's key.
    fn start_and_complete(&self, peer: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let (peer_ml_kem, peer_x25519) =
            peer.split_at_checked(MlKem768PublicKey::len()).ok_or_else(bad_share)?;
        let peer_ml_kem = MlKem768PublicKey::try_from(peer_ml_kem).map_err(|_wrong_length| bad_share())?;
        if !mlkem768::validate_public_key(&peer_ml_kem) {
            return Err(bad_share());
        }
        let x25519 = Classical::generate()?;
        let (ciphertext, ml_kem_secret) =
            mlkem768::encapsulate(&peer_ml_kem, *random::<ML_KEM_SECRET_LEN>()?);
        let ml_kem_secret = Zeroizing::new(ml_kem_secret);
        let pub_key = [ciphertext.as_slice(), x25519.share.as_ref()].concat();
        let secret = x25519.agree(peer_x25519, &*ml_kem_secret)?;
        Ok(CompletedKeyExchange { group: self.name(), pub_key, secret })
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }

    fn usable_for_version(&self, version: rustls::ProtocolVersion) -> bool {
        version == rustls::ProtocolVersion::TLSv1_3
    }
}

/// The client's half, waiting for the server's share.
struct Client {
    x25519: Classical,
    ml_kem: MlKem768KeyPair,
    share: Vec<u8>,
}

impl ActiveKeyExchange for Client {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let (ciphertext, peer_x25519) =
            peer.split_at_checked(MlKem768Ciphertext::len()).ok_or_else(bad_share)?;
        let ciphertext = MlKem768Ciphertext::try_from(ciphertext).map_err(|_wrong_length| bad_share())?;
        let ml_kem_secret = Zeroizing::new(mlkem768::decapsulate(self.ml_kem.private_key(), &ciphertext));
        self.x25519.agree(peer_x25519, &*ml_kem_secret)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

struct Classical {
    secret: EphemeralPrivateKey,
    share: agreement::PublicKey,
}

impl Classical {
    fn generate() -> Result<Self, Error> {
        // One key, one agreement: ring's type enforces single use.
        let secret = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).map_err(no_random)?;
        let share = secret.compute_public_key().map_err(no_random)?;
        Ok(Self { secret, share })
    }

    /// `ML-KEM secret || X25519 secret`. ring refuses shares of low order.
    fn agree(self, peer: &[u8], ml_kem_secret: &[u8]) -> Result<SharedSecret, Error> {
        agreement::agree_ephemeral(self.secret, &UnparsedPublicKey::new(&X25519, peer), |x25519_secret| {
            SharedSecret::from([ml_kem_secret, x25519_secret].concat())
        })
        .map_err(|_unspecified| bad_share())
    }
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, Error> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new().fill(&mut *bytes).map_err(no_random)?;
    Ok(bytes)
}

fn no_random(_: ring::error::Unspecified) -> Error {
    Error::FailedToGetRandomBytes
}

fn bad_share() -> Error {
    PeerMisbehaved::InvalidKeyShare.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree_and_sizes_are_as_registered() {
        let client = X25519MlKem768.start().unwrap();
        assert_eq!(client.pub_key().len(), 1184 + 32);
        let server = X25519MlKem768.start_and_complete(client.pub_key()).unwrap();
        assert_eq!(server.pub_key.len(), 1088 + 32);
        let secret = client.complete(&server.pub_key).unwrap();
        assert_eq!(secret.secret_bytes(), server.secret.secret_bytes());
        assert_eq!(secret.secret_bytes().len(), 64);
    }

    /// The other side's half by another ML-KEM and ring's X25519, put together here from the draft.
    struct Peer {
        x25519: EphemeralPrivateKey,
        share: Vec<u8>,
    }

    impl Peer {
        fn new() -> Self {
            let x25519 = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).unwrap();
            let share = x25519.compute_public_key().unwrap().as_ref().to_vec();
            Self { x25519, share }
        }

        fn secret(self, ml_kem_secret: &[u8], other: &[u8]) -> Vec<u8> {
            let other = UnparsedPublicKey::new(&X25519, other);
            let secret = agreement::agree_ephemeral(self.x25519, &other, <[u8]>::to_vec).unwrap();
            [ml_kem_secret, &secret].concat()
        }
    }

    #[test]
    fn interoperates_with_another_ml_kem() {
        use ml_kem::kem::Decapsulate;
        use ml_kem::{EncapsulateDeterministic, EncodedSizeUser, KemCore, MlKem768};
        // Their client, our server.
        let seed = |n: u8| [n; 32].into();
        let (secret_key, public_key) = MlKem768::generate_deterministic(&seed(1), &seed(2));
        let peer = Peer::new();
        let server =
            X25519MlKem768.start_and_complete(&[&public_key.as_bytes()[..], &peer.share].concat()).unwrap();
        let (ciphertext, x25519) = server.pub_key.split_at(1088);
        let ml_kem_secret = secret_key.decapsulate(ciphertext.try_into().unwrap()).unwrap();
        assert_eq!(peer.secret(&ml_kem_secret, x25519), server.secret.secret_bytes());
        // Our client, their server.
        let client = X25519MlKem768.start().unwrap();
        let (public_key, x25519) = client.pub_key().split_at(1184);
        type EncapsulationKey = <MlKem768 as KemCore>::EncapsulationKey;
        let public_key = EncapsulationKey::from_bytes(public_key.try_into().unwrap());
        let (ciphertext, ml_kem_secret) = public_key.encapsulate_deterministic(&seed(3)).unwrap();
        let peer = Peer::new();
        let answer = [&ciphertext[..], &peer.share].concat();
        let theirs = peer.secret(&ml_kem_secret, x25519);
        assert_eq!(client.complete(&answer).unwrap().secret_bytes(), theirs);
    }

    #[test]
    fn bad_shares_are_refused() {
        let client = X25519MlKem768.start().unwrap();
        let good = client.pub_key().to_vec();
        for bad in [&good[..good.len() - 1], &good[..1184], &[], &[&good[..], &[0]].concat()] {
            assert!(X25519MlKem768.start_and_complete(bad).is_err(), "{}", bad.len());
        }
        let mut not_reduced = good.clone();
        not_reduced[..1152].fill(0xff);
        assert!(X25519MlKem768.start_and_complete(&not_reduced).is_err(), "ML-KEM key out of range");
        let mut low_order = good;
        low_order[1184..].fill(0);
        assert!(X25519MlKem768.start_and_complete(&low_order).is_err(), "X25519 point of low order");
        assert!(client.complete(&[0; 1088 + 31]).is_err());
    }
}
