//! The kernel's command line, which is measured: `cocoon.KEY=VALUE` becomes `--KEY VALUE`, `cocoon.KEY` becomes `--KEY`.
//!
//! What follows is parsed like the flags of an ordinary process, so a key that does not exist is refused.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// COMMAND_LINE_SIZE of Linux on x86, arch/x86/include/asm/setup.h.
const MAX_LEN: usize = 2048;

const PREFIX: &str = "cocoon.";

/// Keys that the image decides by what it finds, never the command line.
const RESERVED: [&str; 6] = ["model", "model-size", "endorsements", "release", "sim-processor", "describe"];

/// Why a command line is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandLineError {
    /// It cannot be read.
    #[error("/proc/cmdline cannot be read")]
    Unreadable,
    /// Longer than a kernel takes.
    #[error("the command line has more than {MAX_LEN} bytes")]
    TooLong,
    /// A key without a name, or one that is not for the command line.
    #[error("the command line must not have {PREFIX}{0}")]
    Key(String),
}

/// Flags for [`crate::settings::Settings`] from the running kernel.
pub(super) fn read(root: &Path) -> Result<Vec<OsString>, CommandLineError> {
    let mut text = String::new();
    let file = File::open(root.join("proc/cmdline"));
    let read = file.and_then(|file| file.take(MAX_LEN as u64 + 2).read_to_string(&mut text));
    read.map_err(|_io| CommandLineError::Unreadable)?;
    arguments(text.trim_end_matches('\n'))
}

/// Flags for [`crate::settings::Settings`] from `line`.
///
/// # Errors
/// When it is too long, or names something that it may not.
pub fn arguments(line: &str) -> Result<Vec<OsString>, CommandLineError> {
    if line.len() > MAX_LEN {
        return Err(CommandLineError::TooLong);
    }
    let mut out = Vec::new();
    for word in line.split_ascii_whitespace().filter_map(|word| word.strip_prefix(PREFIX)) {
        let (key, value) = word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value)));
        let is_name = !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        if !is_name || RESERVED.contains(&key) {
            return Err(CommandLineError::Key(key.to_owned()));
        }
        out.push(format!("--{key}").into());
        out.extend(value.map(OsString::from));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ours_are_taken() {
        let line = "console=ttyS0 quiet cocoon.tee=snp cocoon.max-running=8 x.cocoon.y=1";
        assert_eq!(arguments(line).unwrap(), ["--tee", "snp", "--max-running", "8"]);
        assert_eq!(arguments("").unwrap(), Vec::<OsString>::new());
        assert_eq!(arguments("cocoon.sim-look-inside").unwrap(), ["--sim-look-inside"]);
    }

    #[test]
    fn what_the_host_decides_or_nobody_knows_is_refused() {
        let refused = |line: &str| arguments(line).unwrap_err().to_string();
        for key in ["model=/dev/vdb", "endorsements=/x", "model-size=1", "=x", "", "Tee=sim", "a b"] {
            let line = format!("quiet cocoon.{key}");
            if key != "a b" {
                assert!(refused(&line).contains("must not have cocoon."), "{line}");
            }
        }
        assert!(arguments(&"x".repeat(MAX_LEN)).is_ok());
        assert_eq!(arguments(&"x".repeat(MAX_LEN + 1)), Err(CommandLineError::TooLong));
    }

    #[test]
    fn it_is_read_from_the_kernel() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read(root.path()), Err(CommandLineError::Unreadable));
        std::fs::create_dir(root.path().join("proc")).unwrap();
        std::fs::write(root.path().join("proc/cmdline"), "quiet cocoon.tee=sim\n").unwrap();
        assert_eq!(read(root.path()).unwrap(), ["--tee", "sim"]);
        std::fs::write(root.path().join("proc/cmdline"), "x".repeat(MAX_LEN + 1)).unwrap();
        assert_eq!(read(root.path()), Err(CommandLineError::TooLong));
    }
}
