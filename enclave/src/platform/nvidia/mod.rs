//! NVIDIA GPUs through NVML, the library of NVIDIA's driver.
//!
//! Source: NVIDIA, NVML API reference, "Confidential Computing"; `nvml.h` (numbers, layout).

mod library;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::gpu::{GpuAttester, GpuError, GpuNonce, GpuReport};
use library::{Library, Settled};

/// Where the dynamic linker finds it.
pub const NVML: &str = "libnvidia-ml.so.1";

/// Why NVML is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NvmlError {
    /// No driver.
    #[error("NVIDIA's library ({NVML}) cannot be loaded: {0}. Install the driver, or leave --gpus away")]
    Missing(String),
    /// A driver without confidential computing.
    #[error("NVIDIA's library has no {0}: update the driver, 550 or later is needed")]
    TooOld(&'static str),
    /// A call failed.
    #[error("NVIDIA's library: {function} failed with code {code} ({name})")]
    Call {
        /// Which.
        function: &'static str,
        /// `nvmlReturn_t`.
        code: u32,
        /// What it means.
        name: &'static str,
    },
    /// More or fewer GPUs than configured.
    #[error("--gpus {want}, but the driver has {got}")]
    Count {
        /// GPUs that there are.
        got: u32,
        /// GPUs that were configured.
        want: u32,
    },
    /// Confidential computing is off.
    #[error("confidential computing is off on these GPUs: the host must turn it on, and reset them")]
    Off,
    /// Debugging is on.
    #[error(
        "these GPUs are in devtools mode, in which they keep no secrets: the host must turn that off, and reset them"
    )]
    DevTools,
    /// Not a production environment.
    #[error("these GPUs are not in a production environment (state {0})")]
    NotProduction(u32),
    /// The driver says that it wrote more than there is room for.
    #[error("GPU {index}: the driver says that its {what} has {got} bytes, of at most {max}")]
    TooLong {
        /// Which GPU, in the driver's order.
        index: u32,
        /// Report or chain.
        what: &'static str,
        /// What it says.
        got: u32,
        /// What there is room for.
        max: usize,
    },
    /// The driver gave nothing.
    #[error("GPU {index}: the driver gave an empty {what}")]
    Empty {
        /// Which GPU, in the driver's order.
        index: u32,
        /// Report or chain.
        what: &'static str,
    },
    /// Setting the ready state had no effect.
    #[error("the driver did not set the ready state of the GPUs")]
    NotSet,
}

/// `nvmlSystemConfComputeState`
const ENVIRONMENT_PRODUCTION: u32 = 2;
const FEATURE_ON: u32 = 1;
const DEVTOOLS_OFF: u32 = 0;

/// The GPUs of this machine.
pub struct Nvml {
    /// One call at a time: evidence of two requests at once would only take twice as long.
    library: Mutex<Library>,
    want: u32,
}

impl std::fmt::Debug for Nvml {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nvml").field("gpus", &self.want).finish_non_exhaustive()
    }
}

impl Nvml {
    /// Loads the library at `path` ([`NVML`] outside tests), which must find `want` GPUs, all of them confidential.
    ///
    /// # Errors
    /// [`NvmlError`]: whatever of that is not so.
    pub fn open(path: &Path, want: u32) -> Result<Self, NvmlError> {
        let library = Library::open(path)?;
        check(&library, want)?;
        Ok(Self { library: Mutex::new(library), want })
    }

    fn library(&self) -> MutexGuard<'_, Library> {
        self.library.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Number and mode.
fn check(library: &Library, want: u32) -> Result<(), NvmlError> {
    let got = library.count()?;
    if got != want {
        return Err(NvmlError::Count { got, want });
    }
    let state = library.state()?;
    match () {
        () if state.feature != FEATURE_ON => Err(NvmlError::Off),
        () if state.devtools != DEVTOOLS_OFF => Err(NvmlError::DevTools),
        () if state.environment != ENVIRONMENT_PRODUCTION => Err(NvmlError::NotProduction(state.environment)),
        () => Ok(()),
    }
}

/// What the driver settled in an array of fixed length.
fn bytes(settled: &Settled, index: u32, what: &'static str) -> Result<Vec<u8>, NvmlError> {
    let max = settled.room.len();
    let len = usize::try_from(settled.len).unwrap_or(usize::MAX);
    match settled.room.get(..len) {
        None => Err(NvmlError::TooLong { index, what, got: settled.len, max }),
        Some([]) => Err(NvmlError::Empty { index, what }),
        Some(bytes) => Ok(bytes.to_vec()),
    }
}

impl GpuAttester for Nvml {
    fn attest(&self, nonce: &GpuNonce) -> Result<Vec<GpuReport>, GpuError> {
        let library = self.library();
        check(&library, self.want)?;
        let one = |index| {
            let report = bytes(&library.report(index, nonce.bytes())?, index, "report")?;
            // Some drivers end the PEM text with zero bytes; the Verifier's reader takes them for white space.
            let chain = bytes(&library.chain(index)?, index, "certificate chain")?;
            Ok(GpuReport { report, chain })
        };
        (0..self.want).map(one).collect::<Result<_, NvmlError>>().map_err(GpuError::Nvml)
    }

    fn set_ready(&self, ready: bool) -> Result<(), GpuError> {
        let library = self.library();
        library.set_ready(ready)?;
        if library.ready()? == ready { Ok(()) } else { Err(NvmlError::NotSet.into()) }
    }
}
