//! What an enclave runs in: a process of this machine, or a VM.

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitStatus;

use tokio::process::ChildStdout;
use tokio::time::Instant;

use crate::Error;
use crate::address::Address;

use super::enclave::{Enclave, EnclaveOptions};
use super::events::Source;
use super::vm::{Vm, VmOptions};

/// What to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestOptions {
    /// A process.
    Process {
        /// The enclave program.
        program: PathBuf,
        /// What it is told.
        enclave: EnclaveOptions,
    },
    /// A VM.
    Vm(VmOptions),
}

/// A running enclave; killed when dropped.
#[derive(Debug)]
pub(super) enum Guest {
    Process(Box<Enclave>),
    Vm(Box<Vm>),
}

/// What was started.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) guest: Guest,
    pub(super) log: ChildStdout,
    /// Where it will serve; `None`: it says so itself.
    pub(super) upstream: Option<Address>,
}

impl GuestOptions {
    /// Finds out what can be known to fail before anything is started.
    ///
    /// # Errors
    /// A file that cannot be read, or a platform that this machine does not have.
    pub fn check(&self) -> Result<(), Error> {
        let models = match self {
            Self::Process { enclave, .. } => &enclave.models,
            Self::Vm(vm) => {
                vm.check()?;
                &vm.models
            }
        };
        for model in models {
            let unreadable = |source| Error::ModelUnreadable { path: model.clone(), source };
            let folder = File::open(model).and_then(|file| file.metadata()).map_err(unreadable)?.is_dir();
            if folder && matches!(self, Self::Vm(_)) {
                let problem = "it is a folder, and a VM sees its model as a disk: pack it with `tar --format=gnu --dereference -C \
                     FOLDER -cf FILE .`, and give FILE";
                return Err(unreadable(std::io::Error::new(std::io::ErrorKind::IsADirectory, problem)));
            }
        }
        Ok(())
    }

    /// Starts it; a VM serves where it did `before`.
    pub(super) async fn start(&self, before: Option<&Address>) -> Result<Started, Error> {
        match self {
            Self::Process { program, enclave } => {
                let (guest, log) = Enclave::start(program, enclave)?;
                Ok(Started { guest: Guest::Process(Box::new(guest)), log, upstream: None })
            }
            Self::Vm(options) => {
                let (guest, log, upstream) = Vm::start(options, before).await?;
                Ok(Started { guest: Guest::Vm(Box::new(guest)), log, upstream: Some(upstream) })
            }
        }
    }

    /// When one that starts now must have said something: firmware that was given something else than it was measured with hangs.
    pub(super) fn boots_by(&self) -> Option<Instant> {
        match self {
            Self::Process { .. } => None,
            Self::Vm(vm) => Some(Instant::now() + vm.boot_timeout),
        }
    }

    /// Whether one that ended by itself is started again: a VM is what operators run, a process what developers look at.
    pub(super) fn can_start_again(&self) -> bool {
        matches!(self, Self::Vm(_))
    }

    pub(super) fn source(&self) -> Source {
        match self {
            Self::Process { .. } => Source::Process,
            Self::Vm(_) => Source::Vm,
        }
    }
}

impl Guest {
    /// Returns when it has ended. Cancel safe.
    pub(super) async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        match self {
            Self::Process(process) => process.ended().await,
            Self::Vm(vm) => vm.ended().await,
        }
    }

    /// Asks it to end.
    pub(super) fn terminate(&self) {
        match self {
            Self::Process(process) => process.terminate(),
            Self::Vm(vm) => vm.terminate(),
        }
    }

    /// Ends it, if it has not ended, and waits for that.
    pub(super) async fn kill(&mut self) {
        match self {
            Self::Process(process) => process.kill().await,
            Self::Vm(vm) => vm.kill().await,
        }
    }
}
