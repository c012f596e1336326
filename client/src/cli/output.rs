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
        let harmless = |c: char| c == '\n' || c == '\t' || !c.is_control();
        out.write_all(text.replace(|c| !harmless(c), "?").as_bytes())?;
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
    eprintln!("cocoon: {}", format!("{error:#}").trim_end());
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
