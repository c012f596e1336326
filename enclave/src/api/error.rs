//! Errors as OpenAI clients expect them. Texts are written here, with names and limits; no value of a request gets into one.

use std::borrow::Cow;

use cocoon_inference::SubmitError;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::respond::{Body, json_response};

/// One error.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: Cow<'static, str>,
    param: Option<String>,
    code: Option<&'static str>,
    retry_after: Option<u16>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into(), param: None, code: None, retry_after: None }
    }

    /// A field with a value that it cannot have.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message).param(param).code("invalid_value")
    }

    pub(crate) fn param(self, param: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..self }
    }

    /// The same for an endpoint that has other names for fields.
    pub(crate) fn with_names(self, names: &[(&str, &str)]) -> Self {
        let other = names.iter().find(|(name, _)| self.param.as_deref() == Some(*name));
        match other {
            Some((_, other)) => self.param(*other),
            None => self,
        }
    }

    pub(crate) fn code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    pub(crate) fn retry_after(self, seconds: u16) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    pub(crate) fn json(&self) -> Value {
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        json!({ "error": { "message": self.message, "type": kind, "param": self.param, "code": self.code } })
    }

    pub(crate) fn response(&self) -> Response<Body> {
        let mut response = json_response(self.status, &self.json());
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::QueueFull { .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, message).code("queue_full").retry_after(1)
            }
            SubmitError::ContextOverflow { .. } => {
                Self::new(StatusCode::BAD_REQUEST, message).param("messages").code("context_length_exceeded")
            }
            SubmitError::Template(_) => Self::invalid("messages", message),
            SubmitError::BadParameter { name, .. } => Self::invalid(name, message),
            SubmitError::Stopping => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, message).code("stopping").retry_after(1)
            }
            SubmitError::Broken => Self::new(StatusCode::SERVICE_UNAVAILABLE, message).code("engine_failed"),
            SubmitError::NoRandomness | _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, message),
        }
    }
}
