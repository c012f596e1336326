//! The binding to NVML: ten functions, three structures.
//!
//! Everything that comes out of it is a number or an array of fixed length with the length that the driver claims beside it: to
//! believe that is left to safe code.
//!
//! Source: NVIDIA, `nvml.h` of driver 550: names, numbers and layout, which the library's versioned names keep.

use std::ffi::{c_uint, c_void};
use std::path::Path;

use super::NvmlError;

/// `NVML_CC_GPU_ATTESTATION_REPORT_SIZE`
const REPORT_ROOM: usize = 0x2000;
/// `NVML_CC_GPU_CEC_ATTESTATION_REPORT_SIZE`
const CEC_ROOM: usize = 0x1000;
/// `NVML_GPU_CERT_CHAIN_SIZE`
const CHAIN_ROOM: usize = 0x1000;
/// `NVML_GPU_ATTESTATION_CERT_CHAIN_SIZE`
const ATTESTATION_CHAIN_ROOM: usize = 0x1400;

/// `nvmlReturn_t`: the codes that operators meet.
const CODES: [(u32, &str); 13] = [
    (1, "uninitialized"),
    (2, "invalid argument"),
    (3, "not supported"),
    (4, "no permission"),
    (6, "not found"),
    (9, "driver not loaded"),
    (10, "timeout"),
    (12, "library not found"),
    (13, "function not found"),
    (15, "GPU is lost"),
    (16, "reset required"),
    (18, "library and driver of different versions"),
    (19, "in use"),
];

/// `nvmlDevice_t`
type Device = *mut c_void;

/// `nvmlConfComputeSystemState_t`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
    pub(super) environment: c_uint,
    pub(super) feature: c_uint,
    pub(super) devtools: c_uint,
}

/// `nvmlConfComputeGpuAttestationReport_t`
#[repr(C)]
struct Report {
    has_cec: c_uint,
    len: c_uint,
    cec_len: c_uint,
    nonce: [u8; 32],
    report: [u8; REPORT_ROOM],
    cec: [u8; CEC_ROOM],
}

/// `nvmlConfComputeGpuCertificate_t`
#[repr(C)]
struct Certificates {
    chain_len: c_uint,
    attestation_chain_len: c_uint,
    chain: [u8; CHAIN_ROOM],
    attestation_chain: [u8; ATTESTATION_CHAIN_ROOM],
}

/// What the driver wrote.
pub(super) struct Settled {
    /// All the room that it had.
    pub(super) room: Vec<u8>,
    /// How much of it it says to have used.
    pub(super) len: u32,
}

/// The functions, valid for as long as `library` is loaded.
struct Functions {
    shutdown: unsafe extern "C" fn() -> c_uint,
    count: unsafe extern "C" fn(*mut c_uint) -> c_uint,
    handle: unsafe extern "C" fn(c_uint, *mut Device) -> c_uint,
    state: unsafe extern "C" fn(*mut State) -> c_uint,
    ready: unsafe extern "C" fn(*mut c_uint) -> c_uint,
    set_ready: unsafe extern "C" fn(c_uint) -> c_uint,
    report: unsafe extern "C" fn(Device, *mut Report) -> c_uint,
    chain: unsafe extern "C" fn(Device, *mut Certificates) -> c_uint,
}

/// NVML, loaded and initialised.
pub(super) struct Library {
    functions: Functions,
    /// Unloaded after everything above.
    _library: libloading::Library,
}

/// An error for every code but `NVML_SUCCESS`.
fn check(function: &'static str, code: c_uint) -> Result<(), NvmlError> {
    if code == 0 {
        return Ok(());
    }
    let name = CODES.iter().find(|(known, _)| *known == code).map_or("see nvml.h", |(_, name)| name);
    Err(NvmlError::Call { function, code, name })
}

/// The function `name` of `library`.
///
/// # Safety
/// The function must have the type `T`.
#[expect(unsafe_code, reason = "symbols have no types")]
unsafe fn symbol<T: Copy>(library: &libloading::Library, name: &'static str) -> Result<T, NvmlError> {
    // SAFETY: the caller vouches for the type; the copy is used only while the library is loaded, see `Library`.
    unsafe { library.get::<T>(name.as_bytes()) }
        .map(|symbol| *symbol)
        .map_err(|_gone| NvmlError::TooOld(name))
}

