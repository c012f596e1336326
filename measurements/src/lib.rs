//! Reference values for auditors and release signers.
//!
//! So far: the digest of a model, as enclaves state it and policies name it, and signed TCB floors.

#![forbid(unsafe_code)]

pub mod floors;
pub mod key;
pub mod model;
