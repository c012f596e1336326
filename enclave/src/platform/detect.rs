//! Which TEE this machine has, and through what it is asked.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::Files;
use super::tsm::{Provider, Tsm, TsmError};

/// What the operator asked for with `--tee`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Tee {
    /// Whatever hardware is there; never anything else.
    Auto,
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// The simulated platform: no protection, for development.
    #[cfg(feature = "sim")]
    Sim,
}

/// Why an enclave cannot start on this machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetectError {
    /// No TEE.
    #[error(
        "no TEE here: this is not an SEV-SNP or TDX guest (no /sys/kernel/config/tsm, no /dev/sev-guest, no /dev/tdx_guest). \
         Boot the Cocoon image on confidential hardware{SIM_HINT}"
    )]
    NoTee,
    /// Another TEE than the one asked for.
    #[error("--tee {want}, but this machine has no {device}, and {has}")]
    Missing {
        /// What was asked for.
        want: &'static str,
        /// The device that is not there.
        device: &'static str,
        /// What configfs-tsm is.
        has: &'static str,
    },
    /// The device is there and cannot be used.
    #[error("{device} cannot be opened: {error}. Is this program root?")]
    Device {
        /// Which.
        device: &'static str,
        /// What the kernel says.
        error: io::Error,
    },
    /// configfs-tsm is there and cannot be used.
    #[error("{0} (/sys/kernel/config/tsm/report). Is this program root, and the TEE's driver loaded?")]
    Tsm(TsmError),
}

#[cfg(feature = "sim")]
const SIM_HINT: &str = ", or use --tee sim for development";
#[cfg(not(feature = "sim"))]
const SIM_HINT: &str = "";

/// Hardware, and the way to it.
#[derive(Debug)]
pub(super) struct Hardware {
    pub(super) provider: Provider,
    pub(super) way: Way,
}

/// Through what reports are asked for.
#[derive(Debug)]
pub(super) enum Way {
    /// configfs-tsm.
    Tsm(Tsm),
    /// The TEE's own device, for older kernels.
    Device(PathBuf),
}

const DEVICES: [(Provider, &str, &str); 2] =
    [(Provider::SevGuest, "snp", "/dev/sev-guest"), (Provider::TdxGuest, "tdx", "/dev/tdx_guest")];

/// Looks below `root` (`/` outside tests) for the hardware that is wanted, or any: configfs-tsm first, then devices.
///
/// # Errors
/// [`DetectError`], saying what is missing or cannot be used.
pub(super) fn detect(
    want: Option<Provider>,
    files: &Arc<dyn Files>,
    root: &Path,
) -> Result<Hardware, DetectError> {
    let tsm = Tsm::new(files.clone(), root);
    let found = match tsm.provider() {
        Err(TsmError::NoProvider) => None,
        other => other.map_err(DetectError::Tsm)?,
    };
    if let Some(provider) = found.filter(|found| want.is_none_or(|want| want == *found)) {
        return Ok(Hardware { provider, way: Way::Tsm(tsm) });
    }
    for (provider, _, device) in DEVICES.iter().filter(|(kind, ..)| want.is_none_or(|want| want == *kind)) {
        let path = root.join(device.trim_start_matches('/'));
        match std::fs::File::open(&path) {
            Ok(_) => return Ok(Hardware { provider: *provider, way: Way::Device(path) }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(DetectError::Device { device, error }),
        }
    }
    let has = match found {
        None => "no driver makes reports through configfs-tsm",
        Some(Provider::SevGuest) => "its configfs-tsm is that of an SEV-SNP guest",
        Some(Provider::TdxGuest) => "its configfs-tsm is that of a TDX guest",
    };
    match want.and_then(|want| DEVICES.iter().find(|(kind, ..)| *kind == want)) {
        Some((_, want, device)) => Err(DetectError::Missing { want, device, has }),
        None => Err(DetectError::NoTee),
    }
}
