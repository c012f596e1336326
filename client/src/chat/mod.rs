//! Chat completions: what is asked, and the answer as it comes or whole.

mod request;
mod stream;
mod tools;

pub(crate) use stream::is_chunk;

pub use request::{ChatRequest, Message, Role};
pub use stream::{AlternativeToken, ChatAnswer, ChatEvent, ChatStream, FinishReason, TokenLogprob, Usage};
pub use tools::{ResponseFormat, Tool, ToolCall, ToolChoice};
