//! Everything this program prints, apart from its last error line.
//!
//! stdout carries `ready HOST:PORT` and nothing else, so that scripts can wait for it. A reader that went away is no reason to stop
//! serving, so failed writes are ignored.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    net::SocketAddr,
};

/// Says on stdout that clients are served at `address`.
pub fn announce_ready(address: SocketAddr) {
    let mut stdout = io::stdout().lock();
    let _gone = writeln!(stdout, "ready {address}").and_then(|()| stdout.flush());
}

/// One line on stderr.
pub(crate) fn note(line: &dyn Display) {
    let _gone = writeln!(io::stderr().lock(), "{line}");
}

/// One line on stderr that is redrawn in place; nothing when stderr is no terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    terminal: bool,
    percent: Option<u64>,
}

impl Progress {
    pub(crate) fn on_stderr() -> Self {
        Self { terminal: io::stderr().is_terminal(), percent: None }
    }

    /// Redraws when the percentage has changed.
    pub(crate) fn model_loading(&mut self, read: u64, total: u64) {
        let percent = percent_of(read, total);
        if !self.terminal || self.percent == Some(percent) {
            return;
        }
        self.percent = Some(percent);
        let mib = |bytes: u64| bytes / (1024 * 1024);
        let line = format!("\r\x1b[Kloading model: {percent}% of {} MiB", mib(total));
        let mut stderr = io::stderr().lock();
        let _gone = stderr.write_all(line.as_bytes()).and_then(|()| stderr.flush());
    }

    /// Ends the line, if there is one, so that the next message starts on its own.
    pub(crate) fn finish(&mut self) {
        if self.percent.take().is_some() {
            let _gone = writeln!(io::stderr().lock());
        }
    }
}

/// 0 to 100; an empty or overshot total counts as done.
fn percent_of(read: u64, total: u64) -> u64 {
    let hundredths = u128::from(read) * 100;
    u64::try_from(hundredths.checked_div(u128::from(total)).unwrap_or(100).min(100)).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_survive_any_numbers_an_enclave_sends() {
        assert_eq!(percent_of(0, 0), 100);
        assert_eq!(percent_of(1, 3), 33);
        assert_eq!(percent_of(5, 3), 100);
        assert_eq!(percent_of(u64::MAX, u64::MAX), 100);
        assert_eq!(percent_of(u64::MAX - 1, u64::MAX), 99);
    }
}
