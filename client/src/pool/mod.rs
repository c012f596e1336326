//! Several enclaves behind one handle: verified ones only, and which of them a request goes to.

mod builder;
mod candidates;
mod endpoint;

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use zeroize::Zeroizing;

pub use builder::ClientBuilder;
pub(crate) use endpoint::Busy;
pub use endpoint::{EndpointFailure, EndpointStatus};

use crate::answer::Answer;
use crate::chat::{ChatAnswer, ChatRequest, ChatStream};
use crate::error::Error;
use crate::session::AttestedSession;
use builder::Settings;
use candidates::{Candidate, Candidates};
use endpoint::{Again, Endpoint};

/// How often to ask whether a model is loaded.
const POLL: Duration = Duration::from_millis(300);

/// How long others may take to be verified once there is something to answer with: a list of models, or that an enclave is busy. A hardware
/// report can take a second.
const GRACE: Duration = Duration::from_secs(2);

/// Verified enclaves that serve the same, behind one handle. Cheap to clone; clones share their sessions.
///
/// A request goes to the enclave with the fewest requests of this handle among those that pass the policy and have the model. If that one
/// cannot be reached, has no place (429), or has no model loaded (503), the next one is asked, until the first bytes of an answer are
/// there. An enclave that fails is left alone for half a second, then a second, at most half a minute, until it answers again; then it is
/// verified anew, beside requests that other enclaves answer.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    endpoints: Vec<Arc<Endpoint>>,
    settings: Settings,
}

/// A model that enclaves serve.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Model {
    /// Its name, for [`ChatRequest::new`].
    pub id: String,
    /// Tokens of prompt and answer together, at most.
    pub context_length: Option<u64>,
    /// SHA-256 of its manifest, in hex: what a policy names.
    pub manifest_digest: Option<String>,
    /// What it is for.
    #[serde(rename = "type", default)]
    pub kind: ModelKind,
    /// Numbers of a vector, of a model for embeddings.
    pub dimensions: Option<u64>,
}

/// What a model is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
#[non_exhaustive]
pub enum ModelKind {
    /// [`Client::chat`]. Enclaves of earlier versions do not say so, and have no others.
    #[default]
    Chat,
    /// [`Client::embed`].
    Embedding,
    /// What this version of the SDK has no name for.
    Other(String),
}

impl Model {
    pub(crate) fn of(listed: Value) -> Result<Self, Error> {
        serde_json::from_value(listed).map_err(|_other| Error::BadAnswer("not a model"))
    }
}

impl From<String> for ModelKind {
    fn from(text: String) -> Self {
        match text.as_str() {
            "chat" => Self::Chat,
            "embedding" => Self::Embedding,
            _ => Self::Other(text),
        }
    }
}

/// What of a request the handle looks at.
#[derive(Deserialize)]
struct Peek {
    model: Option<String>,
}

impl Client {
    /// Says which enclaves, and what is accepted there.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Verifies the enclaves that were not, or not successfully, if it is their time; why some cannot be used.
    pub async fn verify(&self) -> Vec<EndpointFailure> {
        let mut all = Candidates::all(&self.0);
        while all.next().await.is_some() {}
        all.failures()
    }

