//! The commands, one file each.

/// Prints a line; a reader that went away is no reason to fail.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _gone = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod accept;
mod build;
mod common;
pub(crate) mod explain;
pub(crate) mod id_block;
pub(crate) mod image;
mod lock;
pub(crate) mod log;
pub(crate) mod predict;
pub(crate) mod rebuild;
pub(crate) mod release;
mod verify;

use std::process::ExitCode;

/// What a command that could tell says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    Bad,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Good => Self::SUCCESS,
            Verdict::Bad => Self::from(1),
        }
    }
}

/// Whether an error says that an input was there and was refused.
pub(crate) fn is_rejection(error: &anyhow::Error) -> bool {
    use cocoon_measurements::{image, log, predict, release};
    error.downcast_ref::<image::Error>().is_some_and(image::Error::is_rejection)
        || error.downcast_ref::<predict::Error>().is_some_and(predict::Error::is_rejection)
        || error.downcast_ref::<log::LogError>().is_some_and(log::LogError::is_rejection)
        || error.downcast_ref::<release::ReleaseError>().is_some_and(release::ReleaseError::is_rejection)
        || error.downcast_ref::<cocoon_attestation::Error>().is_some()
}

/// A number in hexadecimal, with or without `0x`.
pub(crate) fn hexadecimal(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    // `from_str_radix` takes a sign.
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let value = plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten();
    value.ok_or_else(|| format!("{text:?} is no hexadecimal number of 64 bits; expected one as 0x30000"))
}
