//! Verify an enclave, then talk to it.
//!
//! ```no_run
//! use cocoon_client::{ChatEvent, ChatRequest, connect};
//!
//! # async fn example() -> Result<(), cocoon_client::Error> {
//! let policy = cocoon_client::Policy::from_toml(include_str!("../../docs/examples/policy.toml"))?;
//! // Returns only if the enclave is what the policy accepts; nothing was sent before that.
//! let session = connect("enclave.example:8443", policy).await?;
//! let request = ChatRequest::new("smollm2-135m-instruct", "What is a rainbow?");
//! let mut answer = session.chat(&request).await?;
//! while let Some(event) = answer.next().await? {
//!     if let ChatEvent::Text(text) = event {
//!         print!("{text}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod answer;
mod channel;
mod chat;
mod clock;
mod error;
pub mod fuzzing;
mod known;
mod session;
mod sse;

pub use answer::{Answer, AnswerBody};
pub use channel::UnverifiedChannel;
pub use chat::{ChatEvent, ChatRequest, ChatStream, Usage};
pub use clock::now;
pub use cocoon_attestation::policy::Policy;
pub use cocoon_attestation::receipt::{Receipt, ReceiptBundle, ReceiptError, SignedReceipt};
pub use cocoon_attestation::result::{AttestationResult, Factor, Rejection, Report, Status};
pub use error::Error;
pub use session::{AttestedSession, ModelStatus};

/// Connects to `endpoint` (`HOST:PORT`), verifies what runs there, and returns a session only if `policy` accepts it.
///
/// # Errors
/// [`Error::Unreachable`] when there is no answer, [`Error::Rejected`] with every failed factor when the policy does not accept.
pub async fn connect(endpoint: &str, policy: Policy) -> Result<AttestedSession, Error> {
    UnverifiedChannel::open(endpoint).await?.verify(policy).await
}
