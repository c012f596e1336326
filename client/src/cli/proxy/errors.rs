//! What goes wrong, as OpenAI clients expect it.

use cocoon_client::{EndpointFailure, Error};
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::http::{Body, json_response};

/// One error.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: String,
    message: String,
    /// Of each enclave that was refused: which factors failed.
    upstreams: Vec<Value>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into(), upstreams: Vec::new() }
    }

    pub(super) fn json(&self) -> Value {
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::UNAUTHORIZED => "authentication_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let mut error = json!({ "message": self.message, "type": kind, "param": null, "code": self.code });
        if !self.upstreams.is_empty() {
            error["upstreams"] = self.upstreams.clone().into();
        }
        json!({ "error": error })
    }

    pub(super) fn response(&self) -> Response<Body> {
        let mut response = json_response(self.status, &self.json());
        let (name, value) = match self.status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => (RETRY_AFTER, "1"),
            StatusCode::UNAUTHORIZED => (WWW_AUTHENTICATE, "Bearer"),
            _ => return response,
        };
        response.headers_mut().insert(name, HeaderValue::from_static(value));
        response
    }
}

/// No enclave passes: nothing was sent to any.
fn none_verified(message: String, failures: &[EndpointFailure]) -> Problem {
    let upstream = |failure: &EndpointFailure| {
        let factors: Vec<&str> =
            failure.report.iter().flat_map(|report| report.failures().map(|f| f.name)).collect();
        json!({ "endpoint": failure.endpoint, "message": failure.message, "failed_factors": factors })
    };
    let upstreams = failures.iter().map(upstream).collect();
    let code = "no_verified_enclave".to_owned();
    Problem { status: StatusCode::SERVICE_UNAVAILABLE, code, message, upstreams }
}

pub(super) fn unauthorized() -> Problem {
    let message = "the proxy wants its token: Authorization: Bearer TOKEN (in OpenAI clients: the API key)";
    Problem::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
}

pub(super) fn not_from_here() -> Problem {
    let message = "without a token the proxy answers programs of this machine only, by a loopback address; start it with --token-file";
    Problem::new(StatusCode::FORBIDDEN, "not_from_here", message)
}

pub(super) fn too_large(max: usize) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", format!("the body has more than {max} bytes"))
}

pub(super) fn incomplete(status: StatusCode, message: &str) -> Problem {
    Problem::new(status, "incomplete_body", message)
}

/// What the client says in place of an answer.
pub(super) fn failed(error: &Error) -> Problem {
    if let Error::Api { status, message, code } = error {
        let status = StatusCode::from_u16(*status).ok().filter(|status| !status.is_success());
        let code = code.as_deref().unwrap_or("upstream_error");
        return Problem::new(status.unwrap_or(StatusCode::BAD_GATEWAY), code, message.clone());
    }
    if let Error::NoneVerified(failures) = error {
        return none_verified(error.to_string(), failures);
    }
    let (status, code) = if matches!(error, Error::Receipt(_)) {
        (StatusCode::BAD_GATEWAY, "receipt_rejected")
    } else if matches!(error, Error::NoSuchModel) {
        (StatusCode::NOT_FOUND, "model_not_found")
    } else if error.is_rejection() {
        (StatusCode::SERVICE_UNAVAILABLE, "enclave_rejected")
    } else {
        (StatusCode::BAD_GATEWAY, "upstream_failed")
    };
    Problem::new(status, code, error.to_string())
}
