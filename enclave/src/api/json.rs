//! JSON of a request: wiped when dropped, taken apart field by field, with the path of what is wrong.

use cocoon_inference::SecretString;
use serde_json::{Map, Value};
use zeroize::Zeroize;

use super::error::ApiError;

/// Names of fields in errors are cut to this: they come from the client.
const MAX_NAME: usize = 64;

/// Objects and arrays in a body, and commas: each takes many times its length in memory. 1024 messages of some parts stay below.
const MAX_CONTAINERS: usize = 8 * 1024;
const MAX_COMMAS: usize = 32 * 1024;

/// Whether a body has few enough values to be parsed; what is inside of strings does not count.
fn is_bounded(body: &[u8]) -> bool {
    let (mut in_string, mut escaped, mut containers, mut commas) = (false, false, 0usize, 0usize);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => containers += 1,
            b',' if !in_string => commas += 1,
            _ => {}
        }
    }
    containers <= MAX_CONTAINERS && commas <= MAX_COMMAS
}

/// An object whose texts are wiped when it is dropped.
pub(crate) struct Object {
    path: String,
    fields: Map<String, Value>,
}

impl Drop for Object {
    fn drop(&mut self) {
        self.fields.values_mut().for_each(wipe);
    }
}

/// Wipes the texts of a value.
pub(super) fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(map) => map.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl Object {
    /// Parses a whole body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        if !is_bounded(body) {
            return Err(ApiError::new(http::StatusCode::BAD_REQUEST, "the body has too many values")
                .code("invalid_json"));
        }
        // The library's message can quote input: only the place is passed on.
        let value = serde_json::from_slice(body).map_err(|e| {
            let (line, column) = (e.line(), e.column());
            ApiError::new(
                http::StatusCode::BAD_REQUEST,
                format!("the body is not JSON (line {line}, column {column})"),
            )
            .code("invalid_json")
        })?;
        Self::from_value(value, String::new())
    }

    pub(crate) fn from_value(mut value: Value, path: String) -> Result<Self, ApiError> {
        match value {
            Value::Object(fields) => Ok(Self { path, fields }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                wipe(&mut value);
                Err(ApiError::invalid(path, "must be an object"))
            }
        }
    }

    pub(crate) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub(crate) fn wrong(&self, name: &str, message: &'static str) -> ApiError {
        ApiError::invalid(self.path_of(name), message)
    }

    /// Takes a field; null counts as not there.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    /// An object in this one.
    pub(crate) fn required_object(&mut self, name: &str) -> Result<Self, ApiError> {
        let value = self.take(name);
        let missing = || self.wrong(name, "is required").code("missing_required_parameter");
        Self::from_value(value.ok_or_else(missing)?, self.path_of(name))
    }

    /// A field, which stays.
    pub(crate) fn peek(&self, name: &str) -> Option<&Value> {
        self.fields.get(name)
    }

    /// Whether a field is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.peek(name).is_some_and(|value| !value.is_null())
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<Option<SecretString>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.into())),
            Some(mut other) => {
                wipe(&mut other);
                Err(self.wrong(name, "must be a string"))
            }
        }
    }

    pub(crate) fn required_text(&mut self, name: &str) -> Result<SecretString, ApiError> {
        self.text(name)?.ok_or_else(|| self.wrong(name, "is required").code("missing_required_parameter"))
    }

    pub(crate) fn number(&mut self, name: &str) -> Result<Option<f64>, ApiError> {
        self.take(name).map(|v| v.as_f64().ok_or_else(|| self.wrong(name, "must be a number"))).transpose()
    }

    pub(crate) fn count(&mut self, name: &str) -> Result<Option<u64>, ApiError> {
        self.take(name)
            .map(|v| v.as_u64().ok_or_else(|| self.wrong(name, "must be a whole number, not negative")))
            .transpose()
    }

    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        self.take(name)
            .map(|v| v.as_bool().ok_or_else(|| self.wrong(name, "must be true or false")))
            .transpose()
    }

    pub(crate) fn array(&mut self, name: &str) -> Result<Option<Vec<Value>>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(mut other) => {
                wipe(&mut other);
                Err(self.wrong(name, "must be an array"))
            }
        }
    }

    /// Refuses what nobody took: a field that is ignored would be a promise that is not kept.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        match self.fields.iter().find(|(_, value)| !value.is_null()) {
            None => Ok(()),
            Some((name, _)) => {
                let name: String = name.chars().take(MAX_NAME).collect();
                Err(ApiError::invalid(self.path_of(&name), "is not supported").code("unsupported_parameter"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_many_values_are_refused_before_parsing() {
        let array = |item: &str, n: usize| format!("{{\"x\":[{}]}}", vec![item; n].join(","));
        // Two containers are around them.
        assert!(is_bounded(array("{}", MAX_CONTAINERS - 2).as_bytes()));
        assert!(!is_bounded(array("{}", MAX_CONTAINERS - 1).as_bytes()));
        assert!(is_bounded(array("0", MAX_COMMAS + 1).as_bytes()));
        assert!(!is_bounded(array("0", MAX_COMMAS + 2).as_bytes()));
        let text = format!("{{\"x\":\"\\\"{}\"}}", "{[,".repeat(MAX_COMMAS));
        assert!(is_bounded(text.as_bytes()), "text is not structure");
        assert!(Object::parse(array("{}", MAX_CONTAINERS).as_bytes()).is_err());
    }
}
