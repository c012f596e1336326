//! The operations of a forward pass on a GPU, one function each. Shapes are checked before anything is launched.

use super::plan::{self, Heads, Norm, Rope, Scores};
use super::{Buffer, Device, Element};
use crate::backend::Activation;
use crate::error::Error;
use half::bf16;

/// The cache of one layer: blocks of 16 tokens, `[block][kv head][16][head dim]`.
pub(crate) struct LayerCache {
    pub(crate) keys: Buffer<bf16>,
    pub(crate) values: Buffer<bf16>,
}

impl Device {
    /// An empty cache.
    pub(crate) fn layer_cache(&self, heads: &Heads) -> Result<LayerCache, Error> {
        let len = heads.cache_len("layer_cache")?;
        Ok(LayerCache { keys: self.zeros(len)?, values: self.zeros(len)? })
    }

    /// `out = norm(x) * (offset + weight)` for the part of each row that `norm` names.
    pub(crate) fn rms_norm(
        &self,
        out: &mut Buffer<bf16>,
        x: &Buffer<bf16>,
        weight: &Buffer<bf16>,
        norm: &Norm,
    ) -> Result<(), Error> {
        let launch = plan::rms_norm([out.len(), x.len(), weight.len()], norm)?;
        self.launch(&launch, &[out.exclusive(), x.shared(), weight.shared()])
    }

    /// The same in place: norms of query and key heads.
    pub(crate) fn rms_norm_in_place(
        &self,
        x: &mut Buffer<bf16>,
        weight: &Buffer<bf16>,
        norm: &Norm,
    ) -> Result<(), Error> {
        let launch = plan::rms_norm([x.len(), x.len(), weight.len()], norm)?;
        let [out, input] = x.exclusive().in_place();
        self.launch(&launch, &[out, input, weight.shared()])
    }

    /// `residual += x`, and `out` its norm.
    pub(crate) fn add_rms_norm(
        &self,
        out: &mut Buffer<bf16>,
        residual: &mut Buffer<bf16>,
        x: &Buffer<bf16>,
        weight: &Buffer<bf16>,
        (rows, eps, offset): (usize, f32, f32),
    ) -> Result<(), Error> {
        let lens = [out.len(), residual.len(), x.len(), weight.len()];
        let launch = plan::add_rms_norm(lens, rows, eps, offset)?;
        self.launch(&launch, &[out.exclusive(), residual.exclusive(), x.shared(), weight.shared()])
    }

    /// `x += y`.
    pub(crate) fn add(&self, x: &mut Buffer<bf16>, y: &Buffer<bf16>) -> Result<(), Error> {
        self.launch(&plan::add([x.len(), y.len()])?, &[x.exclusive(), y.shared()])
    }

    /// `x += bias` in each row.
    pub(crate) fn add_bias(
        &self,
        x: &mut Buffer<bf16>,
        bias: &Buffer<bf16>,
        rows: usize,
    ) -> Result<(), Error> {
        self.launch(&plan::add_bias([x.len(), bias.len()], rows)?, &[x.exclusive(), bias.shared()])
    }

    /// `out = activation(gate) * up`, where rows of `gate_up` are both.
    pub(crate) fn gated(
        &self,
        activation: Activation,
        out: &mut Buffer<bf16>,
        gate_up: &Buffer<bf16>,
        (rows, width): (usize, usize),
    ) -> Result<(), Error> {
        let launch = plan::gated(activation, [out.len(), gate_up.len()], rows, width)?;
        self.launch(&launch, &[out.exclusive(), gate_up.shared()])
    }

    /// Rows of the table, times `scale`.
    pub(crate) fn embed(
        &self,
        out: &mut Buffer<bf16>,
        table: &Buffer<bf16>,
        tokens: &Buffer<u32>,
        (width, scale): (usize, f32),
    ) -> Result<(), Error> {
        let launch = plan::embed([out.len(), table.len(), tokens.len()], width, scale)?;
        self.launch(&launch, &[out.exclusive(), table.shared(), tokens.shared()])
    }

    /// Some rows of `x`: those whose scores are wanted.
    pub(crate) fn gather_rows(
        &self,
        out: &mut Buffer<bf16>,
        x: &Buffer<bf16>,
        rows: &Buffer<u32>,
        width: usize,
    ) -> Result<(), Error> {
        let launch = plan::gather_rows([out.len(), x.len(), rows.len()], width)?;
        self.launch(&launch, &[out.exclusive(), x.shared(), rows.shared()])
    }

    /// `out = x * transposed(weights)`; `out` is BF16, or f32 for scores. `shape` is rows, inputs, outputs.
    pub(crate) fn gemm<T: Element>(
        &self,
        out: &mut Buffer<T>,
        x: &Buffer<bf16>,
        weights: &Buffer<bf16>,
        shape: [usize; 3],
    ) -> Result<(), Error> {
        self.multiply(&out.exclusive(), &x.shared(), &weights.shared(), shape)
    }

