//! The enclave as PID 1 of the image: there is no other program in it (`docs/image.md`).
//!
//! | Module | What |
//! |---|---|
//! | [`command_line`] | the measured configuration |
//! | `mounts` | the kernel's trees, and a root that nobody can write |
//! | `modules` | kernel modules, and then none any more |
//! | `harden` | what this machine gives up before it reads a byte from outside |
//! | `network` | one address, for the host alone |
//! | `disks` | the disks with the models |
//! | `gpus` | device files of NVIDIA's driver |
//! | [`host_port`] | what the host sends while the enclave runs: endorsements, the wish to stop |
//! | [`power`] | the end |
//! | `inside` | what is in this machine, told by itself: only with the cargo feature `sim` |
//!
//! Everything that the host supplies here is data that is verified later, or harmless. What fails ends the machine with a fixed event.

pub mod command_line;
mod disks;
mod gpus;
mod harden;
pub mod host_port;
#[cfg(feature = "sim")]
mod inside;
mod modules;
mod mounts;
mod network;
pub mod power;

#[cfg(feature = "sim")]
pub use inside::{Inside, look};

use std::ffi::OsString;
use std::path::Path;

use clap::Parser;
use tokio::sync::watch;

use crate::events::{BootStep, Event, EventLog};
use crate::settings::Settings;

/// While it loads, a model is there as a file and as what is computed with.
const COPIES: u64 = 2;
/// Everything else: threads, connections, the keys and values of a short answer.
const REST: u64 = 64 << 20;

/// Port for clients, over vsock or TCP.
const PORT: u16 = 8443;

/// Whether this process is the first one of its machine.
#[must_use]
pub fn is_init() -> bool {
    std::process::id() == 1
}

/// A machine that is ready to be an enclave.
#[derive(Debug)]
pub struct Machine {
    /// From the measured command line, and what was found here.
    pub settings: Settings,
    /// Becomes true when the host asks for the end.
    pub stop: watch::Receiver<bool>,
}

/// Makes a machine of what the kernel started.
///
/// # Errors
/// The step that failed, which was logged.
pub fn boot(events: &EventLog) -> Result<Machine, BootStep> {
    events.log(&Event::Booting { version: env!("CARGO_PKG_VERSION") });
    let booted = try_boot(events);
    if let Err(step) = &booted {
        events.log(&Event::BootFailed { step: *step });
    }
    booted
}

fn try_boot(events: &EventLog) -> Result<Machine, BootStep> {
    let root = Path::new("/");
    mounts::early().map_err(|_io| BootStep::Mounts)?;
    modules::load_all(root)?;
    gpus::make_device_files(root).map_err(|_errno| BootStep::Modules)?;
    mounts::late().map_err(|_io| BootStep::Mounts)?;
    harden::sysctls(root).map_err(|_io| BootStep::Hardening)?;
    // Nothing that the host sends has been read so far, but what the kernel itself reads.
    harden::give_up(root).map_err(|_any| BootStep::Hardening)?;
    let given = command_line::read(root).map_err(|_bad| BootStep::CommandLine)?;
    let mut found = find(root, &given)?;
    let host = host_port::listen(root, events);
    found.extend(host.found);
    let settings = settings(&given, &found)?;
    check_memory(root, &settings, events)?;
    #[cfg(feature = "sim")]
    if settings.sim_look_inside {
        events.log(&Event::Inside(inside::look()));
    }
    #[cfg(feature = "sim")]
    if settings.sim_crash {
        events.flush();
        std::process::abort();
    }
    Ok(Machine { settings, stop: host.asked })
}

/// What the command line does not say, because the host decides it: `--option value`.
fn find(root: &Path, given: &[OsString]) -> Result<Vec<(&'static str, OsString)>, BootStep> {
    let is_given = |option: &str| given.iter().any(|argument| argument == option);
    let mut found = Vec::new();
    let address = network::set_up(root).map_err(|_io| BootStep::Network)?;
    if !is_given("--listen") {
        let listen = match address {
            Some(address) => format!("{address}:{PORT}"),
            None if network::has_vsock(root) => format!("vsock:{PORT}"),
            None => return Err(BootStep::Network),
        };
        found.push(("--listen", listen.into()));
    }
    let digests = given.iter().filter(|argument| *argument == "--model-digest").count();
    for model in disks::models(root, digests.max(1))? {
        found.push(("--model", model.path.into()));
        found.push(("--model-size", model.size.to_string().into()));
    }
    #[cfg(feature = "sim")]
    if let Some(port) = host_port::find(root, crate::platform::sim::PORT_NAME) {
        found.push(("--sim-processor", port.into()));
    }
    Ok(found)
}

fn settings(given: &[OsString], found: &[(&'static str, OsString)]) -> Result<Settings, BootStep> {
    let mut arguments: Vec<OsString> = vec!["cocoon-enclave".into()];
    arguments.extend(given.iter().cloned());
    for (option, value) in found {
        arguments.extend([option.into(), value.clone()]);
    }
    Settings::try_parse_from(arguments).map_err(|_usage| BootStep::CommandLine)
}

/// Bytes that can be had on this machine without ending anything.
#[must_use]
pub fn available_memory() -> Option<u64> {
    disks::available_memory(Path::new("/"))
}

/// Models that do not fit would have the kernel end everything without a word.
fn check_memory(root: &Path, settings: &Settings, events: &EventLog) -> Result<(), BootStep> {
    let models = settings.model_size.iter().fold(0_u64, |sum, size| sum.saturating_add(*size));
    let need = models.saturating_mul(COPIES).saturating_add(REST);
    let have = disks::available_memory(root).ok_or(BootStep::Memory)?;
    if need > have {
        events.log(&Event::TooLittleMemory { need, have });
        return Err(BootStep::Memory);
    }
    Ok(())
}
