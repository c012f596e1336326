//! The engine's thread: continuous batching. In every step all running requests take part, those that write with one token (and
//! guesses of the next), those that are being read with a piece of their prompt.

use crate::backend::{Batch, Span};
use crate::blocks::Blocks;
use crate::compute::Compute;
use crate::draft::MAX_DRAFT;
use crate::error::Error;
use crate::fairness::Served;
use crate::model::Model;
use crate::request::FailureKind;
use crate::sequence::{Running, Share};
use crate::shared::{Breakdown, Counts, Shared, State, guarded};
use crate::turns::Turns;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Instant;

/// Rows of a step up to which guesses cost next to nothing: weights are fetched for one row as for these.
const DRAFT_ROWS: usize = 8;
/// Tokens of a prompt that are read in a step at least, however many prompts are read at a time.
const MIN_PIECE: usize = 16;

/// The state of the engine's thread.
pub(crate) struct Scheduler<'a> {
    model: &'a Model,
    shared: &'a Shared,
    compute: Box<dyn Compute>,
    blocks: Blocks,
    limits: Limits,
    /// In the order in which they were admitted: the last gives way first.
    running: Vec<Running>,
    /// Had to give way; the first goes on first.
    preempted: VecDeque<Running>,
    served: Served,
    counts: Counts,
    /// Keeps prefixes of this engine apart from those of others.
    secret: [u8; 32],
}

/// Limits of a step.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) running: usize,
    /// Rows of a step.
    pub(crate) tokens: usize,
    pub(crate) drafts: bool,
    pub(crate) turns: Turns,
}

impl<'a> Scheduler<'a> {
    pub(crate) fn new(
        model: &'a Model,
        shared: &'a Shared,
        (compute, blocks): (Box<dyn Compute>, usize),
        limits: Limits,
        secret: [u8; 32],
    ) -> Self {
        Self {
            model,
            shared,
            compute,
            blocks: Blocks::new(blocks),
            limits,
            running: Vec::new(),
            preempted: VecDeque::new(),
            served: Served::default(),
            counts: Counts::default(),
            secret,
        }
    }

    /// Works until the engine is stopped and all requests have ended, or until what computes is broken.
    pub(crate) fn run(mut self) {
        let ended = self.work();
        if ended.is_err() {
            self.shared.broke(Breakdown::Gpu);
        }
        self.fail_running(if ended.is_ok() { FailureKind::Stopping } else { FailureKind::Internal });
    }

    fn work(&mut self) -> Result<(), Error> {
        loop {
            let (mut waiting, stop_by) = self.next_round();
            if stop_by.is_some() {
                self.fail_waiting(&mut waiting); // those that gave way go on
            }
            self.admit(&mut waiting);
            self.poll_all(&mut waiting);
            self.keep_waiting(waiting);
            if stop_by.is_some_and(|deadline| Instant::now() >= deadline || self.running.is_empty()) {
                return Ok(());
            }
            self.step()?;
            self.tidy()?;
            self.report(&mut self.shared.lock());
        }
    }

    /// Waits for work; gives the requests that wait, and whether to stop.
    fn next_round(&mut self) -> (VecDeque<Running>, Option<Instant>) {
        let idle = self.running.is_empty() && self.preempted.is_empty();
        let mut state = self.shared.wait(idle, self.blocks.expires());
        (std::mem::take(&mut state.waiting), state.stop_by)
    }

    /// Drops waiting and preempted requests that are late or unwanted.
    fn poll_all(&mut self, waiting: &mut VecDeque<Running>) {
        let now = Instant::now();
        let before = waiting.len() + self.preempted.len();
        for list in [&mut *waiting, &mut self.preempted] {
            list.retain_mut(|job| match guarded(|| job.poll(now)) {
                Some(flow) => flow.is_continue(),
                None => {
                    guarded(|| job.fail(FailureKind::Internal));
                    false
                }
            });
        }
        self.ended(before - waiting.len() - self.preempted.len());
    }

    fn ended(&self, count: usize) {
        let mut state = self.shared.lock();
        state.in_flight -= count;
        self.report(&mut state);
    }

    /// Puts back what still waits, before what came meanwhile.
    fn keep_waiting(&mut self, mut waiting: VecDeque<Running>) {
        self.served.retain(self.running.iter().chain(&self.preempted).chain(&waiting).map(Running::client));
        let mut state = self.shared.lock();
        waiting.append(&mut state.waiting);
        state.waiting = waiting;
        self.report(&mut state);
    }

    fn report(&self, state: &mut State) {
        state.running = self.running.len();
        state.counts = self.counts;
    }

