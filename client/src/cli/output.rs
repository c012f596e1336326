//! The one place that writes to the terminal.

#![expect(clippy::print_stderr, reason = "the one place that writes to the terminal")]

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use anyhow::Context;

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Color {
    /// At a terminal, unless NO_COLOR is set
    Auto,
    /// In files and pipes too
    Always,
    /// Nowhere
    Never,
}

static COLOR: OnceLock<Color> = OnceLock::new();

/// For all that is written from now on; the first call counts.
pub(super) fn set_color(color: Color) {
    let _first = COLOR.set(color);
}

impl Color {
    /// What the arguments say, before they are understood: help and errors about them have colours too.
    pub(super) fn of(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Self {
        let mut arguments = arguments.into_iter().skip(1);
        let mut color = Self::Auto;
        while let Some(argument) = arguments.next() {
            let value = match argument.to_str() {
                Some("--") => break,
                Some("--color") => arguments.next(),
                Some(other) => other.strip_prefix("--color=").map(std::ffi::OsString::from),
                None => None,
            };
            let value = value.as_ref().and_then(|value| value.to_str());
            color = value.and_then(|value| clap::ValueEnum::from_str(value, false).ok()).unwrap_or(color);
        }
        color
    }

    pub(super) fn for_clap(self) -> clap::ColorChoice {
        match self {
            Self::Auto => clap::ColorChoice::Auto,
            Self::Always => clap::ColorChoice::Always,
            Self::Never => clap::ColorChoice::Never,
        }
    }

    /// Whether to use them, on a terminal or elsewhere.
    #[expect(clippy::disallowed_methods, reason = "NO_COLOR and TERM are how a user says it to all programs")]
    fn is_on(self, is_terminal: bool) -> bool {
        let says = |name: &str, wanted: &dyn Fn(&std::ffi::OsStr) -> bool| {
            std::env::var_os(name).is_some_and(|value| wanted(&value))
        };
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                is_terminal
                    && !says("NO_COLOR", &|value| !value.is_empty())
                    && !says("TERM", &|value| value == "dumb")
            }
        }
    }
}

fn is_colored(stream: &impl IsTerminal) -> bool {
    COLOR.get().copied().unwrap_or(Color::Auto).is_on(stream.is_terminal())
}

/// A line of a finding with its first word in colour.
fn paint(text: &str) -> String {
    let end = text.find([' ', ':']).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let color = match word {
        "pass" | "ACCEPTED" => 32,
        "FAIL" | "REJECTED" | "cocoon" => 31,
        "unchecked" | "WARNING" => 33,
        _ => return text.to_owned(),
    };
    format!("\x1b[1;{color}m{word}\x1b[0m{rest}")
}

/// A line of the result.
pub(super) fn line(text: &str) {
    // A reader that went away (`| head`) is no error.
    let _closed = writeln!(std::io::stdout(), "{text}");
}

/// A line of the result that begins with what was found.
pub(super) fn finding(text: &str) {
    if is_colored(&std::io::stdout()) { line(&paint(text)) } else { line(text) }
}

/// The result as JSON.
pub(super) fn json(result: &impl serde::Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(result).context("cannot write JSON")?);
    Ok(())
}

/// Part of an answer, shown at once. Fails when nobody reads it any more. A model's words must not steer the terminal.
pub(super) fn piece(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    if out.is_terminal() {
        let lines: Vec<String> = text.split('\n').map(harmless).collect();
        out.write_all(lines.join("\n").as_bytes())?;
    } else {
        out.write_all(text.as_bytes())?;
    }
    out.flush()
}

/// Something to know beside the result.
pub(super) fn note(text: &str) {
    eprintln!("{text}");
}

/// The same, if it begins with what was found.
pub(super) fn note_finding(text: &str) {
    if is_colored(&std::io::stderr()) { note(&paint(text)) } else { note(text) }
}

/// Before what a person types.
pub(super) fn ask(text: &str) {
    eprint!("{text}");
}

/// The one line of an error.
pub(super) fn error(error: &anyhow::Error) {
    note_finding(&format!("cocoon: {}", harmless(&format!("{error:#}"))));
}

/// Text of others without what would steer a terminal: control characters and those that turn the direction of writing.
pub(super) fn harmless(text: &str) -> String {
    let turns =
        |c: char| matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.replace(|c: char| (c.is_control() && c != '\t') || turns(c), "?")
}

/// A bar on standard error, if a person looks at it.
pub(super) struct Progress {
    shown: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { shown: false }
    }

    pub(super) fn show(&mut self, what: &str, done: u64, total: u64) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        const WIDTH: u64 = 30;
        let share = |of: u64| done.min(total).saturating_mul(of).checked_div(total).unwrap_or(0);
        let filled = usize::try_from(share(WIDTH)).unwrap_or(0);
        eprint!("\r{what} [{:<30}] {:>3} %", "#".repeat(filled), share(100));
        self.shown = true;
    }

    pub(super) fn end(self) {
        if self.shown {
            eprintln!();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_others_cannot_steer_the_terminal() {
        assert_eq!(harmless("\x1b[2Jab\r\ncd\u{202e}\tü"), "?[2Jab??cd?\tü");
    }

    #[test]
    fn only_the_first_word_is_painted() {
        assert_eq!(paint("FAIL      snp.vmpl  1"), "\x1b[1;31mFAIL\x1b[0m      snp.vmpl  1");
        assert_eq!(paint("cocoon: no"), "\x1b[1;31mcocoon\x1b[0m: no");
        assert_eq!(paint("          (pass)"), "          (pass)");
        assert_eq!(paint(""), "");
    }

    #[test]
    fn colours_are_where_they_were_asked_for() {
        let of = |arguments: &[&str]| Color::of(arguments.iter().map(Into::into));
        assert_eq!(of(&["cocoon", "verify"]), Color::Auto);
        assert_eq!(of(&["cocoon", "--color=never", "verify"]), Color::Never);
        assert_eq!(of(&["cocoon", "verify", "--color", "always"]), Color::Always);
        assert_eq!(of(&["cocoon", "--color", "pink"]), Color::Auto);
        assert_eq!(of(&["cocoon", "--", "--color=never"]), Color::Auto);
        assert!(Color::Always.is_on(false) && !Color::Never.is_on(true) && !Color::Auto.is_on(false));
    }
}
