//! One accepted request on its way to its answer, a step at a time.

use crate::detokenizer::Detokenizer;
use crate::error::Error;
use crate::kv::KvCache;
use crate::llama::Llama;
use crate::model::{Model, PREFILL_CHUNK};
use crate::request::{FailureKind, FinishReason, GenerateEvent, Sink};
use crate::sampler::{Sampled, Sampler};
use crate::scored::{TokenLogprobs, Untold};
use crate::secret::{SecretString, Tokens};
use crate::stop::StopMatcher;
use std::ops::ControlFlow;
use std::time::Instant;
use zeroize::Zeroizing;

/// A request that was accepted and waits for its turn.
pub(crate) struct Job {
    pub(crate) prompt: Tokens,
    /// Most tokens of the answer: prompt and answer fit into the context.
    pub(crate) max_tokens: usize,
    pub(crate) sampler: Sampler,
    pub(crate) stop: StopMatcher,
    pub(crate) deadline: Option<Instant>,
    pub(crate) sink: Sink,
}

impl Job {
    /// Whether to go on: the deadline is ahead and the sink wants more. Tells the sink of a missed deadline.
    pub(crate) fn poll(&mut self, now: Instant) -> ControlFlow<()> {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.fail(FailureKind::Deadline);
            return ControlFlow::Break(());
        }
        (self.sink)(GenerateEvent::Working)
    }

    pub(crate) fn fail(&mut self, kind: FailureKind) {
        let _last = (self.sink)(GenerateEvent::Failed(kind));
    }
}

/// A request that has its own cache and takes part in every round.
pub(crate) struct Running {
    job: Job,
    kv: KvCache,
    detokenizer: Detokenizer,
    untold: Untold,
    /// Tokens of the prompt that ran.
    read: usize,
    completion_tokens: usize,
    last: u32,
}

impl Running {
    pub(crate) fn new(job: Job, model: &Model) -> Self {
        let kv = model.llama.cache();
        let (detokenizer, untold) = Default::default();
        Self { job, kv, detokenizer, untold, read: 0, completion_tokens: 0, last: 0 }
    }

    /// A chunk of the prompt or one token of the answer. `Break`: the sink had its last event or wants no more.
    pub(crate) fn step(&mut self, model: &Model, pool: &rayon::ThreadPool) -> Result<ControlFlow<()>, Error> {
        if self.job.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.job.fail(FailureKind::Deadline);
            return Ok(ControlFlow::Break(()));
        }
        let logits = pool.install(|| self.compute(&model.llama))?;
        let Some(logits) = logits else { return Ok((self.job.sink)(GenerateEvent::Working)) };
        match self.job.sampler.sample(&logits) {
            Ok(sampled) => Ok(self.take(model, &sampled)),
            Err(Error::NoAllowedToken) => {
                self.job.fail(FailureKind::NoAllowedToken);
                Ok(ControlFlow::Break(()))
            }
            Err(error) => Err(error),
        }
    }

    /// Scores of the next token, or nothing while there is more of the prompt to read.
    fn compute(&mut self, llama: &Llama) -> Result<Option<Zeroizing<Vec<f32>>>, Error> {
        let unread = self.job.prompt.as_slice().get(self.read..).unwrap_or_default();
        let activations = match unread.chunks(PREFILL_CHUNK).next() {
            None => llama.advance(&mut self.kv, &[self.last])?,
            Some(chunk) => {
                let activations = llama.advance(&mut self.kv, chunk)?;
                self.read += chunk.len();
                if chunk.len() < unread.len() {
                    return Ok(None);
                }
                activations
            }
        };
        llama.logits(&activations).map(Some)
    }

    pub(crate) fn fail(&mut self, kind: FailureKind) {
        self.job.fail(kind);
    }

    /// Passes on what a new token adds to the answer.
    fn take(&mut self, model: &Model, sampled: &Sampled) -> ControlFlow<()> {
        let token = sampled.token;
        self.last = token;
        self.completion_tokens += 1;
        if model.tokenizer.is_end(token) {
            return self.finish(FinishReason::Stop);
        }
        let text = self.detokenizer.push(model.tokenizer.bytes(token));
        let logprobs = sampled.logprobs.as_ref();
        let scored = logprobs.map(|logprobs| TokenLogprobs::new(&model.tokenizer, token, logprobs));
        self.untold.push(scored, text.len());
        let passed = self.job.stop.push(text.expose());
        self.pass(passed.text)?;
        if passed.stopped {
            return self.last_event(FinishReason::Stop);
        }
        if self.completion_tokens >= self.job.max_tokens {
            return self.finish(FinishReason::Length);
        }
        ControlFlow::Continue(())
    }

    /// Passes on what was held back, and the end.
    fn finish(&mut self, reason: FinishReason) -> ControlFlow<()> {
        let rest = self.detokenizer.finish();
        self.untold.push(None, rest.len());
        let passed = self.job.stop.push(rest.expose());
        let stopped = passed.stopped;
        self.pass_text(passed.text)?;
        if stopped {
            return self.last_event(FinishReason::Stop);
        }
        let held = self.job.stop.finish();
        self.pass_text(held)?;
        self.last_event(reason)
    }

    fn last_event(&mut self, reason: FinishReason) -> ControlFlow<()> {
        let (prompt_tokens, completion_tokens) = (self.job.prompt.len(), self.completion_tokens);
        let _last = (self.job.sink)(GenerateEvent::Finished { reason, prompt_tokens, completion_tokens });
        ControlFlow::Break(())
    }

    /// One event, with text if there is any.
    fn pass(&mut self, text: SecretString) -> ControlFlow<()> {
        if text.is_empty() { (self.job.sink)(GenerateEvent::Working) } else { self.pass_text(text) }
    }

    fn pass_text(&mut self, text: SecretString) -> ControlFlow<()> {
        if text.is_empty() {
            return ControlFlow::Continue(());
        }
        let (completion_tokens, logprobs) = (self.completion_tokens, self.untold.pass(text.len()));
        (self.job.sink)(GenerateEvent::Text { text, completion_tokens, logprobs })
    }
}
