//! Why a measurement is not the expected one: a search over what plausibly differs.
//!
//! A measurement is a hash: it cannot be read backwards. But what goes wrong in practice is little, so it is guessed and measured
//! until it fits: files of another image, another firmware, another number or type of processors, a word or a byte of the command
//! line, an older way of adding pages. SNP has one measurement of everything, so combinations are tried; TDX has a register for
//! each, so each is searched by itself.
//!
//! | Module | What |
//! |---|---|
//! | [`evidence`] | the measurement in question |
//! | [`material`] | the files that may have been measured |
//! | [`command_line`] | lines that differ a little |
//! | [`snp`], [`tdx`] | the searches |

pub mod command_line;
pub mod evidence;
pub mod material;
pub mod snp;
pub mod tdx;
#[cfg(test)]
mod tests;

use serde::Serialize;

/// What may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// The firmware's file.
    Firmware,
    /// `vmlinuz`.
    Kernel,
    /// `initrd`.
    Initrd,
    /// `cmdline`.
    Cmdline,
    /// Whether QEMU was started with `kernel-hashes=on`.
    KernelHashes,
    /// Number of processors.
    Vcpus,
    /// Type of processors.
    VcpuType,
    /// `SEV_FEATURES`.
    GuestFeatures,
    /// In which order pages are added, and by which program.
    PageOrder,
}

/// One input that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which.
    pub input: Input,
    /// What was measured.
    pub got: String,
    /// What was expected.
    pub want: String,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// `snp` or `tdx`.
    pub platform: &'static str,
    /// Whether all of the measurement follows from known inputs.
    pub explained: bool,
    /// What differs; nothing, if it is the expected measurement.
    pub differences: Vec<Difference>,
    /// What was found and was not asked for: the shape of the machine.
    pub found: Vec<(String, String)>,
    /// Registers that nothing explains, or `measurement`.
    pub unexplained: Vec<String>,
    /// How many measurements were computed.
    pub tried: u64,
}
