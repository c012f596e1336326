//! The chat template of a model: a Jinja program by the model's owner, run within limits and on placeholders only.

mod python;
mod tools;

use crate::error::TemplateError;
use crate::request::Role;
use crate::tokenizer::Names;
use minijinja::{Environment, ErrorKind, Value, context};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Longer than any known template (some 20,000 bytes).
const MAX_TEMPLATE_BYTES: usize = 256 * 1024;
/// Instructions per rendering, and more for each message.
const FUEL: u64 = 100_000;
const FUEL_PER_MESSAGE: u64 = 10_000;
/// Output per rendering: what a template itself writes is a fraction of this.
const MAX_OUTPUT_BYTES: usize = 1 << 20;
/// Calls of the template engine into itself: macros, and loops that call themselves.
const MAX_RECURSION: usize = 100;
/// Begins and ends a placeholder; a noncharacter, which no template contains.
const MARK: char = '\u{fdd0}';
/// White space around a placeholder (EM QUAD, which no template contains): where it is gone, the template trims.
const EDGE: char = '\u{2001}';

/// A template that was tried out.
pub(crate) struct Template {
    source: String,
    environment: Environment<'static>,
    begin: String,
    end: String,
    abilities: Abilities,
}

/// What a template was found to know.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Abilities {
    /// A turn of the system.
    pub(crate) system: bool,
    /// Tools, their calls and results, with the tags of Hermes and Qwen around calls.
    pub(crate) tools: bool,
}

/// A part of a rendered conversation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Text of the template.
    Literal(String),
    /// The text of a message belongs here.
    Content(Content),
}

/// Where a text belongs, and on which sides white space is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// Index of the text: that of the message, if nothing but messages was rendered.
    pub(crate) index: usize,
    trim_start: bool,
    trim_end: bool,
}

impl Content {
    /// The text as the template would write it.
    pub(crate) fn of(self, mut text: &str) -> &str {
        if self.trim_start {
            text = text.trim_start();
        }
        if self.trim_end { text.trim_end() } else { text }
    }

    /// Whether white space at the beginning and at the end is cut off.
    pub(crate) fn trims(self) -> (bool, bool) {
        (self.trim_start, self.trim_end)
    }
}

/// A turn as a template may know it: who speaks, and the numbers of texts.
pub(crate) struct Shape {
    pub(crate) role: Role,
    /// The text, and whether there is any.
    pub(crate) content: (usize, bool),
    /// Names and arguments of calls of tools.
    pub(crate) calls: Vec<(usize, usize)>,
}

/// What `raise_exception` was called with.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

