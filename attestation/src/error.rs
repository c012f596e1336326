//! The crate's error: whose fault it is, what is wrong, what to do.

/// Why bytes or arguments were refused before an appraisal could even be reported factor by factor.
///
/// Everything that a policy decides is not an error but a [`crate::result::Rejection`] with factors.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are not what the specification says: the sender's fault.
    #[error("malformed {what}: {why}")]
    Malformed {
        /// The structure that was being read.
        what: &'static str,
        /// What is wrong with it. Never contains the bytes.
        why: String,
    },
    /// The caller's fault: an argument or a policy that makes no sense.
    #[error("{0}")]
    Misuse(String),
}

impl Error {
    pub(crate) fn malformed(what: &'static str, why: impl Into<String>) -> Self {
        Self::Malformed { what, why: why.into() }
    }

    pub(crate) fn misuse(why: impl Into<String>) -> Self {
        Self::Misuse(why.into())
    }
}
