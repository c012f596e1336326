//! Tools in templates: the template sees placeholders instead of what a client says of them.

use super::{Part, Shape, Template, placeholder};
use crate::request::Role;
use minijinja::value::{Kwargs, Object, ObjectRepr, Value};
use minijinja::{Error, context, filters};
use std::fmt;
use std::sync::Arc;

/// An object of a client, of which a template sees nothing: it can be written as a whole, as JSON, and that is all.
#[derive(Debug)]
struct Opaque(String);

impl Object for Opaque {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn opaque(index: usize) -> Value {
    Value::from_object(Opaque(placeholder(index, true)))
}

/// The filter `tojson`, which writes objects of clients as their placeholders.
pub(super) fn to_json(value: &Value, indent: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    let is_opaque = |value: &Value| value.downcast_object_ref::<Opaque>().is_some();
    let all = |value: &Value| match value.try_iter() {
        Ok(mut items) => value.len().is_some_and(|len| len > 0) && items.all(|item| is_opaque(&item)),
        Err(_no_list) => false,
    };
    if is_opaque(value) {
        return Ok(Value::from_safe_string(value.to_string()));
    }
    if all(value) {
        let items: Vec<_> = value.try_iter()?.map(|item| item.to_string()).collect();
        return Ok(Value::from_safe_string(format!("[{}]", items.join(", "))));
    }
    filters::tojson(value, indent, options)
}

/// A turn as the template gets it.
pub(super) fn turn(shape: &Shape) -> Value {
    let content = placeholder(shape.content.0, shape.content.1);
    if shape.calls.is_empty() {
        return plain_turn(shape.role, &content);
    }
    let call = |(name, arguments): &(usize, usize)| {
        let function = context! { name => placeholder(*name, true), arguments => opaque(*arguments) };
        context! { type => "function", function => function }
    };
    let calls: Vec<_> = shape.calls.iter().map(call).collect();
    context! { role => shape.role.name(), content => content, tool_calls => calls }
}

/// A turn with a text.
pub(super) fn plain_turn(role: Role, content: &str) -> Value {
    context! { role => role.name(), content => content }
}

/// Tools as the template gets them: nothing if there are none.
pub(super) fn list(tools: &[usize]) -> Value {
    if tools.is_empty() { Value::from(()) } else { tools.iter().map(|index| opaque(*index)).collect() }
}

/// Whether a template writes tools, calls and results as models with the tags of Hermes and Qwen know them. Others get told of
/// tools in words (see `chat`), so that calls look the same whatever the model.
pub(super) fn are_known(template: &Template) -> bool {
    let shape =
        |role, index, calls: &[(usize, usize)]| Shape { role, content: (index, true), calls: calls.to_vec() };
    let conversation = [
        shape(Role::System, 0, &[]),
        shape(Role::User, 1, &[]),
        shape(Role::Assistant, 2, &[(3, 4), (5, 6)]),
        shape(Role::Tool, 7, &[]),
        shape(Role::Tool, 8, &[]),
    ];
    let Ok(parts) = template.compose(&conversation, &[9, 10]) else { return false };
    let before = |wanted: usize| {
        let place = parts.iter().position(|part| matches!(part, Part::Content(c) if c.index == wanted));
        match place.and_then(|at| at.checked_sub(1)).and_then(|at| parts.get(at)) {
            Some(Part::Literal(text)) => text.as_str(),
            Some(Part::Content(_)) | None => "",
        }
    };
    let named = |name: usize| before(name).ends_with("<tool_call>\n{\"name\": \"");
    let given = |arguments: usize| before(arguments) == "\", \"arguments\": ";
    [3, 5].into_iter().all(named)
        && [4, 6].into_iter().all(given)
        && template.compose(&[shape(Role::User, 0, &[])], &[1]).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Names;

    /// A template that knows tools, and nothing else.
    const HERMES: &str = "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls or [] %}{% set f = c.function %}<tool_call>\n{\"name\": \"{{ f.name }}\", \"arguments\": {{ f.arguments | tojson }}}\n</tool_call>{% endfor %}{% endfor %}";

    fn template(source: &str) -> Template {
        Template::new(source, &Names::default()).unwrap()
    }

    fn text(parts: &[Part]) -> String {
        let text = |part: &Part| match part {
            Part::Literal(text) => text.clone(),
            Part::Content(content) => format!("({})", content.index),
        };
        parts.iter().map(text).collect()
    }

    #[test]
    fn tools_and_calls_are_written_around_placeholders() {
        let template = template(HERMES);
        assert!(template.abilities().tools && template.abilities().system);
        let shapes = [
            Shape { role: Role::User, content: (0, true), calls: Vec::new() },
            Shape { role: Role::Assistant, content: (1, false), calls: vec![(2, 3)] },
            Shape { role: Role::Tool, content: (4, true), calls: Vec::new() },
        ];
        let parts = template.compose(&shapes, &[5]).unwrap();
        let wanted = "(5)\n[user](0)[assistant]<tool_call>\n{\"name\": \"(2)\", \"arguments\": (3)}\n</tool_call>[tool](4)";
        assert_eq!(text(&parts), wanted);
        let all = template.compose(&shapes, &[5, 6]).unwrap();
        assert!(text(&all).starts_with("(5)\n(6)\n"));
    }

    #[test]
    fn templates_that_want_more_of_tools_do_not_know_them() {
        for source in [
            HERMES.replace("t | tojson", "t.function.name"),
            HERMES.replace("{{ t | tojson }}", ""),
            HERMES.replace("{{ f.arguments | tojson }}", "{{ f.arguments.city }}"),
            HERMES.replace("<tool_call>", "[TOOL]"),
            HERMES.replace("\"arguments\"", "\"parameters\""),
            "{% for m in messages %}{{ m.content }}{% endfor %}".to_owned(),
        ] {
            assert!(!template(&source).abilities().tools, "{source}");
        }
        let whole = HERMES.replace(
            "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}",
            "{% if tools %}{{ tools | tojson }}{% endif %}",
        );
        assert!(template(&whole).abilities().tools);
    }

    #[test]
    fn which_templates_of_models_know_tools() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/templates");
        for (name, system, tools) in [
            ("chatml", true, false),
            ("gemma", false, false),
            ("llama2", true, false),
            ("llama3", true, false),
            ("mistral", true, false),
            ("qwen3", true, false), // the vector has no tools; Qwen 3 itself writes them as `HERMES` does
        ] {
            let source = std::fs::read_to_string(folder.join(format!("{name}.jinja"))).unwrap();
            let known = template(&source).abilities();
            assert_eq!((known.system, known.tools), (system, tools), "{name}");
        }
    }

    #[test]
    fn json_of_the_template_itself_is_json() {
        let source = "{{ {'a': [1, 'x']} | tojson }}{{ [] | tojson }}{{ messages[0].content }}";
        let parts = template(source).render(&[(Role::User, true)]).unwrap();
        assert_eq!(text(&parts), "{\"a\":[1,\"x\"]}[](0)");
    }
}
