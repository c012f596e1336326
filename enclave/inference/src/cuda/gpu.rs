//! The operations of a forward pass on the GPU. Steps in which every sequence writes are recorded when they come for the second time, and from
//! then on repeated as a CUDA graph; in them a token goes from the scores to the next step without the host.

use super::inputs::{Inputs, Shape};
use super::kernels::LayerCache;
use super::plan::{self, Heads, Norm, Rope, Scores};
use super::weights::{Linear, Vector};
use super::{Buffer, Device, Recording};
use crate::backend::{Activation, Attention, Backend, Batch, Computed, HeadNorms, Place, Sizes, Top};
use crate::compute::Room;
use crate::error::Error;
use crate::families::Spec;
use crate::rotary::Rotary;
use crate::weights::RawTensor;
use half::bf16;
use std::collections::HashMap;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Tokens behind the first that a step computes: more would keep newcomers waiting.
const AHEAD: usize = 3;
/// Values of partial results of attention: 128 MiB. Of so many rows as have room there, attention is computed at a time.
const PARTIAL: usize = 32 << 20;
/// Recorded steps: each takes some megabytes.
const RECORDINGS: usize = 64;
/// Blocks that are wiped at a time.
const WIPED: usize = 1024;
/// Sizes of heads that several rows of a sequence are computed together for.
const TILED: [usize; 4] = [64, 96, 128, 256];

/// A GPU, the cache, and the rows of the step that is under way.
pub(crate) struct Gpu {
    device: Arc<Device>,
    sizes: Sizes,
    heads: Heads,
    /// Tokens that a sequence may have.
    longest: usize,
    caches: Vec<LayerCache>,
    /// For each way to turn, cosines and sines of all positions.
    turns: Vec<Buffer<f32>>,
    /// All but `Scores`.
    places: Vec<Buffer<bf16>>,
    scores: Buffer<f32>,
    partial: Buffer<f32>,
    inputs: Inputs,
    /// The best token of each wanted row.
    best: Buffer<u32>,
    /// Those of all tokens of a step that goes on, one token after the other.
    chosen: Buffer<u32>,
    /// The best tokens of a row, and before them their scores.
    top: (Buffer<f32>, Buffer<u32>),
    wiped: Buffer<u32>,
    /// Rows that go through the operations now.
    rows: usize,
    /// Tokens of this step that were chosen and gone on with.
    gone_on: usize,
    recordings: HashMap<Shape, Option<Recording>>,
    /// What the host knows of `chosen`, and of a row of the scores.
    known: Option<Zeroizing<Vec<u32>>>,
    row: Zeroizing<Vec<f32>>,
}

impl Gpu {
    pub(crate) fn new(device: Arc<Device>, spec: &Spec, rotary: &Rotary, room: Room) -> Result<Self, Error> {
        let sizes = spec.sizes;
        let heads = Heads { query: sizes.heads, kv: sizes.kv_heads, dim: sizes.dim, blocks: room.blocks };
        let longest = spec.context.min(room.blocks * plan::BLOCK) + AHEAD;
        let rows = room.rows.max(room.wanted).next_multiple_of(8);
        let wanted = room.wanted.next_multiple_of(8);
        let caches = (0..sizes.layers).map(|_| device.layer_cache(&heads)).collect::<Result<_, _>>()?;
        let turns = rotary.ropes.iter().map(|rope| device.upload(&side_by_side(rotary, rope, longest)));
        let turns = turns.collect::<Result<_, _>>()?;
        let places = Place::ALL.iter().filter(|place| **place != Place::Scores);
        let places = places.map(|place| device.zeros(rows * sizes.width(*place)));
        let places = places.collect::<Result<_, _>>()?;
        let partial = plan::partial_len(&heads, rows, longest.next_power_of_two())?;
        let one = plan::partial_len(&heads, 1, longest.next_power_of_two())?;
        plan::attends(&heads)?;
        Ok(Self {
            caches,
            places,
            scores: device.zeros(wanted * sizes.vocabulary)?,
            partial: device.zeros(partial.min(PARTIAL).max(one))?,
            inputs: Inputs::new(device.zeros(Inputs::most(rows, longest))?),
            best: device.zeros(wanted)?,
            chosen: device.zeros(wanted * (1 + AHEAD))?,
            top: (device.zeros(plan::MAX_TOP_K)?, device.zeros(plan::MAX_TOP_K)?),
            wiped: device.zeros(WIPED)?,
            device,
            sizes,
            heads,
            longest,
            turns,
            rows: 0,
            gone_on: 0,
            recordings: HashMap::new(),
            known: None,
            row: Zeroizing::default(),
        })
    }

