//! The keys of `config.json`, taken one by one: what is left in the end was not understood.

use crate::error::Error;
use crate::source::bad;
use serde_json::{Map, Value};

/// The keys that are left to be understood. `null` is as good as absent.
#[derive(Default)]
pub(crate) struct Keys(pub(crate) Map<String, Value>);

impl Keys {
    /// The value of a key, which then counts as understood.
    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key).filter(|value| !value.is_null())
    }

    /// The value of a key, converted.
    pub(crate) fn read<T>(
        &mut self,
        key: &str,
        problem: &str,
        convert: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let value = self.take(key);
        value.map(|value| convert(&value).ok_or_else(|| bad(key, problem))).transpose()
    }

    /// A positive count below 2^31, so that products of two do not overflow.
    pub(crate) fn optional_count(&mut self, key: &str) -> Result<Option<u32>, Error> {
        let count = |value: &Value| u32::try_from(value.as_u64()?).ok().filter(|n| (1..1 << 31).contains(n));
        self.read(key, "is no count", count)
    }

    /// A count that must be there.
    pub(crate) fn count(&mut self, key: &str) -> Result<u32, Error> {
        self.optional_count(key)?.ok_or_else(|| Error::MissingMetadata { key: key.to_owned() })
    }

    /// A positive number.
    #[expect(clippy::cast_possible_truncation, reason = "the format's numbers are 32-bit floats")]
    pub(crate) fn float(&mut self, key: &str) -> Result<Option<f32>, Error> {
        let positive = |value: &Value| value.as_f64().map(|x| x as f32).filter(|x| x.is_finite() && *x > 0.0);
        self.read(key, "is no positive number", positive)
    }

    /// True or false.
    pub(crate) fn flag(&mut self, key: &str) -> Result<Option<bool>, Error> {
        self.read(key, "is not true or false", Value::as_bool)
    }

    /// The keys of an object.
    pub(crate) fn object(&mut self, key: &str) -> Result<Option<Self>, Error> {
        self.read(key, "is no object", |value| value.as_object().cloned().map(Self))
    }

    /// Refuses an object in which a key was not understood.
    pub(crate) fn nothing_left(self, name: &str) -> Result<(), Error> {
        match self.0.into_iter().find(|(_, value)| !value.is_null()) {
            Some((key, _)) => Err(bad(name, &format!("has the unknown key `{}`", key.escape_debug()))),
            None => Ok(()),
        }
    }

    /// Refuses what was not understood, but for keys without effect.
    pub(crate) fn nothing_but(self, without_effect: &[&str]) -> Result<(), Error> {
        let unknown =
            |(key, value): &(String, Value)| !without_effect.contains(&key.as_str()) && !value.is_null();
        match self.0.into_iter().find(unknown) {
            None => Ok(()),
            Some((key, _)) => Err(unsupported(&key)),
        }
    }
}

/// The error about a key that the engine does not know, or does not compute.
pub(crate) fn unsupported(key: &str) -> Error {
    let name = key.chars().take(100).collect();
    let supported = "what the documentation lists; remove a key that changes nothing";
    Error::Unsupported { what: "setting in config.json", name, supported }
}
