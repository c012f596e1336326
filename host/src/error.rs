//! What can go wrong, and the exit code that says so.

use std::{io, path::PathBuf, process::ExitStatus};

use crate::address::{Address, HostPort};
use crate::doctor::Check;

/// Every failure of this crate that ends the program. A failed connection does not: it is counted in the metrics.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address to listen on is taken, not ours, or does not resolve.
    #[error("cannot listen on {address}: {source}; choose another address with {option}")]
    Listen {
        /// The address as given.
        address: HostPort,
        /// The option that sets it.
        option: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The same upstream was given more than once.
    #[error("upstream {address} is given twice; name each upstream once")]
    DuplicateUpstream {
        /// The repeated address.
        address: Address,
    },
    /// The signals that stop this program cannot be received.
    #[error("cannot receive SIGTERM and SIGINT: {0}")]
    Signals(#[source] io::Error),
    /// The model cannot be opened.
    #[error("cannot read the model {}: {source}; give an existing file with --model", path.display())]
    ModelUnreadable {
        /// The model as given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the image cannot be read.
    #[error("cannot read {} of the image: {source}; `cocoon-measure image build` makes an image directory", path.display())]
    ImageUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that the enclave shall get.
    #[error("cannot read {} for the enclave: {source}; give an existing file with {option}, or leave it out", path.display())]
    InputUnreadable {
        /// The option.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Firmware or kernel hang.
    #[error(
        "the VM says nothing: its firmware refuses a kernel, initrd or command line that is not the measured one, or the machine is slow \
         (--boot-timeout){}",
        unread(*dropped)
    )]
    VmSilent {
        /// Lines of its console that were no events.
        dropped: u64,
    },
    /// No hardware that protects a VM.
    #[error(
        "this machine's KVM offers neither SEV-SNP nor TDX; `cocoon-host doctor` says what is missing, and --tee sim is for development"
    )]
    NoTee,
    /// What tells about the machine cannot be read.
    #[error("cannot read {}: {source}; run this on a Linux machine with /proc mounted", path.display())]
    MachineUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The doctor found something.
    #[error("{count} checks failed; do what each line in parentheses says, and run this again")]
    ChecksFailed {
        /// How many.
        count: usize,
    },
    /// A VM would not start.
    #[error(
        "this machine cannot run the VM: {}; `cocoon-host doctor --tee {tee}` shows every check",
        listed(failed)
    )]
    MachineUnfit {
        /// The platform that was looked for.
        tee: &'static str,
        /// The checks that failed.
        failed: Vec<Check>,
    },
    /// vsock was asked for and the kernel does not offer it.
    #[error("there is no /dev/vhost-vsock; load the kernel module vhost_vsock, or leave --vsock-cid out")]
    NoVsock,
    /// QEMU cannot be started.
    #[error("cannot start {}: {source}; install QEMU, or name it with --qemu", path.display())]
    QemuStart {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The simulated processor cannot be started.
    #[error("cannot start {}: {source}; build or install cocoon-sim-processor there", path.display())]
    ProcessorStart {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The simulated processor gave up, or is of another version.
    #[error("the simulated processor did not measure the image; see its messages above")]
    ProcessorSilent,
    /// A file or a port for this run.
    #[error("cannot make a temporary folder or take a port: {0}")]
    Temporary(#[source] io::Error),
    /// There is no enclave program beside this one.
    #[error("no enclave program at {}; build or install cocoon-enclave there", path.display())]
    EnclaveMissing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The enclave program exists and cannot be started.
    #[error("cannot start {}: {source}", path.display())]
    EnclaveStart {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The enclave ended before it served anyone.
    #[error("the enclave ended before it was ready ({status}); see its messages above{}", unread(*dropped))]
    EnclaveEndedEarly {
        /// How it ended.
        status: ExitStatus,
        /// Lines of its event log that were no events.
        dropped: u64,
    },
    /// The enclave ended while it served.
    #[error("the enclave ended while it was serving ({status}); see its messages above and start it again{}", unread(*dropped))]
    EnclaveEnded {
        /// How it ended.
        status: ExitStatus,
        /// Lines of its event log that were no events.
        dropped: u64,
    },
    /// The enclave closed its event log before it was ready, and goes on running.
    #[error("the enclave closed its event log before it was ready; use the cocoon-enclave of this version{}", unread(*dropped))]
    EnclaveSilent {
        /// Lines of its event log that were no events.
        dropped: u64,
    },
    /// Waiting for the enclave process failed.
    #[error("cannot watch the enclave process: {0}")]
    EnclaveWait(#[source] io::Error),
}

impl Error {
    /// The exit code: 1 when something failed or was rejected, 2 when this program could not even try. An enclave that ends
    /// before it is ready passes its own 1 or 2 on.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Listen { .. }
            | Self::DuplicateUpstream { .. }
            | Self::Signals(_)
            | Self::ModelUnreadable { .. }
            | Self::ImageUnreadable { .. }
            | Self::InputUnreadable { .. }
            | Self::NoTee
            | Self::MachineUnreadable { .. }
            | Self::MachineUnfit { .. }
            | Self::NoVsock
            | Self::QemuStart { .. }
            | Self::ProcessorStart { .. }
            | Self::ProcessorSilent
            | Self::Temporary(_)
            | Self::EnclaveMissing { .. }
            | Self::EnclaveStart { .. } => 2,
            Self::EnclaveEndedEarly { status, .. } if status.code() == Some(2) => 2,
            Self::ChecksFailed { .. }
            | Self::EnclaveEndedEarly { .. }
            | Self::EnclaveEnded { .. }
            | Self::EnclaveSilent { .. }
            | Self::VmSilent { .. }
            | Self::EnclaveWait(_) => 1,
        }
    }
}

/// Each check with what is there and what to do.
fn listed(failed: &[Check]) -> String {
    let one = |check: &Check| {
        let fix = check.fix.as_deref().unwrap_or("see the manual");
        format!("{}: {}, wanted: {} ({fix})", check.name, check.found, check.want)
    };
    failed.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// The lines themselves are never shown: they come from a process that handles prompts.
fn unread(dropped: u64) -> String {
    match dropped {
        0 => String::new(),
        n => format!(" ({n} unreadable lines in its event log)"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn an_early_end_passes_one_and_two_on() {
        let code = |wait_status| {
            Error::EnclaveEndedEarly { status: ExitStatus::from_raw(wait_status), dropped: 0 }.exit_code()
        };
        assert_eq!(code(1 << 8), 1);
        assert_eq!(code(2 << 8), 2);
        assert_eq!(code(0), 1, "an enclave that ends at once has not served, whatever it says");
        assert_eq!(code(77 << 8), 1);
        assert_eq!(code(9), 1, "killed by SIGKILL");
    }

    #[test]
    fn dropped_lines_are_counted_not_shown() {
        let status = ExitStatus::from_raw(0);
        assert!(!Error::EnclaveEndedEarly { status, dropped: 0 }.to_string().contains("unreadable"));
        assert!(Error::EnclaveEndedEarly { status, dropped: 3 }.to_string().contains("3 unreadable lines"));
    }
}