    fn place(&self, place: Place) -> Result<Buffer<bf16>, Error> {
        let whole = self.places.get(place as usize);
        let whole = whole.ok_or_else(|| Error::Compute("a place that has no rows".to_owned()))?;
        whole.part(0, self.rows * self.sizes.width(place))
    }

    fn scores_of(&self, rows: usize) -> Result<Buffer<f32>, Error> {
        self.scores.part(0, rows * self.sizes.vocabulary)
    }

    /// Attention of rows that are alone in their sequences, as many at a time as have room for partial results.
    fn attend_alone(
        &self,
        (out, qkv): (&Buffer<bf16>, &Buffer<bf16>),
        cache: &LayerCache,
        scores: &Scores,
    ) -> Result<(), Error> {
        let Shape { alone, context, table, .. } = self.inputs.shape;
        let (tables, lengths) = (self.inputs.tables()?, self.inputs.lengths()?);
        let one = plan::partial_len(&self.heads, 1, context)?;
        let at_a_time = (self.partial.len() / one).max(1);
        let (width, row) = (self.heads.query * self.heads.dim, self.heads.row());
        for start in (0..alone).step_by(at_a_time) {
            let rows = at_a_time.min(alone - start);
            self.device.attention_decode(
                &mut out.part(start * width, rows * width)?,
                &mut self.partial.part(0, rows * one)?,
                &qkv.part(start * row, rows * row)?,
                cache,
                (&tables.part(start * table, rows * table)?, &lengths.part(start, rows)?),
                (&self.heads, scores, context),
            )?;
        }
        Ok(())
    }

    /// What was chosen in this step, a row of tokens for each time.
    fn chosen(&mut self) -> Result<&[u32], Error> {
        if self.known.is_none() {
            let rows = self.inputs.shape.wanted;
            let best = self.best.part(0, rows)?;
            let known = if self.gone_on == 0 {
                best.read()?
            } else {
                self.chosen.part(self.gone_on * rows, rows)?.copy(&best)?;
                self.chosen.part(0, (self.gone_on + 1) * rows)?.read()?
            };
            self.known = Some(known);
        }
        Ok(self.known.as_ref().map_or(&[], |known| known.as_slice()))
    }
}

/// Of each position the cosine and the sine of each angle, as the kernel wants them.
fn side_by_side(rotary: &Rotary, rope: &crate::rotary::Rope, positions: usize) -> Vec<f32> {
    let table = rotary.table(rope, 0..positions);
    let turn = |row: &[f32]| {
        let (cosines, sines) = row.split_at(rope.dims / 2);
        cosines.iter().zip(sines).flat_map(|(cosine, sine)| [*cosine, *sine]).collect::<Vec<_>>()
    };
    table.chunks_exact(rope.dims).flat_map(turn).collect()
}

impl Backend for Gpu {
    const MOST_AHEAD: usize = AHEAD;
    type Memory = Arc<Device>;
    type Linear = Linear;
    type Vector = Vector;

