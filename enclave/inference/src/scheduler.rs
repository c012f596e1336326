//! The engine's thread: rounds in which every running request takes one step.

use crate::model::Model;
use crate::request::FailureKind;
use crate::running::{Job, Running};
use std::collections::VecDeque;
use std::ops::ControlFlow;
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
    pub(crate) waiting: VecDeque<Job>,
    /// Requests accepted and not yet ended, waiting ones included.
    pub(crate) in_flight: usize,
    pub(crate) running: usize,
    /// Set once: nothing is accepted any more, and what runs at that time fails.
    pub(crate) stop_by: Option<Instant>,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; if it did, the counts would still be the best we know.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn notify(&self) {
        self.changed.notify_all();
    }

    /// Waits until there is something to do.
    fn wait(&self, idle: bool) -> MutexGuard<'_, State> {
        let nothing = |state: &mut State| idle && state.waiting.is_empty() && state.stop_by.is_none();
        self.changed.wait_while(self.lock(), nothing).unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of the engine's thread.
pub(crate) struct Scheduler<'a> {
    pub(crate) model: &'a Model,
    pub(crate) shared: &'a Shared,
    pub(crate) pool: rayon::ThreadPool,
    pub(crate) max_running: usize,
    running: Vec<Running>,
}

impl<'a> Scheduler<'a> {
    pub(crate) fn new(
        model: &'a Model,
        shared: &'a Shared,
        pool: rayon::ThreadPool,
        max_running: usize,
    ) -> Self {
        Self { model, shared, pool, max_running, running: Vec::new() }
    }

    /// Works until the engine is stopped and all requests have ended.
    pub(crate) fn run(mut self) {
        loop {
            let (admitted, waiting, stop_by) = self.next_round();
            self.running.extend(admitted.into_iter().map(|job| Running::new(job, self.model)));
            match stop_by {
                Some(_) => self.fail_waiting(waiting),
                None => self.poll_waiting(waiting),
            }
            if stop_by.is_some_and(|deadline| Instant::now() >= deadline || self.running.is_empty()) {
                return self.fail_running();
            }
            self.step_all();
        }
    }

    /// Waits for work; gives the requests that start now, those that wait on, and whether to stop.
    fn next_round(&mut self) -> (Vec<Job>, VecDeque<Job>, Option<Instant>) {
        let mut state = self.shared.wait(self.running.is_empty());
        let places =
            if state.stop_by.is_some() { 0 } else { self.max_running.saturating_sub(self.running.len()) };
        let starting = places.min(state.waiting.len());
        let admitted = state.waiting.drain(..starting).collect();
        state.running = self.running.len() + starting;
        (admitted, std::mem::take(&mut state.waiting), state.stop_by)
    }

    /// Drops waiting requests that are late or unwanted; the rest keeps its order, before what came meanwhile.
    fn poll_waiting(&mut self, mut waiting: VecDeque<Job>) {
        if waiting.is_empty() {
            return;
        }
        let before = waiting.len();
        let now = Instant::now();
        waiting.retain_mut(|job| guarded(|| job.poll(now)).is_some_and(|flow| flow.is_continue()));
        let mut state = self.shared.lock();
        state.in_flight -= before - waiting.len();
        waiting.append(&mut state.waiting);
        state.waiting = waiting;
    }

    /// Fails requests that wait while the engine stops.
    fn fail_waiting(&mut self, mut waiting: VecDeque<Job>) {
        for job in &mut waiting {
            guarded(|| job.fail(FailureKind::Stopping));
        }
        self.shared.lock().in_flight -= waiting.len();
    }

    /// Fails requests that run on when the engine stops for good.
    fn fail_running(&mut self) {
        for running in &mut self.running {
            guarded(|| running.fail(FailureKind::Stopping));
        }
        self.running.clear();
        let mut state = self.shared.lock();
        state.in_flight = 0;
        state.running = 0;
    }

    /// One step of each running request; drops those that ended.
    fn step_all(&mut self) {
        let before = self.running.len();
        let (model, pool) = (self.model, &self.pool);
        self.running.retain_mut(|running| match guarded(|| running.step(model, pool)) {
            Some(Ok(ControlFlow::Continue(()))) => true,
            Some(Ok(ControlFlow::Break(()))) => false,
            Some(Err(_)) | None => {
                guarded(|| running.fail(FailureKind::Internal));
                false
            }
        });
        let mut state = self.shared.lock();
        state.in_flight -= before - self.running.len();
        state.running = self.running.len();
    }
}

/// Runs what may panic (the model, a sink) so that one request fails instead of all.
fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}
