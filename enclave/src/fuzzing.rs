//! Parsers of outside bytes that are private otherwise.

/// The body of `POST /v1/chat/completions`.
pub fn chat_request(bytes: &[u8]) {
    let _any = crate::api::parse_chat_request(bytes).is_ok();
}