    fn linear(
        memory: &Arc<Device>,
        parts: &[RawTensor<'_>],
        bias: Option<Vec<f32>>,
    ) -> Result<Linear, Error> {
        Linear::new(memory, parts, bias)
    }

    fn linear_bytes(weights: &Linear) -> usize {
        weights.bytes()
    }

    fn vector(memory: &Arc<Device>, numbers: Vec<f32>) -> Result<Vector, Error> {
        Vector::new(memory, &numbers)
    }

    fn begin(&mut self, batch: &Batch<'_>, _rotary: &Rotary, ahead: usize) -> Result<(), Error> {
        self.inputs.take(batch, ahead, TILED.contains(&self.sizes.dim))?;
        (self.rows, self.gone_on, self.known) = (self.inputs.shape.rows, 0, None);
        Ok(())
    }

    fn run(&mut self, pass: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        let shape = self.inputs.shape;
        if !shape.comes_again {
            return pass(self);
        }
        match self.recordings.get(&shape) {
            Some(Some(recording)) => recording.repeat(),
            // The first time kernels are loaded, and products chosen, which cannot be recorded.
            None => {
                if self.recordings.len() >= RECORDINGS {
                    self.recordings.clear();
                }
                self.recordings.insert(shape, None);
                pass(self)
            }
            Some(None) => {
                let device = Arc::clone(&self.device);
                let recording = device.record(|| pass(self))?;
                recording.repeat()?;
                self.recordings.insert(shape, Some(recording));
                Ok(())
            }
        }
    }

    fn go_on(&mut self) -> Result<(), Error> {
        let rows = self.inputs.shape.wanted;
        let best = self.best.part(0, rows)?;
        self.chosen.part(self.gone_on * rows, rows)?.copy(&best)?;
        self.inputs.tokens()?.copy(&best)?;
        self.gone_on += 1;
        let (mut positions, mut lengths) = (self.inputs.positions()?, self.inputs.lengths()?);
        let (mut slots, tables) = (self.inputs.slots()?, self.inputs.tables()?);
        self.device.advance(&mut positions, &mut lengths, &mut slots, &tables)
    }

    fn embed(&mut self, _batch: &Batch<'_>, table: &Linear, scale: f32) -> Result<(), Error> {
        let mut stream = self.place(Place::Stream)?;
        let tokens = self.inputs.tokens()?;
        self.device.embed(&mut stream, &table.weights, &tokens, (self.sizes.hidden, scale))
    }

    fn normalise(&mut self, from: Place, weights: &Vector, epsilon: f32, to: Place) -> Result<(), Error> {
        let width = self.sizes.width(to);
        let Vector { weights, offset } = weights;
        let (rows, offset) = (self.rows, *offset);
        let norm = Norm { rows, stride: width, start: 0, groups: 1, width, eps: epsilon, offset };
        let mut out = self.place(to)?;
        if from == to {
            return self.device.rms_norm_in_place(&mut out, weights, &norm);
        }
        self.device.rms_norm(&mut out, &self.place(from)?, weights, &norm)
    }

    fn add_and_normalise(&mut self, from: Place, weights: &Vector, epsilon: f32) -> Result<(), Error> {
        let (mut out, mut stream) = (self.place(Place::Normed)?, self.place(Place::Stream)?);
        let how = (self.rows, epsilon, weights.offset);
        self.device.add_rms_norm(&mut out, &mut stream, &self.place(from)?, &weights.weights, how)
    }

    fn multiply(&mut self, from: Place, weights: &Linear, to: Place) -> Result<(), Error> {
        let shape = [self.rows, weights.inputs, weights.outputs];
        let x = self.place(from)?;
        if to == Place::Scores {
            return self.device.gemm(&mut self.scores_of(self.rows)?, &x, &weights.weights, shape);
        }
        let mut out = self.place(to)?;
        self.device.gemm(&mut out, &x, &weights.weights, shape)?;
        match &weights.bias {
            Some(bias) => self.device.add_bias(&mut out, bias, self.rows),
            None => Ok(()),
        }
    }

    fn rotate_and_write(
        &mut self,
        layer: usize,
        attention: &Attention,
        norms: Option<&HeadNorms<Vector>>,
        rope: usize,
    ) -> Result<(), Error> {
        let mut qkv = self.place(Place::Qkv)?;
        if let Some(HeadNorms { query, key, epsilon }) = norms {
            let parts = [(query, 0, self.heads.query), (key, attention.widths().0, self.heads.kv)];
            for (Vector { weights, offset }, start, groups) in parts {
                let (stride, width) = (self.heads.row(), self.heads.dim);
                let norm =
                    Norm { rows: self.rows, stride, start, groups, width, eps: *epsilon, offset: *offset };
                self.device.rms_norm_in_place(&mut qkv, weights, &norm)?;
            }
        }
        let (positions, slots) = (self.inputs.positions()?, self.inputs.slots()?);
        let (Some(turns), Some(cache)) = (self.turns.get(rope), self.caches.get_mut(layer)) else {
            return Err(Error::Compute("a layer or angles that are not there".to_owned()));
        };
        let how = Rope { rotary: turns.len() / self.longest, interleaved: false };
        self.device.rope_kv(&mut qkv, cache, turns, (&positions, &slots), (&self.heads, &how))
    }

    fn attend(&mut self, _batch: &Batch<'_>, layer: usize, attention: &Attention) -> Result<(), Error> {
        let (mut out, qkv) = (self.place(Place::Attended)?, self.place(Place::Qkv)?);
        let scores = Scores {
            scale: attention.scale,
            cap: attention.softcap.unwrap_or_default(),
            window: attention.window.unwrap_or_default(),
        };
        let cache = self.caches.get(layer);
        let cache = cache.ok_or_else(|| Error::Compute("a layer that is not there".to_owned()))?;
        let Shape { alone, others, .. } = self.inputs.shape;
        if alone > 0 {
            self.attend_alone((&out, &qkv), cache, &scores)?;
        }
        if others == 0 {
            return Ok(());
        }
        let (tables, tiles) = (self.inputs.others_tables()?, self.inputs.tiles()?);
        let how = (&self.heads, &scores);
        self.device.attention_prefill(&mut out, &qkv, cache, (&tables, &tiles), how, (self.rows, others))
    }

    fn gate(&mut self, activation: Activation) -> Result<(), Error> {
        let (mut out, from) = (self.place(Place::Gated)?, self.place(Place::GateUp)?);
        self.device.gated(activation, &mut out, &from, (self.rows, self.sizes.feed_forward))
    }

    fn add(&mut self, from: Place) -> Result<(), Error> {
        self.device.add(&mut self.place(Place::Stream)?, &self.place(from)?)
    }

    fn keep(&mut self, _batch: &Batch<'_>) -> Result<(), Error> {
        let Shape { wanted, comes_again, .. } = self.inputs.shape;
        if comes_again {
            return Ok(()); // all
        }
        let stream = self.place(Place::Stream)?;
        self.rows = wanted;
        let mut kept = self.place(Place::Result)?;
        self.device.gather_rows(&mut kept, &stream, &self.inputs.wanted()?, self.sizes.hidden)?;
        self.place(Place::Stream)?.copy(&kept)
    }

    fn squeeze(&mut self, cap: f32) -> Result<(), Error> {
        self.device.softcap(&mut self.scores_of(self.rows)?, cap)
    }

    fn choose(&mut self) -> Result<(), Error> {
        self.device.argmax(&mut self.best.part(0, self.rows)?, &self.scores_of(self.rows)?)
    }
}

impl Computed for Gpu {
    fn best(&mut self, row: usize, ahead: usize) -> Result<Option<u32>, Error> {
        let (rows, vocabulary) = (self.inputs.shape.wanted, self.sizes.vocabulary);
        let token = self.chosen()?.get(ahead * rows + row).copied();
        let token = token.ok_or_else(|| Error::Compute("a row that was not wanted".to_owned()))?;
        if token as usize >= vocabulary {
            return Err(Error::Compute("no finite score".to_owned()));
        }
        Ok(Some(token))
    }