    /// Lets requests in while there are places and memory: those first that gave way, then those of the client that was served
    /// least.
    fn admit(&mut self, waiting: &mut VecDeque<Running>) {
        self.served.greet(waiting.iter().map(Running::client));
        // What those that run will need for their prompts is theirs already.
        let needed = |job: &Running| job.missing_blocks(job.uncomputed() + 1);
        let mut promised: usize = self.running.iter().map(needed).sum();
        while self.running.len() < self.limits.running {
            let next = if self.preempted.is_empty() {
                self.served.least(waiting.iter().map(Running::client)).and_then(|index| waiting.remove(index))
            } else {
                self.preempted.pop_front()
            };
            let Some(mut next) = next else { return };
            next.adopt(&mut self.blocks, &self.secret);
            let room = self.blocks.available() >= promised + needed(&next);
            if !room && !self.running.is_empty() {
                next.release(&mut self.blocks, Instant::now());
                self.preempted.push_front(next);
                return;
            }
            self.counts.cached_tokens += next.begin() as u64;
            promised += needed(&next);
            self.running.push(next);
        }
    }

    /// One step of the model, and what comes of it.
    fn step(&mut self) -> Result<(), Error> {
        self.drop_late();
        let mut shares = self.shares()?;
        if shares.is_empty() {
            return Ok(());
        }
        let ahead = self.ahead(&mut shares)?;
        let computed = guarded(|| self.compute(&shares, ahead)).unwrap_or_else(|| Err(panicked()));
        let mut ends = vec![None; self.running.len()];
        let computed = computed.and_then(|()| self.advance(&shares, &mut ends));
        match computed {
            Ok(()) => (),
            Err(error @ Error::Gpu(_)) => {
                // It does not recover. Those whose end was told are not told again.
                let mut ends = ends.into_iter();
                self.remove(|_| ends.next().flatten());
                return Err(error);
            }
            Err(_) => shares.iter().for_each(|(index, _)| ends[*index] = Some(End::Failed)),
        }
        self.counts.steps += 1 + ahead as u64;
        self.poll_others(&shares, &mut ends);
        let mut ends = ends.into_iter();
        self.remove(|_| ends.next().flatten());
        Ok(())
    }

    /// Those that had no share of the step may be unwanted too.
    fn poll_others(&mut self, shares: &[(usize, Share)], ends: &mut [Option<End>]) {
        let now = Instant::now();
        for (index, job) in self.running.iter_mut().enumerate() {
            if shares.iter().all(|(with_share, _)| *with_share != index) {
                ends[index] = match guarded(|| job.poll(now)) {
                    Some(flow) => flow.is_break().then_some(End::Told),
                    None => Some(End::Failed),
                };
            }
        }
    }

    fn drop_late(&mut self) {
        let now = Instant::now();
        self.remove(|job| match guarded(|| job.is_late(now)) {
            Some(late) => late.then_some(End::Told),
            None => Some(End::Failed),
        });
    }

    /// Takes out the requests that ended.
    fn remove(&mut self, mut end: impl FnMut(&mut Running) -> Option<End>) {
        let now = Instant::now();
        let before = self.running.len();
        let blocks = &mut self.blocks;
        self.running.retain_mut(|job| {
            let Some(end) = end(job) else { return true };
            if matches!(end, End::Failed) {
                guarded(|| job.fail(FailureKind::Internal));
            }
            job.release(blocks, now);
            false
        });
        self.ended(before - self.running.len());
    }

    /// What each running request does in the next step, by its index. Makes room in the cache for it. Those that write come first;
    /// what is left of the step's rows is for prompts, in equal pieces that are worth it, the earliest first.
    fn shares(&mut self) -> Result<Vec<(usize, Share)>, Error> {
        let decoding = self.running.iter().filter(|job| job.is_decoding()).count();
        let reading = self.running.len() - decoding;
        let mut left = self.limits.tokens.saturating_sub(decoding);
        let piece = (left / reading.max(1)).max(MIN_PIECE);
        let mut drafts =
            if self.limits.drafts && reading == 0 { DRAFT_ROWS.saturating_sub(decoding) } else { 0 };
        let mut shares = Vec::new();
        let mut index = 0;
        while index < self.running.len() {
            let spare = self.blocks.free() > self.running.len();
            let job = &mut self.running[index];
            let share = if job.is_decoding() {
                // Nobody gives way for a guess.
                job.share(1, if spare { drafts } else { drafts.min(job.room_for_drafts()) }.min(MAX_DRAFT))
            } else {
                let share = job.share(piece.min(left), 0);
                left -= share.tokens.len();
                share
            };
            if share.tokens.is_empty() {
                index += 1; // not its turn
                continue;
            }
            if !self.make_room(index, share.tokens.len())? {
                continue; // it gave way itself
            }
            drafts = drafts.saturating_sub(share.wanted.saturating_sub(1));
            shares.push((index, share));
            index += 1;
        }
        // Single rows together: backends have a faster way for them.
        shares.sort_by_key(|(_, share)| share.tokens.len() > 1);
        Ok(shares)
    }

