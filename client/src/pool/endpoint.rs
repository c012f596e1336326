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
    /// Among those of its handle.
    pub(super) place: usize,
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
    /// How often it failed since its last answer: that it attests is no sign that it answers.
    failures: u32,
    not_before: Option<Instant>,
}

impl State {
    fn open(&self) -> Option<AttestedSession> {
        self.session.clone().filter(AttestedSession::is_open)
    }

    /// There is no session any more.
    fn fail(&mut self, failure: EndpointFailure, again: Again) {
        self.session = None;
        self.failure = Some(failure);
        self.not_before = match again {
            Again::AtOnce => None,
            Again::Later => Some(Instant::now() + pause(self.failures)),
        };
        if again == Again::Later {
            self.failures = self.failures.saturating_add(1);
        }
    }
}

/// When an enclave whose session is gone may be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// Its connection broke before a request could be sent, which is no sign that it cannot be reached.
    AtOnce,
    /// After a pause, which grows.
    Later,
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
    pub(super) fn new(place: usize, endpoint: String) -> Arc<Self> {
        let (state, requests, connecting) = Default::default();
        Arc::new(Self { place, endpoint, state, requests, connecting })
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

    /// The open session, if the enclave has its model loaded. Connects to nobody.
    pub(super) fn open(&self) -> Option<AttestedSession> {
        let state = self.state();
        state.open().filter(|_| !state.models.is_empty())
    }

    /// Whether it is time to connect, and nobody does.
    pub(super) fn is_due(&self) -> bool {
        self.known().is_none() && self.connecting.try_lock().is_ok()
    }

    /// The verified session, or why there is none. Connects if there was none and it is time.
    pub(super) async fn session(&self, settings: &Settings) -> Result<AttestedSession, EndpointFailure> {
        if let Some(known) = self.known() {
            return known;
        }
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(known) = self.known() {
            return known;
        }
        let verified = self.verified(settings).await;
        let mut state = self.state();
        match verified {
            Ok((session, models)) => {
                let failures = state.failures;
                *state = State { session: Some(session.clone()), models, failures, ..State::default() };
                Ok(session)
            }
            Err(error) => {
                let failure = self.failure(error.to_string(), error.report());
                state.fail(failure.clone(), Again::Later);
                Err(failure)
            }
        }
    }

    async fn verified(&self, settings: &Settings) -> Result<(AttestedSession, Vec<Value>), Error> {
        let open = self.state().open();
        if let Some(session) = open {
            // Its model was loading.
            match models(&session).await {
                Err(error) if error.is_gone() => {}
                models => return Ok((session, models?)),
            }
        }
        let session = self.connect(settings).await?;
        let models = models(&session).await?;
        Ok((session, models))
    }

    async fn connect(&self, settings: &Settings) -> Result<AttestedSession, Error> {
        let connected = connect(&self.endpoint, settings.policy.clone());
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
        if let Some(session) = state.open() {
            return (!state.models.is_empty()).then_some(Ok(session));
        }
        let failure = state.failure.clone()?;
        state.not_before.is_some_and(|not_before| Instant::now() < not_before).then_some(Err(failure))
    }

    /// A session failed: it is not used any more. A newer one that took its place meanwhile is.
    pub(super) fn lost(&self, session: &AttestedSession, error: &Error, again: Again) {
        let mut state = self.state();
        if state.session.as_ref().is_some_and(|current| current.is_same(session)) {
            state.fail(self.failure(error.to_string(), error.report()), again);
        }
    }

    /// It answered: its next failure is the first one again.
    pub(super) fn answered(&self) {
        self.state().failures = 0;
    }

    /// Why it cannot be used.
    pub(super) fn failure(&self, message: String, report: Option<Report>) -> EndpointFailure {
        EndpointFailure { endpoint: self.endpoint.clone(), message, report: report.map(Box::new) }
    }

    /// Whether it has the model, as far as is known; without a name it is for the enclave to complain.
    pub(super) fn may_have(&self, model: Option<&str>) -> bool {
        let state = self.state();
        let has = |model: &str| state.models.iter().any(|known| known["id"] == model);
        model.is_none_or(|model| state.models.is_empty() || has(model))
    }
}

/// None as long as they are loading: then it answers with an error.
async fn models(session: &AttestedSession) -> Result<Vec<Value>, Error> {
    match session.list_models().await {
        Err(Error::Api { .. }) => Ok(Vec::new()),
        models => models,
    }
}
