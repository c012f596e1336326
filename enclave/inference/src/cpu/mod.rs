//! The engine's computing on processors: integer products with run-time choice of instructions, blocked attention, and threads
//! that spin within a step and sleep between steps.
//!
//! Numbers follow llama.cpp: activations are quantised before products with quantised weights, keys and values are 16-bit floats.

mod activations;
mod attention;
mod bandwidth;
mod blocks;
mod cache;
mod encoder;
mod lines;
mod matrix;
mod numbers;
mod pool;
mod product;
mod rows;
mod scheduling;
mod simd;

pub(crate) use attention::MAX_DIM;
pub(crate) use bandwidth::read_bandwidth;
pub(crate) use encoder::{Heads, Norm, Threads};
pub(crate) use product::Linear;
pub use scheduling::yield_processors;
pub(crate) use simd::LANES;

use crate::backend::{
    Activation, Attention, BLOCK_TOKENS, Backend, Batch, Computed, HeadNorms, Place, Sizes,
};
use crate::error::Error;
use crate::rotary::Rotary;
use crate::weights::RawTensor;
use activations::Activations;
use cache::{Cache, Slot, Written};
use matrix::Matrix;
use pool::Pool;
use product::Rows;
use rows::{Add, Gate, Normalise, Rotate, Squeeze, each_row};
use simd::Level;
use zeroize::{Zeroize, Zeroizing};

/// The threads, the cache, and the rows of the step that is under way.
pub(crate) struct Cpu {
    pool: Pool,
    level: Level,
    sizes: Sizes,
    cache: Cache,
    places: [Zeroizing<Vec<f32>>; Place::ALL.len()],
    quantised: Activations,
    rows: usize,
    slots: Vec<Slot>,
    /// Of the rows of the step, for each way to turn them.
    angles: Vec<Vec<f32>>,
}

impl Cpu {
    /// `blocks` of 16 tokens each are what all sequences share.
    pub(crate) fn new(sizes: Sizes, threads: usize, blocks: usize) -> Result<Self, Error> {
        Ok(Self {
            pool: Pool::new(threads)?,
            level: Level::detect(),
            sizes,
            cache: Cache::new(sizes.layers, sizes.kv_heads, sizes.dim, blocks),
            places: Place::ALL.map(|_| Zeroizing::new(Vec::new())),
            quantised: Activations::default(),
            rows: 0,
            slots: Vec::new(),
            angles: Vec::new(),
        })
    }

    fn slice(&self, place: Place) -> &[f32] {
        &self.places[place as usize][..self.rows * self.sizes.width(place)]
    }

    /// Takes a place out, with room for the rows, so that it can be written while others are read.
    fn take(&mut self, place: Place) -> Zeroizing<Vec<f32>> {
        let mut taken = std::mem::take(&mut self.places[place as usize]);
        let wanted = self.rows * self.sizes.width(place);
        if taken.len() < wanted {
            taken = Zeroizing::new(vec![0.0; wanted]);
        }
        taken
    }

    fn put(&mut self, place: Place, taken: Zeroizing<Vec<f32>>) {
        self.places[place as usize] = taken;
    }
}

impl Backend for Cpu {
    type Memory = ();
    type Linear = Linear;
    type Vector = Vec<f32>;

