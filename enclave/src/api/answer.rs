//! Answers: from the engine's events to a response, streamed or whole.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use cocoon_inference::{
    Engine, FailureKind, FinishReason, GenerateEvent, GenerateRequest, SecretString, Sink,
};
use http::{Response, StatusCode};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{Semaphore, mpsc};
use zeroize::Zeroizing;

use super::account::Account;
use super::error::ApiError;
use super::format::Asked;
use super::respond::{Body, comment, event_stream, json_response};
use super::wanted::{Answer, Head, Outcome, Piece, Wanted, Writer};
use crate::Enclave;
use crate::model::{Embeds, Served, Work};

/// Prompts that are being rendered and split into tokens at once, schemas that are compiled included.
static PREPARING: Semaphore = Semaphore::const_new(2);

/// Events of all answers to a request, with the number of the answer.
type Events = mpsc::UnboundedReceiver<(usize, GenerateEvent)>;

pub(super) async fn answer(
    enclave: &Enclave,
    served: &Arc<Served>,
    wanted: Wanted,
    deadline: Instant,
    account: Account,
) -> Result<Response<Body>, ApiError> {
    let Wanted { model, mut generate, rules, choices, stream, names, writer } = wanted;
    let head = head(enclave, model)?;
    generate.deadline = Some(deadline);
    // At most as many events as the answers have tokens wait here for a slow client.
    let (sender, events) = mpsc::unbounded_channel();
    let sinks = (0..choices).map(|choice| sink(choice, &sender)).collect();
    drop(sender);
    let submitted = on_engine(served, move |engine| submit(engine, generate, rules, sinks)).await;
    submitted.map_err(|error| error.with_names(names))?;
    let run = Run { head, writer, left: choices, outcome: NOTHING, account };
    if stream { Ok(run.stream(events)) } else { run.collect(events, choices).await }
}

/// Computes what needs the model, off the threads that serve connections: rendering and splitting a long prompt takes many milliseconds.
/// Not so often at once that reports and answers wait for it.
pub(super) async fn on_engine<T: Send + 'static>(
    served: &Arc<Served>,
    work: impl FnOnce(&Engine) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    served.engine()?;
    off_thread(served, move |served| work(served.engine()?)).await
}

/// The same, for any model.
pub(super) async fn off_thread<T: Send + 'static>(
    served: &Arc<Served>,
    work: impl FnOnce(&Served) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let internal = || ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the engine failed");
    let turn = PREPARING.acquire().await.map_err(|_closed| internal())?;
    let served = Arc::clone(served);
    let done = tokio::task::spawn_blocking(move || {
        // Over when the work is, also if nobody waits for it any more.
        let _turn = turn;
        work(&served)
    });
    done.await.map_err(|_panicked| internal())?
}

impl Served {
    /// What writes, or an error for requests that want text.
    fn engine(&self) -> Result<&Engine, ApiError> {
        match &self.work {
            Work::Writes(engine) => Ok(engine),
            Work::Embeds(_) => {
                let message = "makes vectors and writes no text; ask it at POST /v1/embeddings";
                Err(ApiError::invalid("model", message).code("unsupported_value"))
            }
        }
    }

    /// What makes vectors, or an error for requests that want them.
    pub(super) fn embeds(&self) -> Result<&Embeds, ApiError> {
        match &self.work {
            Work::Embeds(embeds) => Ok(embeds),
            Work::Writes(_) => {
                let message =
                    "writes text and makes no vectors; GET /v1/models says which models have type embedding";
                Err(ApiError::invalid("model", message).code("unsupported_value"))
            }
        }
    }
}

fn submit(
    engine: &Engine,
    mut generate: GenerateRequest,
    rules: Option<Asked>,
    sinks: Vec<Sink>,
) -> Result<(), ApiError> {
    if let Some(asked) = rules {
        let grammar = engine.model().grammar(&asked.rules).map_err(|error| asked.error(&error))?;
        generate.mask = Some(Box::new(grammar));
    }
    engine.submit_choices(&generate, sinks)?;
    Ok(())
}

fn sink(choice: usize, sender: &mpsc::UnboundedSender<(usize, GenerateEvent)>) -> Sink {
    let sender = sender.clone();
    Box::new(move |event| {
        let gone = if matches!(event, GenerateEvent::Working) {
            sender.is_closed()
        } else {
            sender.send((choice, event)).is_err()
        };
        if gone { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
}

fn head(enclave: &Enclave, model: String) -> Result<Head, ApiError> {
    let mut id = [0; 16];
    SystemRandom::new()
        .fill(&mut id)
        .map_err(|_none| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "no random bytes"))?;
    Ok(Head { id: hex::encode(id), created: enclave.node.now().0, model })
}

fn failure(kind: FailureKind) -> ApiError {
    match kind {
        FailureKind::Deadline => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the answer took longer than this enclave allows")
                .code("deadline_exceeded")
        }
        FailureKind::Stopping => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the enclave is stopping")
            .code("stopping")
            .retry_after(1),
        FailureKind::NoAllowedToken => ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "the format that was asked for allows no answer here, or takes too much work; make the schema simpler",
        )
        .code("no_allowed_token"),
        FailureKind::Internal | _ => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the engine failed"),
    }
}

