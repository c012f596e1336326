//! ID block and its authentication: with them, SEV-SNP firmware launches nothing but the image that an author signed, and says in every
//! report whose keys these were.
//!
//! Source: AMD 56860, SNP_LAUNCH_FINISH: ID block (table 75), ID authentication information (table 76); keys and signatures as in
//! appendix B: numbers little-endian in 72 bytes.

use std::path::Path;

use anyhow::anyhow;
use cocoon_attestation::Measurement;
use ring::digest::{SHA384, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

use crate::key::{not_a_key, read_pkcs8, write_new};

/// Bytes of an ID block, and of its authentication.
pub const BLOCK_LEN: usize = 96;
/// See [`BLOCK_LEN`].
pub const AUTH_LEN: usize = 4096;

/// ECDSA on P-384 with SHA-384, and the curve, in AMD's numbers.
const ECDSA_P384_SHA384: u32 = 1;
const P384: u32 = 2;
const SCALAR: usize = 48;
const SCALAR_ROOM: usize = 72;
const KEY_LEN: usize = 1028;
const KIND: &str = "a P-384 key";

/// What may be launched, and how it is named in reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdBlock {
    /// Launch digest.
    pub measurement: Measurement,
    /// FAMILY_ID of reports.
    pub family_id: [u8; 16],
    /// IMAGE_ID of reports.
    pub image_id: [u8; 16],
    /// GUEST_SVN of reports.
    pub guest_svn: u32,
    /// Guest policy; the host has to launch with this very one.
    pub policy: u64,
}

impl IdBlock {
    /// As firmware reads it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK_LEN);
        out.extend_from_slice(&self.measurement.0);
        out.extend_from_slice(&self.family_id);
        out.extend_from_slice(&self.image_id);
        out.extend_from_slice(&1_u32.to_le_bytes());
        out.extend_from_slice(&self.guest_svn.to_le_bytes());
        out.extend_from_slice(&self.policy.to_le_bytes());
        out
    }

    /// Authentication by the ID key `id`, which the author key `author` vouches for.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn authenticate(&self, id: &P384Key, author: &P384Key) -> anyhow::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(AUTH_LEN);
        out.extend_from_slice(&ECDSA_P384_SHA384.to_le_bytes());
        out.extend_from_slice(&ECDSA_P384_SHA384.to_le_bytes());
        out.resize(0x40, 0);
        out.extend(id.sign(&self.encode())?);
        out.resize(0x240, 0);
        out.extend(id.public());
        out.resize(0x680, 0);
        out.extend(author.sign(&id.public())?);
        out.resize(0x880, 0);
        out.extend(author.public());
        out.resize(AUTH_LEN, 0);
        Ok(out)
    }
}

/// An ECDSA key on P-384: PKCS#8 in PEM. `Debug` shows nothing of it.
pub struct P384Key(EcdsaKeyPair);

impl std::fmt::Debug for P384Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("P384Key")
    }
}

impl P384Key {
    /// Makes a new key and writes it to `path`, which must not exist yet; mode 0600.
    ///
    /// # Errors
    /// The file exists or cannot be written.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_unspecified| anyhow!("the system gives no random bytes"))?;
        write_new(path, pkcs8.as_ref())?;
        Self::read(path)
    }

    /// Reads a key: what [`P384Key::create`] writes, or `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384`.
    ///
    /// # Errors
    /// The file cannot be read or is no such key.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let der = read_pkcs8(path, KIND)?;
        EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &der, &SystemRandom::new())
            .map(Self)
            .map_err(|e| not_a_key(path, KIND, &e.to_string()))
    }

    /// The digest of the public key that reports carry: what a policy names as `id_key_digest` or `author_key_digest`.
    #[must_use]
    pub fn digest(&self) -> Measurement {
        let mut out = [0; 48];
        out.copy_from_slice(digest(&SHA384, &self.public()).as_ref());
        Measurement(out)
    }

    /// The public key as firmware reads it.
    fn public(&self) -> Vec<u8> {
        // An uncompressed point: 4, then x and y, big-endian.
        let point = self.0.public_key().as_ref().get(1..).unwrap_or_default();
        let mut out = P384.to_le_bytes().to_vec();
        out.extend(numbers(point));
        out.resize(KEY_LEN, 0);
        out
    }

    fn sign(&self, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        let signature = self.0.sign(&SystemRandom::new(), message);
        let signature = signature.map_err(|_unspecified| anyhow!("the system gives no random bytes"))?;
        Ok(numbers(signature.as_ref()))
    }
}

/// Two numbers, big-endian beside each other, as AMD has them.
fn numbers(pair: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for number in pair.chunks(SCALAR) {
        let end = out.len() + SCALAR_ROOM;
        out.extend(number.iter().rev());
        out.resize(end, 0);
    }
    out
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};

    use super::*;

    const BLOCK: IdBlock = IdBlock {
        measurement: Measurement([1; 48]),
        family_id: [2; 16],
        image_id: [3; 16],
        guest_svn: 0x0403_0201,
        policy: 0x3_0000,
    };

    /// Reads it back as firmware would: numbers from 72 bytes, little-endian.
    fn big_endian(bytes: &[u8]) -> Vec<u8> {
        bytes.chunks(SCALAR_ROOM).take(2).flat_map(|number| number[..SCALAR].iter().rev().copied()).collect()
    }

    #[test]
    fn the_block_has_its_fields_where_firmware_reads_them() {
        let bytes = BLOCK.encode();
        assert_eq!(bytes.len(), BLOCK_LEN);
        assert_eq!(bytes[48..52], [2; 4]);
        assert_eq!(bytes[64..68], [3; 4]);
        assert_eq!(bytes[80..96], [1, 0, 0, 0, 1, 2, 3, 4, 0, 0, 3, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn both_signatures_verify_and_name_the_keys() {
        let dir = tempfile::tempdir().unwrap();
        let (id, author) = (
            P384Key::create(&dir.path().join("id.pem")).unwrap(),
            P384Key::create(&dir.path().join("author.pem")).unwrap(),
        );
        let auth = BLOCK.authenticate(&id, &author).unwrap();
        assert_eq!(auth.len(), AUTH_LEN);
        let verifies = |key: &[u8], message: &[u8], signature: &[u8]| {
            let point = [&[4][..], &big_endian(&key[4..])].concat();
            UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point)
                .verify(message, &big_endian(signature))
                .is_ok()
        };
        let (id_key, author_key) = (&auth[0x240..0x240 + KEY_LEN], &auth[0x880..0x880 + KEY_LEN]);
        assert!(verifies(id_key, &BLOCK.encode(), &auth[0x40..]));
        assert!(verifies(author_key, id_key, &auth[0x680..]));
        assert!(!verifies(author_key, &BLOCK.encode(), &auth[0x40..]));
        assert_eq!(id.digest().0[..], digest(&SHA384, id_key).as_ref()[..]);
        assert_eq!(P384Key::read(&dir.path().join("id.pem")).unwrap().digest(), id.digest());
    }

    #[test]
    fn other_keys_are_refused_and_none_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        P384Key::create(&path).unwrap();
        assert!(P384Key::create(&path).is_err());
        let ed25519 = dir.path().join("ed.pem");
        crate::key::SigningKey::create(&ed25519).unwrap();
        assert!(P384Key::read(&ed25519).unwrap_err().to_string().contains("is not a P-384 key"));
        std::fs::write(&path, "odd").unwrap();
        assert!(P384Key::read(&path).unwrap_err().to_string().contains("is not a P-384 key"));
        assert!(P384Key::read(&dir.path().join("missing")).unwrap_err().to_string().contains("cannot read"));
    }
}
