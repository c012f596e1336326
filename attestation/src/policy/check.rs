//! One demand on one value.

use std::fmt::Display;

use serde::Deserialize;

use crate::result::Factor;
use crate::{Digest, Measurement};

/// A kind of value that a policy can make demands on.
pub trait Criterion: PartialOrd + Display {
    /// Whether `at_least` makes sense.
    const ORDERED: bool;

    /// Whether `at_least` this accepts every value.
    fn accepts_all(&self) -> bool {
        false
    }
}

impl Criterion for u64 {
    const ORDERED: bool = true;

    fn accepts_all(&self) -> bool {
        *self == 0
    }
}
impl Criterion for crate::UnixTime {
    const ORDERED: bool = true;

    fn accepts_all(&self) -> bool {
        self.0 == 0
    }
}
impl Criterion for super::Flag {
    const ORDERED: bool = false;
}
impl Criterion for crate::snp::Product {
    const ORDERED: bool = false;
}
impl Criterion for crate::types::Id {
    const ORDERED: bool = false;
}
impl Criterion for String {
    const ORDERED: bool = false;
}
impl Criterion for Digest {
    const ORDERED: bool = false;
}
impl Criterion for Measurement {
    const ORDERED: bool = false;
}
impl Criterion for super::NamedGroup {
    const ORDERED: bool = false;
}

/// What is demanded of a value: `{ exactly = v }`, `{ any_of = [v, ..] }`, `{ at_least = n }` or `{ unchecked = "why" }`.
#[derive(Clone, Debug, PartialEq)]
pub enum Check<T> {
    /// This value.
    Exactly(T),
    /// One of these.
    AnyOf(Vec<T>),
    /// This number or a larger one.
    AtLeast(T),
    /// Anything, for a reason.
    Unchecked {
        /// The reason, for people.
        why: String,
    },
}

impl<T: Criterion> Check<T> {
    /// Whether `value` is as demanded.
    pub fn accepts(&self, value: &T) -> bool {
        match self {
            Self::Exactly(want) => value == want,
            Self::AnyOf(wants) => wants.contains(value),
            Self::AtLeast(want) => value >= want,
            Self::Unchecked { .. } => true,
        }
    }

    /// The factor `name` for `value`.
    pub fn factor(&self, name: &'static str, value: &T, help: &str) -> Factor {
        match self {
            Self::Unchecked { why } => Factor::unchecked(name, value.to_string(), why),
            Self::Exactly(_) | Self::AnyOf(_) | Self::AtLeast(_) => {
                Factor::of(name, self.accepts(value), value.to_string(), self.wanted(), help)
            }
        }
    }

    /// The demand in words.
    pub fn wanted(&self) -> String {
        match self {
            Self::Exactly(want) => want.to_string(),
            Self::AnyOf(wants) => {
                let all = wants.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                if wants.len() == 1 { all } else { format!("one of {all}") }
            }
            Self::AtLeast(want) => format!("at least {want}"),
            Self::Unchecked { why } => format!("not looked at: {why}"),
        }
    }
}

/// A demand as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Raw<T> {
    Release,
    Exactly(T),
    AnyOf(Vec<T>),
    AtLeast(T),
    Unchecked(String),
}

impl<T: Criterion> Raw<T> {
    /// The demand; `None` for `"release"`.
    pub(super) fn check(self) -> Result<Option<Check<T>>, &'static str> {
        let check = match self {
            Self::Release => return Ok(None),
            Self::Exactly(want) => Check::Exactly(want),
            Self::AnyOf(wants) if wants.is_empty() => {
                return Err("any_of: the list is empty, so nothing would be accepted");
            }
            Self::AnyOf(wants) => Check::AnyOf(wants),
            Self::AtLeast(_) if !T::ORDERED => {
                return Err("at_least: this value has no order, use exactly or any_of");
            }
            Self::AtLeast(want) if want.accepts_all() => {
                return Err("at_least: this accepts every value; say unchecked and why");
            }
            Self::AtLeast(want) => Check::AtLeast(want),
            Self::Unchecked(why) if why.trim().is_empty() => return Err("unchecked: say why"),
            Self::Unchecked(why) => Check::Unchecked { why },
        };
        Ok(Some(check))
    }
}

impl<'de, T: Deserialize<'de> + Criterion> Deserialize<'de> for Check<T> {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let check = Raw::deserialize(d)?.check().map_err(serde::de::Error::custom)?;
        check.ok_or_else(|| serde::de::Error::custom("a release says nothing of this row"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Status;

    #[test]
    fn accepts_what_it_says() {
        assert!(Check::Exactly(1).accepts(&1) && !Check::Exactly(1).accepts(&2));
        assert!(Check::AnyOf(vec![1, 2]).accepts(&2) && !Check::AnyOf(vec![1, 2]).accepts(&3));
        assert!(
            Check::AtLeast(2).accepts(&2) && Check::AtLeast(2).accepts(&3) && !Check::AtLeast(2).accepts(&1)
        );
        let unchecked = Check::<u64>::Unchecked { why: "test".into() };
        assert_eq!(unchecked.factor("x", &9, "").status, Status::Unchecked);
        assert_eq!(Check::Exactly(1).factor("x", &9, "").status, Status::Fail);
        assert_eq!(Check::AnyOf(vec![1, 2]).wanted(), "one of 1, 2");
    }
}
