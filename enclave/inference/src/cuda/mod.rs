//! The CUDA device: our own kernels (`enclave/inference/cuda`), compiled ahead and part of the binary, and cuBLASLt for matrix products.
//!
//! What needs no GPU is compiled for tests without the feature `cuda` too: the launch of each kernel as a value, and its twin in Rust. Nothing
//! here ran on a GPU yet; see `docs/cuda.md` for what was checked instead.
#![cfg_attr(
    feature = "cuda",
    expect(dead_code, reason = "the forward pass that uses the device is not there yet")
)]

mod launch;
mod plan;

#[cfg(feature = "cuda")]
mod buffer;
#[cfg(feature = "cuda")]
mod device;
#[cfg(feature = "cuda")]
mod gemm;
#[cfg(feature = "cuda")]
mod kernels;

#[cfg(test)]
mod forward_tests;
#[cfg(test)]
mod golden;
#[cfg(feature = "cuda")]
#[cfg(test)]
mod gpu_tests;
#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod twin;

/// What the GPU of this machine is, or why there is none that can be used.
#[cfg(feature = "cuda")]
pub fn describe_gpu() -> Result<String, crate::Error> {
    let device = device::Device::open()?;
    let (free, total) = device.memory()?;
    Ok(format!("{}, {} of {} MiB free", device.name(), free >> 20, total >> 20))
}
