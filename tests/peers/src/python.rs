//! A peer that is a Python package: `timed.py` in a process of its own, with the packages that `scripts/peers` installed.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context;

/// Killed when dropped.
pub struct Peer {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts `timed.py` with these arguments.
    pub fn start(python: &Path, arguments: &[&OsStr]) -> anyhow::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("timed.py");
        let mut child = Command::new(python)
            .arg("-B")
            .arg(script)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} does not start", python.display()))?;
        let requests = child.stdin.take().context("no pipe")?;
        let answers = BufReader::new(child.stdout.take().context("no pipe")?);
        Ok(Self { child, requests, answers })
    }

    /// CPU microseconds that one appraisal takes, as the mean of `count`.
    pub fn time(&mut self, count: u32) -> anyhow::Result<f64> {
        writeln!(self.requests, "{count}")?;
        let mut line = String::new();
        anyhow::ensure!(self.answers.read_line(&mut line)? > 0, "timed.py ended; what it said is above");
        Ok(line.trim().parse::<f64>()? * 1e6 / f64::from(count))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
