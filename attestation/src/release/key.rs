//! Ed25519 keys that policies and bundles name.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::types::{parse_hex, to_hex};
use crate::{Error, SignatureCache, crypto::SignatureScheme};

/// An Ed25519 public key (RFC 8032, 32 bytes). Zeros are a place to fill in, under which no signature is good.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// Points of small order but zeros, by their encoding without the sign bit: for these keys anybody can make signatures.
/// The last two are encodings of 0 and 1 that are not reduced (RFC 8032 section 5.1.3 refuses them, not all libraries do).
const WEAK: [&str; 6] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

impl PublicKey {
    /// Whether this is where a key is to be filled in.
    #[must_use]
    pub fn is_placeholder(&self) -> bool {
        self.0 == [0; 32]
    }

    /// Whether anybody can sign under this key.
    fn is_weak(&self) -> bool {
        let mut encoding = self.0;
        if let Some(last) = encoding.last_mut() {
            *last &= 0x7f;
        }
        let text = to_hex(&encoding);
        // Zero with the sign bit is no placeholder.
        WEAK.contains(&text.as_str()) || (encoding == [0; 32] && !self.is_placeholder())
    }

    /// Whether this key signed `message`.
    pub(crate) fn signed(&self, message: &[u8], signature: &[u8], signatures: &SignatureCache) -> bool {
        let usable = !self.is_placeholder() && !self.is_weak();
        usable && signatures.verify(SignatureScheme::Ed25519, &self.0, message, signature)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl std::str::FromStr for PublicKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let key = Self(parse_hex(text)?);
        if key.is_weak() {
            return Err(Error::misuse("a key of small order, under which anybody can sign"));
        }
        Ok(key)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_under_which_anybody_can_sign_are_refused() {
        let refused = |text: &str| text.parse::<PublicKey>().unwrap_err().to_string();
        for weak in WEAK {
            assert!(refused(weak).contains("small order"), "{weak}");
            let mut key: [u8; 32] = parse_hex(weak).unwrap();
            key[31] |= 0x80;
            assert!(refused(&hex::encode(key)).contains("small order"), "{weak} with the sign bit");
        }
        assert!(refused(&format!("{}80", "00".repeat(31))).contains("small order"));
        assert!(refused("00").contains("64 hex digits"));
        let zeros: PublicKey = "0".repeat(64).parse().unwrap();
        assert!(zeros.is_placeholder() && !zeros.is_weak());
    }

    /// Of a key of zeros the library accepts a signature of zeros over some messages: R is the identity or of small order.
    #[test]
    fn nothing_is_signed_under_zeros() {
        let (zeros, cache) = (PublicKey([0; 32]), SignatureCache::new());
        let mut forged = [0; 64];
        forged[0] = 1;
        let by_library = |n: u64| SignatureScheme::Ed25519.verify(&zeros.0, &n.to_be_bytes(), &forged);
        assert!((0..64).any(by_library), "then this rule is not needed any more");
        assert!((0..64).all(|n: u64| !zeros.signed(&n.to_be_bytes(), &forged, &cache)));
    }
}