    fn top(&mut self, row: usize, most: usize) -> Result<Option<Top>, Error> {
        let vocabulary = self.sizes.vocabulary;
        if most > self.top.0.len().min(vocabulary) {
            return Ok(None);
        }
        let logits = self.scores.part(row * vocabulary, vocabulary)?;
        let (mut scores, mut tokens) = (self.top.0.part(0, most)?, self.top.1.part(0, most)?);
        self.device.top_k(&mut scores, &mut tokens, &logits, (1, most))?;
        Ok(Some(Top { tokens: tokens.read()?, scores: scores.read()? }))
    }

    fn scores(&mut self, row: usize) -> Result<&[f32], Error> {
        let vocabulary = self.sizes.vocabulary;
        self.row = self.scores.part(row * vocabulary, vocabulary)?.read()?;
        Ok(&self.row)
    }

    fn wipe(&mut self, blocks: &[u32]) -> Result<(), Error> {
        for blocks in blocks.chunks(WIPED) {
            let mut ids = self.wiped.part(0, blocks.len())?;
            ids.write(blocks)?;
            for LayerCache { keys, values } in &mut self.caches {
                self.device.wipe_blocks(keys, &ids, &self.heads)?;
                self.device.wipe_blocks(values, &ids, &self.heads)?;
            }
        }
        Ok(())
    }

