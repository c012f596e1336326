//! `cocoon-host doctor`: its command line, and what it prints.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, value_parser};

use crate::Error;
use crate::address::HostPort;
use crate::cli::pci_address;
use crate::run::Tee;

use super::{Machine, Options, Report, Status, diagnose};

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The platform to look for; `auto`: what KVM offers, or else what the processor's vendor has.
    #[arg(long, value_enum, default_value_t = Tee::Auto)]
    pub tee: Tee,
    /// PCI address of a GPU for a VM, such as 0000:41:00.0. May be given several times.
    #[arg(long, value_name = "PCI", value_parser = pci_address)]
    pub gpu: Vec<String>,
    /// Look at this image too: what `cocoon-measure image build` made.
    #[arg(long, value_name = "IMAGE_DIR")]
    pub vm: Option<PathBuf>,
    /// Look at this model file too, and at its disk.
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Look whether this address is free to listen on.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<HostPort>,
    /// Memory of the VM in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = value_parser!(u64).range(256..=16_777_216))]
    pub memory: u64,
    /// The QEMU program.
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64")]
    pub qemu: PathBuf,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Looks at this machine and prints what was found on stdout.
///
/// # Errors
/// [`Error::ChecksFailed`] when a check failed; another when nothing could be told.
pub fn execute(args: DoctorArgs) -> Result<(), Error> {
    let json = args.json;
    let report = diagnose(&Machine::this(), &args.into())?;
    let text = if json { serde_json::to_string_pretty(&report).unwrap_or_default() } else { table(&report) };
    // A reader that went away has seen what it wanted.
    let _gone = writeln!(std::io::stdout().lock(), "{text}");
    if report.ok { Ok(()) } else { Err(Error::ChecksFailed { count: report.count(Status::Fail) }) }
}

impl From<DoctorArgs> for Options {
    fn from(args: DoctorArgs) -> Self {
        Self {
            tee: args.tee,
            gpus: args.gpu,
            qemu: args.qemu,
            memory: args.memory,
            image: args.vm,
            model: args.model,
            listen: args.listen,
        }
    }
}

impl Report {
    /// How many checks ended so.
    #[must_use]
    pub fn count(&self, status: Status) -> usize {
        self.checks.iter().filter(|check| check.status == status).count()
    }
}

/// In columns, as `cocoon verify` prints factors.
fn table(report: &Report) -> String {
    let width = report.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut lines = vec![format!("{:<6} {:<width$}  found", "status", "check")];
    for check in &report.checks {
        let status = match check.status {
            Status::Pass => "pass",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        };
        lines.push(format!("{status:<6} {:<width$}  {}", check.name, check.found));
        if let Some(fix) = &check.fix {
            lines.push(format!("{:<6} {:<width$}  wanted: {}", "", "", check.want));
            lines.push(format!("{:<6} {:<width$}  ({fix})", "", ""));
        }
    }
    let verdict = if report.ok { "FIT" } else { "NOT FIT" };
    let [pass, warn, fail] = [Status::Pass, Status::Warn, Status::Fail].map(|status| report.count(status));
    lines.push(format!("{verdict} for {}: {pass} pass, {warn} warn, {fail} fail", report.tee.name()));
    lines.join("\n")
}
