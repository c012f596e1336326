//! A demand that needs no value: it holds or it does not.

use std::fmt::Display;

use serde::Deserialize;

use crate::result::Factor;

/// `"required"` or `{ unchecked = "why" }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// It must hold.
    Required,
    /// It need not, for a reason.
    Unchecked {
        /// The reason, for people.
        why: String,
    },
}

impl Demand {
    /// The factor `name`, which holds if `ok`.
    pub fn factor(&self, name: &'static str, ok: bool, got: &impl Display, want: &str, help: &str) -> Factor {
        match self {
            Self::Required => Factor::of(name, ok, got.to_string(), want, help),
            Self::Unchecked { why } => Factor::unchecked(name, got.to_string(), why),
        }
    }

    /// The demand in words.
    #[must_use]
    pub fn wanted(&self) -> String {
        match self {
            Self::Required => "required".to_owned(),
            Self::Unchecked { why } => format!("not looked at: {why}"),
        }
    }
}

impl<'de> Deserialize<'de> for Demand {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Raw {
            Required,
            Unchecked(String),
        }
        match Raw::deserialize(d)? {
            Raw::Required => Ok(Self::Required),
            Raw::Unchecked(why) if why.trim().is_empty() => {
                Err(serde::de::Error::custom("unchecked: say why"))
            }
            Raw::Unchecked(why) => Ok(Self::Unchecked { why }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Status;

    #[derive(Debug, Deserialize)]
    struct Holder {
        row: Demand,
    }

    #[test]
    fn two_forms_and_no_other() {
        let read = |text: &str| toml::from_str::<Holder>(text).map(|h| h.row);
        assert_eq!(read("row = \"required\"").unwrap().factor("x", false, &1, "", "").status, Status::Fail);
        let unchecked = read("row = { unchecked = \"test\" }").unwrap();
        assert_eq!(unchecked.factor("x", false, &1, "", "").status, Status::Unchecked);
        assert_eq!(unchecked.wanted(), "not looked at: test");
        for bad in ["row = \"no\"", "row = { unchecked = \"\" }", "row = { required = 1 }", "row = true"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
