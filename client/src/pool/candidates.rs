//! Whom a request can go to, one after the other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::task::JoinSet;

use super::Inner;
use super::endpoint::{Endpoint, EndpointFailure};
use crate::error::Error;
use crate::session::AttestedSession;

/// A verified enclave that may have the model.
pub(super) struct Candidate {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) session: AttestedSession,
    /// Whether the session was there before: it may have broken unnoticed.
    pub(super) was_open: bool,
}

/// Enclaves for one request: those with an open session first, the least busy one before all. Only if none of them will do, those that have to be
/// verified before, as soon as each is.
pub(super) struct Candidates<'a> {
    inner: &'a Inner,
    model: Option<&'a str>,
    open: VecDeque<Candidate>,
    /// Nobody waits for them yet.
    rest: Vec<Arc<Endpoint>>,
    attempts: JoinSet<(Arc<Endpoint>, Result<AttestedSession, EndpointFailure>)>,
    /// Why others cannot be used, by their places.
    failures: BTreeMap<usize, EndpointFailure>,
    /// Verified ones that have other models.
    lacking: BTreeMap<usize, EndpointFailure>,
}

impl Drop for Candidates<'_> {
    /// Whoever comes next needs them, too.
    fn drop(&mut self) {
        self.attempts.detach_all();
    }
}

impl<'a> Candidates<'a> {
    /// All enclaves, whatever their models are, as soon as each is verified.
    pub(super) fn all(inner: &'a Inner) -> Self {
        let (open, attempts, failures, lacking) = Default::default();
        Self { inner, model: None, open, rest: inner.endpoints.clone(), attempts, failures, lacking }
    }

    /// Those for a request. Where there is an open session, others whose time it is are verified beside it.
    pub(super) fn of(inner: &'a Inner, model: Option<&'a str>) -> Self {
        let mut this = Self::all(inner);
        this.model = model;
        for endpoint in std::mem::take(&mut this.rest) {
            match endpoint.open() {
                Some(session) if endpoint.may_have(model) => {
                    this.open.push_back(Candidate { endpoint, session, was_open: true });
                }
                Some(_) => this.lacks(&endpoint),
                None => this.rest.push(endpoint),
            }
        }
        this.open.make_contiguous().sort_by_key(|candidate| candidate.endpoint.requests());
        if !this.open.is_empty() {
            for endpoint in this.rest.iter().filter(|endpoint| endpoint.is_due()) {
                let (endpoint, settings) = (Arc::clone(endpoint), inner.settings.clone());
                tokio::spawn(async move { endpoint.session(&settings).await });
            }
        }
        this
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Option<Candidate> {
        if let Some(open) = self.open.pop_front() {
            return Some(open);
        }
        for endpoint in std::mem::take(&mut self.rest) {
            let settings = self.inner.settings.clone();
            self.attempts.spawn(async move {
                let session = endpoint.session(&settings).await;
                (endpoint, session)
            });
        }
        while let Some(ended) = self.attempts.join_next().await {
            match ended {
                Ok((endpoint, Ok(session))) if endpoint.may_have(self.model) => {
                    return Some(Candidate { endpoint, session, was_open: false });
                }
                Ok((endpoint, Ok(_))) => self.lacks(&endpoint),
                Ok((endpoint, Err(failure))) => drop(self.failures.insert(endpoint.place, failure)),
                Err(_panicked) => {}
            }
        }
        None
    }

    /// One whose session broke: verified anew, it is a candidate again, after those with an open session.
    pub(super) fn again(&mut self, endpoint: &Arc<Endpoint>) {
        self.rest.push(Arc::clone(endpoint));
    }

    fn lacks(&mut self, endpoint: &Endpoint) {
        let failure = endpoint.failure("it is verified, and does not serve this model".to_owned(), None);
        self.lacking.insert(endpoint.place, failure);
    }

    /// Why those that could not be verified cannot be used.
    pub(super) fn failures(&mut self) -> Vec<EndpointFailure> {
        std::mem::take(&mut self.failures).into_values().collect()
    }

    /// Why nobody could be asked. As long as one enclave cannot be used, nobody knows whether it has the model.
    pub(super) fn none(&mut self) -> Error {
        if self.failures.is_empty() {
            return Error::NoSuchModel;
        }
        self.failures.append(&mut self.lacking);
        Error::NoneVerified(self.failures())
    }
}