    fn wipe_rows(&mut self) -> Result<(), Error> {
        self.places.iter_mut().try_for_each(Buffer::clear)?;
        self.device.wipe_scratch()?;
        self.scores.clear()?;
        self.partial.clear()?;
        self.inputs.clear()?;
        self.best.clear()?;
        self.chosen.clear()?;
        self.top.0.clear()?;
        self.top.1.clear()?;
        (self.known, self.row) = (None, Zeroizing::default());
        Ok(())
    }
}

#[cfg(test)]
impl Gpu {
    /// Something everywhere.
    pub(super) fn fill_for_test(&mut self) {
        let fill = |buffer: &mut Buffer<bf16>| buffer.write(&vec![bf16::ONE; buffer.len()]).unwrap();
        self.caches.iter_mut().for_each(|cache| {
            fill(&mut cache.keys);
            fill(&mut cache.values);
        });
        self.places.iter_mut().for_each(fill);
        let words = [&mut self.best, &mut self.chosen, &mut self.top.1, self.inputs.all_mut()];
        words.into_iter().for_each(|buffer| buffer.write(&vec![1; buffer.len()]).unwrap());
        let floats = [&mut self.scores, &mut self.partial, &mut self.top.0];
        floats.into_iter().for_each(|buffer| buffer.write(&vec![1.0; buffer.len()]).unwrap());
        self.row = Zeroizing::new(vec![1.0]);
    }

    /// Whether blocks are zero in all layers.
    pub(super) fn is_wiped(&self, blocks: &[u32]) -> bool {
        let len = self.heads.kv * plan::BLOCK * self.heads.dim;
        let is_zero = |buffer: &Buffer<bf16>| {
            let mut values = vec![bf16::ONE; buffer.len()];
            buffer.read_into(&mut values).unwrap();
            values.iter().all(|value| *value == bf16::ZERO)
        };
        self.caches.iter().all(|cache| {
            let block = |cache: &Buffer<bf16>, id: u32| cache.part(id as usize * len, len).unwrap();
            blocks.iter().all(|id| is_zero(&block(&cache.keys, *id)) && is_zero(&block(&cache.values, *id)))
        })
    }

    pub(super) fn rows_are_wiped(&self) -> bool {
        let places = self.places.iter().all(|buffer| {
            let mut values = vec![bf16::ONE; buffer.len()];
            buffer.read_into(&mut values).unwrap();
            values.iter().all(|value| *value == bf16::ZERO)
        });
        let words = [&self.best, &self.chosen, &self.top.1, self.inputs.all()];
        let floats = [&self.scores, &self.partial, &self.top.0];
        places
            && words.iter().all(|buffer| buffer.read().unwrap().iter().all(|word| *word == 0))
            && floats.iter().all(|buffer| buffer.read().unwrap().iter().all(|float| *float == 0.0))
            && self.row.is_empty()
    }
}
