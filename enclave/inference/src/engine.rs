//! The engine: accepts requests, runs several at a time, streams their answers.

use crate::backend::BLOCK_TOKENS;
use crate::compute::Room;
use crate::error::{Error, SubmitError};
use crate::model::Model;
use crate::request::{GenerateRequest, Sink, Submitted};
use crate::sampler::Sampler;
use crate::scheduler::{Limits, Scheduler};
use crate::secret::Tokens;
use crate::sequence::{Job, Running};
use crate::shared::{Breakdown, Counts, Shared, State};
use crate::stop::StopMatcher;
use crate::turns::Turns;
use ring::rand::{SecureRandom, SystemRandom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

const MAX_THREADS: usize = 1024;
const MAX_RUNNING: usize = 1024;

/// Less memory for keys and values than for so many blocks is of no use.
const MIN_BLOCKS: usize = 16;
/// Most tokens of a step.
const MAX_STEP_TOKENS: usize = 64 * 1024;

/// How an engine works.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EngineConfig {
    /// Threads that share the work of a step.
    pub threads: usize,
    /// Requests that run at a time.
    pub max_running: usize,
    /// Requests that wait beyond those; more are refused.
    pub max_waiting: usize,
    /// Tokens that are computed in a step at most: so long do answers wait for the prompts of others.
    pub step_tokens: usize,
    /// Bytes for keys and values of all requests together. Requests beyond wait, and give way to each other. No more is taken than
    /// all that may run can use; if a whole context of the model does not fit, contexts are shorter. Without a number: 4 GiB, or
    /// on a GPU three quarters of what is free beside the model.
    pub kv_bytes: Option<usize>,
    /// Whether to guess tokens from what was said before and check several at a time. Answers are the same.
    pub speculate: bool,
    /// Shared with other engines on the same processors: whoever has the turn computes. A GPU needs none.
    pub turns: Turns,
}

impl Default for EngineConfig {
    /// All processors, 64 running, 256 waiting, 256 tokens a step, as much memory for keys and values as is usual.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            threads: threads.min(MAX_THREADS),
            max_running: 64,
            max_waiting: 256,
            step_tokens: 256,
            kv_bytes: None,
            speculate: true,
            turns: Turns::default(),
        }
    }
}

impl EngineConfig {
    fn check(&self) -> Result<(), Error> {
        let checks = [
            ("threads", "must be between 1 and 1024", self.threads, MAX_THREADS),
            ("max_running", "must be between 1 and 1024", self.max_running, MAX_RUNNING),
            ("step_tokens", "must be between 1 and 65536", self.step_tokens, MAX_STEP_TOKENS),
            (
                "max_running",
                "must be at most step_tokens: each has a row of a step",
                self.max_running,
                self.step_tokens,
            ),
        ];
        match checks.into_iter().find(|(_, _, value, max)| !(1..=*max).contains(value)) {
            Some((name, problem, _, _)) => Err(Error::BadConfig { name, problem }),
            None => Ok(()),
        }
    }

    /// Blocks of the cache, and how many tokens a request may have.
    fn blocks(&self, model: &Model) -> Result<(usize, usize), Error> {
        let whole = model.context_length().div_ceil(BLOCK_TOKENS) + 1; // one for guesses at the end
        let bytes = self.kv_bytes.map_or_else(|| model.usual_kv_bytes(), Ok)?;
        let fit = bytes / model.spec().sizes.block_bytes();
        let blocks = fit.min(whole * self.max_running);
        if blocks <= MIN_BLOCKS.min(whole - 1) {
            return Err(Error::BadConfig {
                name: "kv_bytes",
                problem: "must hold 256 tokens of this model at least",
            });
        }
        Ok((blocks, model.context_length().min((blocks - 1) * BLOCK_TOKENS)))
    }
}

/// How busy an engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Requests that take part in every round.
    pub running: usize,
    /// Requests that wait for a place.
    pub waiting: usize,
}

