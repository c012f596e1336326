//! The simulated processor beside a simulated VM: another program, which measures the image as hardware would.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use crate::Error;

use super::VmOptions;

/// New keys take some ten seconds, once, and longer on a busy machine.
const DEADLINE: Duration = Duration::from_secs(180);
/// One line of JSON.
const MAX_LINE: u64 = 4096;

/// A running simulated processor; killed when dropped.
#[derive(Debug)]
pub(super) struct Processor {
    _child: Child,
    /// It ends when this closes.
    _lifeline: Option<ChildStdin>,
}

/// What it measured, and where it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Launched {
    pub(super) table: PathBuf,
    pub(super) table_address: u64,
    pub(super) socket: PathBuf,
}

#[derive(Deserialize)]
struct Answer {
    table_address: u64,
}

impl Processor {
    /// Starts it and waits until it answers. `folder` is for this run alone.
    pub(super) async fn start(options: &VmOptions, folder: &Path) -> Result<(Self, Launched), Error> {
        let (socket, table) = (folder.join("processor"), folder.join("hashes"));
        let mut command = Command::new(&options.processor);
        command.arg("serve").arg("--image").arg(&options.image);
        command.args(["--vcpus", &options.vcpus.to_string(), "--vcpu-type", &options.vcpu_type]);
        command.arg("--socket").arg(&socket).arg("--table").arg(&table);
        if let Some(hex) = &options.host_data {
            command.args(["--host-data", hex]);
        }
        if let Some(path) = &options.policy_out {
            command.arg("--policy-out").arg(path);
            for model in &options.models {
                command.arg("--model").arg(model);
            }
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| Error::ProcessorStart { path: options.processor.clone(), source })?;
        let lifeline = child.stdin.take();
        let Some(stdout) = child.stdout.take() else { return Err(Error::ProcessorSilent) };
        let mut line = String::new();
        let mut reader = BufReader::new(stdout.take(MAX_LINE));
        let read = timeout(DEADLINE, reader.read_line(&mut line)).await;
        let answer = match read {
            Ok(Ok(_)) => serde_json::from_str::<Answer>(&line).ok(),
            Ok(Err(_)) | Err(_) => None,
        };
        let Answer { table_address } = answer.ok_or(Error::ProcessorSilent)?;
        Ok((Self { _child: child, _lifeline: lifeline }, Launched { table, table_address, socket }))
    }
}
