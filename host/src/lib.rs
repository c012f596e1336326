//! The untrusted side: starts an enclave and relays bytes to it.
//!
//! Nobody has to trust this program with more than availability. Clients and enclaves speak an end-to-end encrypted, attested
//! protocol; what passes here is ciphertext, and the relay links neither cryptography nor TLS. Its threat model is therefore
//! small: bound what a client can make it hold (connections, memory, time), and never let what an enclave or a client sends reach
//! a log, a terminal or a metric.
//!
//! - [`relay`] copies bytes between many clients and enclaves.
//! - [`run`] starts an enclave process and relays to it.
//! - [`endorsements`] fetches what vendors sign about their hardware: the only TLS client.
//! - [`doctor`] says what a machine lacks.
//! - [`metrics`] counts, and serves the counts to a local Prometheus.
#![forbid(unsafe_code)]

pub mod address;
pub mod cli;
pub mod descriptors;
pub mod doctor;
pub mod endorsements;
mod error;
pub mod metrics;
mod output;
pub mod relay;
pub mod run;
pub mod stop;

pub use error::Error;
pub use output::announce_ready;
