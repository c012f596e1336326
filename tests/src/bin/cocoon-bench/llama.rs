//! llama.cpp as a process of its own, driven over a pipe by `llama.mjs`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context;
use cocoon_tests::repository;
use serde_json::{Value, json};

/// llama.cpp with a model; killed when dropped.
pub struct Llama {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    release: String,
}

impl Llama {
    /// Loads `model`, to be run on exactly `threads` threads, with room for `sequences` of `context` tokens.
    pub fn start(
        peers: &Path,
        model: &Path,
        threads: usize,
        (sequences, context): (usize, usize),
    ) -> anyhow::Result<Self> {
        let mut child = Command::new("node")
            .arg(repository().join("tests/src/bin/cocoon-bench/llama.mjs"))
            .arg(peers.canonicalize()?)
            .arg(model)
            .args([threads, sequences, context].map(|n| n.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("node does not start")?;
        let requests = child.stdin.take().context("no pipe")?;
        let answers = BufReader::new(child.stdout.take().context("no pipe")?);
        let mut llama = Self { child, requests, answers, release: String::new() };
        let ready = llama.answer()?;
        anyhow::ensure!(
            ready["threads"] == threads,
            "llama.cpp took {} threads, not {threads}",
            ready["threads"]
        );
        llama.release = ready["release"].as_str().unwrap_or("unknown release").to_owned();
        Ok(llama)
    }

    /// Its version.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Seconds until the last of `sequences` has its first token, and from then until all have `answer` more.
    pub fn generate(&mut self, prompt: &[u32], answer: usize, sequences: usize) -> anyhow::Result<[f64; 2]> {
        let request = json!({ "prompt": prompt, "answer": answer, "sequences": sequences });
        writeln!(self.requests, "{request}")?;
        let times = self.answer()?;
        let seconds = |name: &str| times[name].as_f64().with_context(|| format!("no {name} in {times}"));
        Ok([seconds("prefill")?, seconds("decode")?])
    }

    fn answer(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        anyhow::ensure!(self.answers.read_line(&mut line)? > 0, "llama.cpp ended; what it said is above");
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Llama {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
