//! What a processor will measure of an image, before it runs anywhere. `docs/measurements.md` has the formulas.
//!
//! | Module | What |
//! |---|---|
//! | [`firmware`] | what OVMF says about itself at its end |
//! | [`enforcement`] | whether firmware compares a kernel with what was measured of it |
//! | [`snp`] | the launch digest of SEV-SNP |
//! | [`tdx`] | MRTD, RTMR1 and RTMR2 of TDX |
//! | [`authenticode`] | the digest of a kernel as firmware measures it |
//! | `volume` | what lies compressed in firmware |

pub mod authenticode;
pub mod enforcement;
pub mod firmware;
pub mod snp;
pub mod tdx;
#[cfg(test)]
pub(crate) mod tests;
mod volume;

use cocoon_attestation::Measurement;
use ring::digest::{Context, SHA384};

/// Why there is no prediction.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file is not what it should be.
    #[error("{what}: {why}")]
    Malformed {
        /// `firmware`, `kernel`.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// What could be predicted would protect nobody.
    #[error("{what}: {why}")]
    Refused {
        /// `firmware`, `command line`.
        what: &'static str,
        /// Why, and what to do.
        why: String,
    },
    /// An argument makes no sense.
    #[error("{0}")]
    Misuse(String),
}

impl Error {
    pub(crate) fn malformed(what: &'static str, why: impl Into<String>) -> Self {
        Self::Malformed { what, why: why.into() }
    }

    pub(crate) fn refused(what: &'static str, why: impl Into<String>) -> Self {
        Self::Refused { what, why: why.into() }
    }

    /// Whether an input was there and was refused.
    #[must_use]
    pub fn is_rejection(&self) -> bool {
        match self {
            Self::Malformed { .. } | Self::Refused { .. } => true,
            Self::Misuse(_) => false,
        }
    }
}

/// What is booted: the three files that the host hands to the firmware.
#[derive(Clone, Copy, Debug)]
pub struct Boot<'a> {
    /// `vmlinuz`.
    pub kernel: &'a [u8],
    /// `initrd`.
    pub initrd: &'a [u8],
    /// The command line, without the zero byte that ends it in memory.
    pub command_line: &'a [u8],
}

/// QEMU, firmware and kernel take a line of printable ASCII as it is, and all of it is hashed.
fn check_command_line(line: &[u8]) -> Result<(), Error> {
    match line.iter().find(|byte| !(b' '..=b'~').contains(byte)) {
        None => Ok(()),
        Some(byte) => {
            let why =
                format!("it has the byte {byte:#04x}, expected printable ASCII without a newline at its end");
            Err(Error::refused("command line", why))
        }
    }
}

/// SHA-384 of the parts behind one another.
pub(crate) fn sha384(parts: &[&[u8]]) -> [u8; 48] {
    let mut context = Context::new(&SHA384);
    parts.iter().for_each(|part| context.update(part));
    let mut out = [0; 48];
    // The algorithm's output is that long.
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// A register after it was extended with these digests, from zero: Intel TDX Module ABI, `TDG.MR.RTMR.EXTEND`.
pub(crate) fn replay(events: &[[u8; 48]]) -> Measurement {
    Measurement(events.iter().fold([0; 48], |register, event| sha384(&[&register, event])))
}