    /// What is known of each enclave. Asks nobody.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        self.0.endpoints.iter().map(|endpoint| endpoint.status()).collect()
    }

    /// The models of all verified enclaves, each once. One that is loading is not among them. Once one is verified, the others have two
    /// seconds for it.
    ///
    /// # Errors
    /// [`Error::NoneVerified`], [`Error::BadAnswer`].
    pub async fn models(&self) -> Result<Vec<Model>, Error> {
        self.list_models().await?.into_iter().map(Model::of).collect()
    }

    /// The same, as the enclaves write them.
    ///
    /// # Errors
    /// [`Error::NoneVerified`].
    pub async fn list_models(&self) -> Result<Vec<Value>, Error> {
        let usable = self.usable().await?;
        let mut models: Vec<Value> = Vec::new();
        for model in usable.iter().flat_map(|candidate| candidate.endpoint.models()) {
            if !models.iter().any(|known| known["id"] == model["id"]) {
                models.push(model);
            }
        }
        Ok(models)
    }

    /// The models, once there is one: enclaves can be verified before they have read theirs.
    ///
    /// # Errors
    /// As [`Client::models`]; [`Error::Timeout`] after [`ClientBuilder::timeout`]; [`Error::Api`] if the engines of all broke down.
    pub async fn ready(&self) -> Result<Vec<Model>, Error> {
        let deadline = self.0.settings.whole.map(|whole| Instant::now() + whole);
        let ready = async {
            loop {
                let models = self.models().await?;
                if !models.is_empty() {
                    return Ok(models);
                }
                self.is_hopeful().await?;
                tokio::time::sleep(POLL).await;
            }
        };
        in_time(deadline, "model", ready).await
    }

    /// Whether there is an enclave whose engine did not break down.
    async fn is_hopeful(&self) -> Result<(), Error> {
        for Candidate { session, .. } in self.usable().await? {
            if session.model_status().await.is_ok_and(|status| status.state != "failed") {
                return Ok(());
            }
        }
        let message = "the engine of this enclave broke down; ask another one".to_owned();
        Err(Error::Api { status: StatusCode::SERVICE_UNAVAILABLE.as_u16(), message, code: None })
    }

    /// Asks, and returns the answer as a stream. Dropping the stream cancels the request.
    ///
    /// # Errors
    /// As [`Client::post`], and [`Error::Api`].
    pub async fn chat(&self, request: &ChatRequest) -> Result<ChatStream, Error> {
        ChatStream::of(self.post(ChatRequest::PATH, &request.json()?).await?).await
    }

    /// Asks, and returns the whole answer once its receipt was verified. Dropping the future cancels the request.
    ///
    /// # Errors
    /// As [`Client::chat`] and [`ChatStream::next`].
    pub async fn complete(&self, request: &ChatRequest) -> Result<ChatAnswer, Error> {
        self.chat(request).await?.collect().await
    }

    /// Posts JSON to a URL of the OpenAI API (`/v1/..`) and returns the answer as it comes, whatever its status is. After its first bytes
    /// no other enclave is asked. If a connection that was there breaks before the answer begins, that enclave is verified anew and asked
    /// again, once: a request may be computed twice then, and by verified enclaves only.
    ///
    /// # Errors
    /// [`Error::NoneVerified`] and [`Error::NoSuchModel`]: then no enclave could be asked. Otherwise what the last enclave that was asked
    /// said, [`Error::Timeout`], or [`Error::Misuse`].
    pub async fn post(&self, path: &str, json: &[u8]) -> Result<Answer, Error> {
        let deadline = self.0.settings.whole.map(|whole| Instant::now() + whole);
        let mut answer = in_time(deadline, "answer", self.try_each(path, json)).await?;
        answer.body.until(deadline);
        Ok(answer)
    }

    async fn try_each(&self, path: &str, json: &[u8]) -> Result<Answer, Error> {
        let model = serde_json::from_slice::<Peek>(json).ok().and_then(|peek| peek.model);
        let (mut candidates, mut last) = (Candidates::of(&self.0, model.as_deref()), None);
        loop {
            let next = if matches!(&last, Some(Error::Api { .. })) {
                tokio::time::timeout(GRACE, candidates.next()).await.ok().flatten()
            } else {
                candidates.next().await
            };
            let Some(Candidate { endpoint, session, was_open }) = &next else { break };
            let busy = endpoint.busy();
            let first = self.0.settings.first_byte.map(|first| Instant::now() + first);
            match in_time(first, "first byte of an answer", first_bytes(session, path, json)).await {
                Ok(answer) if is_elsewhere_better(&answer) => last = Some(answer.into_error().await),
                Ok(mut answer) => {
                    endpoint.answered();
                    answer.body.hold(busy);
                    return Ok(answer);
                }
                Err(error @ Error::Misuse(_)) => return Err(error),
                // Of an enclave that is slow, the connection stays.
                Err(error @ (Error::Api { .. } | Error::Timeout(_))) => last = Some(error),
                // As with a new TLS key, after a quarter of an hour without a request, or when there is another enclave now.
                Err(error) if *was_open && error.is_gone() => {
                    endpoint.lost(session, &error, Again::AtOnce);
                    candidates.again(endpoint);
                }
                Err(error) => {
                    endpoint.lost(session, &error, Again::Later);
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| candidates.none()))
    }

    /// The session of the least busy verified enclave.
    pub(crate) async fn session(&self) -> Result<AttestedSession, Error> {
        let mut candidates = Candidates::of(&self.0, None);
        let first = candidates.next().await;
        first.map(|candidate| candidate.session).ok_or_else(|| candidates.none())
    }

    /// Those that can be used, in the order in which they were given.
    async fn usable(&self) -> Result<Vec<Candidate>, Error> {
        let mut all = Candidates::all(&self.0);
        let mut usable = Vec::from_iter(all.next().await);
        let soon = Instant::now() + GRACE;
        while let Ok(Some(next)) = tokio::time::timeout_at(soon, all.next()).await {
            usable.push(next);
        }
        usable.sort_by_key(|candidate| candidate.endpoint.place);
        if usable.is_empty() { Err(all.none()) } else { Ok(usable) }
    }
}

impl ChatRequest {
    /// As it is sent.
    pub(crate) fn json(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        serde_json::to_vec(self).map(Zeroizing::new).map_err(|e| Error::Misuse(e.to_string()))
    }
}

async fn in_time<T>(
    deadline: Option<Instant>,
    what: &'static str,
    step: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match deadline {
        Some(deadline) => {
            tokio::time::timeout_at(deadline, step).await.map_err(|_elapsed| Error::Timeout(what))?
        }
        None => step.await,
    }
}

/// Waits for the first bytes: what fails before them can be asked of another enclave.
async fn first_bytes(session: &AttestedSession, path: &str, json: &[u8]) -> Result<Answer, Error> {
    let mut answer = session.post(path, json).await?;
    answer.body.wait().await?;
    Ok(answer)
}

/// Whether another enclave may have what this one has not now: a place, its model loaded.
fn is_elsewhere_better(answer: &Answer) -> bool {
    matches!(answer.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

/// How long an enclave is left alone after its `failures`-th failure.
fn pause(failures: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(30);
    FIRST.saturating_mul(1 << failures.min(10)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute() {
        let seconds: Vec<f64> =
            [0, 1, 2, 5, 6, 7, u32::MAX].map(|failures| pause(failures).as_secs_f64()).into();
        assert_eq!(seconds, [0.5, 1.0, 2.0, 16.0, 30.0, 30.0, 30.0]);
    }
}
