//! Verify an enclave, then talk to it.
//!
//! A [`Client`] is a handle for one enclave or several that serve the same. It verifies each by a [`Policy`], keeps the attested sessions, and
//! asks another verified enclave when one fails before its answer begins.
//!
//! ```no_run
//! use cocoon_client::{ChatEvent, ChatRequest, Client, Message, Policy, Role};
//!
//! # async fn example() -> Result<(), cocoon_client::Error> {
//! let client = Client::builder()
//!     .policy(Policy::from_toml(include_str!("../../docs/examples/policy.toml"))?)
//!     .endpoint("enclave.example:8443")
//!     .endpoint("other.example:8443")
//!     // Fails if no enclave is what the policy accepts.
//!     .connect()
//!     .await?;
//!
//! let mut request = ChatRequest::new("smollm2-135m-instruct", "What is a rainbow?");
//! request.max_tokens = Some(200);
//! // Whole, once its receipt was verified ..
//! let answer = client.complete(&request).await?;
//! println!("{} ({} tokens)", answer.text, answer.usage.completion_tokens);
//!
//! // .. or as it comes.
//! request.push(Role::Assistant, answer.text).push(Role::User, "And a double one?");
//! let mut stream = client.chat(&request).await?;
//! while let Some(event) = stream.next().await? {
//!     if let ChatEvent::Text(text) = event {
//!         print!("{text}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Programs that show more: `client/examples/` of the repository.
//!
//! # What is guaranteed
//!
//! - Nothing but a random number goes to an enclave that the policy did not accept in this very TLS session; nothing turns that off. There is no
//!   way to an [`AttestedSession`] but an [`AttestationResult`], and none to that but the Verifier.
//! - A request is sent again only to an enclave that passed the same policy, and only before the first bytes of an answer are there. Then it is
//!   the caller's decision. Where a connection broke, nobody knows whether the request arrived, so it may be computed twice.
//! - Before its statement S runs out, or when a new epoch begins, an enclave attests again on the same connection, before anything else is sent.
//!   One that fails is cut off.
//! - An answer that ends without an error has a receipt that the verified enclave signed, for the bytes that were sent and those that
//!   came ([`ChatStream::receipt`], [`ChatAnswer::receipt`], [`AnswerBody::receipt`]). Text of a stream comes before that: it is the enclave's,
//!   but until the end nobody knows that nothing is missing.
//! - Requests and answers are padded unless that was turned off ([`ClientBuilder::padding`], [`AttestedSession::without_padding`]).
//! - Prompts and answers are in no error, no log, and no type with a `Debug`.
//!
//! It says nothing about who is asked how often, or whether anybody answers: a host can always refuse to serve.
//!
//! # Errors
//!
//! | [`Error`] | Whose fault, and what to do |
//! |---|---|
//! | `Rejected`, `Malformed`, `NotAnEnclave` | what answers is not what the policy accepts: [`Error::report`] has each factor. Do not send anything |
//! | `NoneVerified` | the same, or unreachable, for each endpoint of a handle; others may lack the model |
//! | `Unreachable`, `Ended` | the network or the host: try again, elsewhere. A [`Client`] does |
//! | `Receipt`, `BadAnswer` | the answer was altered, cut, or is none: do not use what came |
//! | `Api` | the enclave refuses this request, for the reason that its `code` gives |
//! | `NoSuchModel`, `Misuse` | the caller |
//! | `Timeout` | a limit that the caller set ([`ClientBuilder::timeout`]) |
//!
//! [`Error::is_rejection`] tells the first kind, and altered answers, from what could not be told.
//!
//! # Cancelling
//!
//! Dropping a [`ChatStream`], an [`Answer`], a [`ResponseBody`] or a future of this crate cancels its request; the enclave stops computing.
//!
//! # Tools
//!
//! [`ChatRequest::tools`] are functions that the model may ask for: [`ChatAnswer::tool_calls`], [`ChatEvent::ToolCall`]. The caller calls them, and adds
//! [`ChatAnswer::message`] and a [`Message::result`] of each to the conversation.
//!
//! # Raw requests
//!
//! [`Client::post`] sends any JSON to the API as it is, for example for several answers at once (`n`). [`Client`] and [`AttestedSession`] are `tower::Service`s of
//! `http::Request<http_body_util::Full<bytes::Bytes>>`, so layers of tower fit around them.

#![forbid(unsafe_code)]

mod answer;
mod channel;
mod chat;
mod clock;
mod embed;
mod error;
pub mod fuzzing;
mod known;
mod pool;
mod service;
mod session;
mod sse;

pub use answer::{Answer, AnswerBody};
pub use channel::UnverifiedChannel;
pub use chat::{
    AlternativeToken, ChatAnswer, ChatEvent, ChatRequest, ChatStream, FinishReason, Message, ResponseFormat,
    Role, TokenLogprob, Tool, ToolCall, ToolChoice, Usage,
};
pub use clock::now;
pub use cocoon_attestation::policy::Policy;
pub use cocoon_attestation::receipt::{Receipt, ReceiptBundle, ReceiptError, SignedReceipt};
pub use cocoon_attestation::result::{AttestationResult, Factor, Rejection, Report, Status};
pub use embed::Embeddings;
pub use error::Error;
pub use pool::{Client, ClientBuilder, EndpointFailure, EndpointStatus, Model, ModelKind};
pub use service::ResponseBody;
pub use session::{AttestedSession, ModelStatus};

/// Connects to `endpoint` (`HOST:PORT`), verifies what runs there, and returns a session only if `policy` accepts it.
///
/// # Errors
/// [`Error::Unreachable`] when there is no answer, [`Error::Rejected`] with every failed factor when the policy does not accept.
pub async fn connect(endpoint: &str, policy: Policy) -> Result<AttestedSession, Error> {
    UnverifiedChannel::open(endpoint).await?.verify(policy).await
}