/// A model at work on its own thread. Dropping it stops it at once.
pub struct Engine {
    model: Arc<Model>,
    shared: Arc<Shared>,
    capacity: usize,
    context_length: usize,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("model", &self.model)
            .field("load", &self.load())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts the engine's thread.
    pub fn start(model: Model, config: EngineConfig) -> Result<Self, Error> {
        config.check()?;
        model.grammars(); // not while somebody waits for an answer
        let model = Arc::new(model);
        let shared = Arc::new(Shared::default());
        let (blocks, context_length) = config.blocks(&model)?;
        let EngineConfig { threads, max_running, step_tokens, speculate, turns, .. } = config;
        let compute = model.compute(Room { threads, blocks, rows: step_tokens, wanted: max_running })?;
        // Nothing that others compute on processors is in the way of a GPU.
        let turns = if model.is_on_processors() { turns } else { Turns::default() };
        // What chooses its own tokens needs no guesses.
        let drafts = speculate && compute.most_ahead() == 0;
        let limits = Limits { running: max_running, tokens: step_tokens, drafts, turns };
        let mut secret = [0; 32];
        let random = SystemRandom::new().fill(&mut secret);
        random.map_err(|_unspecified| {
            Error::Compute("the operating system gives no random bytes".to_owned())
        })?;
        let thread = std::thread::Builder::new().name("inference".to_owned()).spawn({
            let (model, shared) = (Arc::clone(&model), Arc::clone(&shared));
            move || {
                let run = || Scheduler::new(&model, &shared, (compute, blocks), limits, secret).run();
                if catch_unwind(AssertUnwindSafe(run)).is_err() {
                    shared.broke(Breakdown::Panic);
                }
            }
        });
        let thread = thread.map_err(|error| Error::Threads(error.to_string()))?;
        let capacity = config.max_running.saturating_add(config.max_waiting);
        Ok(Self { model, shared, capacity, context_length, thread: Mutex::new(Some(thread)) })
    }

    /// The model that this engine runs.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// How many tokens prompt and answer may have together: as many as the model was made for, or as memory holds.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// Why the engine broke down, if it did.
    pub fn breakdown(&self) -> Option<Breakdown> {
        self.shared.lock().broken
    }

    /// Calls `tell` if the engine breaks down, at once if it has; once, and instead of what was passed before.
    pub fn on_breakdown(&self, tell: impl FnOnce(Breakdown) + Send + 'static) {
        let mut state = self.shared.lock();
        match state.broken {
            Some(why) => {
                drop(state);
                tell(why);
            }
            None => state.on_breakdown = Some(Box::new(tell)),
        }
    }

    /// How busy the engine is now.
    pub fn load(&self) -> Load {
        let state = self.shared.lock();
        Load { running: state.running, waiting: state.in_flight.saturating_sub(state.running) }
    }

    /// What the engine did since it started.
    pub fn counts(&self) -> Counts {
        self.shared.lock().counts
    }

    /// Checks a request, splits its prompt into tokens on the caller's thread, and queues it. From then on `sink` is
    /// told what happens; it hears nothing if this fails.
    pub fn submit(&self, request: GenerateRequest, sink: Sink) -> Result<Submitted, SubmitError> {
        self.submit_choices(&request, vec![sink])
    }