const NOTHING: Outcome = Outcome { prompt_tokens: 0, completion_tokens: 0, finish_reason: "" };

/// Answers on their way.
struct Run {
    head: Head,
    writer: Box<dyn Writer>,
    /// Answers that have not ended.
    left: usize,
    outcome: Outcome,
    account: Account,
}

impl Run {
    /// An answer has ended.
    fn count(&mut self, prompt_tokens: usize, completion_tokens: usize) {
        self.left = self.left.saturating_sub(1);
        self.outcome.prompt_tokens = prompt_tokens;
        self.outcome.completion_tokens += completion_tokens;
    }

    /// All have ended: the one place where it is known what they came to.
    fn settle(&self) {
        self.account.settle(self.outcome);
    }

    fn stream(mut self, mut events: Events) -> Response<Body> {
        let account = self.account.clone();
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut chunks = self.writer.begin(&self.head);
            loop {
                for chunk in chunks.drain(..) {
                    if sender.send(chunk).await.is_err() {
                        return; // The client is gone; dropping `events` cancels the request.
                    }
                }
                if self.left == 0 {
                    return;
                }
                let next = tokio::select! {
                    next = events.recv() => next,
                    () = sender.closed() => return,
                };
                let Some(next) = next else { return };
                chunks = together(next, &mut events)
                    .into_iter()
                    .flat_map(|(choice, event)| self.chunks(choice, event))
                    .collect();
            }
        });
        let mut response = event_stream(receiver);
        response.extensions_mut().insert(account);
        response
    }

    fn chunks(&mut self, choice: usize, event: GenerateEvent) -> Vec<Bytes> {
        match event {
            GenerateEvent::Working => Vec::new(),
            // The prompts of all are the same.
            GenerateEvent::Reading { .. } if choice > 0 => Vec::new(),
            GenerateEvent::Reading { read, prompt_tokens } => {
                vec![comment(&format!("prefill {read}/{prompt_tokens}"))]
            }
            GenerateEvent::Text { text, logprobs, .. } => {
                self.writer.piece(&self.head, choice, Piece { text, logprobs })
            }
            GenerateEvent::Finished { reason, prompt_tokens, completion_tokens } => {
                self.count(prompt_tokens, completion_tokens);
                let (mut chunks, told) = self.writer.finish(&self.head, choice, reason);
                if choice == 0 {
                    self.outcome.finish_reason = told;
                }
                if self.left == 0 {
                    self.settle();
                    chunks.extend(self.writer.end(&self.head, &self.outcome));
                }
                chunks
            }
            GenerateEvent::Failed(kind) => {
                self.left = 0;
                self.writer.fail(&self.head, &failure(kind))
            }
        }
    }

    async fn collect(mut self, mut events: Events, choices: usize) -> Result<Response<Body>, ApiError> {
        let mut parts: Vec<Vec<Piece>> = (0..choices).map(|_| Vec::new()).collect();
        let mut reasons = vec![FinishReason::Stop; choices];
        while self.left > 0 {
            let (choice, event) = events.recv().await.ok_or_else(|| failure(FailureKind::Internal))?;
            match event {
                GenerateEvent::Working | GenerateEvent::Reading { .. } => {}
                GenerateEvent::Text { text, logprobs, .. } => {
                    if let Some(pieces) = parts.get_mut(choice) {
                        pieces.push(Piece { text, logprobs });
                    }
                }
                GenerateEvent::Finished { reason, prompt_tokens, completion_tokens } => {
                    if let Some(told) = reasons.get_mut(choice) {
                        *told = reason;
                    }
                    self.count(prompt_tokens, completion_tokens);
                }
                GenerateEvent::Failed(kind) => return Err(failure(kind)),
            }
        }
        let answers: Vec<_> = parts.into_iter().zip(reasons).map(joined).collect();
        let (whole, told) = self.writer.whole(&self.head, &answers);
        self.outcome.finish_reason = told;
        self.settle();
        let mut response = json_response(StatusCode::OK, &self.writer.with_outcome(whole, &self.outcome));
        response.extensions_mut().insert(self.account);
        Ok(response)
    }
}

/// An event, with the text of those that wait behind it: they came while the one before was on its way.
fn together(first: (usize, GenerateEvent), events: &mut Events) -> Vec<(usize, GenerateEvent)> {
    let mut all = vec![first];
    while let Ok(next) = events.try_recv() {
        match (all.last_mut(), next) {
            (
                Some((choice, GenerateEvent::Text { text, completion_tokens, logprobs })),
                (same, GenerateEvent::Text { text: more, completion_tokens: tokens, logprobs: scored }),
            ) if *choice == same => {
                *text = SecretString::from([text.expose(), more.expose()].concat());
                *completion_tokens = tokens;
                logprobs.extend(scored);
            }
            (_, next) => all.push(next),
        }
    }
    all
}

fn joined((pieces, reason): (Vec<Piece>, FinishReason)) -> Answer {
    let len = pieces.iter().map(|piece| piece.text.len()).sum();
    let mut text = Zeroizing::new(String::with_capacity(len));
    let mut logprobs = Vec::new();
    for piece in pieces {
        text.push_str(piece.text.expose());
        logprobs.extend(piece.logprobs);
    }
    Answer { text, logprobs, reason }
}
