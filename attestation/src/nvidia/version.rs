//! Versions of drivers and VBIOSes.

use std::cmp::Ordering;
use std::fmt;

use crate::Error;

/// Dotted numbers such as `550.90.07` (driver, decimal) and `96.00.9f.00.01` (VBIOS, hexadecimal). Read as hexadecimal, both
/// are in the right order. Compared part by part; a missing part is less than any.
#[derive(Clone, Debug)]
pub struct Version {
    parts: Vec<u32>,
    text: String,
}

/// The longest have 5 parts.
const MAX_PARTS: usize = 8;

impl std::str::FromStr for Version {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::misuse("expected a version such as 550.90.07 or 96.00.9f.00.01");
        let part = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit());
            digits.then(|| u32::from_str_radix(part, 16).ok()).flatten().ok_or_else(wrong)
        };
        let parts: Vec<u32> =
            text.split('.').map(part).take(MAX_PARTS.saturating_add(1)).collect::<Result<_, _>>()?;
        if parts.len() > MAX_PARTS {
            return Err(wrong());
        }
        Ok(Self { parts, text: text.to_ascii_lowercase() })
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.parts.partial_cmp(&other.parts)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> serde::Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl crate::policy::Criterion for Version {
    const ORDERED: bool = true;

    fn accepts_all(&self) -> bool {
        self.parts.iter().all(|part| *part == 0)
    }
}
