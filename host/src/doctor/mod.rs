//! What a machine lacks to run enclaves, and the fix.
//!
//! | Module | Looks at |
//! |---|---|
//! | `cpu` | vendor, flags, C-bit |
//! | `kernel` | kernel, KVM and its modules |
//! | `firmware` | AMD's secure processor; Intel's TDX module and quote generation service |
//! | `qemu` | QEMU and its objects |
//! | `iommu`, `gpu` | VFIO |
//! | `system` | memory, files, disk, clock, ports |
//!
//! Everything is read through [`Machine`]. What cannot be told without privileges or a vendor's tool is a warning that names the
//! way to find out. Nothing here is evidence: a client believes the hardware, not its host.

mod check;
mod command;
mod cpu;
mod firmware;
mod gpu;
mod iommu;
mod kernel;
mod machine;
mod qemu;
mod system;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::Serialize;

use crate::Error;
use crate::address::HostPort;
use crate::run::Tee;

pub use check::{Check, Status};
pub use command::{DoctorArgs, execute};
use cpu::Cpu;
pub use machine::{MAX_ANSWER_BYTES, MAX_ENTRIES, MAX_FILE_BYTES, MAX_LOG_BYTES, Machine};

/// Every check that there is.
pub const NAMES: [&str; 32] = [
    "cpu.vendor",
    "cpu.flags",
    "cpu.c_bit",
    "kernel.version",
    "kvm.device",
    "kvm.hardware",
    "kvm.tee",
    "snp.device",
    "snp.firmware",
    "tdx.module",
    "tdx.sgx",
    "tdx.quote_service",
    "qemu.version",
    "qemu.object",
    "iommu.groups",
    "iommu.mode",
    "gpu.device",
    "gpu.driver",
    "gpu.group",
    "gpu.vfio",
    "gpu.iommufd",
    "gpu.cc_mode",
    "gpu.vbios",
    "memory.available",
    "memory.huge_pages",
    "memory.lock",
    "vsock.device",
    "clock.synchronized",
    "image.files",
    "model.file",
    "disk.free",
    "listen.port",
];

/// What the machine shall be able to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The platform; `Auto`: what KVM offers, or what the processor's vendor has.
    pub tee: Tee,
    /// PCI addresses of GPUs for a VM.
    pub gpus: Vec<String>,
    /// The QEMU program.
    pub qemu: PathBuf,
    /// Memory of a VM, MiB.
    pub memory: u64,
    /// An image directory to look at.
    pub image: Option<PathBuf>,
    /// A model file to look at.
    pub model: Option<PathBuf>,
    /// Where it shall listen.
    pub listen: Option<HostPort>,
}

/// The platform that a machine is looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Target {
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// The simulated platform.
    Sim,
    /// A processor of another vendor.
    None,
}

/// Everything that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// No check failed.
    pub ok: bool,
    /// The platform.
    pub tee: Target,
    /// In the order of their areas.
    pub checks: Vec<Check>,
}

/// What the areas look at.
struct Subject<'a> {
    machine: &'a Machine,
    options: &'a Options,
    target: Target,
    cpu: Cpu,
}

impl Target {
    /// As the command line spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Snp => "snp",
            Self::Tdx => "tdx",
            Self::Sim => "sim",
            Self::None => "none",
        }
    }

    /// The firmware in an image directory.
    #[must_use]
    pub fn firmware(self) -> &'static str {
        match self {
            Self::Tdx => "tdx/OVMF.fd",
            Self::Snp | Self::Sim | Self::None => "snp/OVMF.amdsev.fd",
        }
    }
}

/// What KVM says that it offers; `None`: no TEE.
#[must_use]
pub fn offered(machine: &Machine) -> Option<Target> {
    kernel::offered(machine)
}

/// Looks at everything.
///
/// # Errors
/// When not even the processor can be told: /proc is not there.
pub fn diagnose(machine: &Machine, options: &Options) -> Result<Report, Error> {
    let cpuinfo = machine.read("/proc/cpuinfo");
    let cpu = cpuinfo.map_err(|source| Error::MachineUnreadable { path: "/proc/cpuinfo".into(), source })?;
    let cpu = Cpu::parse(&cpu);
    let target = match options.tee {
        Tee::Snp => Target::Snp,
        Tee::Tdx => Target::Tdx,
        Tee::Sim => Target::Sim,
        Tee::Auto => offered(machine).unwrap_or_else(|| cpu.target()),
    };
    let subject = Subject { machine, options, target, cpu };
    let areas = [
        cpu::checks,
        kernel::checks,
        firmware::checks,
        qemu::checks,
        iommu::checks,
        gpu::checks,
        system::checks,
    ];
    let checks: Vec<Check> = areas.iter().flat_map(|area| area(&subject)).collect();
    let ok = checks.iter().all(|check| check.status != Status::Fail);
    Ok(Report { ok, tee: target, checks })
}

/// Whether a VM can be started at all: of [`diagnose`], the checks that fail.
///
/// # Errors
/// All checks that fail, each with its fix.
pub fn preflight(machine: &Machine, options: &Options) -> Result<(), Error> {
    let report = diagnose(machine, options)?;
    if report.ok {
        return Ok(());
    }
    let failed: Vec<Check> = report.checks.into_iter().filter(|check| check.status == Status::Fail).collect();
    Err(Error::MachineUnfit { tee: report.tee.name(), failed })
}
