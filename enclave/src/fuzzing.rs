//! Parsers of outside bytes that are private otherwise.

/// The body of a request for an answer.
pub fn chat_request(bytes: &[u8]) {
    crate::api::fuzz_request(bytes);
}

/// The answer of a model that may call tools.
pub fn tool_calls(bytes: &[u8]) {
    crate::api::fuzz_calls(&String::from_utf8_lossy(bytes));
}

/// The certificate table of an SNP guest's host.
pub fn certificate_table(bytes: &[u8]) {
    let _any = crate::platform::certificates::parse_table(bytes);
}

/// What the host sends through the port of the VM.
pub fn host_port(mut bytes: &[u8]) {
    while crate::init::host_port::Frame::read(&mut bytes).is_ok() {}
}

/// The kernel's command line.
pub fn command_line(bytes: &[u8]) {
    let _any = crate::init::command_line::arguments(&String::from_utf8_lossy(bytes));
}

/// The answer of a TDX guest's host to a request for a quote.
pub fn quote_response(bytes: &[u8]) {
    let _any = crate::platform::qgs::parse(bytes);
}
