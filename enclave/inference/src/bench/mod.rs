//! What a model reaches on this machine, without network and scheduler: for `cocoon-enclave bench` and `scripts/bench`.

mod random;

pub use random::random_model;

use crate::backend::{BLOCK_TOKENS, Batch, Span};
use crate::compute::{Compute, Room};
use crate::error::Error;
use crate::model::Model;
use crate::sampler::argmax;
use crate::secret::Tokens;
use std::time::Instant;
use zeroize::Zeroizing;

/// Tokens of a step while prompts are read.
const STEP: usize = 256;
/// First token of prompts, an ordinary one in vocabularies that are used here; which one does not matter for speed.
const FIRST_TOKEN: usize = 1000;

/// Several sequences of the same length that take every step together.
#[expect(missing_debug_implementations, reason = "holds tokens and a cache")]
pub struct Lockstep<'a> {
    model: &'a Model,
    compute: Box<dyn Compute>,
    tables: Vec<Vec<u32>>,
    len: usize,
    last: Tokens,
}

impl<'a> Lockstep<'a> {
    /// Empty sequences with room for `room` tokens each.
    ///
    /// # Errors
    /// If there are none, if they are longer than the model's context, or if there are no threads to be had.
    pub fn new(model: &'a Model, threads: usize, sequences: usize, room: usize) -> Result<Self, Error> {
        let context_length = model.context_length();
        if room > context_length {
            return Err(Error::ContextFull { wanted: room, context_length });
        }
        if sequences == 0 || threads == 0 {
            return Err(Error::BadConfig { name: "batch", problem: "must be at least 1, threads too" });
        }
        let per_sequence = room.div_ceil(BLOCK_TOKENS);
        let mut blocks = 0..u32::MAX;
        let tables = (0..sequences).map(|_| blocks.by_ref().take(per_sequence).collect()).collect();
        let (blocks, rows) = (sequences * per_sequence, STEP.max(sequences));
        let compute = model.compute(Room { threads, blocks, rows, wanted: sequences })?;
        Ok(Self { model, compute, tables, len: 0, last: Tokens::default() })
    }

    /// Reads `tokens` more into each sequence, and chooses the next token of each.
    ///
    /// # Errors
    /// If a step fails, or there is no room.
    pub fn read(&mut self, tokens: usize) -> Result<(), Error> {
        let vocabulary = self.model.spec().sizes.vocabulary;
        let mut left = tokens;
        while left > 0 {
            let piece = left.min((STEP / self.tables.len()).max(1));
            left -= piece;
            let start = self.len;
            let all = (0..self.tables.len()).flat_map(|sequence| (0..piece).map(move |n| (sequence, n)));
            let token =
                |(sequence, n): (usize, usize)| (FIRST_TOKEN + 37 * (start + n) + 11 * sequence) % vocabulary;
            let ids: Vec<u32> = all.filter_map(|at| u32::try_from(token(at)).ok()).collect();
            self.step(&ids, piece, (left == 0).then_some(0))?;
        }
        Ok(())
    }

    /// Writes `tokens` into each sequence, one after another, always the most likely one.
    ///
    /// # Errors
    /// If a step fails, or there is no room.
    pub fn write(&mut self, tokens: usize) -> Result<(), Error> {
        let mut left = tokens;
        while left > 0 {
            let ids = self.last.clone();
            let ahead = self.compute.most_ahead().min(left - 1);
            self.step(ids.as_slice(), 1, Some(ahead))?;
            left -= 1 + ahead;
        }
        Ok(())
    }

    /// On a GPU, does once what is to be measured: kernels are loaded and steps recorded then. Forgets what it read and wrote.
    fn warm_up(&mut self, plan: &Plan) -> Result<(), Error> {
        if self.compute.most_ahead() > 0 {
            self.read(plan.context)?;
            self.read(plan.prefill)?;
            self.write(plan.decode)?;
            self.len = 0;
        }
        Ok(())
    }

    /// `ahead`: chooses the next token of each sequence, and goes on for so many.
    fn step(&mut self, ids: &[u32], piece: usize, ahead: Option<usize>) -> Result<(), Error> {
        let tables = self.tables.iter().enumerate();
        let spans: Vec<Span<'_>> = tables
            .map(|(n, table)| Span { row: n * piece, rows: piece, position: self.len, table })
            .collect();
        let wanted: Vec<usize> = match ahead {
            Some(_) => spans.iter().map(|span| span.row + span.rows - 1).collect(),
            None => Vec::new(),
        };
        let more = ahead.unwrap_or_default();
        self.compute.step(&Batch { tokens: ids, spans: &spans, wanted: &wanted }, more)?;
        self.len += piece + more;
        if ahead.is_some() {
            let mut chosen = Zeroizing::new(Vec::with_capacity(wanted.len()));
            for row in 0..wanted.len() {
                chosen.push(match self.compute.best(row, more)? {
                    Some(token) => token,
                    None => argmax(self.compute.scores(row)?)?,
                });
            }
            self.last = Tokens::dangerous_from_ids(&chosen);
        }
        Ok(())
    }
}

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Threads that compute.
    pub threads: usize,
    /// Sequences at a time.
    pub batch: usize,
    /// Tokens that each sequence has before anything is measured.
    pub context: usize,
    /// Tokens to read into each.
    pub prefill: usize,
    /// Tokens to write into each.
    pub decode: usize,
}

