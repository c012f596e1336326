//! Parsers of outside bytes that are private otherwise.

/// The body of `POST /v1/chat/completions`.
pub fn chat_request(bytes: &[u8]) {
    let _any = crate::api::parse_chat_request(bytes).is_ok();
}

/// The certificate table of an SNP guest's host.
pub fn certificate_table(bytes: &[u8]) {
    let _any = crate::platform::certificates::parse_table(bytes);
}

/// The answer of a TDX guest's host to a request for a quote.
pub fn quote_response(bytes: &[u8]) {
    let _any = crate::platform::qgs::parse(bytes);
}
