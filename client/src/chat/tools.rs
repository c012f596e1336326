//! What a model may call, and what its answer has to look like.

use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A function of the caller that the model may ask for.
#[derive(Clone)]
#[non_exhaustive]
#[expect(missing_debug_implementations, reason = "prompts must not be printable")]
pub struct Tool {
    /// 1 to 64 letters, digits, underscores and dashes.
    pub name: String,
    /// What it is for: the model reads it. May be empty.
    pub description: String,
    /// JSON schema of its arguments, of `type: object`.
    pub parameters: Value,
}

impl Tool {
    /// A function with the JSON schema of its arguments.
    #[must_use]
    pub fn new(name: impl Into<String>, description: impl Into<String>, parameters: Value) -> Self {
        Self { name: name.into(), description: description.into(), parameters }
    }
}

impl Serialize for Tool {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Function<'a> {
            name: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            description: &'a str,
            parameters: &'a Value,
        }
        let Self { name, description, parameters } = self;
        of_type(serializer, "function", "function", &Function { name, description, parameters })
    }
}

/// Whether the model calls, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToolChoice {
    /// As it likes; what arguments it writes may not fit the schema.
    Auto,
    /// Nothing: it is not told of tools.
    None,
    /// One tool at least; name and arguments keep to the schema.
    Required,
    /// This one, by name; its arguments keep to the schema.
    Function(String),
}

impl Serialize for ToolChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::None => serializer.serialize_str("none"),
            Self::Required => serializer.serialize_str("required"),
            Self::Function(name) => {
                of_type(serializer, "function", "function", &json!({ "name": name.as_str() }))
            }
        }
    }
}

/// What an answer keeps to, token by token.
#[derive(Clone)]
#[non_exhaustive]
#[expect(missing_debug_implementations, reason = "prompts must not be printable")]
pub enum ResponseFormat {
    /// Nothing.
    Text,
    /// A JSON object.
    JsonObject,
    /// A JSON schema; `docs/api.md` says what of JSON Schema there is.
    JsonSchema {
        /// 1 to 64 letters, digits, underscores and dashes.
        name: String,
        /// The schema.
        schema: Value,
    },
}

impl Serialize for ResponseFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text => json!({ "type": "text" }).serialize(serializer),
            Self::JsonObject => json!({ "type": "json_object" }).serialize(serializer),
            Self::JsonSchema { name, schema } => {
                #[derive(Serialize)]
                struct Named<'a> {
                    name: &'a str,
                    schema: &'a Value,
                    strict: bool,
                }
                of_type(serializer, "json_schema", "json_schema", &Named { name, schema, strict: true })
            }
        }
    }
}

/// A call that the model asks for. What comes of it goes back as [`super::Message::result`].
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_debug_implementations, reason = "answers must not be printable by accident")]
pub struct ToolCall {
    /// What the result refers to.
    pub id: String,
    /// Of the tool.
    pub name: String,
    /// JSON, as the model wrote it.
    pub arguments: String,
}

impl ToolCall {
    /// One that came earlier, as for a conversation that was kept.
    #[must_use]
    pub fn new(id: impl Into<String>, name: impl Into<String>, arguments: impl Into<String>) -> Self {
        Self { id: id.into(), name: name.into(), arguments: arguments.into() }
    }

    /// Whether its arguments are whole: JSON that is cut off is none.
    pub(super) fn is_whole(&self) -> bool {
        serde_json::from_str::<serde::de::IgnoredAny>(&self.arguments).is_ok()
    }
}

impl Serialize for ToolCall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Call<'a> {
            id: &'a str,
            #[serde(rename = "type")]
            kind: &'static str,
            function: Function<'a>,
        }
        #[derive(Serialize)]
        struct Function<'a> {
            name: &'a str,
            arguments: &'a str,
        }
        let Self { id, name, arguments } = self;
        Call { id, kind: "function", function: Function { name, arguments } }.serialize(serializer)
    }
}

/// An object with a type, and what belongs to it.
fn of_type<S: Serializer>(
    serializer: S,
    kind: &str,
    name: &'static str,
    content: &impl Serialize,
) -> Result<S::Ok, S::Error> {
    let mut object = serializer.serialize_map(Some(2))?;
    object.serialize_entry("type", kind)?;
    object.serialize_entry(name, content)?;
    object.end()
}

/// A piece of a call, as it comes in a stream.
#[derive(Deserialize)]
pub(super) struct Piece {
    index: usize,
    id: Option<String>,
    function: Option<FunctionPiece>,
}

#[derive(Deserialize)]
struct FunctionPiece {
    name: Option<String>,
    arguments: Option<String>,
}

/// Calls of a stream, one after the other.
#[derive(Default)]
pub(super) struct Calls {
    /// Those that began.
    begun: usize,
    /// The last one, which may go on.
    open: Option<ToolCall>,
}

impl Calls {
    /// Adds a piece; gives the call that is complete with it. `None` if the piece belongs to no call.
    pub(super) fn add(&mut self, piece: Piece) -> Option<Option<ToolCall>> {
        let (name, arguments) = piece.function.map_or((None, None), |f| (f.name, f.arguments));
        let mut complete = None;
        if piece.index == self.begun {
            self.begun = self.begun.saturating_add(1);
            let begun = ToolCall::new(piece.id?, name?, "");
            complete = self.open.replace(begun);
        } else if piece.index.checked_add(1) != Some(self.begun) {
            return None;
        }
        self.open.as_mut()?.arguments.push_str(&arguments.unwrap_or_default());
        Some(complete)
    }

    /// Bytes of the arguments that came so far of the last one.
    pub(super) fn open_len(&self) -> usize {
        self.open.as_ref().map_or(0, |call| call.arguments.len())
    }

    /// The last one.
    pub(super) fn end(&mut self) -> Option<ToolCall> {
        self.open.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(value: Value) -> Piece {
        serde_json::from_value(value).unwrap()
    }

    fn first(index: usize, id: &str) -> Piece {
        piece(
            json!({ "index": index, "id": id, "type": "function", "function": { "name": "f", "arguments": "{" } }),
        )
    }

    #[test]
    fn calls_are_put_together_of_their_pieces() {
        let mut calls = Calls::default();
        assert!(calls.add(first(0, "a")).unwrap().is_none());
        let rest = piece(json!({ "index": 0, "function": { "arguments": "}" } }));
        assert!(calls.add(rest).unwrap().is_none());
        let complete = calls.add(first(1, "b")).unwrap().unwrap();
        assert_eq!(
            (complete.id.as_str(), complete.name.as_str(), complete.arguments.as_str()),
            ("a", "f", "{}")
        );
        assert!(calls.open_len() == 1 && calls.end().unwrap().id == "b" && calls.end().is_none());
    }

    #[test]
    fn pieces_of_no_call_are_refused() {
        let more = |index: usize| piece(json!({ "index": index, "function": { "arguments": "}" } }));
        assert!(Calls::default().add(first(1, "a")).is_none());
        assert!(Calls::default().add(more(0)).is_none());
        assert!(Calls::default().add(more(usize::MAX)).is_none());
        let mut calls = Calls::default();
        calls.add(first(0, "a")).unwrap();
        calls.add(first(1, "b")).unwrap();
        assert!(calls.add(more(0)).is_none(), "an earlier one");
        assert!(calls.add(more(3)).is_none());
        calls.end();
        assert!(calls.add(more(1)).is_none(), "after the end");
    }
}
