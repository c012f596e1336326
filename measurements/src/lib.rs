//! Reference values for auditors and release signers.
//!
//! | Module | What |
//! |---|---|
//! | [`image`] | builds the VM image from locked packages |
//! | [`predict`] | what processors will measure of an image |
//! | [`explain`] | which input differs between a measurement and an image |
//! | [`policy`] | the policy that accepts one image with one model |
//! | [`id_block`] | what firmware of SEV-SNP launches nothing else than |
//! | [`model`] | the digest of a model, as enclaves state it and policies name it |
//! | [`release`] | what is released: parts, reference values, components |
//! | [`log`] | the transparency log of releases, as plain files |
//! | [`floors`] | signed TCB floors |
//! | [`key`] | keys of signers |

#![forbid(unsafe_code)]

mod bytes;
pub mod explain;
pub mod floors;
pub mod id_block;
pub mod image;
pub mod key;
pub mod log;
pub mod model;
pub mod policy;
pub mod predict;
pub mod release;
