//! NVIDIA's library as the test wants it to be. `tests/nvidia.rs` compiles this file by itself into a shared library; it is no part of
//! any crate.
//!
//! It does what the files beside the library say: `NAME` with a number (`count`, `environment`, `feature`, `devtools`, the claimed
//! sizes `report_len` and `chain_len`, and the code that a function returns, by the function's name), `N.report` and `N.chain` with
//! what GPU N answers. It leaves the number `ready` there, and the last nonce as `nonce`.

use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

#[repr(C)]
struct DlInfo {
    file: *const c_char,
    base: *mut c_void,
    symbol: *const c_char,
    address: *mut c_void,
}

unsafe extern "C" {
    fn dladdr(address: *const c_void, info: *mut DlInfo) -> c_int;
}

/// The folder of this library.
fn dir() -> PathBuf {
    let mut info = DlInfo {
        file: std::ptr::null(),
        base: std::ptr::null_mut(),
        symbol: std::ptr::null(),
        address: std::ptr::null_mut(),
    };
    // SAFETY: an address in this library, and a struct that is filled.
    let file = unsafe {
        assert_ne!(dladdr(dir as *const c_void, &raw mut info), 0);
        CStr::from_ptr(info.file)
    };
    PathBuf::from(OsStr::from_bytes(file.to_bytes())).parent().unwrap().to_owned()
}

fn number(name: &str) -> Option<c_uint> {
    std::fs::read_to_string(dir().join(name)).ok()?.trim().parse().ok()
}

/// What function `name` returns.
fn code(name: &str) -> c_uint {
    number(name).unwrap_or(0)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> c_uint {
    code("nvmlInit_v2")
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> c_uint {
    0
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetCount_v2(count: &mut c_uint) -> c_uint {
    *count = number("count").unwrap_or(1);
    code("nvmlDeviceGetCount_v2")
}

/// A handle is the number and one, so that none is null.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: &mut usize) -> c_uint {
    *device = index as usize + 1;
    code("nvmlDeviceGetHandleByIndex_v2")
}

#[unsafe(no_mangle)]
extern "C" fn nvmlSystemGetConfComputeState(state: &mut [c_uint; 3]) -> c_uint {
    *state =
        [number("environment").unwrap_or(2), number("feature").unwrap_or(1), number("devtools").unwrap_or(0)];
    code("nvmlSystemGetConfComputeState")
}

#[unsafe(no_mangle)]
extern "C" fn nvmlSystemGetConfComputeGpusReadyState(ready: &mut c_uint) -> c_uint {
    *ready = number("ready").unwrap_or(0);
    code("nvmlSystemGetConfComputeGpusReadyState")
}

#[cfg(not(old))]
#[unsafe(no_mangle)]
extern "C" fn nvmlSystemSetConfComputeGpusReadyState(ready: c_uint) -> c_uint {
    if number("stuck").is_none() {
        std::fs::write(dir().join("ready"), ready.to_string()).unwrap();
    }
    code("nvmlSystemSetConfComputeGpusReadyState")
}

#[repr(C)]
struct Report {
    has_cec: c_uint,
    len: c_uint,
    cec_len: c_uint,
    nonce: [u8; 32],
    report: [u8; 0x2000],
    cec: [u8; 0x1000],
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetConfComputeGpuAttestationReport(device: usize, out: &mut Report) -> c_uint {
    std::fs::write(dir().join("nonce"), out.nonce).unwrap();
    let report = std::fs::read(dir().join(format!("{}.report", device - 1))).unwrap();
    out.report[..report.len()].copy_from_slice(&report);
    out.len = number("report_len").unwrap_or(report.len() as c_uint);
    code("nvmlDeviceGetConfComputeGpuAttestationReport")
}

#[repr(C)]
struct Certificates {
    chain_len: c_uint,
    attestation_chain_len: c_uint,
    chain: [u8; 0x1000],
    attestation_chain: [u8; 0x1400],
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetConfComputeGpuCertificate(device: usize, out: &mut Certificates) -> c_uint {
    let chain = std::fs::read(dir().join(format!("{}.chain", device - 1))).unwrap();
    out.attestation_chain[..chain.len()].copy_from_slice(&chain);
    out.attestation_chain_len = number("chain_len").unwrap_or(chain.len() as c_uint);
    code("nvmlDeviceGetConfComputeGpuCertificate")
}