impl Template {
    /// Parses a template and finds out what it does with the text of messages.
    pub(crate) fn new(source: &str, names: &Names) -> Result<Self, TemplateError> {
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(TemplateError::Failed(format!("it is longer than {MAX_TEMPLATE_BYTES} bytes")));
        }
        if source.contains([MARK, EDGE]) {
            return Err(TemplateError::Failed("it contains a noncharacter or an EM QUAD".to_owned()));
        }
        let mut environment = Environment::new();
        // As transformers, for which these templates are written.
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(python::method);
        environment.set_recursion_limit(MAX_RECURSION);
        environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, "raised").with_source(Raised(message)))
        });
        environment.add_filter("tojson", tools::to_json);
        let (begin, end) = (names.begin.clone(), names.end.clone());
        let abilities = Abilities::default();
        let mut template = Self { source: source.to_owned(), environment, begin, end, abilities };
        template.probe()?;
        template.abilities = Abilities {
            system: template.render(&[(Role::System, true), (Role::User, true)]).is_ok(),
            tools: tools::are_known(&template),
        };
        Ok(template)
    }

    /// What it knows.
    pub(crate) fn abilities(&self) -> Abilities {
        self.abilities
    }

    /// Renders a conversation without tools. Of the messages, only the roles and whether there is text go into the template.
    pub(crate) fn render(&self, roles: &[(Role, bool)]) -> Result<Vec<Part>, TemplateError> {
        let shape = |(index, (role, filled)): (usize, &(Role, bool))| Shape {
            role: *role,
            content: (index, *filled),
            calls: Vec::new(),
        };
        self.compose(&roles.iter().enumerate().map(shape).collect::<Vec<_>>(), &[])
    }

    /// Renders a conversation; `tools` are numbers of the texts that describe them.
    pub(crate) fn compose(&self, shapes: &[Shape], tools: &[usize]) -> Result<Vec<Part>, TemplateError> {
        let turns: Vec<_> = shapes.iter().map(tools::turn).collect();
        let parts = split(&self.run(&turns, tools::list(tools))?)?;
        let written = |wanted: usize| {
            parts.iter().any(|part| matches!(part, Part::Content(content) if content.index == wanted))
        };
        let is_dropped = |(_, shape): &(usize, &Shape)| {
            let calls = shape.calls.iter().all(|(name, arguments)| written(*name) && written(*arguments));
            (shape.content.1 && !written(shape.content.0)) || !calls
        };
        if let Some((index, _)) = shapes.iter().enumerate().find(is_dropped) {
            return Err(TemplateError::DropsMessage { index });
        }
        if tools.iter().all(|tool| written(*tool)) { Ok(parts) } else { Err(TemplateError::RewritesContent) }
    }

    /// Renders text of our own both ways and compares. Conversations that the template refuses tell nothing, except the
    /// simplest one, which it must take.
    fn probe(&self) -> Result<(), TemplateError> {
        use Role::{Assistant, System, User};
        let texts = [" \n a probe ", "another\t\n", " third", "4"];
        for roles in
            [&[User][..], &[System, User], &[User, Assistant, User], &[System, User, Assistant, User]]
        {
            let filled: Vec<_> = roles.iter().map(|role| (*role, true)).collect();
            let parts = match self.render(&filled) {
                Ok(parts) => parts,
                Err(error) if roles.len() == 1 => return Err(error),
                Err(_refused) => continue,
            };
            let turns: Vec<_> =
                roles.iter().zip(texts).map(|(role, text)| tools::plain_turn(*role, text)).collect();
            let text = |part: &Part| match part {
                Part::Literal(literal) => literal.clone(),
                Part::Content(content) => content.of(texts.get(content.index).unwrap_or(&"")).to_owned(),
            };
            if parts.iter().map(text).collect::<String>() != self.run(&turns, Value::from(()))? {
                return Err(TemplateError::RewritesContent);
            }
        }
        Ok(())
    }

    fn run(&self, turns: &[Value], tools: Value) -> Result<String, TemplateError> {
        let mut environment = self.environment.clone();
        let more = turns.len() + tools.len().unwrap_or_default();
        environment.set_fuel(Some(FUEL + FUEL_PER_MESSAGE * more as u64));
        let template =
            environment.template_from_named_str("chat", &self.source).map_err(|error| reason(&error))?;
        let context = context! {
            messages => turns,
            add_generation_prompt => true,
            tools => tools, // nothing where there are none, as transformers passes it
            documents => (),
            bos_token => self.begin,
            eos_token => self.end,
        };
        let mut output = Capped::default();
        // minijinja 2.24 panics on `[::-1]` of nothing, which a client can bring about with an empty message.
        let rendering = AssertUnwindSafe(|| template.render_captured_to(context, &mut output).map(drop));
        let Ok(done) = catch_unwind(rendering) else {
            return Err(TemplateError::Failed("the template engine gives up on it".to_owned()));
        };
        if output.full {
            return Err(TemplateError::TooMuchWork);
        }
        done.map_err(|error| reason(&error))?;
        String::from_utf8(output.bytes)
            .map_err(|_not_text| TemplateError::Failed("it wrote no text".to_owned()))
    }
}

/// Stands for the text of a message; templates may ask whether there is any.
fn placeholder(index: usize, filled: bool) -> String {
    if filled { format!("{EDGE}{MARK}{index}{MARK}{EDGE}") } else { String::new() }
}

/// Takes the placeholders out again.
fn split(rendered: &str) -> Result<Vec<Part>, TemplateError> {
    let mut parts = Vec::new();
    // Literals and indices take turns. An edge is at the end of the literal before and at the beginning of that behind.
    let pieces: Vec<_> = rendered.split(MARK).collect();
    let last = pieces.len() - 1;
    for (nth, piece) in pieces.iter().enumerate() {
        if nth % 2 == 1 {
            let index = piece.parse().map_err(|_changed| TemplateError::RewritesContent)?;
            let trim_start =
                !nth.checked_sub(1).and_then(|at| pieces.get(at)).is_some_and(|t| t.ends_with(EDGE));
            let trim_end = !pieces.get(nth + 1).is_some_and(|text| text.starts_with(EDGE));
            parts.push(Part::Content(Content { index, trim_start, trim_end }));
            continue;
        }
        let text = if nth > 0 { piece.strip_prefix(EDGE).unwrap_or(piece) } else { piece };
        let text = if nth < last { text.strip_suffix(EDGE).unwrap_or(text) } else { text };
        if text.contains(EDGE) {
            return Err(TemplateError::RewritesContent);
        }
        if !text.is_empty() {
            parts.push(Part::Literal(text.to_owned()));
        }
    }
    if last % 2 == 1 { Err(TemplateError::RewritesContent) } else { Ok(parts) }
}

fn reason(error: &minijinja::Error) -> TemplateError {
    if error.kind() == ErrorKind::OutOfFuel {
        return TemplateError::TooMuchWork;
    }
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(Raised(message)) = inner.downcast_ref() {
            return TemplateError::Raised(message.clone());
        }
        source = inner.source();
    }
    TemplateError::Failed(error.to_string())
}

