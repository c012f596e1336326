//! The engine's computing on an NVIDIA GPU: our own kernels (`enclave/inference/cuda`), compiled ahead and part of the binary, and cuBLASLt
//! for matrix products.
//!
//! What needs no GPU is compiled for tests without the feature `cuda` too: the backend, the launch of each kernel as a value, and its twin in
//! Rust, which stands in for the kernel there. Nothing here ran on a GPU yet; see `docs/cuda.md` for what was checked instead.

mod bandwidth;
mod gpu;
mod inputs;
mod kernels;
mod launch;
mod plan;
mod weights;

#[cfg(feature = "cuda")]
mod buffer;
#[cfg(feature = "cuda")]
mod device;
#[cfg(feature = "cuda")]
mod gemm;

#[cfg(test)]
mod golden;
#[cfg(feature = "cuda")]
#[cfg(test)]
mod gpu_tests;
#[cfg(test)]
mod plan_tests;
#[cfg(not(feature = "cuda"))]
#[cfg(test)]
mod simulated;
#[cfg(not(feature = "cuda"))]
#[cfg(test)]
mod simulated_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod twin;

#[cfg(feature = "cuda")]
use buffer::{Buffer, Element};
#[cfg(feature = "cuda")]
pub(crate) use device::Device;
#[cfg(feature = "cuda")]
use device::Recording;
#[cfg(not(feature = "cuda"))]
pub(crate) use simulated::Device;
#[cfg(not(feature = "cuda"))]
use simulated::{Buffer, Element, Recording};

pub(crate) use bandwidth::copy_bandwidth;
pub(crate) use gpu::Gpu;

/// What the GPU of this machine is, or why there is none that can be used.
#[cfg(feature = "cuda")]
pub fn describe_gpu() -> Result<String, crate::Error> {
    let device = Device::open()?;
    let (free, total) = device.memory()?;
    Ok(format!("{}, {} of {} MiB free", device.name(), free >> 20, total >> 20))
}
