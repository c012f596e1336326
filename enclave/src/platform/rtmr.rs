//! RTMR3: where a TDX enclave has its configuration and models measured by the hardware, before the first report.
//!
//! Source: Linux >= 6.16, Documentation/ABI/testing/sysfs-devices-virtual-misc-tdx_guest: reading gives the register, writing 48
//! bytes extends it.

use std::io;
use std::path::Path;

use cocoon_attestation::tdx::{config_event, expected_rtmr3, model_event};

use super::files::Files;
use crate::node::Claims;

/// Where the kernel has the register, below `/`.
pub const RTMR3: &str = "sys/devices/virtual/misc/tdx_guest/measurements/rtmr3:sha384";

const LEN: usize = 48;

/// The register is there and is not what it has to be: the enclave must not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RtmrError {
    /// The kernel refuses.
    #[error("RTMR3 (/{RTMR3}) cannot be {what}: {error}")]
    Io {
        /// Read or extended.
        what: &'static str,
        /// What the kernel says.
        error: io::Error,
    },
    /// Not 48 bytes.
    #[error("RTMR3 (/{RTMR3}) has {0} bytes or more, not {LEN}")]
    Length(usize),
    /// Another program, or this one with another configuration, was there first.
    #[error(
        "RTMR3 was extended before, with something else than this configuration and model: start the machine again"
    )]
    Used,
    /// The register says something else than what it was extended with.
    #[error("RTMR3 is not what it was extended to: somebody else extends it too")]
    Wrong,
}

/// What became of the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extended {
    /// It says what `claims` are.
    Yes,
    /// The kernel has no such file: only S and REPORT_DATA say what `claims` are.
    Unavailable,
}

/// Extends RTMR3 below `root` with configuration and models, in the order of S.
///
/// # Errors
/// [`RtmrError`]: the register is there, but does not or cannot say what `claims` are.
pub(super) fn extend(files: &dyn Files, root: &Path, claims: &Claims) -> Result<Extended, RtmrError> {
    let path = root.join(RTMR3);
    let read = || match files.read(&path, LEN) {
        Ok(bytes) => <[u8; LEN]>::try_from(bytes).map(Some).map_err(|bytes| RtmrError::Length(bytes.len())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(RtmrError::Io { what: "read", error }),
    };
    let Some(before) = read()? else { return Ok(Extended::Unavailable) };
    let want = expected_rtmr3(&claims.config, &claims.models);
    // This very program ran before in this machine: a process that was started again.
    if before == want {
        return Ok(Extended::Yes);
    }
    if before != [0; LEN] {
        return Err(RtmrError::Used);
    }
    for event in std::iter::once(config_event(&claims.config)).chain(claims.models.iter().map(model_event)) {
        files.write(&path, &event).map_err(|error| RtmrError::Io { what: "extended", error })?;
    }
    if read()? == Some(want) { Ok(Extended::Yes) } else { Err(RtmrError::Wrong) }
}
