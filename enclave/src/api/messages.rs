//! `messages` of a chat.

use std::collections::HashSet;

use cocoon_inference::{Message, Role, SecretString, ToolCall};
use serde_json::Value;

use super::error::ApiError;
use super::fields::content;
use super::format::is_name;
use super::json::Object;

/// Bytes of an id of a call: those of other servers have some forty.
pub(super) const MAX_ID: usize = 128;

/// Ids of calls that were made so far.
type Calls = HashSet<String>;

pub(super) fn messages(object: &mut Object) -> Result<Vec<Message>, ApiError> {
    let missing = || ApiError::invalid("messages", "is required").code("missing_required_parameter");
    let items = object.array("messages")?.ok_or_else(missing)?;
    let mut calls = Calls::new();
    let read = |(i, item)| message(item, format!("messages[{i}]"), &mut calls);
    items.into_iter().enumerate().map(read).collect()
}

fn message(item: Value, path: String, made: &mut Calls) -> Result<Message, ApiError> {
    let mut object = Object::from_value(item, path)?;
    let role = match object.required_text("role")?.expose() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        _ => return Err(object.wrong("role", "must be system, developer, user, assistant or tool")),
    };
    let calls = if role == Role::Assistant { tool_calls(&mut object, made)? } else { Vec::new() };
    if role == Role::Tool && !made.contains(object.required_text("tool_call_id")?.expose()) {
        return Err(
            object.wrong("tool_call_id", "must be the id of a call in an earlier message of the assistant")
        );
    }
    // A call needs no words.
    let is_bare = !calls.is_empty() && !object.has("content");
    let content = if is_bare { SecretString::default() } else { content(&mut object, &["text"])? };
    object.finish()?;
    Ok(Message { role, content, calls })
}

fn tool_calls(object: &mut Object, made: &mut Calls) -> Result<Vec<ToolCall>, ApiError> {
    let path = object.path_of("tool_calls");
    let items = object.array("tool_calls")?.unwrap_or_default();
    let read = |(i, item)| tool_call(item, format!("{path}[{i}]"), made);
    items.into_iter().enumerate().map(read).collect()
}

fn tool_call(item: Value, path: String, made: &mut Calls) -> Result<ToolCall, ApiError> {
    let mut object = Object::from_value(item, path)?;
    let id = object.required_text("id")?;
    if id.len() > MAX_ID {
        return Err(object.wrong("id", "must have at most 128 bytes"));
    }
    made.insert(id.expose().to_owned());
    if object.required_text("type")?.expose() != "function" {
        return Err(object.wrong("type", "must be function"));
    }
    let mut function = object.required_object("function")?;
    object.finish()?;
    let name = function.required_text("name")?;
    if !is_name(name.expose()) {
        return Err(function.wrong("name", "must have 1 to 64 letters, digits, underscores and dashes"));
    }
    let arguments = function.required_text("arguments")?;
    function.finish()?;
    Ok(ToolCall { name, arguments })
}
