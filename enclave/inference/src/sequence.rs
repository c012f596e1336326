//! One accepted request on its way to its answer, a step at a time.

use crate::backend::BLOCK_TOKENS;
use crate::blocks::{Blocks, Prefix, first_prefix, next_prefix};
use crate::compute::Compute;
use crate::detokenizer::Detokenizer;
use crate::draft::Drafter;
use crate::error::Error;
use crate::model::Model;
use crate::request::{CacheSalt, ClientId, FailureKind, FinishReason, GenerateEvent, Sink};
use crate::sampler::{Needs, Sampled, Sampler};
use crate::scored::{TokenLogprobs, Untold};
use crate::secret::{SecretString, Tokens};
use crate::stop::StopMatcher;
use std::ops::ControlFlow;
use std::time::Instant;

/// A request that was accepted.
pub(crate) struct Job {
    pub(crate) prompt: Tokens,
    /// Most tokens of the answer: prompt and answer fit into the context.
    pub(crate) max_tokens: usize,
    pub(crate) sampler: Sampler,
    pub(crate) stop: StopMatcher,
    pub(crate) deadline: Option<Instant>,
    /// Whose request it is, for fairness.
    pub(crate) client: Option<ClientId>,
    /// What the client shares computed prompts under.
    pub(crate) salt: Option<CacheSalt>,
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

/// A request on its way through the engine: its tokens, what of them is in the cache, and where.
pub(crate) struct Running {
    job: Job,
    detokenizer: Detokenizer,
    untold: Untold,
    /// Prompt and answer so far.
    tokens: Tokens,
    /// Tokens whose keys and values are in the cache.
    computed: usize,
    /// Blocks of the cache, shared ones first.
    table: Vec<u32>,
    /// Prefixes of the full blocks, as far as they were needed.
    prefixes: Vec<Prefix>,
    completion_tokens: usize,
    /// Tokens of the prompt that were computed, or found, at one time.
    read: usize,
    draft: Drafter,
}

/// What a sequence does in a step.
pub(crate) struct Share {
    /// Tokens that are computed, the first of them at `Running::computed`.
    pub(crate) tokens: Tokens,
    /// How many of the last rows have scores that are wanted.
    pub(crate) wanted: usize,
    /// How many tokens behind the next one the backend chooses by itself.
    pub(crate) ahead: usize,
}

impl Running {
    pub(crate) fn new(job: Job) -> Self {
        let mut tokens = Tokens::with_capacity(job.prompt.len() + job.max_tokens);
        job.prompt.as_slice().iter().for_each(|id| tokens.push(*id));
        Self {
            job,
            detokenizer: Detokenizer::default(),
            untold: Untold::default(),
            tokens,
            computed: 0,
            table: Vec::new(),
            prefixes: Vec::new(),
            completion_tokens: 0,
            read: 0,
            draft: Drafter::default(),
        }
    }

    pub(crate) fn client(&self) -> Option<ClientId> {
        self.job.client
    }

    pub(crate) fn completion_tokens(&self) -> usize {
        self.completion_tokens
    }

    pub(crate) fn computed(&self) -> usize {
        self.computed
    }

    pub(crate) fn read(&self) -> usize {
        self.read
    }

    /// It runs from now on; gives the tokens of its prompt that it found in the cache, the first time.
    pub(crate) fn begin(&mut self) -> usize {
        let found = if self.read == 0 { self.computed.min(self.job.prompt.len()) } else { 0 };
        self.read = self.read.max(found);
        found
    }

    /// Guesses that fit into its blocks, behind the token that is due.
    pub(crate) fn room_for_drafts(&self) -> usize {
        (self.table.len() * BLOCK_TOKENS).saturating_sub(self.computed + 1)
    }

    pub(crate) fn table(&self) -> &[u32] {
        &self.table
    }

