//! The chat template of a model: a Jinja program by the model's owner, run within limits and on placeholders only.

use crate::error::TemplateError;
use crate::request::Role;
use crate::tokenizer::Names;
use minijinja::{Environment, ErrorKind, context};
use serde::Serialize;
use std::io::Write;

/// Longer than any known template (some 20,000 bytes).
const MAX_TEMPLATE_BYTES: usize = 256 * 1024;
/// Instructions per rendering, and more for each message.
const FUEL: u64 = 100_000;
const FUEL_PER_MESSAGE: u64 = 10_000;
/// Output per rendering: what a template itself writes is a fraction of this.
const MAX_OUTPUT_BYTES: usize = 1 << 20;
/// Begins and ends a placeholder; a noncharacter, which no template contains.
const MARK: char = '\u{fdd0}';

/// A template that was tried out.
pub(crate) struct Template {
    source: String,
    environment: Environment<'static>,
    begin: String,
    end: String,
    trims: bool,
}

/// A part of a rendered conversation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Text of the template.
    Literal(String),
    /// The text of the message with this index belongs here.
    Content(usize),
}

#[derive(Serialize)]
struct Turn<'a> {
    role: &'static str,
    content: &'a str,
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
        if source.contains(MARK) {
            return Err(TemplateError::Failed("it contains a noncharacter".to_owned()));
        }
        let mut environment = Environment::new();
        // As transformers, for which these templates are written.
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, "raised").with_source(Raised(message)))
        });
        let (begin, end) = (names.begin.clone(), names.end.clone());
        let mut template = Self { source: source.to_owned(), environment, begin, end, trims: false };
        template.trims = template.probe()?;
        Ok(template)
    }

    /// Whether the text of messages is trimmed before it goes between the parts.
    pub(crate) fn trims(&self) -> bool {
        self.trims
    }

    /// Renders a conversation. Of the messages, only the roles and whether there is text go into the template.
    pub(crate) fn render(&self, roles: &[(Role, bool)]) -> Result<Vec<Part>, TemplateError> {
        let contents: Vec<_> =
            (0..).zip(roles).map(|(index, (_, filled))| placeholder(index, *filled)).collect();
        let turns: Vec<_> =
            roles.iter().zip(&contents).map(|((role, _), content)| turn(*role, content)).collect();
        let parts = split(&self.run(&turns)?)?;
        let dropped =
            (0..).zip(roles).find(|(index, (_, filled))| *filled && !parts.contains(&Part::Content(*index)));
        match dropped {
            Some((index, _)) => Err(TemplateError::DropsMessage { index }),
            None => Ok(parts),
        }
    }

    /// Renders text of our own both ways and compares. Gives whether contents are trimmed; conversations that the
    /// template refuses tell nothing, except the simplest one, which it must take.
    fn probe(&self) -> Result<bool, TemplateError> {
        use Role::{Assistant, System, User};
        let texts = [" \n a probe ", "another\t\n", " third", "4"];
        let (mut verbatim, mut trimmed) = (true, true);
        for roles in
            [&[User][..], &[System, User], &[User, Assistant, User], &[System, User, Assistant, User]]
        {
            let filled: Vec<_> = roles.iter().map(|role| (*role, true)).collect();
            let parts = match self.render(&filled) {
                Ok(parts) => parts,
                Err(error) if roles.len() == 1 => return Err(error),
                Err(_refused) => continue,
            };
            let turns: Vec<_> = roles.iter().zip(texts).map(|(role, text)| turn(*role, text)).collect();
            let whole = self.run(&turns)?;
            let filled_in = |change: fn(&str) -> &str| {
                let text = |part: &Part| match part {
                    Part::Literal(literal) => literal.clone(),
                    Part::Content(index) => texts.get(*index).map_or("", |text| change(text)).to_owned(),
                };
                parts.iter().map(text).collect::<String>()
            };
            verbatim &= filled_in(|text| text) == whole;
            trimmed &= filled_in(str::trim) == whole;
        }
        if verbatim || trimmed { Ok(!verbatim) } else { Err(TemplateError::RewritesContent) }
    }

    fn run(&self, turns: &[Turn<'_>]) -> Result<String, TemplateError> {
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(FUEL + FUEL_PER_MESSAGE * turns.len() as u64));
        let template =
            environment.template_from_named_str("chat", &self.source).map_err(|error| reason(&error))?;
        let context = context! {
            messages => turns,
            add_generation_prompt => true,
            bos_token => self.begin,
            eos_token => self.end,
        };
        let mut output = Capped::default();
        let done = template.render_captured_to(context, &mut output);
        if output.full {
            return Err(TemplateError::TooMuchWork);
        }
        done.map_err(|error| reason(&error))?;
        String::from_utf8(output.bytes)
            .map_err(|_not_text| TemplateError::Failed("it wrote no text".to_owned()))
    }
}

fn turn(role: Role, content: &str) -> Turn<'_> {
    Turn { role: role.name(), content }
}

/// Stands for the text of a message; templates may ask whether there is any.
fn placeholder(index: usize, filled: bool) -> String {
    if filled { format!("{MARK}{index}{MARK}") } else { String::new() }
}

/// Takes the placeholders out again.
fn split(rendered: &str) -> Result<Vec<Part>, TemplateError> {
    let mut parts = Vec::new();
    // Literals and indices take turns.
    for (nth, piece) in rendered.split(MARK).enumerate() {
        if nth % 2 == 1 {
            parts.push(Part::Content(piece.parse().map_err(|_changed| TemplateError::RewritesContent)?));
        } else if !piece.is_empty() {
            parts.push(Part::Literal(piece.to_owned()));
        }
    }
    Ok(parts)
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
        assert!(!template.trims());
        let parts = template.render(&[(System, false), (User, true)]).unwrap();
        let system = literal("<|im_start|>system\n<|im_end|>\n<|im_start|>user\n");
        let rest = literal("<|im_end|>\n<|im_start|>assistant\n");
        assert_eq!(parts, [system, Part::Content(1), rest]);
    }

    #[test]
    fn trimming_is_noticed() {
        let source = "{{ bos_token }}{% for m in messages %}[{{ m.content | trim }}]{% endfor %}";
        assert!(template(source).unwrap().trims());
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
        assert!(matches!(template(&"x".repeat(MAX_TEMPLATE_BYTES + 1)), Err(TemplateError::Failed(_))));
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
