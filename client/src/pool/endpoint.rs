//! One enclave of several: its session, or why there is none.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::Value;

use super::builder::Settings;
use super::pause;
use crate::error::Error;
use crate::session::AttestedSession;
use crate::{Report, connect};

#[derive(Debug)]
pub(super) struct Endpoint {
    endpoint: String,
    state: Mutex<State>,
    /// Requests that it has of us.
    requests: AtomicUsize,
    /// One at a time connects.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    session: Option<AttestedSession>,
    /// Entries of its list of models.
    models: Vec<Value>,
    /// Why there is no session.
    failure: Option<EndpointFailure>,
    failures: u32,
    not_before: Option<Instant>,
}

/// Why an enclave cannot be used.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointFailure {
    /// `HOST:PORT`, as it was given.
    pub endpoint: String,
    /// What happened, for people.
    pub message: String,
    /// The appraisal, if the enclave was refused because of its evidence.
    pub report: Option<Box<Report>>,
}

/// What is known of an enclave.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointStatus {
    /// `HOST:PORT`, as it was given.
    pub endpoint: String,
    /// Whether there is a verified session.
    pub is_usable: bool,
    /// Requests of this handle that it works on.
    pub requests: usize,
    /// The last appraisal.
    pub report: Option<Box<Report>>,
    /// Why there is no session, if there was an attempt.
    pub message: Option<String>,
}

/// A request that an enclave works on.
pub(crate) struct Busy(Arc<Endpoint>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Endpoint {
    pub(super) fn new(endpoint: String) -> Arc<Self> {
        let (state, requests, connecting) = Default::default();
        Arc::new(Self { endpoint, state, requests, connecting })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Counts a request until the result is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    pub(super) fn models(&self) -> Vec<Value> {
        self.state().models.clone()
    }

    pub(super) fn status(&self) -> EndpointStatus {
        let state = self.state();
        let session = state.session.as_ref().filter(|session| session.is_open());
        let verified = session.map(|session| Box::new(session.result().report().clone()));
        let failure = state.failure.as_ref().filter(|_| session.is_none());
        EndpointStatus {
            endpoint: self.endpoint.clone(),
            is_usable: session.is_some(),
            requests: self.requests(),
            report: verified.or_else(|| state.failure.as_ref()?.report.clone()),
            message: failure.map(|failure| failure.message.clone()),
        }
    }

    /// The verified session, or why there is none. Connects if there was none and it is time.
    pub(super) async fn session(&self, settings: Settings) -> Result<AttestedSession, EndpointFailure> {
        if let Some(known) = self.known() {
            return known;
        }
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(known) = self.known() {
            return known;
        }
        let open = self.state().session.clone().filter(AttestedSession::is_open);
        let connected = async {
            let session = match open {
                Some(session) => session,
                None => self.connect(settings).await?,
            };
            match session.list_models().await {
                // It says so as long as its model is loading.
                Err(Error::Api { .. }) => Ok((session, Vec::new())),
                models => models.map(|models| (session, models)),
            }
        };
        match connected.await {
            Ok((session, models)) => {
                *self.state() = State { session: Some(session.clone()), models, ..State::default() };
                Ok(session)
            }
            Err(error) => Err(self.lost(&error)),
        }
    }

    async fn connect(&self, settings: Settings) -> Result<AttestedSession, Error> {
        let connected = connect(&self.endpoint, settings.policy);
        let session = match settings.connect {
            Some(patience) => tokio::time::timeout(patience, connected)
                .await
                .map_err(|_elapsed| Error::unreachable(&self.endpoint, "no verified session in time"))?,
            None => connected.await,
        }?;
        Ok(if settings.padding { session } else { session.without_padding() })
    }

    /// What needs no connecting: an open session, or a failure that is too young to try again.
    fn known(&self) -> Option<Result<AttestedSession, EndpointFailure>> {
        let state = self.state();
        if let Some(session) = state.session.as_ref().filter(|session| session.is_open()) {
            return (!state.models.is_empty()).then(|| Ok(session.clone()));
        }
        let failure = state.failure.clone()?;
        state.not_before.is_some_and(|not_before| Instant::now() < not_before).then_some(Err(failure))
    }

    /// The session is gone, or there was none: not again for a while.
    pub(super) fn lost(&self, error: &Error) -> EndpointFailure {
        let report = error.report().map(Box::new);
        let failure = EndpointFailure { endpoint: self.endpoint.clone(), message: error.to_string(), report };
        let mut state = self.state();
        // A connection that an enclave closed is no sign that it cannot be reached.
        let ended = matches!(error, Error::Ended(_)) && state.failures == 0;
        state.not_before = (!ended).then(|| Instant::now() + pause(state.failures));
        state.failures = state.failures.saturating_add(1);
        state.session = None;
        state.failure = Some(failure.clone());
        failure
    }

    /// Whether it has the model, as far as is known; without a name it is for the enclave to complain.
    pub(super) fn may_have(&self, model: Option<&str>) -> bool {
        let state = self.state();
        let has = |model: &str| state.models.iter().any(|known| known["id"] == model);
        model.is_none_or(|model| state.models.is_empty() || has(model))
    }
}
