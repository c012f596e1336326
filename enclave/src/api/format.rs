//! The format of an answer: text, JSON, or JSON of a schema.

use cocoon_inference::{GrammarError, Rules};
use serde_json::Value;

use super::error::ApiError;
use super::json::Object;

/// Rules for an answer, and the field that asks for them.
pub(crate) struct Asked {
    pub(crate) rules: Rules,
    pub(crate) field: &'static str,
}

impl Asked {
    /// What is wrong with the rules.
    pub(super) fn error(&self, error: &GrammarError) -> ApiError {
        let code = if matches!(error, GrammarError::Unavailable) {
            "unsupported_value"
        } else {
            "invalid_json_schema"
        };
        ApiError::invalid(self.field, error.to_string()).code(code)
    }
}

/// `response_format` of a chat: its schema is in an object of its own.
pub(super) fn response_format(object: &mut Object) -> Result<Option<Asked>, ApiError> {
    let Some(value) = object.take("response_format") else { return Ok(None) };
    let mut format = Object::from_value(value, "response_format".to_owned())?;
    let rules = match kind(&mut format)? {
        Kind::Text => None,
        Kind::Object => Some(Rules::Object),
        Kind::Schema => {
            let mut inner = format.required_object("json_schema")?;
            let schema = schema(&mut inner)?;
            inner.finish()?;
            Some(Rules::Schema(schema))
        }
    };
    format.finish()?;
    Ok(rules.map(|rules| Asked { rules, field: "response_format" }))
}

/// `text.format` of a response: its schema is beside its type.
pub(super) fn text_format(object: &mut Object) -> Result<Option<Asked>, ApiError> {
    let Some(value) = object.take("text") else { return Ok(None) };
    let mut text = Object::from_value(value, "text".to_owned())?;
    let format = text.take("format");
    text.finish()?;
    let Some(format) = format else { return Ok(None) };
    let mut format = Object::from_value(format, "text.format".to_owned())?;
    let rules = match kind(&mut format)? {
        Kind::Text => None,
        Kind::Object => Some(Rules::Object),
        Kind::Schema => Some(Rules::Schema(schema(&mut format)?)),
    };
    format.finish()?;
    Ok(rules.map(|rules| Asked { rules, field: "text.format" }))
}

enum Kind {
    Text,
    Object,
    Schema,
}

fn kind(format: &mut Object) -> Result<Kind, ApiError> {
    match format.required_text("type")?.expose() {
        "text" => Ok(Kind::Text),
        "json_object" => Ok(Kind::Object),
        "json_schema" => Ok(Kind::Schema),
        _ => Err(format.wrong("type", "must be text, json_object or json_schema")),
    }
}

/// Name and description are for people; answers keep to every schema, so `strict` changes nothing.
fn schema(object: &mut Object) -> Result<Value, ApiError> {
    let name = object.required_text("name")?;
    if !is_name(name.expose()) {
        return Err(object.wrong("name", "must have 1 to 64 letters, digits, underscores and dashes"));
    }
    object.text("description")?;
    object.flag("strict")?;
    match object.take("schema") {
        Some(schema @ Value::Object(_)) => Ok(schema),
        Some(_) => Err(object.wrong("schema", "must be an object")),
        None => Err(object.wrong("schema", "is required").code("missing_required_parameter")),
    }
}

/// Whether a schema or a tool may be called so.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}