/// Output of a template, up to a limit.
#[derive(Default)]
struct Capped {
    bytes: Vec<u8>,
    full: bool,
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_OUTPUT_BYTES {
            self.full = true;
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Role::{Assistant, System, User};

    const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    fn template(source: &str) -> Result<Template, TemplateError> {
        Template::new(source, &Names { begin: "<s>".to_owned(), end: "</s>".to_owned() })
    }

    fn literal(text: &str) -> Part {
        Part::Literal(text.to_owned())
    }

    #[test]
    fn chatml_is_split_around_contents() {
        let template = template(CHATML).unwrap();
        let parts = template.render(&[(System, false), (User, true)]).unwrap();
        let system = literal("<|im_start|>system\n<|im_end|>\n<|im_start|>user\n");
        let rest = literal("<|im_end|>\n<|im_start|>assistant\n");
        let content = Content { index: 1, trim_start: false, trim_end: false };
        assert_eq!(parts, [system, Part::Content(content), rest]);
    }

    #[test]
    fn trimming_is_noticed_on_each_side() {
        for (change, start, end) in [
            ("| trim", true, true),
            (".strip()", true, true),
            (".lstrip()", true, false),
            (".rstrip()", false, true),
        ] {
            let source = format!(
                "{{{{ bos_token }}}}{{% for m in messages %}}[{{{{ m.content {change} }}}}]{{% endfor %}}"
            );
            let parts = template(&source).unwrap().render(&[(User, true)]).unwrap();
            assert_eq!(
                parts[1],
                Part::Content(Content { index: 0, trim_start: start, trim_end: end }),
                "{change}"
            );
        }
        // Llama 2 trims what is around both, so each of them on one side.
        let source = "{{ (messages[0].content + '|' + messages[-1].content).strip() }}";
        let parts = template(source).unwrap().render(&[(System, true), (User, true)]).unwrap();
        let text = |part: &Part| match part {
            Part::Literal(text) => text.clone(),
            Part::Content(content) => content.of(" a ").to_owned(),
        };
        assert_eq!(parts.iter().map(text).collect::<String>(), "a | a");
    }

    #[test]
    fn edges_that_are_moved_are_refused() {
        for source in [
            "{% for m in messages %}{{ m.content[1:] }}{{ m.content[:1] }}{% endfor %}",
            "{{ messages[0].content[:3] }}",
        ] {
            assert_eq!(template(source).err(), Some(TemplateError::RewritesContent), "{source}");
        }
    }

    #[test]
    fn rewriting_and_dropping_are_refused() {
        let rewriting = template("{% for m in messages %}{{ m.content | upper }}{% endfor %}");
        assert_eq!(rewriting.err(), Some(TemplateError::RewritesContent));
        let last_only = template("{{ messages[-1].content }}").unwrap();
        assert_eq!(
            last_only.render(&[(User, true), (Assistant, true)]),
            Err(TemplateError::DropsMessage { index: 0 })
        );
    }

    #[test]
    fn exceptions_of_the_template_are_told() {
        let source = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}{{ messages[0].content }}";
        let template = template(source).unwrap();
        assert_eq!(
            template.render(&[(System, true)]),
            Err(TemplateError::Raised("no system role".to_owned()))
        );
    }

    #[test]
    fn work_and_output_are_bounded() {
        let busy = "{% for i in range(10000) %}{% for j in range(10000) %}{% endfor %}{% endfor %}{{ messages[0].content }}";
        assert_eq!(template(busy).err(), Some(TemplateError::TooMuchWork));
        let loud = "{% for i in range(2000) %}{{ '0123456789' * 100 }}{% endfor %}";
        assert_eq!(template(loud).err(), Some(TemplateError::TooMuchWork));
        let padded = |len: usize| format!("{{{{ messages[0].content }}}}{{#{}#}}", "x".repeat(len - 29));
        assert!(template(&padded(MAX_TEMPLATE_BYTES)).is_ok());
        assert!(matches!(template(&padded(MAX_TEMPLATE_BYTES + 1)), Err(TemplateError::Failed(_))));
        let deep =
            "{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ messages[0].content }}";
        assert!(template(&format!("{deep}{{{{ f(10) }}}}")).is_ok());
        assert!(matches!(template(&format!("{deep}{{{{ f(10000) }}}}")), Err(TemplateError::Failed(_))));
        let nested = format!("{{{{ {}messages[0].content{} }}}}", "(".repeat(5000), ")".repeat(5000));
        assert!(template(&nested).is_err());
    }

    #[test]
    fn a_panic_of_the_template_engine_is_an_error() {
        let template = template("{{ messages[0].content }}{% for m in messages[2:][::-1] %}{% endfor %}");
        assert!(matches!(template.err(), Some(TemplateError::Failed(_))));
    }

    #[test]
    fn broken_templates_are_refused() {
        for source in
            ["{% for %}", "{{ messages[0].content.no_such_method() }}", "{{ missing() }}", "\u{fdd0}"]
        {
            assert!(matches!(template(source), Err(TemplateError::Failed(_))), "{source}");
        }
    }
}

#[cfg(test)]
mod vectors;
