//! TCB floors: the lowest firmware versions per processor, as versioned data that can be replaced by newer signed data.

use serde::Deserialize;

use super::MAX_LEN;
use crate::crypto::{SignatureScheme, sha256};
use crate::snp::{Product, TcbParts};
use crate::types::parse_hex;
use crate::{Error, UnixTime};

/// What is built in.
const BUILT_IN: &str = include_str!("floors.toml");

/// What an Ed25519 key signs: this label, then SHA-256 of the file.
const LABEL: &[u8] = b"cocoon/tcb-floors/v1\0";

/// The floors of all processors that are known.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcbFloors {
    version: u64,
    issued: UnixTime,
    snp: Vec<Floor>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Floor {
    product: Product,
    #[serde(deserialize_with = "cpuid")]
    cpuid: [u8; 3],
    floor: TcbParts,
}

impl TcbFloors {
    /// The floors that this version was built with.
    ///
    /// # Errors
    /// `Misuse` if the built-in file cannot be read; a test holds that it can.
    pub fn built_in() -> Result<Self, Error> {
        Self::parse(BUILT_IN)
    }

    /// Reads newer floors: `text` as signed by the Ed25519 key `signer` (64 hexadecimal digits) over
    /// [`TcbFloors::signed_message`]; `signature` has 128 hexadecimal digits and may end in a newline.
    ///
    /// # Errors
    /// `Misuse` if the signature is not the signer's, the text is no floors file, or it is older than the built-in one.
    pub fn from_signed(text: &str, signature: &str, signer: &str) -> Result<Self, Error> {
        let bad = |what, why| Error::misuse(format!("TCB floors: {what}: {why}"));
        let signature: [u8; 64] = parse_hex(signature.trim()).map_err(|why| bad("signature", why))?;
        let key: [u8; 32] = parse_hex(signer).map_err(|why| bad("key of the signer", why))?;
        if !SignatureScheme::Ed25519.verify(&key, &Self::signed_message(text), &signature) {
            return Err(Error::misuse(format!("TCB floors: not signed by the key {signer}")));
        }
        let (floors, built_in) = (Self::parse(text)?, Self::built_in()?);
        if floors.version < built_in.version {
            let (old, new) = (floors.version, built_in.version);
            return Err(Error::misuse(format!("TCB floors: version {old} is older than the built-in {new}")));
        }
        Ok(floors)
    }

    /// The bytes that are signed for `text`.
    #[must_use]
    pub fn signed_message(text: &str) -> Vec<u8> {
        [LABEL, &sha256(&[text.as_bytes()])].concat()
    }

    /// Version of the data, and when it was issued.
    #[must_use]
    pub fn version(&self) -> (u64, UnixTime) {
        (self.version, self.issued)
    }

    /// The floors as text, a line for each processor.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line = |floor: &Floor| format!("{} {}: {}", floor.product, hex::encode(floor.cpuid), floor.floor);
        self.snp.iter().map(line).collect()
    }

    fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_LEN {
            return Err(Error::misuse(format!(
                "TCB floors of {} bytes, at most {MAX_LEN} are allowed",
                text.len()
            )));
        }
        toml::from_str(text).map_err(|e| Error::misuse(format!("TCB floors: {}", e.message())))
    }

    /// The floor of one processor.
    pub(super) fn of(&self, product: Product, cpuid: [u8; 3]) -> Option<&TcbParts> {
        self.snp
            .iter()
            .find(|floor| floor.product == product && floor.cpuid == cpuid)
            .map(|floor| &floor.floor)
    }
}

/// `19-11-01`: family, model and stepping, two hexadecimal digits each.
fn cpuid<'de, D: serde::Deserializer<'de>>(d: D) -> Result<[u8; 3], D::Error> {
    let text = String::deserialize(d)?;
    parse_hex(&text.replace('-', "")).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    #[test]
    fn built_in_floors_fit_their_processors() {
        let floors = TcbFloors::built_in().unwrap();
        for floor in &floors.snp {
            assert_eq!(Product::of_cpuid(floor.cpuid), Some(floor.product), "{floor:?}");
            assert_eq!(floor.floor.fmc.is_some(), floor.product == Product::Turin, "{floor:?}");
        }
        assert_eq!(floors.version().0, 1);
        assert!(floors.of(Product::Genoa, [0x19, 0x11, 9]).is_none());
    }

    #[test]
    fn newer_floors_must_be_signed() {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let signer = hex::encode(key.public_key());
        let sign = |text: &str| hex::encode(key.sign(&TcbFloors::signed_message(text)));
        let newer = BUILT_IN.replace("version = 1", "version = 2");
        assert_eq!(TcbFloors::from_signed(&newer, &sign(&newer), &signer).unwrap().version, 2);
        let refused = |text: &str, signature: &str| {
            TcbFloors::from_signed(text, signature, &signer).unwrap_err().to_string()
        };
        assert!(refused(&newer, &sign(BUILT_IN)).contains("not signed by the key"));
        assert!(refused(&newer, "").contains("signature: "));
        assert!(
            TcbFloors::from_signed(&newer, &sign(&newer), "00").unwrap_err().to_string().contains("key of")
        );
        let older = BUILT_IN.replace("version = 1", "version = 0");
        assert!(refused(&older, &sign(&older)).contains("older"));
        let bad = BUILT_IN.replace("19-11-01", "19-11");
        assert!(refused(&bad, &sign(&bad)).contains("hex digits"));
        let number = BUILT_IN.replace("\"19-11-01\"", "191101");
        assert!(refused(&number, &sign(&number)).contains("invalid type"));
        let long = " ".repeat(MAX_LEN + 1);
        assert!(refused(&long, &sign(&long)).contains("at most"));
    }
}
