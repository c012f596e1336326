//! Which TEE this machine has.

use std::path::Path;

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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DetectError {
    /// No TEE.
    #[error(
        "no TEE here: this is not an SEV-SNP or TDX guest (no /dev/sev-guest, no /dev/tdx_guest). \
         Boot the Cocoon image on confidential hardware{SIM_HINT}"
    )]
    NoTee,
    /// Another TEE than the one asked for.
    #[error("--tee {want}, but this machine has no {device}")]
    Missing {
        /// What was asked for.
        want: &'static str,
        /// The device that is not there.
        device: &'static str,
    },
    /// A TEE that this version cannot use.
    #[error("{0} is there, but this version of cocoon-enclave cannot attest with it yet")]
    NotYet(&'static str),
}

#[cfg(feature = "sim")]
const SIM_HINT: &str = ", or use --tee sim for development";
#[cfg(not(feature = "sim"))]
const SIM_HINT: &str = "";

const DEVICES: [(Tee, &str, &str); 2] =
    [(Tee::Snp, "snp", "/dev/sev-guest"), (Tee::Tdx, "tdx", "/dev/tdx_guest")];

/// Looks for the hardware that `tee` asks for below `root` (`/` outside tests). There is none that this version supports.
///
/// # Errors
/// Always, saying what is missing or not supported.
pub fn detect(tee: Tee, root: &Path) -> DetectError {
    let is_there = |device: &str| root.join(device.trim_start_matches('/')).exists();
    if let Some((_, want, device)) = DEVICES.iter().find(|(kind, ..)| *kind == tee) {
        return if is_there(device) {
            DetectError::NotYet(device)
        } else {
            DetectError::Missing { want, device }
        };
    }
    match DEVICES.iter().find(|(_, _, device)| is_there(device)) {
        Some((_, _, device)) => DetectError::NotYet(device),
        None => DetectError::NoTee,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_missing() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(detect(Tee::Auto, root.path()), DetectError::NoTee);
        let missing = DetectError::Missing { want: "snp", device: "/dev/sev-guest" };
        assert_eq!(detect(Tee::Snp, root.path()), missing);
        std::fs::create_dir(root.path().join("dev")).unwrap();
        std::fs::write(root.path().join("dev/tdx_guest"), "").unwrap();
        assert_eq!(detect(Tee::Auto, root.path()), DetectError::NotYet("/dev/tdx_guest"));
        assert_eq!(detect(Tee::Snp, root.path()), missing);
    }
}