/// What was measured. Tokens are those of all sequences together.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Figures {
    /// Tokens read per second.
    pub prefill_tokens_per_s: f64,
    /// Tokens written per second.
    pub decode_tokens_per_s: f64,
    /// Threads that computed.
    pub threads: usize,
    /// Sequences at a time.
    pub batch: usize,
    /// Tokens of each sequence when writing began.
    pub context: usize,
    /// Bytes of weights and of the cache that a written token needs, its share of what the batch shares.
    pub bytes_moved_per_token: f64,
    /// What these threads, or the GPU, moved per second to and from memory, just before.
    pub memory_bandwidth_bytes_per_s: f64,
    /// Bytes moved per second while writing, as a share of that: 1 is as fast as memory allows. Caches can make it more.
    pub share_of_bandwidth: f64,
}

/// Measures once.
///
/// # Errors
/// If the plan has no tokens or does not fit into the model's context, or if a step fails.
pub fn measure(model: &Model, plan: Plan) -> Result<Figures, Error> {
    if plan.prefill == 0 || plan.decode == 0 {
        return Err(Error::BadConfig { name: "prefill, decode", problem: "must be at least 1" });
    }
    let room = plan.context.saturating_add(plan.prefill).saturating_add(plan.decode);
    let bandwidth = model.bandwidth(plan.threads)?;
    let mut sequences = Lockstep::new(model, plan.threads, plan.batch, room)?;
    sequences.warm_up(&plan)?;
    sequences.read(plan.context)?;
    let started = Instant::now();
    sequences.read(plan.prefill)?;
    let read = Instant::now();
    sequences.write(plan.decode)?;
    let (prefill, decode) = ((read - started).as_secs_f64(), read.elapsed().as_secs_f64());
    let tokens = |n: usize| (n * plan.batch) as f64;
    let context = plan.context + plan.prefill;
    let cache = model.spec().sizes.block_bytes() / BLOCK_TOKENS * (context + plan.decode / 2);
    let bytes = model.step_bytes() as f64 / plan.batch as f64 + cache as f64;
    let decode_tokens_per_s = tokens(plan.decode) / decode;
    Ok(Figures {
        prefill_tokens_per_s: tokens(plan.prefill) / prefill,
        decode_tokens_per_s,
        threads: plan.threads,
        batch: plan.batch,
        context,
        bytes_moved_per_token: bytes,
        memory_bandwidth_bytes_per_s: bandwidth,
        share_of_bandwidth: bytes * decode_tokens_per_s / bandwidth,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model_file::ModelBytes;
    use crate::testing::tiny_model;

    #[test]
    fn figures_are_there_for_what_fits_and_errors_for_what_does_not() {
        let load = || ModelBytes::from_vec(tiny_model());
        let plan = Plan { threads: 1, batch: 3, context: 20, prefill: 30, decode: 5 };
        if let Ok(model) = Model::load_on_gpu(load()) {
            assert!(measure(&model, plan).unwrap().share_of_bandwidth > 0.0);
        }
        let model = Model::load(load()).unwrap();
        let figures = measure(&model, plan).unwrap();
        assert!(figures.prefill_tokens_per_s > 0.0 && figures.decode_tokens_per_s > 0.0);
        assert!((figures.batch, figures.context) == (3, 50) && figures.bytes_moved_per_token > 0.0);
        let error = measure(&model, Plan { context: 500, ..plan }).unwrap_err();
        assert!(matches!(error, Error::ContextFull { wanted: 535, context_length: 256 }), "{error}");
        assert!(measure(&model, Plan { batch: 0, ..plan }).is_err());
        assert!(measure(&model, Plan { decode: 0, ..plan }).is_err());
    }

    #[test]
    fn sequences_in_lockstep_write_what_one_alone_writes() {
        let model = Model::load(ModelBytes::from_vec(tiny_model())).unwrap();
        let mut together = Lockstep::new(&model, 2, 4, 100).unwrap();
        together.read(70).unwrap();
        let mut alone = Lockstep::new(&model, 1, 1, 100).unwrap();
        alone.read(70).unwrap();
        for _ in 0..10 {
            assert_eq!(together.last.as_slice()[0], alone.last.as_slice()[0]);
            together.write(1).unwrap();
            alone.write(1).unwrap();
        }
    }
}
