//! The Ed25519 key of a signer: PKCS#8 in PEM, in a file that only its owner reads.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, anyhow};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use zeroize::Zeroizing;

const LABEL: &str = "PRIVATE KEY";
const KIND: &str = "an Ed25519 key";

/// A key that signs. `Debug` shows its public key.
#[derive(Debug)]
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Makes a new key and writes it to `path`, which must not exist yet; mode 0600.
    ///
    /// # Errors
    /// The file exists or cannot be written.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_unspecified| anyhow!("the system gives no random bytes"))?;
        write_new(path, pkcs8.as_ref())?;
        Self::read(path)
    }

    /// Reads a key: what [`SigningKey::create`] writes, or `openssl genpkey -algorithm ed25519`.
    ///
    /// # Errors
    /// The file cannot be read or is not an Ed25519 key.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let der = read_pkcs8(path, KIND)?;
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
            .map(Self)
            .map_err(|e| not_a_key(path, KIND, &e.to_string()))
    }

    /// The public key, 32 bytes in hexadecimal: what policies name.
    #[must_use]
    pub fn public(&self) -> String {
        hex::encode(self.0.public_key())
    }

    /// The signature of `message`, 64 bytes.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }
}

/// Writes a key as PEM to `path`, which must not exist yet; mode 0600.
pub(crate) fn write_new(path: &Path, pkcs8: &[u8]) -> anyhow::Result<()> {
    let pem = pem_rfc7468::encode_string(LABEL, pem_rfc7468::LineEnding::LF, pkcs8)
        .map(Zeroizing::new)
        .map_err(|e| anyhow!("cannot write the key as PEM: {e}"))?;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()))
        .with_context(|| format!("cannot write a new key to {}", path.display()))
}

/// The PKCS#8 in the PEM file `path`; `kind` is for errors.
pub(crate) fn read_pkcs8(path: &Path, kind: &str) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let pem = std::fs::read(path).map(Zeroizing::new);
    let pem = pem.with_context(|| format!("cannot read the key {}", path.display()))?;
    let (label, der) = pem_rfc7468::decode_vec(&pem).map_err(|e| not_a_key(path, kind, &e.to_string()))?;
    let der = Zeroizing::new(der);
    if label == LABEL { Ok(der) } else { Err(not_a_key(path, kind, &format!("it is a {label}"))) }
}

pub(crate) fn not_a_key(path: &Path, kind: &str, why: &str) -> anyhow::Error {
    anyhow!("{} is not {kind} in PKCS#8 PEM: {why}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_new_private_and_never_replaced() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let key = SigningKey::create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(SigningKey::read(&path).unwrap().public(), key.public());
        assert!(SigningKey::create(&path).is_err(), "replaced");
        assert_ne!(SigningKey::create(&dir.path().join("other.pem")).unwrap().public(), key.public());
    }

    #[test]
    fn reads_what_other_tools_write_and_refuses_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        // RFC 8410, section 10.3: the private key and its public key.
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        std::fs::write(&path, pem).unwrap();
        let public = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
        assert_eq!(SigningKey::read(&path).unwrap().public(), public);
        for wrong in [String::new(), pem.replace("PRIVATE", "PUBLIC"), pem.replace("BQYDK2Vw", "BQYDK2Vx")] {
            std::fs::write(&path, wrong).unwrap();
            let refused = SigningKey::read(&path).err().unwrap().to_string();
            assert!(refused.contains("is not an Ed25519 key"), "{refused}");
            assert!(!refused.contains("MC4CAQ"), "{refused}");
        }
    }
}