#[expect(unsafe_code, reason = "calls into NVIDIA's library")]
impl Library {
    /// Loads and initialises the library at `path`.
    pub(super) fn open(path: &Path) -> Result<Self, NvmlError> {
        // SAFETY: the library's constructors run. In an image it is NVIDIA's own, and measured; elsewhere whoever installs libraries
        // could replace this program as well.
        let library = unsafe { libloading::Library::new(path) };
        let library = library.map_err(|e| NvmlError::Missing(e.to_string()))?;
        // SAFETY: the types are those of `nvml.h`; a function with a version in its name keeps its type.
        let (init, functions) = unsafe {
            let init: unsafe extern "C" fn() -> c_uint = symbol(&library, "nvmlInit_v2")?;
            let functions = Functions {
                shutdown: symbol(&library, "nvmlShutdown")?,
                count: symbol(&library, "nvmlDeviceGetCount_v2")?,
                handle: symbol(&library, "nvmlDeviceGetHandleByIndex_v2")?,
                state: symbol(&library, "nvmlSystemGetConfComputeState")?,
                ready: symbol(&library, "nvmlSystemGetConfComputeGpusReadyState")?,
                set_ready: symbol(&library, "nvmlSystemSetConfComputeGpusReadyState")?,
                report: symbol(&library, "nvmlDeviceGetConfComputeGpuAttestationReport")?,
                chain: symbol(&library, "nvmlDeviceGetConfComputeGpuCertificate")?,
            };
            (init, functions)
        };
        // SAFETY: takes nothing; called once, before anything else.
        check("nvmlInit_v2", unsafe { init() })?;
        Ok(Self { functions, _library: library })
    }

    /// GPUs that the driver has.
    pub(super) fn count(&self) -> Result<u32, NvmlError> {
        let mut count = 0;
        // SAFETY: writes one unsigned int.
        check("nvmlDeviceGetCount_v2", unsafe { (self.functions.count)(&raw mut count) })?;
        Ok(count)
    }

    /// Confidential computing.
    pub(super) fn state(&self) -> Result<State, NvmlError> {
        let mut state = State::default();
        // SAFETY: writes one `nvmlConfComputeSystemState_t`.
        check("nvmlSystemGetConfComputeState", unsafe { (self.functions.state)(&raw mut state) })?;
        Ok(state)
    }

    /// Whether programs may use the GPUs.
    pub(super) fn ready(&self) -> Result<bool, NvmlError> {
        let mut ready = 0;
        // SAFETY: writes one unsigned int.
        let code = unsafe { (self.functions.ready)(&raw mut ready) };
        check("nvmlSystemGetConfComputeGpusReadyState", code)?;
        Ok(ready != 0)
    }

    /// Sets it.
    pub(super) fn set_ready(&self, ready: bool) -> Result<(), NvmlError> {
        // SAFETY: takes a number.
        let code = unsafe { (self.functions.set_ready)(ready.into()) };
        check("nvmlSystemSetConfComputeGpusReadyState", code)
    }

    /// The report of GPU `index` over `nonce`.
    pub(super) fn report(&self, index: u32, nonce: &[u8; 32]) -> Result<Settled, NvmlError> {
        let device = self.device(index)?;
        let mut out = Box::new(Report {
            has_cec: 0,
            len: 0,
            cec_len: 0,
            nonce: *nonce,
            report: [0; REPORT_ROOM],
            cec: [0; CEC_ROOM],
        });
        // SAFETY: the handle is one that the driver gave just now; reads and writes one `nvmlConfComputeGpuAttestationReport_t`.
        let code = unsafe { (self.functions.report)(device, &raw mut *out) };
        check("nvmlDeviceGetConfComputeGpuAttestationReport", code)?;
        Ok(Settled { room: out.report.to_vec(), len: out.len })
    }

    /// The chain of the attestation key of GPU `index`, PEM.
    pub(super) fn chain(&self, index: u32) -> Result<Settled, NvmlError> {
        let device = self.device(index)?;
        let mut out = Box::new(Certificates {
            chain_len: 0,
            attestation_chain_len: 0,
            chain: [0; CHAIN_ROOM],
            attestation_chain: [0; ATTESTATION_CHAIN_ROOM],
        });
        // SAFETY: the handle is one that the driver gave just now; writes one `nvmlConfComputeGpuCertificate_t`.
        let code = unsafe { (self.functions.chain)(device, &raw mut *out) };
        check("nvmlDeviceGetConfComputeGpuCertificate", code)?;
        Ok(Settled { room: out.attestation_chain.to_vec(), len: out.attestation_chain_len })
    }

    fn device(&self, index: u32) -> Result<Device, NvmlError> {
        let mut device = std::ptr::null_mut();
        // SAFETY: writes one handle.
        let code = unsafe { (self.functions.handle)(index, &raw mut device) };
        check("nvmlDeviceGetHandleByIndex_v2", code)?;
        Ok(device)
    }
}

impl Drop for Library {
    #[expect(unsafe_code, reason = "calls into NVIDIA's library")]
    fn drop(&mut self) {
        // SAFETY: takes nothing; nothing is called after it.
        let _ended = unsafe { (self.functions.shutdown)() };
    }
}