    fn linear((): &(), parts: &[RawTensor<'_>], bias: Option<Vec<f32>>) -> Result<Linear, Error> {
        let parts = parts.iter().map(Matrix::new).collect::<Result<Vec<_>, _>>()?;
        Linear::new(parts, bias)
    }

    fn linear_bytes(weights: &Linear) -> usize {
        weights.bytes()
    }

    fn vector((): &(), numbers: Vec<f32>) -> Result<Vec<f32>, Error> {
        Ok(numbers)
    }

    fn settle(weights: Vec<&mut Linear>) {
        lines::gather(weights.into_iter().flat_map(Linear::lines).collect());
    }

    fn begin(&mut self, batch: &Batch<'_>, rotary: &Rotary, _ahead: usize) -> Result<(), Error> {
        self.rows = batch.tokens.len();
        self.slots.clear();
        for span in batch.spans {
            for position in span.position..span.position + span.rows {
                let block = span.table.get(position / BLOCK_TOKENS).copied();
                let block =
                    block.ok_or_else(|| Error::Compute("a sequence has too few blocks".to_owned()))?;
                self.slots.push(Slot { block, within: position % BLOCK_TOKENS });
            }
        }
        if self.slots.len() != self.rows {
            return Err(Error::Compute("rows without a sequence".to_owned()));
        }
        let positions = || batch.spans.iter().flat_map(|span| span.position..span.position + span.rows);
        self.angles = rotary.ropes.iter().map(|rope| rotary.table(rope, positions())).collect();
        Ok(())
    }

    /// With the threads awake.
    fn run(&mut self, pass: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        let _awake = self.pool.step();
        pass(self)
    }

    fn embed(&mut self, batch: &Batch<'_>, table: &Linear, scale: f32) -> Result<(), Error> {
        let mut stream = self.take(Place::Stream);
        let rows = stream.chunks_exact_mut(self.sizes.hidden).zip(batch.tokens);
        for (row, token) in rows {
            table.row(*token as usize, row);
            if scale != 1.0 {
                row.iter_mut().for_each(|x| *x *= scale);
            }
        }
        self.put(Place::Stream, stream);
        Ok(())
    }

    fn normalise(&mut self, from: Place, weights: &Vec<f32>, epsilon: f32, to: Place) -> Result<(), Error> {
        let width = self.sizes.width(to);
        let mut taken = self.take(to);
        let source = (from != to).then(|| self.slice(from));
        each_row(&self.pool, &mut taken[..self.rows * width], width, |row, to| {
            let from = source.map(|from| &from[row * width..][..width]);
            self.level.run(Normalise { from, weights, epsilon, to });
        });
        self.put(to, taken);
        Ok(())
    }

    fn multiply(&mut self, from: Place, weights: &Linear, to: Place) -> Result<(), Error> {
        let mut out = self.take(to);
        let numbers = &self.places[from as usize][..self.rows * self.sizes.width(from)];
        if weights.is_quantised() {
            self.quantised.quantise(&self.pool, self.level, numbers, self.sizes.width(from));
        }
        let rows = Rows { numbers, quantised: &self.quantised };
        let len = self.rows * self.sizes.width(to);
        weights.multiply(&self.pool, self.level, &rows, self.rows, &mut out[..len]);
        self.put(to, out);
        Ok(())
    }

    fn rotate_and_write(
        &mut self,
        layer: usize,
        attention: &Attention,
        norms: Option<&HeadNorms<Vec<f32>>>,
        rope: usize,
    ) -> Result<(), Error> {
        let mut qkv = self.take(Place::Qkv);
        let width = self.sizes.width(Place::Qkv);
        let (queries, keys) = attention.widths();
        let table = &self.angles[rope];
        let per_row = table.len() / self.rows;
        let rows = &mut qkv[..self.rows * width];
        each_row(&self.pool, rows, width, |row, to| {
            if let Some(HeadNorms { query, key, epsilon }) = norms {
                let (q, k) = to[..queries + keys].split_at_mut(queries);
                self.level.run(Normalise { from: None, weights: query, epsilon: *epsilon, to: q });
                self.level.run(Normalise { from: None, weights: key, epsilon: *epsilon, to: k });
            }
            let angles = &table[row * per_row..][..per_row];
            self.level.run(Rotate { heads: &mut to[..queries + keys], dim: attention.dim, angles });
        });
        let written = Written { rows, width, keys: queries, values: queries + keys };
        self.cache.write(&self.pool, self.level, layer, &self.slots, &written);
        self.put(Place::Qkv, qkv);
        Ok(())
    }

    fn attend(&mut self, batch: &Batch<'_>, layer: usize, attention: &Attention) -> Result<(), Error> {
        let mut out = self.take(Place::Attended);
        let (queries, width) = (self.slice(Place::Qkv), self.sizes.width(Place::Qkv));
        let call = attention::Call {
            attention: *attention,
            layer,
            cache: &self.cache,
            spans: batch.spans,
            queries,
            width,
        };
        let len = self.rows * self.sizes.width(Place::Attended);
        attention::attend(&self.pool, self.level, &call, &mut out[..len]);
        self.put(Place::Attended, out);
        Ok(())
    }

    fn gate(&mut self, activation: Activation) -> Result<(), Error> {
        let mut gated = self.take(Place::Gated);
        let (from, width) = (self.slice(Place::GateUp), self.sizes.width(Place::Gated));
        each_row(&self.pool, &mut gated[..self.rows * width], width, |row, to| {
            self.level.run(Gate { activation, from: &from[row * 2 * width..][..2 * width], to });
        });
        self.put(Place::Gated, gated);
        Ok(())
    }

    fn add(&mut self, from: Place) -> Result<(), Error> {
        let mut stream = self.take(Place::Stream);
        let (from, width) = (self.slice(from), self.sizes.hidden);
        each_row(&self.pool, &mut stream[..self.rows * width], width, |row, to| {
            self.level.run(Add { from: &from[row * width..][..width], to });
        });
        self.put(Place::Stream, stream);
        Ok(())
    }

    fn keep(&mut self, batch: &Batch<'_>) -> Result<(), Error> {
        let width = self.sizes.hidden;
        let stream = &mut self.places[Place::Stream as usize];
        for (to, from) in batch.wanted.iter().enumerate() {
            stream.copy_within(from * width..(from + 1) * width, to * width); // ascending: none is overwritten before it moves
        }
        self.rows = batch.wanted.len();
        Ok(())
    }

    fn squeeze(&mut self, cap: f32) -> Result<(), Error> {
        let mut scores = self.take(Place::Scores);
        let width = self.sizes.vocabulary;
        each_row(&self.pool, &mut scores[..self.rows * width], width, |_, numbers| {
            self.level.run(Squeeze { cap, numbers });
        });
        self.put(Place::Scores, scores);
        Ok(())
    }
}

impl Computed for Cpu {
    fn scores(&mut self, row: usize) -> Result<&[f32], Error> {
        let width = self.sizes.vocabulary;
        let scores = self.slice(Place::Scores).get(row * width..(row + 1) * width);
        scores.ok_or_else(|| Error::Compute("a row without scores".to_owned()))
    }

    fn wipe(&mut self, blocks: &[u32]) -> Result<(), Error> {
        self.cache.wipe(blocks);
        Ok(())
    }

    fn wipe_rows(&mut self) -> Result<(), Error> {
        self.places.iter_mut().for_each(|place| place.as_mut_slice().zeroize());
        self.quantised.wipe();
        Ok(())
    }
}
