//! The forward pass of a decoder-only transformer, over any backend: rows of many sequences in one step, long prompts in pieces.
//!
//! Numbers follow llama.cpp: activations are quantised before products with quantised weights, keys and values are 16-bit floats,
//! angles come from repeated multiplication in `f32`.

use crate::backend::{Attention, Backend, HeadNorms, Place, Span};
use crate::error::Error;
use crate::families::{Rope, Spec};
use crate::source::{Source, bad};
use crate::weights::RawTensor;
use std::borrow::Cow;

/// The weights of a model and how to compute with them.
pub(crate) struct Decoder<B: Backend> {
    spec: Spec,
    /// Factors that angles are divided by, as Llama 3.1 has them.
    factors: Option<Vec<f32>>,
    embedding: B::Linear,
    /// Not there if it is the embedding.
    output: Option<B::Linear>,
    output_norm: B::Vector,
    layers: Vec<Layer<B>>,
}

struct Layer<B: Backend> {
    attention: Attention,
    rope: usize,
    attention_norm: B::Vector,
    qkv: B::Linear,
    head_norms: Option<HeadNorms<B::Vector>>,
    attention_output: B::Linear,
    post_attention_norm: Option<B::Vector>,
    feed_forward_norm: B::Vector,
    gate_up: B::Linear,
    down: B::Linear,
    post_feed_forward_norm: Option<B::Vector>,
}

/// What one step computes.
pub(crate) struct Batch<'a> {
    /// Of all sequences, one after another.
    pub(crate) tokens: &'a [u32],
    pub(crate) spans: &'a [Span<'a>],
    /// Rows whose scores are wanted, ascending.
    pub(crate) wanted: &'a [usize],
}

impl<B: Backend> Decoder<B> {
    /// Takes all weights out of the source. `vocabulary` is the tokenizer's.
    pub(crate) fn load(source: &mut Source<'_>, vocabulary: usize) -> Result<Self, Error> {
        let spec = Spec::read(source, vocabulary)?;
        let sizes = spec.sizes;
        let table = source.raw_tensor("token_embd.weight", &[vocabulary, sizes.hidden])?;
        let embedding = B::linear(&[table], None)?;
        let output = if source.has_tensor("output.weight") {
            let weights = source.raw_tensor("output.weight", &[vocabulary, sizes.hidden])?;
            Some(B::linear(&[weights], None)?)
        } else {
            None
        };
        let factors = if source.has_tensor("rope_freqs.weight") {
            Some(source.vector("rope_freqs.weight", spec.ropes[0].dims / 2)?)
        } else {
            None
        };
        let layers =
            (0..sizes.layers).map(|index| Layer::load(source, &spec, index)).collect::<Result<_, _>>()?;
        let output_norm = B::vector(source.vector("output_norm.weight", sizes.hidden)?);
        Ok(Self { spec, factors, embedding, output, output_norm, layers })
    }

    /// Bytes of weights that are fetched for a step with scores.
    pub(crate) fn step_bytes(&self) -> usize {
        let layers = self.layers.iter().flat_map(|layer| {
            [&layer.qkv, &layer.attention_output, &layer.gate_up, &layer.down].map(B::linear_bytes)
        });
        layers.sum::<usize>() + B::linear_bytes(self.output.as_ref().unwrap_or(&self.embedding))
    }

    pub(crate) fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Runs a batch; `backend` then has the scores of the wanted rows.
    pub(crate) fn step(&self, backend: &mut B, batch: &Batch<'_>) -> Result<(), Error> {
        let Spec { epsilon, activation, .. } = self.spec;
        if batch.tokens.iter().any(|token| *token as usize >= self.spec.sizes.vocabulary) {
            return Err(Error::Compute("a token beyond the vocabulary".to_owned()));
        }
        let angles = self.spec.ropes.iter().map(|rope| self.angles(rope, batch)).collect();
        backend.begin(batch.tokens.len(), batch.spans, angles)?;
        backend.embed(&self.embedding, batch.tokens, self.spec.embedding_scale);
        for (index, layer) in self.layers.iter().enumerate() {
            backend.normalise(Place::Stream, &layer.attention_norm, epsilon, Place::Normed);
            backend.multiply(Place::Normed, &layer.qkv, Place::Qkv);
            backend.rotate_and_write(index, &layer.attention, layer.head_norms.as_ref(), layer.rope);
            backend.attend(index, &layer.attention, batch.spans);
            backend.multiply(Place::Attended, &layer.attention_output, Place::Result);
            if let Some(norm) = &layer.post_attention_norm {
                backend.normalise(Place::Result, norm, epsilon, Place::Result);
            }
            backend.add(Place::Result);

            backend.normalise(Place::Stream, &layer.feed_forward_norm, epsilon, Place::Normed);
            backend.multiply(Place::Normed, &layer.gate_up, Place::GateUp);
            backend.gate(activation);
            backend.multiply(Place::Gated, &layer.down, Place::Result);
            if let Some(norm) = &layer.post_feed_forward_norm {
                backend.normalise(Place::Result, norm, epsilon, Place::Result);
            }
            backend.add(Place::Result);
        }
        backend.keep(batch.wanted);
        backend.normalise(Place::Stream, &self.output_norm, epsilon, Place::Normed);
        backend.multiply(Place::Normed, self.output.as_ref().unwrap_or(&self.embedding), Place::Scores);
        if let Some(cap) = self.spec.output_softcap {
            backend.squeeze(cap);
        }
        Ok(())
    }

