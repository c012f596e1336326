//! One demand on a value that a release can say.

use serde::Deserialize;

use super::check::Raw;
use super::{Check, Criterion};
use crate::result::Factor;

/// What is demanded of a value: `"release"`, what the verified release says, or as [`Check`].
#[derive(Clone, Debug, PartialEq)]
pub enum Released<T> {
    /// As the release says that the section `[release]` accepts.
    Release,
    /// What the policy itself says.
    Check(Check<T>),
}

/// `"release"` in words.
pub(super) const WORDS: &str = "as the verified release says";

impl<T: Criterion> Released<T> {
    /// Whether it is what a release says.
    #[must_use]
    pub fn is_release(&self) -> bool {
        matches!(self, Self::Release)
    }

    /// The factor `name` for `value`; `in_release` says whether the release has that value, and is `None` without a verified release.
    pub(crate) fn factor(
        &self,
        name: &'static str,
        value: &T,
        in_release: Option<bool>,
        help: &str,
    ) -> Factor {
        let got = || value.to_string();
        match (self, in_release) {
            (Self::Check(check), _) => check.factor(name, value, help),
            (Self::Release, Some(ok)) => Factor::of(name, ok, got(), WORDS, help),
            (Self::Release, None) => {
                let help =
                    "no release came with it, or none that the policy accepts: see the factors release.*";
                Factor::fail(name, got(), WORDS, help)
            }
        }
    }
}

impl<'de, T: Deserialize<'de> + Criterion> Deserialize<'de> for Released<T> {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let check = Raw::deserialize(d)?.check().map_err(serde::de::Error::custom)?;
        Ok(check.map_or(Self::Release, Self::Check))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Status;

    #[derive(Debug, Deserialize)]
    struct Holder {
        row: Released<u64>,
    }

    #[derive(Debug, Deserialize)]
    struct Plain {
        #[serde(rename = "row")]
        _row: Check<u64>,
    }

    #[test]
    fn the_release_or_the_policy_says_it() {
        let read = |text: &str| toml::from_str::<Holder>(text).map(|holder| holder.row);
        let (release, own) = (read("row = \"release\"").unwrap(), read("row = { exactly = 1 }").unwrap());
        assert!(release.is_release() && !own.is_release());
        let status = |row: &Released<u64>, known| row.factor("x", &1, known, "").status;
        assert_eq!(status(&release, Some(true)), Status::Pass);
        assert_eq!(status(&release, Some(false)), Status::Fail);
        assert_eq!(status(&release, None), Status::Fail);
        assert_eq!(status(&own, None), Status::Pass);
        for bad in ["row = \"any\"", "row = { release = 1 }", "row = { any_of = [] }", "row = true"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let refused = toml::from_str::<Plain>("row = \"release\"").unwrap_err();
        assert!(refused.message().contains("says nothing of this row"), "{refused}");
    }
}
