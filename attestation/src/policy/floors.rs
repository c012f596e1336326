//! TCB floors: the lowest firmware versions per processor, as versioned data that can be replaced by newer signed data.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::MAX_LEN;
use crate::crypto::{SignatureScheme, sha256};
use crate::result::Factor;
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

    /// Reads newer floors: `text` as signed by the Ed25519 key `signer` (32 bytes) over a label and the text's SHA-256.
    ///
    /// # Errors
    /// `Misuse` if the signature is not the signer's, the text is no floors file, or it is older than the built-in one.
    pub fn from_signed(text: &str, signature: &[u8], signer: &[u8; 32]) -> Result<Self, Error> {
        if !SignatureScheme::Ed25519.verify(signer, &Self::signed_message(text), signature) {
            return Err(Error::misuse("TCB floors: not signed by the key that the policy names"));
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
    fn of(&self, product: Product, cpuid: [u8; 3]) -> Option<&TcbParts> {
        self.snp
            .iter()
            .find(|floor| floor.product == product && floor.cpuid == cpuid)
            .map(|floor| &floor.floor)
    }
}

/// What is demanded of security versions: `"floors"`, `{ at_least = { Genoa = {..} } }` or `{ unchecked = "why" }`.
#[derive(Clone, Debug, PartialEq)]
pub enum TcbDemand {
    /// At least what [`TcbFloors`] say of this processor.
    Floors,
    /// At least this, by product.
    AtLeast(BTreeMap<Product, TcbParts>),
    /// Anything, for a reason.
    Unchecked {
        /// The reason, for people.
        why: String,
    },
}

impl TcbDemand {
    /// The factor for all of `versions` of one report.
    pub(crate) fn factor(
        &self,
        product: Product,
        cpuid: Option<[u8; 3]>,
        versions: &[TcbParts],
        floors: &TcbFloors,
        help: &str,
    ) -> Factor {
        const NAME: &str = "snp.tcb";
        let lowest = versions.iter().map(ToString::to_string).min().unwrap_or_default();
        let floor = match self {
            Self::Unchecked { why } => return Factor::unchecked(NAME, lowest, why),
            Self::Floors => cpuid.and_then(|cpuid| floors.of(product, cpuid)),
            Self::AtLeast(floors) => floors.get(&product),
        };
        let Some(floor) = floor else {
            let cpuid = cpuid.map_or("not said".to_owned(), hex::encode);
            return Factor::fail(
                NAME,
                lowest,
                format!("a floor for {product}, CPUID {cpuid}"),
                "no floor is known for this processor",
            );
        };
        match versions.iter().find(|version| !version.is_at_least(floor)) {
            Some(low) => Factor::fail(NAME, low.to_string(), format!("at least {floor}"), help),
            None => Factor::pass(NAME, lowest),
        }
    }

    /// The demand in words.
    #[must_use]
    pub fn wanted(&self) -> String {
        match self {
            Self::Floors => "at least the floors of this version, per processor".to_owned(),
            Self::AtLeast(floors) => {
                let all: Vec<_> =
                    floors.iter().map(|(product, floor)| format!("{product}: {floor}")).collect();
                format!("at least {}", all.join("; "))
            }
            Self::Unchecked { why } => format!("not looked at: {why}"),
        }
    }
}

impl<'de> Deserialize<'de> for TcbDemand {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Raw {
            Floors,
            AtLeast(BTreeMap<Product, TcbParts>),
            Unchecked(String),
        }
        let refuse = |why| Err(serde::de::Error::custom(why));
        match Raw::deserialize(d)? {
            Raw::Floors => Ok(Self::Floors),
            Raw::AtLeast(floors) if floors.is_empty() => refuse("at_least: no product is named"),
            Raw::AtLeast(floors) => Ok(Self::AtLeast(floors)),
            Raw::Unchecked(why) if why.trim().is_empty() => refuse("unchecked: say why"),
            Raw::Unchecked(why) => Ok(Self::Unchecked { why }),
        }
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
    use crate::result::Status;

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
        let signer = key.public_key().as_ref().try_into().unwrap();
        let sign = |text: &str| key.sign(&TcbFloors::signed_message(text)).as_ref().to_vec();
        let newer = BUILT_IN.replace("version = 1", "version = 2");
        assert_eq!(TcbFloors::from_signed(&newer, &sign(&newer), &signer).unwrap().version, 2);
        let refused = |text: &str, signature: &[u8]| {
            TcbFloors::from_signed(text, signature, &signer).unwrap_err().to_string()
        };
        assert!(refused(&newer, &sign(BUILT_IN)).contains("not signed"));
        assert!(refused(&newer, &[]).contains("not signed"));
        let older = BUILT_IN.replace("version = 1", "version = 0");
        assert!(refused(&older, &sign(&older)).contains("older"));
        let bad = BUILT_IN.replace("19-11-01", "19-11");
        assert!(refused(&bad, &sign(&bad)).contains("hex digits"));
        let long = " ".repeat(MAX_LEN + 1);
        assert!(refused(&long, &sign(&long)).contains("at most"));
    }

    #[test]
    fn demands() {
        #[derive(Debug, Deserialize)]
        struct Holder {
            tcb: TcbDemand,
        }
        let read = |text: &str| toml::from_str::<Holder>(text).map(|h| h.tcb);
        let floors = TcbFloors::built_in().unwrap();
        let good = TcbParts { bootloader: 10, tee: 0, snp: 23, microcode: 84, fmc: None };
        let low = TcbParts { snp: 22, ..good };
        let status = |demand: &TcbDemand, cpuid, versions: &[TcbParts]| {
            demand.factor(Product::Genoa, cpuid, versions, &floors, "").status
        };
        let genoa = Some([0x19, 0x11, 1]);
        let by_floors = read("tcb = \"floors\"").unwrap();
        assert_eq!(status(&by_floors, genoa, &[good]), Status::Pass);
        assert_eq!(status(&by_floors, genoa, &[good, low]), Status::Fail);
        assert_eq!(status(&by_floors, None, &[good]), Status::Fail, "no CPUID, no floor");
        let own =
            read("tcb = { at_least = { Genoa = { bootloader = 1, tee = 0, snp = 22, microcode = 1 } } }")
                .unwrap();
        assert_eq!(status(&own, None, &[low]), Status::Pass);
        assert_eq!(own.factor(Product::Turin, None, &[low], &floors, "").status, Status::Fail);
        let unchecked = read("tcb = { unchecked = \"test\" }").unwrap();
        assert_eq!(status(&unchecked, genoa, &[low]), Status::Unchecked);
        for bad in [
            "\"any\"",
            "{ at_least = {} }",
            "{ unchecked = \" \" }",
            "{ at_least = { Rome = { bootloader = 1 } } }",
        ] {
            assert!(read(&format!("tcb = {bad}")).is_err(), "{bad}");
        }
        for demand in [by_floors, own, unchecked] {
            assert!(!demand.wanted().is_empty());
        }
    }
}
