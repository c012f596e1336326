//! Which enclaves, what is accepted there, and for how long to wait.

use std::sync::Arc;
use std::time::Duration;

use super::endpoint::Endpoint;
use super::{Client, Inner};
use crate::Policy;
use crate::error::Error;

/// Makes a [`Client`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ClientBuilder {
    policy: Option<Policy>,
    endpoints: Vec<String>,
    without_padding: bool,
    connect: Option<Duration>,
    first_byte: Option<Duration>,
    whole: Option<Duration>,
}

/// The same for all enclaves of a handle.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) policy: Policy,
    pub(super) padding: bool,
    pub(super) connect: Option<Duration>,
    pub(super) first_byte: Option<Duration>,
    pub(super) whole: Option<Duration>,
}

impl ClientBuilder {
    /// What is accepted, at every endpoint. There is no default.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// An enclave, or a relay in front of one: `HOST:PORT`. Several for several.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoints.push(endpoint.into());
        self
    }

    /// Whether what goes over the connection has constant sizes and rates; on unless this says otherwise. Without it a host can tell much of
    /// a conversation from sizes and times; it costs less.
    pub fn padding(mut self, padding: bool) -> Self {
        self.without_padding = !padding;
        self
    }

    /// From nothing to a verified session, for each endpoint. At most 30 seconds in any case.
    pub fn connect_timeout(mut self, patience: Duration) -> Self {
        self.connect = Some(patience);
        self
    }

    /// From a request to the first bytes of its answer, for each enclave that is asked; then the next one is. No limit unless it is set: an
    /// enclave may have a queue, and long prompts take their time.
    pub fn first_byte_timeout(mut self, patience: Duration) -> Self {
        self.first_byte = Some(patience);
        self
    }

    /// From a request to the last byte of its answer, whichever enclave gives it. No limit unless it is set.
    pub fn timeout(mut self, patience: Duration) -> Self {
        self.whole = Some(patience);
        self
    }

    /// The handle; the enclaves are verified when they are needed.
    ///
    /// # Errors
    /// [`Error::Misuse`] without a policy or an endpoint, or if an endpoint is not `HOST:PORT`.
    pub fn build(self) -> Result<Client, Error> {
        let misuse = |what: &str| Error::Misuse(what.to_owned());
        let policy = self.policy.ok_or_else(|| misuse("say what is accepted: ClientBuilder::policy"))?;
        if self.endpoints.is_empty() {
            return Err(misuse("say where the enclave is: ClientBuilder::endpoint"));
        }
        if let Some(wrong) = self.endpoints.iter().find(|endpoint| !is_host_and_port(endpoint)) {
            return Err(Error::Misuse(format!("{wrong:?} is no endpoint: expected HOST:PORT")));
        }
        let settings = Settings {
            policy,
            padding: !self.without_padding,
            connect: self.connect,
            first_byte: self.first_byte,
            whole: self.whole,
        };
        let endpoints = self.endpoints.into_iter().enumerate();
        let endpoints = endpoints.map(|(place, endpoint)| Endpoint::new(place, endpoint)).collect();
        Ok(Client(Arc::new(Inner { endpoints, settings })))
    }

    /// The handle, once at least one enclave was verified.
    ///
    /// # Errors
    /// As [`ClientBuilder::build`]; [`Error::NoneVerified`] with the reasons of each.
    pub async fn connect(self) -> Result<Client, Error> {
        let client = self.build()?;
        client.session().await?;
        Ok(client)
    }
}

/// Whether a text is `HOST:PORT`.
fn is_host_and_port(text: &str) -> bool {
    let parts = text.rsplit_once(':');
    parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said() {
        let policy = || Policy::strict().unwrap();
        let error = |builder: ClientBuilder| builder.build().unwrap_err().to_string();
        assert!(error(Client::builder().endpoint("enclave:1")).contains("ClientBuilder::policy"));
        assert!(error(Client::builder().policy(policy())).contains("ClientBuilder::endpoint"));
        for wrong in ["", "enclave", ":1", "enclave:", "enclave:0", "enclave:65536", "enclave:x"] {
            let error = error(Client::builder().policy(policy()).endpoint("enclave:1").endpoint(wrong));
            assert!(error.contains("HOST:PORT"), "{wrong}: {error}");
        }
        Client::builder().policy(policy()).endpoint("[::1]:443").build().unwrap();
    }
}
