//! The forward pass of a decoder-only transformer, over any backend: rows of many sequences in one step, long prompts in pieces.

use crate::backend::{Attention, Backend, Batch, HeadNorms, Place};
use crate::error::Error;
use crate::families::Spec;
use crate::rotary::Rotary;
use crate::source::{Source, bad};
use crate::weights::RawTensor;
use std::borrow::Cow;

/// The weights of a model and how to compute with them.
pub(crate) struct Decoder<B: Backend> {
    spec: Spec,
    rotary: Rotary,
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

impl<B: Backend> Decoder<B> {
    /// Takes all weights out of the source.
    pub(crate) fn load(source: &mut Source<'_>, spec: Spec, memory: &B::Memory) -> Result<Self, Error> {
        let sizes = spec.sizes;
        let table = source.raw_tensor("token_embd.weight", &[sizes.vocabulary, sizes.hidden])?;
        let embedding = B::linear(memory, &[table], None)?;
        let output = if source.has_tensor("output.weight") {
            let weights = source.raw_tensor("output.weight", &[sizes.vocabulary, sizes.hidden])?;
            Some(B::linear(memory, &[weights], None)?)
        } else {
            None
        };
        let factors = if source.has_tensor("rope_freqs.weight") {
            Some(source.vector("rope_freqs.weight", spec.ropes[0].dims / 2)?)
        } else {
            None
        };
        let rotary = Rotary { ropes: spec.ropes.clone(), factors };
        let layer = |index| Layer::load(source, &spec, index, memory);
        let layers = (0..sizes.layers).map(layer).collect::<Result<_, _>>()?;
        let output_norm = B::vector(memory, source.vector("output_norm.weight", sizes.hidden)?)?;
        let mut decoder = Self { spec, rotary, embedding, output, output_norm, layers };
        B::settle(decoder.weights());
        Ok(decoder)
    }

    /// All of them, in the order in which a step wants them.
    fn weights(&mut self) -> Vec<&mut B::Linear> {
        let layers = self.layers.iter_mut().flat_map(|layer| {
            [&mut layer.qkv, &mut layer.attention_output, &mut layer.gate_up, &mut layer.down]
        });
        layers.chain(&mut self.output).chain([&mut self.embedding]).collect()
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

    #[cfg(any(test, feature = "cuda"))]
    pub(crate) fn rotary(&self) -> &Rotary {
        &self.rotary
    }

    /// Runs a batch, and `ahead` tokens more; `backend` then has what was asked for.
    pub(crate) fn step(&self, backend: &mut B, batch: &Batch<'_>, ahead: usize) -> Result<(), Error> {
        if batch.tokens.iter().any(|token| *token as usize >= self.spec.sizes.vocabulary) {
            return Err(Error::Compute("a token beyond the vocabulary".to_owned()));
        }
        backend.begin(batch, &self.rotary, ahead)?;
        backend.run(|backend| self.pass(backend, batch))?;
        for _ in 0..ahead {
            backend.go_on()?;
            backend.run(|backend| self.pass(backend, batch))?;
        }
        Ok(())
    }

    /// The operations of a forward pass.
    fn pass(&self, backend: &mut B, batch: &Batch<'_>) -> Result<(), Error> {
        let Spec { epsilon, activation, .. } = self.spec;
        backend.embed(batch, &self.embedding, self.spec.embedding_scale)?;
        for (index, layer) in self.layers.iter().enumerate() {
            if index == 0 {
                backend.normalise(Place::Stream, &layer.attention_norm, epsilon, Place::Normed)?;
            }
            backend.multiply(Place::Normed, &layer.qkv, Place::Qkv)?;
            backend.rotate_and_write(index, &layer.attention, layer.head_norms.as_ref(), layer.rope)?;
            backend.attend(batch, index, &layer.attention)?;
            backend.multiply(Place::Attended, &layer.attention_output, Place::Result)?;
            if let Some(norm) = &layer.post_attention_norm {
                backend.normalise(Place::Result, norm, epsilon, Place::Result)?;
            }
            backend.add_and_normalise(Place::Result, &layer.feed_forward_norm, epsilon)?;

            backend.multiply(Place::Normed, &layer.gate_up, Place::GateUp)?;
            backend.gate(activation)?;
            backend.multiply(Place::Gated, &layer.down, Place::Result)?;
            if let Some(norm) = &layer.post_feed_forward_norm {
                backend.normalise(Place::Result, norm, epsilon, Place::Result)?;
            }
            match self.layers.get(index + 1) {
                Some(next) => backend.add_and_normalise(Place::Result, &next.attention_norm, epsilon)?,
                None => backend.add(Place::Result)?,
            }
        }
        if batch.wanted.is_empty() {
            return Ok(());
        }
        backend.keep(batch)?;
        backend.normalise(Place::Stream, &self.output_norm, epsilon, Place::Normed)?;
        backend.multiply(Place::Normed, self.output.as_ref().unwrap_or(&self.embedding), Place::Scores)?;
        if let Some(cap) = self.spec.output_softcap {
            backend.squeeze(cap)?;
        }
        backend.choose()
    }
}

impl<B: Backend> Layer<B> {
    fn load(source: &mut Source<'_>, spec: &Spec, index: usize, memory: &B::Memory) -> Result<Self, Error> {
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
        let qkv = Self::qkv(source, spec, (&attention, index), memory)?;
        let attention_output = source.raw_tensor(&name("attn_output"), &[hidden, attention.widths().0])?;
        let gate = source.raw_tensor(&name("ffn_gate"), &[wide, hidden])?;
        let up = source.raw_tensor(&name("ffn_up"), &[wide, hidden])?;
        let down = source.raw_tensor(&name("ffn_down"), &[hidden, wide])?;
        let mut norm = |part: &str, len: usize| B::vector(memory, source.vector(&name(part), len)?);
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
            attention_output: B::linear(memory, &[attention_output], None)?,
            post_attention_norm,
            feed_forward_norm: norm("ffn_norm", hidden)?,
            gate_up: B::linear(memory, &[gate, up], None)?,
            down: B::linear(memory, &[down], None)?,
            post_feed_forward_norm,
        })
    }

    /// Queries, keys and values side by side; queries and keys so that the halves of a head are rotated with each other.
    fn qkv(
        source: &mut Source<'_>,
        spec: &Spec,
        (attention, index): (&Attention, usize),
        memory: &B::Memory,
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
            0 => B::linear(memory, &parts, None),
            len if len == queries + 2 * keys => B::linear(memory, &parts, Some(bias)),
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
