//! The enclave as a process of this machine.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use clap::ValueEnum;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::Error;

/// What an enclave is told on its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnclaveOptions {
    /// The models.
    pub models: Vec<PathBuf>,
    /// The platform that it shall attest with.
    pub tee: Tee,
    /// The digests that the models must have, in hex and in the same order, or none.
    pub model_digests: Vec<String>,
    /// The names under which the models are offered, likewise.
    pub model_names: Vec<String>,
    /// Threads of the engine.
    pub threads: Option<u16>,
    /// Connections at once.
    pub max_connections: u32,
    /// Seconds for running answers to end.
    pub drain_timeout: u64,
    /// Where a simulated enclave writes the policy that accepts it.
    pub policy_out: Option<PathBuf>,
    /// What it staples; `None`: what its platform gives.
    pub endorsements: Option<PathBuf>,
    /// Which release it is; `None`: none.
    pub release: Option<PathBuf>,
}

/// The platform of an enclave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tee {
    /// Whatever the machine has.
    Auto,
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// Simulated, for development.
    Sim,
}

impl Tee {
    /// As the command line spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Snp => "snp",
            Self::Tdx => "tdx",
            Self::Sim => "sim",
        }
    }
}

impl EnclaveOptions {
    fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["--listen".into(), "127.0.0.1:0".into()];
        let mut add = |name: &str, value: Option<OsString>| {
            if let Some(value) = value {
                arguments.extend([name.into(), value]);
            }
        };
        self.models.iter().for_each(|model| add("--model", Some(model.into())));
        add("--tee", Some(self.tee.name().into()));
        self.model_digests.iter().for_each(|digest| add("--model-digest", Some(digest.into())));
        self.model_names.iter().for_each(|name| add("--model-name", Some(name.into())));
        add("--threads", self.threads.map(|n| n.to_string().into()));
        add("--sim-policy-out", self.policy_out.clone().map(Into::into));
        add("--endorsements", self.endorsements.clone().map(Into::into));
        add("--release", self.release.clone().map(Into::into));
        add("--max-connections", Some(self.max_connections.to_string().into()));
        add("--drain-timeout", Some(self.drain_timeout.to_string().into()));
        arguments.push("--until-stdin-closes".into());
        arguments
    }
}

/// A running enclave; killed when dropped.
#[derive(Debug)]
pub(super) struct Enclave {
    child: Child,
    /// Never written to. However this process ends, the kernel closes the pipe, and the enclave ends with it.
    _lifeline: Option<ChildStdin>,
}

impl Enclave {
    /// Starts the program, and gives its event log.
    pub(super) fn start(program: &Path, options: &EnclaveOptions) -> Result<(Self, ChildStdout), Error> {
        let path = || program.to_path_buf();
        let failed = |source: io::Error| {
            if program.exists() {
                Error::EnclaveStart { path: path(), source }
            } else {
                Error::EnclaveMissing { path: path() }
            }
        };
        let mut child = Command::new(program)
            .args(options.arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            // Ctrl-C in a terminal signals the whole foreground group; the host alone decides when the enclave ends.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let log = child.stdout.take().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        let lifeline = child.stdin.take();
        Ok((Self { child, _lifeline: lifeline }, log))
    }

    /// Returns when the process has ended. Cancel safe.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Asks it to end.
    pub(super) fn terminate(&self) {
        // No id means that it has ended and been waited for, so the id below cannot belong to another process.
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(id) = id {
            // The only error left is that it just ended, which is what is wanted.
            let _ended = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
    }

    /// Ends it, if it has not ended, and waits for that.
    pub(super) async fn kill(&mut self) {
        // The only error is that it has ended already.
        let _ended = self.child.kill().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_reaches_the_command_line() {
        let least = EnclaveOptions {
            models: vec!["m.gguf".into()],
            tee: Tee::Auto,
            model_digests: Vec::new(),
            model_names: Vec::new(),
            threads: None,
            max_connections: 7,
            drain_timeout: 9,
            policy_out: None,
            endorsements: None,
            release: None,
        };
        assert_eq!(
            least.arguments().join(" ".as_ref()),
            "--listen 127.0.0.1:0 --model m.gguf --tee auto --max-connections 7 --drain-timeout 9 --until-stdin-closes"
        );
        let most = EnclaveOptions {
            tee: Tee::Sim,
            models: vec!["m.gguf".into(), "n".into()],
            model_digests: vec!["ab".into(), "cd".into()],
            model_names: vec!["smol".into(), "mini".into()],
            threads: Some(3),
            policy_out: Some("p.toml".into()),
            endorsements: Some("e.cbor".into()),
            release: Some("r.cbor".into()),
            ..least
        };
        let line = most.arguments().join(" ".as_ref());
        assert_eq!(
            line,
            "--listen 127.0.0.1:0 --model m.gguf --model n --tee sim --model-digest ab --model-digest cd \
             --model-name smol --model-name mini --threads 3 \
             --sim-policy-out p.toml --endorsements e.cbor --release r.cbor --max-connections 7 --drain-timeout 9 --until-stdin-closes"
        );
    }

    #[test]
    fn a_platform_is_spelled_as_it_is_read() {
        for tee in Tee::value_variants() {
            assert_eq!(tee.to_possible_value().unwrap().get_name(), tee.name());
        }
    }
}
