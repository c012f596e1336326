//! What a policy demands of the security versions of a processor's firmware.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::TcbFloors;
use crate::Error;
use crate::result::Factor;
use crate::snp::{Product, TcbParts};
use crate::types::parse_hex;

/// What is demanded of security versions: `"floors"`, `{ signed_floors = {..} }`, `{ at_least = { Genoa = {..} } }` or
/// `{ unchecked = "why" }`.
#[derive(Clone, Debug, PartialEq)]
pub enum TcbDemand {
    /// At least what [`TcbFloors`] say of this processor.
    Floors,
    /// At least what floors say that come as a file of their own.
    SignedFloors(SignedFloors),
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
        built_in: &TcbFloors,
        help: &str,
    ) -> Factor {
        const NAME: &str = "snp.tcb";
        let all: Vec<_> = versions.iter().map(ToString::to_string).collect();
        let lowest = versions.iter().find(|one| versions.iter().all(|other| other.is_at_least(one)));
        let lowest = lowest.map_or_else(|| all.join("; "), ToString::to_string);
        let floor = match self {
            Self::Unchecked { why } => return Factor::unchecked(NAME, lowest, why),
            Self::Floors => cpuid.and_then(|cpuid| built_in.of(product, cpuid)),
            Self::SignedFloors(signed) => match &signed.floors {
                Some(floors) => cpuid.and_then(|cpuid| floors.of(product, cpuid)),
                None => return Factor::fail(NAME, lowest, signed.wanted(), "these floors were not given"),
            },
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
            Self::SignedFloors(signed) => signed.wanted(),
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
            SignedFloors(SignedFloors),
            AtLeast(BTreeMap<Product, TcbParts>),
            Unchecked(String),
        }
        let refuse = |why| Err(serde::de::Error::custom(why));
        match Raw::deserialize(d)? {
            Raw::Floors => Ok(Self::Floors),
            Raw::SignedFloors(signed) if signed.file.is_empty() => refuse("signed_floors: no file is named"),
            Raw::SignedFloors(signed) => match parse_hex::<32>(&signed.signed_by) {
                Ok(_key) => Ok(Self::SignedFloors(signed)),
                Err(why) => Err(serde::de::Error::custom(format!("signed_floors: signed_by: {why}"))),
            },
            Raw::AtLeast(floors) if floors.is_empty() => refuse("at_least: no product is named"),
            Raw::AtLeast(floors) => Ok(Self::AtLeast(floors)),
            Raw::Unchecked(why) if why.trim().is_empty() => refuse("unchecked: say why"),
            Raw::Unchecked(why) => Ok(Self::Unchecked { why }),
        }
    }
}

/// Floors that come as a file of their own, signed by a key that the policy names.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedFloors {
    /// Where the policy says that they are.
    pub(super) file: String,
    /// Ed25519, hexadecimal.
    signed_by: String,
    #[serde(skip)]
    pub(super) floors: Option<TcbFloors>,
}

impl SignedFloors {
    /// Takes the content of the file and of its signature: 128 hexadecimal digits.
    pub(super) fn give(&mut self, text: &str, signature: &str) -> Result<(), Error> {
        self.floors = Some(TcbFloors::from_signed(text, signature, &self.signed_by)?);
        Ok(())
    }

    fn wanted(&self) -> String {
        let Self { file, signed_by, floors } = self;
        let version = floors.as_ref().map(|floors| format!(", version {}", floors.version().0));
        let version = version.unwrap_or_default();
        format!("at least the floors of {file:?}{version}, signed by {signed_by}")
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;
    use crate::result::Status;

    const GENOA: [u8; 3] = [0x19, 0x11, 1];

    #[derive(Debug, Deserialize)]
    struct Holder {
        tcb: TcbDemand,
    }

    fn read(text: &str) -> Result<TcbDemand, toml::de::Error> {
        toml::from_str::<Holder>(text).map(|holder| holder.tcb)
    }

    #[test]
    fn signed_floors() {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let public = hex::encode(key.public_key());
        let demand =
            read(&format!("tcb = {{ signed_floors = {{ file = \"f.toml\", signed_by = \"{public}\" }} }}"));
        let Ok(TcbDemand::SignedFloors(mut signed)) = demand else { panic!("{demand:?}") };
        let built_in = TcbFloors::built_in().unwrap();
        let version = TcbParts { bootloader: 10, tee: 0, snp: 30, microcode: 84, fmc: None };
        let status = |signed: &SignedFloors, version| {
            let demand = TcbDemand::SignedFloors(signed.clone());
            demand.factor(Product::Genoa, Some(GENOA), &[version], &built_in, "").status
        };
        assert_eq!(status(&signed, version), Status::Fail, "not given");
        let text =
            include_str!("floors.toml").replace("version = 1", "version = 2").replace("snp = 23", "snp = 30");
        let signature = hex::encode(key.sign(&TcbFloors::signed_message(&text)));
        for (wrong, why) in [("", "128 hex digits"), (&"00".repeat(64), "not signed by the key")] {
            let refused = signed.give(&text, wrong).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
            assert_eq!(status(&signed, version), Status::Fail, "refused");
        }
        signed.give(&text, &format!("{signature}\n")).unwrap();
        assert!(signed.wanted().contains("version 2"), "{}", signed.wanted());
        assert_eq!(status(&signed, version), Status::Pass);
        assert_eq!(
            status(&signed, TcbParts { snp: 29, ..version }),
            Status::Fail,
            "the built-in floor is 23"
        );
    }

    #[test]
    fn demands() {
        let floors = TcbFloors::built_in().unwrap();
        let good = TcbParts { bootloader: 10, tee: 0, snp: 23, microcode: 84, fmc: None };
        let low = TcbParts { snp: 22, ..good };
        let status = |demand: &TcbDemand, cpuid, versions: &[TcbParts]| {
            demand.factor(Product::Genoa, cpuid, versions, &floors, "").status
        };
        let genoa = Some(GENOA);
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
            "{ signed_floors = { file = \"f\" } }",
            "{ signed_floors = { file = \"f\", signed_by = \"00\" } }",
            "{ signed_floors = { file = \"\", signed_by = \"0000000000000000000000000000000000000000000000000000000000000000\" } }",
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
