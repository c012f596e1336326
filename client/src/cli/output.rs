//! The one place that writes to the terminal.

#![expect(clippy::print_stderr, reason = "the one place that writes to the terminal")]

use std::io::{IsTerminal, Write};

/// A line of the result.
pub(super) fn line(text: &str) {
    // A reader that went away (`| head`) is no error.
    let _closed = writeln!(std::io::stdout(), "{text}");
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

/// The one line of an error.
pub(super) fn error(error: &anyhow::Error) {
    eprintln!("cocoon: {}", harmless(&format!("{error:#}")));
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
}
