//! The enclaves behind the proxy: verified ones only, and which of them a request goes to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cocoon_client::{Answer, AttestedSession, Error, Policy, Report, connect};
use http::StatusCode;
use serde_json::{Value, json};

/// After a failure an enclave is left alone for so long, and twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// All enclaves.
#[derive(Debug)]
pub(super) struct Upstreams {
    all: Vec<Arc<Upstream>>,
    policy: Policy,
    padded: bool,
}

#[derive(Debug)]
struct Upstream {
    endpoint: String,
    state: Mutex<State>,
    /// Requests that it has of us.
    busy: AtomicUsize,
    /// One at a time connects.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    session: Option<AttestedSession>,
    /// Entries of its list of models.
    models: Vec<Value>,
    /// Why there is no session.
    failure: Option<Failure>,
    failures: u32,
    not_before: Option<Instant>,
}

/// Why an enclave cannot be used.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) endpoint: String,
    pub(super) message: String,
    /// The appraisal, if it was refused.
    pub(super) report: Option<Box<Report>>,
}

/// A request that an enclave works on.
pub(super) struct Busy(Arc<Upstream>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a request got no answer.
pub(super) enum Refusal {
    /// No enclave can be used: of each, why.
    NoneVerified(Vec<Failure>),
    /// No enclave has such a model.
    NoSuchModel,
    /// The last that was asked.
    Failed(Error),
}

impl Upstreams {
    pub(super) fn new(endpoints: Vec<String>, policy: Policy, padded: bool) -> Self {
        let upstream = |endpoint| {
            Arc::new(Upstream {
                endpoint,
                state: Mutex::default(),
                busy: AtomicUsize::new(0),
                connecting: tokio::sync::Mutex::default(),
            })
        };
        Self { all: endpoints.into_iter().map(upstream).collect(), policy, padded }
    }

    /// Verifies those that were not, if it is their time. Gives those that can be used, the least busy first, and why others cannot.
    async fn usable(&self) -> (Vec<(Arc<Upstream>, AttestedSession)>, Vec<Failure>) {
        let all = self.all.iter().map(|upstream| {
            let (upstream, policy, padded) = (Arc::clone(upstream), self.policy.clone(), self.padded);
            tokio::spawn(async move {
                let session = upstream.session(policy, padded).await;
                session.map(|session| (upstream, session))
            })
        });
        let (mut usable, mut failures) = (Vec::new(), Vec::new());
        for task in all.collect::<Vec<_>>() {
            match task.await {
                Ok(Ok(session)) => usable.push(session),
                Ok(Err(failure)) => failures.push(failure),
                Err(_panicked) => {}
            }
        }
        usable.sort_by_key(|(upstream, _)| upstream.busy.load(Ordering::Relaxed));
        (usable, failures)
    }

    /// Verifies all; why some cannot be used.
    pub(super) async fn verify(&self) -> Vec<Failure> {
        self.usable().await.1
    }

    /// Posts a request to a verified enclave that has the model, to another one if that fails before it answers.
    pub(super) async fn post(
        &self,
        path: &str,
        model: Option<&str>,
        json: &[u8],
    ) -> Result<(Answer, Busy), Refusal> {
        let (usable, failures) = self.usable().await;
        if usable.is_empty() {
            return Err(Refusal::NoneVerified(failures));
        }
        let mut last = Refusal::NoSuchModel;
        for (upstream, session) in usable {
            if !upstream.may_have(model) {
                continue;
            }
            upstream.busy.fetch_add(1, Ordering::Relaxed);
            let busy = Busy(Arc::clone(&upstream));
            match first_bytes(session.post(path, json).await).await {
                Ok(answer) if !is_elsewhere_better(&answer) => return Ok((answer, busy)),
                Ok(answer) => last = Refusal::Failed(answer.into_error().await),
                Err(error) => {
                    if !matches!(error, Error::Api { .. }) {
                        upstream.lost(&error);
                    }
                    last = Refusal::Failed(error);
                }
            }
        }
        Err(last)
    }

    /// The models of all verified enclaves, each once; or why there are none.
    pub(super) async fn models(&self) -> Result<Vec<Value>, Vec<Failure>> {
        let (usable, failures) = self.usable().await;
        if usable.is_empty() {
            return Err(failures);
        }
        let mut models: Vec<Value> = Vec::new();
        for (upstream, _) in usable {
            for model in &upstream.state().models {
                if !models.iter().any(|known| known["id"] == model["id"]) {
                    models.push(model.clone());
                }
            }
        }
        Ok(models)
    }

    /// What is known of each enclave, with all factors.
    pub(super) fn attestation(&self) -> Value {
        let one = |upstream: &Arc<Upstream>| {
            let state = upstream.state();
            let session = state.session.as_ref().filter(|session| session.is_open());
            let verified = session.map(|session| Box::new(session.result().report().clone()));
            let report = verified.or_else(|| state.failure.as_ref()?.report.clone());
            let error = state.failure.as_ref().filter(|_| session.is_none()).map(|failure| &failure.message);
            json!({
                "endpoint": upstream.endpoint, "usable": session.is_some(), "error": error, "result": report,
            })
        };
        json!({ "upstreams": self.all.iter().map(one).collect::<Vec<_>>() })
    }
}

impl Upstream {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The verified session, or why there is none. Connects if there was none and it is time.
    async fn session(&self, policy: Policy, padded: bool) -> Result<AttestedSession, Failure> {
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
                None if padded => connect(&self.endpoint, policy).await?,
                None => connect(&self.endpoint, policy).await?.without_padding(),
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

    /// What needs no connecting: an open session, or a failure that is too young to try again.
    fn known(&self) -> Option<Result<AttestedSession, Failure>> {
        let state = self.state();
        if let Some(session) = state.session.as_ref().filter(|session| session.is_open()) {
            return (!state.models.is_empty()).then(|| Ok(session.clone()));
        }
        let failure = state.failure.clone()?;
        state.not_before.is_some_and(|not_before| Instant::now() < not_before).then_some(Err(failure))
    }

    /// The session is gone, or there was none: not again for a while.
    fn lost(&self, error: &Error) -> Failure {
        let report = error.report().map(Box::new);
        let failure = Failure { endpoint: self.endpoint.clone(), message: error.to_string(), report };
        let mut state = self.state();
        let pause = FIRST_PAUSE.saturating_mul(1 << state.failures.min(10)).min(LONGEST_PAUSE);
        // A connection that an enclave closed is no sign that it cannot be reached.
        let ended = matches!(error, Error::Ended(_)) && state.failures == 0;
        state.failures = state.failures.saturating_add(1);
        state.not_before = (!ended).then(|| Instant::now() + pause);
        state.session = None;
        state.failure = Some(failure.clone());
        failure
    }

    /// Whether it has the model, as far as is known; without a name it is for the enclave to complain.
    fn may_have(&self, model: Option<&str>) -> bool {
        let state = self.state();
        let has = |model: &str| state.models.iter().any(|known| known["id"] == model);
        model.is_none_or(|model| state.models.is_empty() || has(model))
    }
}

/// Waits for the first bytes: what fails before them can be asked of another enclave.
async fn first_bytes(answer: Result<Answer, Error>) -> Result<Answer, Error> {
    let mut answer = answer?;
    answer.body.wait().await?;
    Ok(answer)
}

/// Whether another enclave may have what this one has not now: a place, its model loaded.
fn is_elsewhere_better(answer: &Answer) -> bool {
    matches!(answer.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}