    /// Tokens that are not in the cache yet; 1 once the prompt was read.
    pub(crate) fn uncomputed(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Whether it writes its answer, a token at a time.
    pub(crate) fn is_decoding(&self) -> bool {
        self.uncomputed() == 1 && self.completion_tokens > 0
    }

    /// Blocks that are missing for `tokens` more in the cache.
    pub(crate) fn missing_blocks(&self, tokens: usize) -> usize {
        (self.computed + tokens).div_ceil(BLOCK_TOKENS).saturating_sub(self.table.len())
    }

    pub(crate) fn add_block(&mut self, block: u32) {
        self.table.push(block);
    }

    /// Starts from what others of the same client left in the cache.
    pub(crate) fn adopt(&mut self, blocks: &mut Blocks, secret: &[u8; 32]) {
        let Some(salt) = self.job.salt else { return };
        // At least one token is computed: its scores are wanted.
        let usable = (self.tokens.len() - 1) / BLOCK_TOKENS;
        while self.table.len() < usable {
            let prefix = self.prefix(self.table.len(), secret, &salt.0);
            let Some(block) = blocks.find(&prefix) else { break };
            self.table.push(block);
        }
        self.computed = self.table.len() * BLOCK_TOKENS;
    }

    /// Lets others of the same client find the blocks that are full.
    pub(crate) fn publish(&mut self, before: usize, blocks: &mut Blocks, secret: &[u8; 32]) {
        let Some(salt) = self.job.salt else { return };
        for index in before / BLOCK_TOKENS..self.computed / BLOCK_TOKENS {
            let prefix = self.prefix(index, secret, &salt.0);
            if let Some(block) = self.table.get(index) {
                blocks.publish(*block, prefix);
            }
        }
    }

    fn prefix(&mut self, index: usize, secret: &[u8; 32], salt: &[u8; 32]) -> Prefix {
        while self.prefixes.len() <= index {
            let before = self.prefixes.last().copied().unwrap_or_else(|| first_prefix(secret, salt));
            let start = self.prefixes.len() * BLOCK_TOKENS;
            let tokens = self.tokens.as_slice().get(start..start + BLOCK_TOKENS).unwrap_or_default();
            self.prefixes.push(next_prefix(&before, tokens));
        }
        self.prefixes[index]
    }

    /// Gives all blocks back. What was computed is computed again if the sequence goes on.
    pub(crate) fn release(&mut self, blocks: &mut Blocks, now: Instant) {
        // The last first: of what can be found again, ends are given up before beginnings.
        self.table.drain(..).rev().for_each(|block| blocks.give_back(block, now));
        self.computed = 0;
    }

    /// The next `most` tokens to compute, or the last one and up to `drafts` that may follow it.
    pub(crate) fn share(&mut self, most: usize, drafts: usize) -> Share {
        let rest = self.tokens.as_slice().get(self.computed..).unwrap_or_default();
        let len = rest.len().min(most);
        let mut tokens = Tokens::with_capacity(len + drafts);
        rest.iter().take(len).for_each(|id| tokens.push(*id));
        if len < rest.len() {
            return Share { tokens, wanted: 0, ahead: 0 };
        }
        let left = self.job.max_tokens.saturating_sub(self.completion_tokens + 1);
        if drafts > 0 && left > 0 {
            self.draft.propose(self.tokens.as_slice(), drafts.min(left), &mut tokens);
        }
        let wanted = tokens.len() - len + 1;
        Share { tokens, wanted, ahead: 0 }
    }

    /// Whether it takes the best token each time, and asks for nothing else.
    pub(crate) fn takes_the_best(&self) -> bool {
        self.job.sampler.needs() == Needs::Best
    }

    /// Takes what a step computed, from a row of what was wanted. `Break`: the sink had its last event or wants no more.
    pub(crate) fn advance(
        &mut self,
        share: &Share,
        (computed, first): (&mut dyn Compute, usize),
        model: &Model,
    ) -> Result<ControlFlow<()>, Error> {
        let drafted = share.wanted.saturating_sub(1);
        self.computed += share.tokens.len() - drafted;
        self.read = self.read.max(self.computed.min(self.job.prompt.len()));
        if share.wanted == 0 {
            return Ok(self.tell_progress());
        }
        let drafts = share.tokens.as_slice().get(share.tokens.len() - drafted..).unwrap_or_default();
        let mut accepted = 0;
        for next in 0..share.wanted.max(1 + share.ahead) {
            let (row, ahead) = if share.ahead > 0 { (first, next) } else { (first + next, 0) };
            let sampled = match self.choose(computed, row, ahead) {
                Ok(sampled) => sampled,
                Err(Error::NoAllowedToken) => {
                    self.job.fail(FailureKind::NoAllowedToken);
                    return Ok(ControlFlow::Break(()));
                }
                Err(error) => return Err(error),
            };
            if self.take(model, &sampled).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            // A draft that is the token chosen was computed already, with the right tokens before it; so was what the backend chose.
            if next >= share.ahead && drafts.get(next) != Some(&sampled.token) {
                break;
            }
            self.computed += 1;
            accepted += 1;
        }
        self.draft.learn(drafted, accepted);
        Ok(ControlFlow::Continue(()))
    }

    /// How much of the prompt was read; after it gave way, what is computed again is no news.
    fn tell_progress(&mut self) -> ControlFlow<()> {
        let (read, prompt_tokens) = (self.read, self.job.prompt.len());
        let is_news = self.completion_tokens == 0 && read < prompt_tokens;
        (self.job.sink)(if is_news {
            GenerateEvent::Reading { read, prompt_tokens }
        } else {
            GenerateEvent::Working
        })
    }

    /// The next token, from no more of the scores than it takes.
    fn choose(&mut self, computed: &mut dyn Compute, row: usize, ahead: usize) -> Result<Sampled, Error> {
        let sampler = &mut self.job.sampler;
        match sampler.needs() {
            Needs::Best => {
                if let Some(token) = computed.best(row, ahead)? {
                    return Ok(Sampled { token, logprobs: None });
                }
            }
            Needs::Top(most) => {
                if let Some(top) = computed.top(row, most)? {
                    return sampler.sample_top(&top);
                }
            }
            Needs::All => (),
        }
        sampler.sample(computed.scores(row)?)
    }

    /// Whether to go on, see [`Job::poll`].
    pub(crate) fn poll(&mut self, now: Instant) -> ControlFlow<()> {
        self.job.poll(now)
    }

    /// Whether the deadline has passed; then the sink was told.
    pub(crate) fn is_late(&mut self, now: Instant) -> bool {
        let late = self.job.deadline.is_some_and(|deadline| now >= deadline);
        if late {
            self.job.fail(FailureKind::Deadline);
        }
        late
    }

    pub(crate) fn fail(&mut self, kind: FailureKind) {
        self.job.fail(kind);
    }

    /// Passes on what a new token adds to the answer.
    fn take(&mut self, model: &Model, sampled: &Sampled) -> ControlFlow<()> {
        let token = sampled.token;
        self.tokens.push(token);
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