    /// Cosines and then sines of each row's angles.
    fn angles(&self, rope: &Rope, batch: &Batch<'_>) -> Vec<f32> {
        let half = rope.dims / 2;
        let step = libm::powf(rope.base, -2.0 / rope.dims as f32);
        let mut table = vec![0.0; batch.tokens.len() * rope.dims];
        let mut rows = table.chunks_exact_mut(rope.dims);
        for span in batch.spans {
            for (position, row) in (span.position..span.position + span.rows).zip(&mut rows) {
                let (cosines, sines) = row.split_at_mut(half);
                let mut theta = position as f32 / rope.divisor;
                for i in 0..half {
                    let angle = self.factors.as_ref().map_or(theta, |factors| theta / factors[i]);
                    (cosines[i], sines[i]) = (libm::cosf(angle), libm::sinf(angle));
                    theta *= step;
                }
            }
        }
        table
    }
}

impl<B: Backend> Layer<B> {
    fn load(source: &mut Source<'_>, spec: &Spec, index: usize) -> Result<Self, Error> {
        let sizes = spec.sizes;
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        let attention = Attention {
            heads: sizes.heads,
            kv_heads: sizes.kv_heads,
            dim: sizes.dim,
            scale: spec.attention_scale,
            softcap: spec.attention_softcap,
            window: spec.layers[index].window,
        };
        let (hidden, wide) = (sizes.hidden, sizes.feed_forward);
        let qkv = Self::qkv(source, spec, &attention, index)?;
        let attention_output = source.raw_tensor(&name("attn_output"), &[hidden, attention.widths().0])?;
        let gate = source.raw_tensor(&name("ffn_gate"), &[wide, hidden])?;
        let up = source.raw_tensor(&name("ffn_up"), &[wide, hidden])?;
        let down = source.raw_tensor(&name("ffn_down"), &[hidden, wide])?;
        let mut norm = |part: &str, len: usize| Ok::<_, Error>(B::vector(source.vector(&name(part), len)?));
        let head_norms = if spec.head_norms {
            let (query, key) = (norm("attn_q_norm", sizes.dim)?, norm("attn_k_norm", sizes.dim)?);
            Some(HeadNorms { query, key, epsilon: spec.epsilon })
        } else {
            None
        };
        let (post_attention_norm, post_feed_forward_norm) = if spec.post_norms {
            (Some(norm("post_attention_norm", hidden)?), Some(norm("post_ffw_norm", hidden)?))
        } else {
            (None, None)
        };
        Ok(Self {
            attention,
            rope: spec.layers[index].rope,
            attention_norm: norm("attn_norm", hidden)?,
            qkv,
            head_norms,
            attention_output: B::linear(&[attention_output], None)?,
            post_attention_norm,
            feed_forward_norm: norm("ffn_norm", hidden)?,
            gate_up: B::linear(&[gate, up], None)?,
            down: B::linear(&[down], None)?,
            post_feed_forward_norm,
        })
    }

    /// Queries, keys and values side by side; queries and keys so that the halves of a head are rotated with each other.
    fn qkv(
        source: &mut Source<'_>,
        spec: &Spec,
        attention: &Attention,
        index: usize,
    ) -> Result<B::Linear, Error> {
        let (queries, keys) = attention.widths();
        let dims = spec.ropes[spec.layers[index].rope].dims;
        let order = |rows: usize| spec.neighbours.then(|| halves_of_neighbours(rows, attention.dim, dims));
        let mut parts = Vec::new();
        let mut bias = Vec::new();
        for (part, outputs, order) in
            [("attn_q", queries, order(queries)), ("attn_k", keys, order(keys)), ("attn_v", keys, None)]
        {
            let weights =
                source.raw_tensor(&format!("blk.{index}.{part}.weight"), &[outputs, spec.sizes.hidden])?;
            parts.push(match &order {
                Some(order) => reorder(weights, order),
                None => weights,
            });
            let name = format!("blk.{index}.{part}.bias");
            if source.has_tensor(&name) {
                let numbers = source.vector(&name, outputs)?;
                match order {
                    Some(order) => bias.extend(order.into_iter().map(|row| numbers[row])),
                    None => bias.extend(numbers),
                }
            }
        }
        match bias.len() {
            0 => B::linear(&parts, None),
            len if len == queries + 2 * keys => B::linear(&parts, Some(bias)),
            _ => Err(bad(&format!("blk.{index}"), "only some of queries, keys and values have a bias")),
        }
    }
}

/// For each row, which row of the file it is: pairs of neighbours become pairs half the rotated dimensions apart.
fn halves_of_neighbours(rows: usize, dim: usize, dims: usize) -> Vec<usize> {
    let within = |i: usize| match i {
        i if i >= dims => i,
        i if i < dims / 2 => 2 * i,
        i => 2 * (i - dims / 2) + 1,
    };
    (0..rows).map(|row| row / dim * dim + within(row % dim)).collect()
}

fn reorder<'a>(tensor: RawTensor<'a>, order: &[usize]) -> RawTensor<'a> {
    let row_bytes = tensor.bytes.len() / order.len();
    let bytes = order.iter().flat_map(|row| &tensor.bytes[row * row_bytes..][..row_bytes]).copied().collect();
    RawTensor { bytes: Cow::Owned(bytes), ..tensor }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_halves() {
        assert_eq!(halves_of_neighbours(8, 4, 4), [0, 2, 1, 3, 4, 6, 5, 7]);
        assert_eq!(halves_of_neighbours(6, 6, 4), [0, 2, 1, 3, 4, 5]);
    }
}
