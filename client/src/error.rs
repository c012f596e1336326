//! What can go wrong, and whose fault it is.

use cocoon_attestation::appraisal::Refusal;
use cocoon_attestation::receipt::ReceiptError;
use cocoon_attestation::result::{Rejection, Report};
use serde::Deserialize;

use crate::pool::EndpointFailure;

#[derive(Deserialize)]
struct Outer {
    error: OpenAi,
}

#[derive(Deserialize)]
struct OpenAi {
    message: String,
    code: Option<String>,
}

/// Why there is no session or no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody answers, or the connection broke: nothing is known about the enclave.
    #[error("cannot reach {endpoint}: {why}")]
    Unreachable {
        /// Where.
        endpoint: String,
        /// What happened.
        why: String,
    },
    /// Somebody answers, but not as a Cocoon enclave does.
    #[error("{endpoint} is not a Cocoon enclave: {why}")]
    NotAnEnclave {
        /// Where.
        endpoint: String,
        /// What is wrong.
        why: String,
    },
    /// The evidence is malformed.
    #[error("the enclave's evidence cannot be read: {0}")]
    Malformed(cocoon_attestation::Error),
    /// The policy does not accept the enclave.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// What came is not what the enclave signed.
    #[error("the answer does not hold: {0}")]
    Receipt(#[from] ReceiptError),
    /// The session ended; connect again.
    #[error("the session ended ({0}); connect again")]
    Ended(&'static str),
    /// The enclave answered with an error.
    #[error("the enclave answers {status}: {message}")]
    Api {
        /// HTTP status.
        status: u16,
        /// The enclave's text.
        message: String,
        /// OpenAI's error code, if there is one.
        code: Option<String>,
    },
    /// No endpoint of a [`crate::Client`] can be used; nothing was sent to one that is not verified. Some may be verified but lack the model.
    #[error("no enclave can be used, and nothing was sent to one that is not verified. {}", each(.0))]
    NoneVerified(Vec<EndpointFailure>),
    /// All enclaves are verified, and none has this model; nothing was sent to any.
    #[error("no verified enclave serves this model; GET /v1/models lists those that are served")]
    NoSuchModel,
    /// What was waited for did not come in the time that the caller gave it.
    #[error("no {0} in time; the limit is the caller's own")]
    Timeout(&'static str),
    /// The answer is not as specified.
    #[error("the enclave's answer cannot be read: {0}")]
    BadAnswer(&'static str),
    /// The caller's fault.
    #[error("{0}")]
    Misuse(String),
}

impl Error {
    /// The appraisal, if the enclave was refused because of its evidence; of several, the first that was.
    #[must_use]
    pub fn report(&self) -> Option<Report> {
        match self {
            Self::Rejected(rejection) => Some((*rejection.report).clone()),
            Self::Malformed(error) => Some(Report::malformed(error)),
            Self::NotAnEnclave { why, .. } => Some(Report::not_an_enclave(why)),
            Self::NoneVerified(failures) => {
                failures.iter().find_map(|failure| failure.report.as_deref().cloned())
            }
            Self::Unreachable { .. }
            | Self::Receipt(_)
            | Self::Ended(_)
            | Self::Api { .. }
            | Self::NoSuchModel
            | Self::Timeout(_)
            | Self::BadAnswer(_)
            | Self::Misuse(_) => None,
        }
    }

    /// Whether the other side failed verification, as opposed to: could not be told.
    #[must_use]
    pub fn is_rejection(&self) -> bool {
        match self {
            Self::Rejected(_) | Self::Malformed(_) | Self::NotAnEnclave { .. } | Self::Receipt(_) => true,
            Self::NoneVerified(failures) => failures.iter().any(|failure| failure.report.is_some()),
            Self::Unreachable { .. }
            | Self::Ended(_)
            | Self::Api { .. }
            | Self::NoSuchModel
            | Self::Timeout(_)
            | Self::BadAnswer(_)
            | Self::Misuse(_) => false,
        }
    }

    /// Whether the connection is gone, so that a request has no answer.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Ended(_))
    }

    pub(crate) fn unreachable(endpoint: &str, why: impl ToString) -> Self {
        Self::Unreachable { endpoint: endpoint.to_owned(), why: why.to_string() }
    }

    /// From the body of an error answer, in OpenAI's shape if it has it.
    pub(crate) fn of_api(status: u16, body: &[u8]) -> Self {
        match serde_json::from_slice::<Outer>(body) {
            Ok(Outer { error }) => Self::Api { status, message: error.message, code: error.code },
            Err(_) => Self::Api { status, message: "no further information".to_owned(), code: None },
        }
    }

    /// From an error of the channel before the evidence was appraised.
    pub(crate) fn channel(endpoint: &str, error: &cocoon_channel::Error) -> Self {
        use cocoon_channel::Error as Channel;
        let not_an_enclave = || Self::NotAnEnclave { endpoint: endpoint.to_owned(), why: error.to_string() };
        match error {
            // A failed TLS handshake arrives as an I/O error of this kind.
            Channel::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => not_an_enclave(),
            Channel::Io(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Self::unreachable(
                endpoint,
                "the connection was closed during attestation; the enclave may be busy or stopping",
            ),
            Channel::Io(e) => Self::unreachable(endpoint, e),
            Channel::Closed => Self::unreachable(endpoint, "the enclave closed the channel"),
            Channel::Malformed(_)
            | Channel::ClientHello(_)
            | Channel::Session(_)
            | Channel::Tls(_)
            | Channel::UnexpectedFrame
            | _ => not_an_enclave(),
        }
    }
}

fn each(failures: &[EndpointFailure]) -> String {
    let of = |failure: &EndpointFailure| format!("{}: {}", failure.endpoint, failure.message);
    failures.iter().map(of).collect::<Vec<_>>().join("; ")
}

impl From<cocoon_attestation::Error> for Error {
    fn from(error: cocoon_attestation::Error) -> Self {
        match error {
            cocoon_attestation::Error::Misuse(why) => Self::Misuse(why),
            other @ (cocoon_attestation::Error::Malformed { .. } | _) => Self::Malformed(other),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed(error) => error.into(),
            Refusal::Rejected(rejection) => Self::Rejected(rejection),
            _ => Self::BadAnswer("the evidence was refused"),
        }
    }
}
