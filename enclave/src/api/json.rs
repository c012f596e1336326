//! JSON of a request: wiped when dropped, taken apart field by field, with the path of what is wrong.

use cocoon_inference::SecretString;
use serde_json::{Map, Value};
use zeroize::Zeroize;

use super::error::ApiError;

/// Names of fields in errors are cut to this: they come from the client.
const MAX_NAME: usize = 64;

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

fn wipe(value: &mut Value) {
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
