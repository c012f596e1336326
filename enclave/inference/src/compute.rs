//! A model at work: its weights, and a backend with the cache of all sequences.

use crate::backend::{Backend, Batch, Computed, Top};
use crate::decoder::Decoder;
use crate::error::Error;
use std::sync::Arc;

/// What a backend has room for.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(any(test, feature = "cuda")), expect(dead_code, reason = "processors take rows as they come"))]
pub(crate) struct Room {
    /// Threads that compute, on processors.
    pub(crate) threads: usize,
    /// Blocks of the cache.
    pub(crate) blocks: usize,
    /// Rows of a step.
    pub(crate) rows: usize,
    /// Rows of a step whose scores are wanted.
    pub(crate) wanted: usize,
}

/// A model at work, whatever computes.
pub(crate) trait Compute: Computed + Send {
    /// Computes a batch, and if `ahead` is not 0 then for each row as many tokens more, each of which follows from the best before
    /// it: then every sequence has one row, which is wanted, and blocks for them.
    fn step(&mut self, batch: &Batch<'_>, ahead: usize) -> Result<(), Error>;
    /// How many tokens are worth computing ahead.
    fn most_ahead(&self) -> usize;
}

/// A model on a backend.
pub(crate) struct On<B: Backend> {
    pub(crate) decoder: Arc<Decoder<B>>,
    pub(crate) backend: B,
}

impl<B: Backend + Computed + Send> Compute for On<B> {
    fn step(&mut self, batch: &Batch<'_>, ahead: usize) -> Result<(), Error> {
        self.decoder.step(&mut self.backend, batch, ahead)
    }

    fn most_ahead(&self) -> usize {
        B::MOST_AHEAD
    }
}

impl<B: Backend + Computed> Computed for On<B> {
    fn best(&mut self, row: usize, ahead: usize) -> Result<Option<u32>, Error> {
        self.backend.best(row, ahead)
    }

    fn top(&mut self, row: usize, most: usize) -> Result<Option<Top>, Error> {
        self.backend.top(row, most)
    }

    fn scores(&mut self, row: usize) -> Result<&[f32], Error> {
        self.backend.scores(row)
    }

    fn wipe(&mut self, blocks: &[u32]) -> Result<(), Error> {
        self.backend.wipe(blocks)
    }

    fn wipe_rows(&mut self) -> Result<(), Error> {
        self.backend.wipe_rows()
    }
}