    /// How many tokens more the backend may choose by itself in this step, for which there is room then: if all write, take the best
    /// token each time, and nobody waits.
    fn ahead(&mut self, shares: &mut [(usize, Share)]) -> Result<usize, Error> {
        let most = self.compute.most_ahead();
        let is_plain = |(index, share): &(usize, Share)| {
            let job = &self.running[*index];
            share.tokens.len() == 1 && job.is_decoding() && job.takes_the_best()
        };
        let waits = !self.preempted.is_empty() || !self.shared.lock().waiting.is_empty();
        if most == 0 || waits || shares.len() < self.running.len() || !shares.iter().all(is_plain) {
            return Ok(0);
        }
        let missing = |(index, _): &(usize, Share)| self.running[*index].missing_blocks(1 + most);
        if self.blocks.free() < shares.iter().map(missing).sum() {
            return Ok(0); // nobody gives way for it
        }
        for (index, share) in shares {
            self.make_room(*index, 1 + most)?;
            share.ahead = most;
        }
        Ok(most)
    }

    /// Gives a request the blocks that it needs for `tokens` more. Others give way, the last first; perhaps the request itself.
    fn make_room(&mut self, index: usize, tokens: usize) -> Result<bool, Error> {
        let wanted = self.running[index].missing_blocks(tokens);
        for _ in 0..wanted {
            let block = loop {
                if let Some(block) = self.blocks.take() {
                    break block;
                }
                self.blocks.reclaim(wanted);
                if self.blocks.dirty().is_empty() {
                    let last = self.running.len() - 1;
                    self.preempt();
                    if last == index {
                        return Ok(false);
                    }
                }
                self.wipe()?;
            };
            self.running[index].add_block(block);
        }
        Ok(true)
    }

    fn preempt(&mut self) {
        if let Some(mut job) = self.running.pop() {
            job.release(&mut self.blocks, Instant::now());
            self.preempted.push_front(job);
            self.counts.preemptions += 1;
        }
    }

    fn wipe(&mut self) -> Result<(), Error> {
        self.compute.wipe(self.blocks.dirty())?;
        self.blocks.wiped();
        Ok(())
    }

    fn compute(&mut self, shares: &[(usize, Share)], ahead: usize) -> Result<(), Error> {
        let mut tokens =
            crate::secret::Tokens::with_capacity(shares.iter().map(|(_, share)| share.tokens.len()).sum());
        let (mut spans, mut wanted) = (Vec::new(), Vec::new());
        for (index, share) in shares {
            let (row, rows) = (tokens.len(), share.tokens.len());
            share.tokens.as_slice().iter().for_each(|id| tokens.push(*id));
            let job = &self.running[*index];
            spans.push(Span { row, rows, position: job.computed(), table: job.table() });
            wanted.extend(row + rows - share.wanted..row + rows);
        }
        let batch = Batch { tokens: tokens.as_slice(), spans: &spans, wanted: &wanted };
        let _turn = self.limits.turns.take();
        self.compute.step(&batch, ahead)
    }

    /// Hands each request what was computed for it. An error: what computes is broken.
    fn advance(&mut self, shares: &[(usize, Share)], ends: &mut [Option<End>]) -> Result<(), Error> {
        let mut row = 0;
        for (index, share) in shares {
            let job = &mut self.running[*index];
            let before = (job.computed(), job.completion_tokens(), job.read());
            let flow = guarded(|| job.advance(share, (self.compute.as_mut(), row), self.model));
            ends[*index] = match flow {
                Some(Ok(ControlFlow::Continue(()))) => None,
                Some(Ok(ControlFlow::Break(()))) => Some(End::Told),
                Some(Err(error @ Error::Gpu(_))) => return Err(error),
                Some(Err(_)) | None => Some(End::Failed),
            };
            row += share.wanted;
            let written = job.completion_tokens() - before.1;
            let drafted = share.wanted.saturating_sub(1);
            self.counts.completion_tokens += written as u64;
            self.counts.drafted += drafted as u64;
            self.counts.accepted += written.saturating_sub(1).min(drafted) as u64;
            self.counts.prompt_tokens += (job.read() - before.2) as u64;
            self.served.add(job.client(), job.computed() - before.0);
            if ends[*index].is_none() {
                job.publish(before.0, &mut self.blocks, &self.secret);
            }
        }
        Ok(())
    }

    /// Leaves nothing behind of those that went.
    fn tidy(&mut self) -> Result<(), Error> {
        self.blocks.expire(Instant::now());
        self.wipe()?;
        if self.running.is_empty() { self.compute.wipe_rows() } else { Ok(()) }
    }

    /// Fails requests that wait while the engine stops.
    fn fail_waiting(&mut self, waiting: &mut VecDeque<Running>) {
        let count = waiting.len();
        for mut job in waiting.drain(..) {
            guarded(|| job.fail(FailureKind::Stopping));
        }
        self.ended(count);
    }

    /// Fails requests that run on when the engine stops for good.
    fn fail_running(&mut self, kind: FailureKind) {
        for job in self.running.iter_mut().chain(&mut self.preempted) {
            guarded(|| job.fail(kind));
        }
        self.running.clear();
        self.preempted.clear();
        let mut state = self.shared.lock();
        state.in_flight = 0;
        state.running = 0;
    }
}

/// How a request ended.
#[derive(Clone, Copy)]
enum End {
    /// Its sink knows, or is gone.
    Told,
    /// Its sink is to be told.
    Failed,
}

fn panicked() -> Error {
    Error::Compute("it panicked".to_owned())
}