    /// Turns queries and keys, and writes keys and values to the cache.
    pub(crate) fn rope_kv(
        &self,
        qkv: &mut Buffer<bf16>,
        cache: &mut LayerCache,
        turns: &Buffer<f32>,
        (positions, slots): (&Buffer<u32>, &Buffer<u32>),
        (heads, rope): (&Heads, &Rope),
    ) -> Result<(), Error> {
        let LayerCache { keys, values } = cache;
        let lens = [qkv.len(), keys.len(), values.len(), turns.len(), positions.len(), slots.len()];
        let launch = plan::rope_kv(lens, heads, rope)?;
        let written = [qkv.exclusive(), keys.exclusive(), values.exclusive()];
        let read = [turns.shared(), positions.shared(), slots.shared()];
        self.launch(&launch, &written.into_iter().chain(read).collect::<Vec<_>>())
    }

    /// One query token of each sequence. `partial` is scratch of [`plan::partial_len`]; no length is above `context`.
    pub(crate) fn attention_decode(
        &self,
        out: &mut Buffer<bf16>,
        partial: &mut Buffer<f32>,
        q: &Buffer<bf16>,
        cache: &LayerCache,
        (tables, lengths): (&Buffer<u32>, &Buffer<u32>),
        (heads, scores, context): (&Heads, &Scores, usize),
    ) -> Result<(), Error> {
        let LayerCache { keys, values } = cache;
        let lens = [partial.len(), q.len(), keys.len(), values.len(), tables.len(), lengths.len()];
        let launch = plan::attention_decode(lens, heads, scores, context)?;
        let combine = plan::attention_combine([out.len(), partial.len()], heads, lengths.len(), context)?;
        let read = [q.shared(), keys.shared(), values.shared(), tables.shared(), lengths.shared()];
        let all: Vec<_> = [partial.exclusive()].into_iter().chain(read).collect();
        self.launch(&launch, &all)?;
        drop(all);
        self.launch(&combine, &[out.exclusive(), partial.shared()])
    }

    /// Many query tokens, each of which sees what is before it; `tiles` are those of [`plan::tiles`] for the rows and sequences.
    pub(crate) fn attention_prefill(
        &self,
        out: &mut Buffer<bf16>,
        q: &Buffer<bf16>,
        cache: &LayerCache,
        (tables, tiles): (&Buffer<u32>, &Buffer<u32>),
        (heads, scores): (&Heads, &Scores),
        (rows, sequences): (usize, usize),
    ) -> Result<(), Error> {
        let LayerCache { keys, values } = cache;
        let lens = [out.len(), q.len(), keys.len(), values.len(), tables.len(), tiles.len()];
        let launch = plan::attention_prefill(lens, heads, scores, rows, sequences)?;
        let read = [q.shared(), keys.shared(), values.shared(), tables.shared(), tiles.shared()];
        self.launch(&launch, &[out.exclusive()].into_iter().chain(read).collect::<Vec<_>>())
    }

    /// `x = cap * tanh(x / cap)`.
    pub(crate) fn softcap(&self, x: &mut Buffer<f32>, cap: f32) -> Result<(), Error> {
        self.launch(&plan::softcap(x.len(), cap)?, &[x.exclusive()])
    }

    /// The best tokens of each row, best first.
    pub(crate) fn top_k(
        &self,
        scores: &mut Buffer<f32>,
        ids: &mut Buffer<u32>,
        logits: &Buffer<f32>,
        (rows, k): (usize, usize),
    ) -> Result<(), Error> {
        let launch = plan::top_k([scores.len(), ids.len(), logits.len()], rows, k)?;
        self.launch(&launch, &[scores.exclusive(), ids.exclusive(), logits.shared()])
    }

    /// The best token of each row, ready for [`Device::embed`].
    pub(crate) fn argmax(&self, tokens: &mut Buffer<u32>, logits: &Buffer<f32>) -> Result<(), Error> {
        self.launch(&plan::argmax([tokens.len(), logits.len()])?, &[tokens.exclusive(), logits.shared()])
    }

    /// Overwrites blocks of a layer's keys or values with zeros. Blocks that are not there are left out.
    pub(crate) fn wipe_blocks(
        &self,
        cache: &mut Buffer<bf16>,
        ids: &Buffer<u32>,
        heads: &Heads,
    ) -> Result<(), Error> {
        let launch = plan::wipe_blocks([cache.len(), ids.len()], heads)?;
        self.launch(&launch, &[cache.exclusive(), ids.shared()])
    }

    /// Moves every sequence on by one token.
    pub(crate) fn advance(
        &self,
        positions: &mut Buffer<u32>,
        lengths: &mut Buffer<u32>,
        slots: &mut Buffer<u32>,
        tables: &Buffer<u32>,
    ) -> Result<(), Error> {
        let launch = plan::advance([positions.len(), lengths.len(), slots.len(), tables.len()])?;
        let written = [positions.exclusive(), lengths.exclusive(), slots.exclusive()];
        self.launch(&launch, &written.into_iter().chain([tables.shared()]).collect::<Vec<_>>())
    }
}