    /// As many answers to one request as there are sinks: all are accepted or none is. The first has the request's seed, the
    /// others have seeds that follow from it.
    pub fn submit_choices(
        &self,
        request: &GenerateRequest,
        sinks: Vec<Sink>,
    ) -> Result<Submitted, SubmitError> {
        let choices = sinks.len();
        request.check()?;
        self.admit(choices)?; // before the work
        let prompt = self.prompt(request)?;
        let prompt_tokens = prompt.len();
        let max_tokens = self.room(&prompt, request.max_tokens)?;
        let seed = request.seed.map_or_else(random_seed, Ok)?;
        let jobs = (0..).zip(sinks).map(|(choice, sink)| {
            let seed = seed_of_choice(seed, choice);
            let vocabulary = self.model.tokenizer.vocabulary();
            let sampler = Sampler::new(request, seed, prompt.as_slice(), vocabulary)?;
            Ok(Running::new(Job {
                prompt: prompt.clone(),
                max_tokens,
                sampler: sampler.with_mask(request.mask.as_ref().map(|mask| mask.copy())),
                stop: StopMatcher::new(request.stop.clone()),
                deadline: request.deadline,
                client: request.client,
                salt: request.cache_salt,
                sink,
            }))
        });
        let jobs = jobs.collect::<Result<Vec<_>, SubmitError>>()?;
        let mut state = self.shared.lock();
        accepts(&state, self.capacity, choices)?; // others may have come meanwhile
        state.in_flight += choices;
        state.waiting.extend(jobs);
        drop(state);
        self.shared.notify();
        Ok(Submitted { prompt_tokens })
    }

    /// How many tokens the prompt of a request has, on the caller's thread. Fails where submitting it would, but for what depends
    /// on other requests or on the length of the answer.
    pub fn count(&self, request: &GenerateRequest) -> Result<usize, SubmitError> {
        request.check()?;
        Ok(self.prompt(request)?.len())
    }

    fn prompt(&self, request: &GenerateRequest) -> Result<Tokens, SubmitError> {
        Ok(match &request.text {
            Some(text) => self.model.text(text)?,
            None => self.model.conversation(&request.messages, &request.tools)?,
        })
    }

    /// Accepts nothing any more, fails what waits, lets what runs go on until `deadline`, then fails it; returns when
    /// the engine's thread has ended. A second call waits for the first. Not to be called by a sink, for which it would
    /// wait.
    pub fn stop(&self, deadline: Instant) {
        let mut state = self.shared.lock();
        let deadline = state.stop_by.map_or(deadline, |earlier| earlier.min(deadline));
        state.stop_by = Some(deadline);
        drop(state);
        self.shared.notify();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            let _ended = thread.join(); // its panics were turned into failures of requests
        }
    }

    fn admit(&self, choices: usize) -> Result<(), SubmitError> {
        if choices == 0 || choices > self.capacity {
            let problem = "must be at least 1 and at most as many as this engine takes at a time";
            return Err(SubmitError::BadParameter { name: "n", problem });
        }
        accepts(&self.shared.lock(), self.capacity, choices)
    }

    /// How many tokens the answer may have.
    fn room(&self, prompt: &Tokens, max_tokens: Option<usize>) -> Result<usize, SubmitError> {
        let context_length = self.context_length;
        let left = context_length.saturating_sub(prompt.len());
        if left == 0 || max_tokens.is_some_and(|max| max > left) {
            return Err(SubmitError::ContextOverflow {
                prompt_tokens: prompt.len(),
                max_tokens,
                context_length,
            });
        }
        Ok(max_tokens.unwrap_or(left))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop(Instant::now());
    }
}

fn accepts(state: &State, capacity: usize, choices: usize) -> Result<(), SubmitError> {
    if state.broken.is_some() {
        return Err(SubmitError::Broken);
    }
    if state.stop_by.is_some() {
        return Err(SubmitError::Stopping);
    }
    if state.in_flight + choices > capacity {
        return Err(SubmitError::QueueFull { in_flight: state.in_flight });
    }
    Ok(())
}

/// The seed of one of several answers: apart from those of the others, and the request's own for the first.
fn seed_of_choice(seed: u64, choice: u64) -> u64 {
    seed.wrapping_add(choice.wrapping_mul(0x9e37_79b9_7f4a_7c15)) // the golden ratio: far apart for any few
}

fn random_seed() -> Result<u64, SubmitError> {
    let mut seed = [0; 8];
    SystemRandom::new().fill(&mut seed).map_err(|_unspecified| SubmitError::NoRandomness)?;
    Ok(u64::from_le_bytes(seed))
}
