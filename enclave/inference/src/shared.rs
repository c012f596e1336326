//! What the engine's thread and its callers have in common: what waits, how much there is, and whether it goes on.

use crate::request::FailureKind;
use crate::sequence::Running;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What the engine's thread and its callers share.
#[derive(Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) waiting: VecDeque<Running>,
    /// Requests accepted and not yet ended, waiting ones included.
    pub(crate) in_flight: usize,
    pub(crate) running: usize,
    pub(crate) counts: Counts,
    /// Set once: nothing is accepted any more, and what runs at that time fails.
    pub(crate) stop_by: Option<Instant>,
    /// Why the engine's thread ended, if nobody asked it to.
    pub(crate) broken: Option<Breakdown>,
    /// Wants to know of that.
    pub(crate) on_breakdown: Option<Box<dyn FnOnce(Breakdown) + Send>>,
}

/// Why an engine broke down: it accepts nothing any more, and its model has to be loaded again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Breakdown {
    /// The GPU failed: an Xid, or its memory is full.
    Gpu,
    /// A bug: the engine's thread panicked.
    Panic,
}

/// What the engine did since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Steps of the model.
    pub steps: u64,
    /// Tokens of prompts that were computed.
    pub prompt_tokens: u64,
    /// Tokens of prompts that were found in the cache.
    pub cached_tokens: u64,
    /// Tokens that were written.
    pub completion_tokens: u64,
    /// Requests that gave their memory to others and were computed again.
    pub preemptions: u64,
    /// Guesses of tokens, and how many of them came true.
    pub drafted: u64,
    /// See `drafted`.
    pub accepted: u64,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; if it did, the counts would still be the best we know.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn notify(&self) {
        self.changed.notify_all();
    }

    /// The engine's thread ends, though nobody asked it to: what waits fails.
    pub(crate) fn broke(&self, why: Breakdown) {
        let mut state = self.lock();
        (state.broken, state.running, state.in_flight) = (Some(why), 0, 0);
        state.stop_by = Some(Instant::now());
        let (waiting, tell) = (std::mem::take(&mut state.waiting), state.on_breakdown.take());
        drop(state);
        if let Some(tell) = tell {
            guarded(|| tell(why));
        }
        for mut job in waiting {
            guarded(|| job.fail(FailureKind::Internal));
        }
    }

    /// Waits until there is something to do, at most until `until`.
    pub(crate) fn wait(&self, idle: bool, until: Option<Instant>) -> MutexGuard<'_, State> {
        let nothing = |state: &mut State| idle && state.waiting.is_empty() && state.stop_by.is_none();
        let state = self.lock();
        let Some(until) = until else {
            return self.changed.wait_while(state, nothing).unwrap_or_else(PoisonError::into_inner);
        };
        let timeout = until.saturating_duration_since(Instant::now());
        self.changed.wait_timeout_while(state, timeout, nothing).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Runs what may panic (the model, a sink) so that one request fails instead of all.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}
