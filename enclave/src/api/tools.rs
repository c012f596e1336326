//! `tools`, `tool_choice` and `parallel_tool_calls`.

use cocoon_inference::{GenerateRequest, Rules, SecretString, Tool};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::error::ApiError;
use super::format::{Asked, is_name};
use super::json::{Object, wipe};

/// What calls may be in an answer.
#[derive(Default)]
pub(crate) struct Callable {
    /// Names of tools.
    pub(crate) names: Vec<String>,
    /// Whether there may be more calls than one.
    pub(crate) several: bool,
}

/// A tool as the client describes it.
struct Described {
    name: String,
    text: SecretString,
    parameters: Value,
}

impl Drop for Described {
    fn drop(&mut self) {
        wipe(&mut self.parameters);
    }
}

/// What a client says of who is called.
enum Choice {
    None,
    Auto,
    Required,
    Named(String),
}

/// Reads the tools: into the prompt, unless none may be called; gives what may be called, and the rules that demand it.
pub(super) fn read(
    object: &mut Object,
    generate: &mut GenerateRequest,
) -> Result<(Option<Callable>, Option<Asked>), ApiError> {
    let tools = tools(object)?;
    let choice = choice(object, &tools)?;
    let parallel = object.flag("parallel_tool_calls")?;
    if tools.is_empty() && parallel.is_some() {
        return Err(object.wrong("parallel_tool_calls", "goes with tools only"));
    }
    let mut callable = Callable { names: Vec::new(), several: parallel.unwrap_or(true) };
    if tools.is_empty() || matches!(choice, Choice::None) {
        return Ok((None, None));
    }
    generate.tools = tools.iter().map(|tool| tool.text.clone()).collect();
    callable.names = tools.iter().map(|tool| tool.name.clone()).collect();
    let named = |tool: &&Described| !matches!(&choice, Choice::Named(name) if *name != tool.name);
    let parameters = |tool: &Described| Tool { name: tool.name.clone(), parameters: tool.parameters.clone() };
    let called = || tools.iter().filter(named).map(parameters).collect();
    let rules = match choice {
        Choice::None | Choice::Auto => None,
        Choice::Required => Some(Rules::Calls { tools: called(), several: callable.several }),
        Choice::Named(_) => Some(Rules::Calls { tools: called(), several: false }),
    };
    Ok((Some(callable), rules.map(|rules| Asked { rules, field: "tools" })))
}

fn tools(object: &mut Object) -> Result<Vec<Described>, ApiError> {
    let mut tools: Vec<Described> = Vec::new();
    for (i, item) in object.array("tools")?.unwrap_or_default().into_iter().enumerate() {
        let tool = tool(item, format!("tools[{i}]"))?;
        if tools.iter().any(|other| other.name == tool.name) {
            let param = format!("tools[{i}].function.name");
            return Err(ApiError::invalid(param, "is the name of an earlier tool too"));
        }
        tools.push(tool);
    }
    Ok(tools)
}

fn tool(item: Value, path: String) -> Result<Described, ApiError> {
    let mut object = Object::from_value(item, path)?;
    if object.required_text("type")?.expose() != "function" {
        return Err(object.wrong("type", "must be function"));
    }
    let mut function = object.required_object("function")?;
    object.finish()?;
    let name = function.required_text("name")?.expose().to_owned();
    if !is_name(&name) {
        return Err(function.wrong("name", "must have 1 to 64 letters, digits, underscores and dashes"));
    }
    let description = function.text("description")?;
    // Calls that are demanded keep to every schema.
    function.flag("strict")?;
    let parameters = match function.take("parameters") {
        None => json!({ "type": "object", "properties": {}, "additionalProperties": false }),
        Some(schema) if schema.get("type").and_then(Value::as_str) == Some("object") => schema,
        Some(mut other) => {
            wipe(&mut other);
            return Err(function.wrong("parameters", "must be a JSON schema with type: object"));
        }
    };
    function.finish()?;
    let text = described(&name, description.as_ref(), &parameters);
    Ok(Described { name, text, parameters })
}

fn choice(object: &mut Object, tools: &[Described]) -> Result<Choice, ApiError> {
    const PROBLEM: &str = "must be none, auto, required, or an object with the name of a function";
    let choice = match object.take("tool_choice") {
        None => return Ok(Choice::Auto),
        Some(Value::String(text)) => match SecretString::from(text).expose() {
            "none" => Choice::None,
            "auto" => Choice::Auto,
            "required" => Choice::Required,
            _ => return Err(object.wrong("tool_choice", PROBLEM)),
        },
        Some(value @ Value::Object(_)) => Choice::Named(named(value)?),
        Some(_) => return Err(object.wrong("tool_choice", PROBLEM)),
    };
    match &choice {
        Choice::Named(name) if tools.iter().all(|tool| tool.name != *name) => {
            Err(ApiError::invalid("tool_choice.function.name", "is not the name of one of the tools"))
        }
        Choice::Required | Choice::Auto if tools.is_empty() => {
            Err(object.wrong("tool_choice", "goes with tools only"))
        }
        Choice::None | Choice::Auto | Choice::Required | Choice::Named(_) => Ok(choice),
    }
}

fn named(value: Value) -> Result<String, ApiError> {
    let mut object = Object::from_value(value, "tool_choice".to_owned())?;
    if object.required_text("type")?.expose() != "function" {
        return Err(object.wrong("type", "must be function"));
    }
    let mut function = object.required_object("function")?;
    object.finish()?;
    let name = function.required_text("name")?.expose().to_owned();
    function.finish()?;
    Ok(name)
}

/// The JSON that a model reads, with a space behind commas and colons, as Python writes it and models know it.
fn described(name: &str, description: Option<&SecretString>, parameters: &Value) -> SecretString {
    let mut function = json!({ "name": name });
    if let Some(description) = description {
        function["description"] = description.expose().into();
    }
    function["parameters"] = parameters.clone();
    let mut tool = json!({ "type": "function", "function": function });
    // A space for every comma and colon at most, so that it does not grow and leave a copy behind.
    let compact = Zeroizing::new(tool.to_string());
    let mut text = Vec::with_capacity(2 * compact.len());
    // Writing JSON to memory cannot fail.
    let _written = tool.serialize(&mut Serializer::with_formatter(&mut text, Spaced));
    wipe(&mut function);
    wipe(&mut tool);
    String::from_utf8(text).unwrap_or_default().into()
}

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        to: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { to.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        to: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { to.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, to: &mut W) -> std::io::Result<()> {
        to.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_written_as_models_know_them() {
        let parameters = json!({ "type": "object", "properties": { "b": { "enum": [1, "é"] }, "a": {} } });
        let wanted = r#"{"type": "function", "function": {"name": "f", "description": "d\"", "parameters": {"type": "object", "properties": {"b": {"enum": [1, "é"]}, "a": {}}}}}"#;
        assert_eq!(described("f", Some(&"d\"".into()), &parameters).expose(), wanted);
    }
}
