//! The CUDA device: our own kernels (`enclave/inference/cuda`), compiled ahead and part of the binary, and cuBLASLt for matrix products.
//!
//! What needs no GPU is compiled for tests without the feature `cuda` too: the launch of each kernel as a value, and its twin in Rust.

mod launch;
mod plan;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod twin;
