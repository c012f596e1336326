//! Reference values for auditors and release signers.
//!
//! So far: the digest of a model, as enclaves state it and policies name it.

#![forbid(unsafe_code)]

pub mod model;
