//! The binaries, started and stopped.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::{model, sim_state, state_home};

/// For anything that should happen soon, on a machine that is busy. Only ever reached by a failing test.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Where cargo puts binaries: tests lie in `deps` below it.
pub fn target_dir() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors()
        .find(|dir| dir.join("deps").is_dir())
        .expect("tests run from cargo's target folder")
        .to_owned()
}

/// A binary of this workspace.
pub fn binary(name: &str) -> PathBuf {
    let path = target_dir().join(name);
    assert!(path.exists(), "{} is missing: scripts/test builds it", path.display());
    path
}

/// Runs `cocoon` to its end.
pub fn cocoon(args: &[&str]) -> Output {
    Command::new(binary("cocoon")).args(args).stdin(Stdio::null()).output().unwrap()
}

/// A running program whose standard output is kept line by line.
pub struct Program {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Program {
    /// Starts `command` with its standard output and error kept.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = Arc::default();
        keep(child.stdout.take().unwrap(), &lines);
        let mut stderr = child.stderr.take().unwrap();
        let errors: Arc<Mutex<Vec<String>>> = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(&mut stderr).lines().map_while(Result::ok) {
                errors.lock().unwrap().push(format!("stderr: {line}"));
            }
        });
        Self { child, lines }
    }

    /// Everything that it wrote so far.
    pub fn output(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// The first thing that `find` finds in a line, once it is there.
    pub fn wait_for<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = self.lines.lock().unwrap().iter().find_map(|line| find(line)) {
                return found;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "ended with {ended:?} before: {what}\n{}", self.output());
            assert!(start.elapsed() < PATIENCE, "waited in vain for: {what}\n{}", self.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// All events of this kind so far.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter_map(|line| event(line, kind)).collect()
    }

    /// Process identifier.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        kill(Pid::from_raw(self.pid().try_into().unwrap()), Signal::SIGTERM).unwrap();
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "does not end:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn keep(stdout: ChildStdout, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    });
}

/// The event in `line`, if it is of this kind.
pub fn event(line: &str, kind: &str) -> Option<Value> {
    serde_json::from_str::<Value>(line).ok().filter(|event| event["event"] == kind)
}

/// An enclave as a process of its own, with the real model.
pub struct EnclaveProcess {
    /// The process.
    pub program: Program,
    /// Where it listens.
    pub address: String,
    dir: TempDir,
}

impl EnclaveProcess {
    /// Starts one, with more flags, and waits for its model.
    pub fn start(flags: &[&str]) -> Self {
        let mut enclave = Self::start_loading(flags);
        enclave.program.wait_for("ready", |line| event(line, "ready"));
        enclave
    }

    /// Starts one, with more flags; its model may still be loading.
    pub fn start_loading(flags: &[&str]) -> Self {
        Self::start_loading_of(&model(), flags)
    }

    /// Starts one with another model, which may still be loading.
    pub fn start_loading_of(model: &Path, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut program = Program::start(
            Command::new(binary("cocoon-enclave"))
                .args(["--tee", "sim", "--listen", "127.0.0.1:0", "--model"])
                .arg(model)
                .arg("--sim-state")
                .arg(sim_state())
                .arg("--sim-policy-out")
                .arg(dir.path().join("policy.toml"))
                .args(flags),
        );
        let address = program
            .wait_for("listening", |line| event(line, "listening")?["address"].as_str().map(str::to_owned));
        Self { program, address, dir }
    }

    /// The policy that accepts it.
    pub fn policy(&self) -> String {
        self.dir.path().join("policy.toml").to_str().unwrap().to_owned()
    }

    /// The text of that policy.
    pub fn policy_text(&self) -> String {
        std::fs::read_to_string(self.policy()).unwrap()
    }

    /// Writes a policy like the one that accepts it, with `from` replaced by `to`.
    pub fn policy_with(&self, from: &str, to: &str) -> String {
        let text = self.policy_text();
        assert!(text.contains(from), "the policy has no {from}");
        let path = self.dir.path().join("other.toml");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// A host that runs an enclave and relays to it.
pub struct HostProcess {
    /// The process.
    pub program: Program,
    /// Where the relay listens.
    pub address: String,
    dir: TempDir,
}

impl HostProcess {
    /// `cocoon-host run --process --tee sim`
    pub fn start(flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut program = Program::start(
            Command::new(binary("cocoon-host"))
                .args([
                    "run",
                    "--process",
                    "--tee",
                    "sim",
                    "--listen",
                    "127.0.0.1:0",
                    "--log-events",
                    "--model",
                ])
                .arg(model())
                .arg("--policy-out")
                .arg(dir.path().join("policy.toml"))
                .args(flags)
                .env("XDG_STATE_HOME", state_home()),
        );
        let address = program.wait_for("ready", |line| line.strip_prefix("ready ").map(str::to_owned));
        Self { program, address, dir }
    }

    /// The policy that accepts the enclave.
    pub fn policy(&self) -> String {
        self.dir.path().join("policy.toml").to_str().unwrap().to_owned()
    }
}

/// All readable memory of a process that it has written to or could write to.
pub fn memory(pid: u32) -> Vec<u8> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mem = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut all = Vec::new();
    for line in
        maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|flags| flags.starts_with("rw")))
    {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [start, end] = [start, end].map(|hex| u64::from_str_radix(hex, 16).unwrap());
        let mut part = vec![0; usize::try_from(end - start).unwrap()];
        // Some mappings of the kernel cannot be read.
        if std::os::unix::fs::FileExt::read_exact_at(&mem, &mut part, start).is_ok() {
            all.append(&mut part);
        }
    }
    all
}

/// Whether `needle` occurs in `haystack`.
pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// Reads to the end, for at most [`PATIENCE`].
pub fn read_all(stream: &mut std::net::TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _end = stream.read_to_end(&mut bytes);
    bytes
}
