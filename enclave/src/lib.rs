//! The enclave: the Attester and server that runs inside the TEE.
//!
//! | Module | What |
//! |---|---|
//! | [`platform`] | asks the hardware for evidence |
//! | [`node`] | who this enclave is: keys, epochs, the epoch statement S |
//! | [`release`] | which release this is, and what vouches for it |
//! | [`attest`] | one hardware report for many clients |
//! | [`gate`] | attestation before the first byte of HTTP |
//! | [`server`] | listeners, limits, shutdown |
//! | [`api`] | the OpenAI API |
//! | [`model`] | the models, while they load and after |
//! | [`mod@bench`] | what the engine reaches here, without all of that |
//! | [`init`] | PID 1 of the image, before all of that |
//! | [`events`] | the event log: the only thing that the enclave says outside the channel |

#![deny(unsafe_code)]

pub mod api;
pub mod attest;
pub mod bench;
pub mod events;
#[doc(hidden)]
pub mod fuzzing;
pub mod gate;
pub mod init;
pub mod model;
pub mod node;
pub mod platform;
pub mod release;
pub mod server;
pub mod settings;
mod ticks;

use std::sync::Arc;

use cocoon_attestation::UnixTime;

/// Reads the time. Made in `main.rs`; nobody else looks at a clock.
pub type Clock = Arc<dyn Fn() -> UnixTime + Send + Sync>;

/// Everything that a connection needs.
#[derive(Debug)]
pub struct Enclave {
    /// Who this is.
    pub node: Arc<node::Node>,
    /// Hardware reports.
    pub attestation: attest::AttestationService,
    /// The models.
    pub models: model::Models,
    /// The event log.
    pub events: events::EventLog,
}
