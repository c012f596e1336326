//! The Llama forward pass: weights from GGUF, activations in `f32`, one sequence at a time, on the
//! threads of the current pool.
//!
//! Numbers follow llama.cpp: activations quantised per matrix product, keys and values in `f32`, sums of norms and
//! softmax in `f64`, rotary angles by repeated multiplication in `f32`.

use crate::attention::{Heads, attend};
use crate::error::{Error, compute};
use crate::kv::{Half, KvCache};
use crate::linear::Linear;
use crate::source::{Source, bad};
use candle_core::quantized::QTensor;
use candle_core::{Device, Tensor};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Beyond the largest known Llama (126 layers, 16,384 wide, feed-forward 53,248): what exceeds it is a broken file.
const MAX_LAYERS: usize = 512;
const MAX_WIDTH: usize = 1 << 17;
const MAX_CONTEXT: usize = 1 << 22;

struct Config {
    layers: usize,
    hidden: usize,
    feed_forward: usize,
    heads: Heads,
    kv_width: usize,
    rope: Rope,
    epsilon: f32,
    context: usize,
}

struct Layer {
    attention_norm: Vec<f32>,
    q: Linear,
    k: Linear,
    v: Linear,
    attention_output: Linear,
    feed_forward_norm: Vec<f32>,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// The weights of a model and how to compute with them.
pub(crate) struct Llama {
    config: Config,
    embedding: Arc<QTensor>,
    layers: Vec<Layer>,
    output_norm: Vec<f32>,
    output: Linear,
}

impl Llama {
    /// Takes all weights of a model with `vocabulary` tokens out of the file.
    pub(crate) fn load(gguf: &mut Source<'_>, vocabulary: usize) -> Result<Self, Error> {
        let config = Config::read(gguf)?;
        let hidden = config.hidden;
        let embedding = Arc::new(gguf.tensor("token_embd.weight", &[vocabulary, hidden])?);
        let output = if gguf.has_tensor("output.weight") {
            Arc::new(gguf.tensor("output.weight", &[vocabulary, hidden])?)
        } else {
            Arc::clone(&embedding) // tied
        };
        let layers =
            (0..config.layers).map(|index| Layer::load(gguf, &config, index)).collect::<Result<_, _>>()?;
        let output_norm = gguf.vector("output_norm.weight", hidden)?;
        Ok(Self { config, embedding, layers, output_norm, output: Linear::new(output)? })
    }

    /// How many positions the model was made for.
    pub(crate) fn context_length(&self) -> usize {
        self.config.context
    }

    /// An empty cache for a new sequence.
    pub(crate) fn cache(&self) -> KvCache {
        KvCache::new(self.config.layers, self.config.kv_width)
    }

    /// Runs `tokens` behind what is in `kv`; gives the activations of the last of them.
    pub(crate) fn advance(&self, kv: &mut KvCache, tokens: &[u32]) -> Result<Zeroizing<Vec<f32>>, Error> {
        let config = &self.config;
        let first = kv.len();
        let wanted = first + tokens.len();
        if tokens.is_empty() {
            return Err(Error::Compute("no tokens to run".to_owned()));
        }
        if wanted > config.context {
            return Err(Error::ContextFull { wanted, context_length: config.context });
        }
        kv.reserve(wanted);
        let mut x = self.embed(tokens)?;
        let angles: Vec<_> = (first..wanted).map(|position| config.rope.angles(position)).collect();
        for (index, layer) in self.layers.iter().enumerate() {
            let normed = rms_norm(&x, &layer.attention_norm, config.epsilon);
            let mut q = layer.q.apply(&normed)?;
            let mut k = layer.k.apply(&normed)?;
            let v = layer.v.apply(&normed)?;
            for (row, angles) in angles.iter().enumerate() {
                rotate(&mut q[row * config.hidden..(row + 1) * config.hidden], config.heads.dim, angles);
                let part = row * config.kv_width..(row + 1) * config.kv_width;
                rotate(&mut k[part.clone()], config.heads.dim, angles);
                kv.write(index, Half::Key, first + row, &k[part.clone()]);
                kv.write(index, Half::Value, first + row, &v[part]);
            }
            let mut attended = Zeroizing::new(vec![0.0; q.len()]);
            attend(config.heads, kv, index, first, &q, &mut attended);
            add(&mut x, &layer.attention_output.apply(&attended)?);

            let normed = rms_norm(&x, &layer.feed_forward_norm, config.epsilon);
            let mut gate = layer.gate.apply(&normed)?;
            let up = layer.up.apply(&normed)?;
            gate.iter_mut().zip(up.iter()).for_each(|(gate, up)| *gate = silu(*gate) * up);
            add(&mut x, &layer.down.apply(&gate)?);
        }
        kv.commit(wanted);
        Ok(Zeroizing::new(x[x.len() - config.hidden..].to_vec()))
    }

    /// Scores of every token of the vocabulary, from the activations of one position.
    pub(crate) fn logits(&self, activations: &[f32]) -> Result<Zeroizing<Vec<f32>>, Error> {
        self.output.apply(&rms_norm(activations, &self.output_norm, self.config.epsilon))
    }

    fn embed(&self, tokens: &[u32]) -> Result<Zeroizing<Vec<f32>>, Error> {
        let ids = Tensor::new(tokens, &Device::Cpu).map_err(compute)?;
        let rows = self.embedding.embedding(&ids).and_then(|rows| rows.flatten_all());
        rows.and_then(|rows| rows.to_vec1()).map(Zeroizing::new).map_err(compute)
    }
}

impl Layer {
    fn load(gguf: &mut Source<'_>, config: &Config, index: usize) -> Result<Self, Error> {
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        let mut linear = |part: &str, outputs: usize, inputs: usize| {
            Linear::new(Arc::new(gguf.tensor(&name(part), &[outputs, inputs])?))
        };
        let (hidden, wide) = (config.hidden, config.feed_forward);
        let q = linear("attn_q", hidden, hidden)?;
        let k = linear("attn_k", config.kv_width, hidden)?;
        let v = linear("attn_v", config.kv_width, hidden)?;
        let attention_output = linear("attn_output", hidden, hidden)?;
        let gate = linear("ffn_gate", wide, hidden)?;
        let up = linear("ffn_up", wide, hidden)?;
        let down = linear("ffn_down", hidden, wide)?;
        let attention_norm = gguf.vector(&name("attn_norm"), hidden)?;
        let feed_forward_norm = gguf.vector(&name("ffn_norm"), hidden)?;
        Ok(Self { attention_norm, q, k, v, attention_output, feed_forward_norm, gate, up, down })
    }
}

impl Config {
    fn read(gguf: &Source<'_>) -> Result<Self, Error> {
        let architecture = gguf.string("general.architecture")?;
        if architecture != "llama" {
            let name = architecture.to_owned();
            return Err(Error::Unsupported { what: "architecture", name, supported: "llama" });
        }
        if let Some(scaling) = gguf.optional_string("llama.rope.scaling.type")?.filter(|name| *name != "none")
        {
            return Err(Error::Unsupported {
                what: "rope scaling",
                name: scaling.to_owned(),
                supported: "none",
            });
        }
        let layers = bounded(gguf, "llama.block_count", MAX_LAYERS)?;
        let hidden = bounded(gguf, "llama.embedding_length", MAX_WIDTH)?;
        let feed_forward = bounded(gguf, "llama.feed_forward_length", MAX_WIDTH)?;
        let context = bounded(gguf, "llama.context_length", MAX_CONTEXT)?;
        let count = bounded(gguf, "llama.attention.head_count", hidden)?;
        let kv_heads = match gguf.optional_number("llama.attention.head_count_kv")? {
            Some(_) => bounded(gguf, "llama.attention.head_count_kv", count)?,
            None => count,
        };
        if !hidden.is_multiple_of(count) || !count.is_multiple_of(kv_heads) {
            return Err(bad(
                "llama.attention.head_count",
                "does not divide the embedding or is not a multiple of KV heads",
            ));
        }
        let dim = hidden / count;
        for key in ["llama.attention.key_length", "llama.attention.value_length"] {
            if gguf.optional_number(key)?.is_some_and(|len| len != dim) {
                return Err(bad(key, "differs from embedding length / heads"));
            }
        }
        let rope_dims = gguf.optional_number("llama.rope.dimension_count")?.unwrap_or(dim);
        if rope_dims > dim || !rope_dims.is_multiple_of(2) {
            return Err(bad("llama.rope.dimension_count", "is odd or larger than a head"));
        }
        let key = "llama.attention.layer_norm_rms_epsilon";
        let epsilon =
            gguf.optional_float(key)?.ok_or_else(|| Error::MissingMetadata { key: key.to_owned() })?;
        let base = gguf.optional_float("llama.rope.freq_base")?.unwrap_or(10_000.0);
        let rope = Rope { base, dims: rope_dims };
        let heads = Heads { count, group: count / kv_heads, dim };
        Ok(Self { layers, hidden, feed_forward, heads, kv_width: kv_heads * dim, rope, epsilon, context })
    }
}

/// A count between 1 and `max`.
fn bounded(gguf: &Source<'_>, key: &str, max: usize) -> Result<usize, Error> {
    let n = gguf.number(key)?;
    if n == 0 || n > max { Err(bad(key, &format!("{n} is not between 1 and {max}"))) } else { Ok(n) }
}

/// Rotary position embedding over pairs of neighbours, as GGUF files of Llama lay queries and keys out.
struct Rope {
    base: f32,
    dims: usize,
}

impl Rope {
    /// Cosine and sine for each pair at a position.
    fn angles(&self, position: usize) -> Vec<(f32, f32)> {
        let step = libm::powf(self.base, -2.0 / self.dims as f32);
        let mut theta = position as f32;
        let mut angles = Vec::with_capacity(self.dims / 2);
        for _ in 0..self.dims / 2 {
            angles.push((libm::cosf(theta), libm::sinf(theta)));
            theta *= step;
        }
        angles
    }
}

fn rotate(heads: &mut [f32], dim: usize, angles: &[(f32, f32)]) {
    for head in heads.chunks_exact_mut(dim) {
        for (pair, (cos, sin)) in head.chunks_exact_mut(2).zip(angles) {
            let (a, b) = (pair[0], pair[1]);
            pair[0] = a * cos - b * sin;
            pair[1] = a * sin + b * cos;
        }
    }
}

fn rms_norm(rows: &[f32], weights: &[f32], epsilon: f32) -> Zeroizing<Vec<f32>> {
    let mut out = Zeroizing::new(Vec::with_capacity(rows.len()));
    for row in rows.chunks_exact(weights.len()) {
        let sum: f64 = row.iter().map(|x| f64::from(x * x)).sum();
        #[expect(clippy::cast_possible_truncation, reason = "back to the precision of the activations")]
        let mean = (sum / row.len() as f64) as f32;
        let scale = 1.0 / (mean + epsilon).sqrt();
        out.extend(row.iter().zip(weights).map(|(x, weight)| x * scale * weight));
    }
    out
}

fn silu(x: f32) -> f32 {
    x / (1.0 + libm::expf(-x))
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rope_turns_neighbours_and_keeps_lengths() {
        let rope = Rope { base: 10_000.0, dims: 4 };
        let mut head = [1.0, 0.0, 0.0, 2.0];
        rotate(&mut head, 4, &rope.angles(1));
        let slow = 0.01_f32;
        let wanted = [1f32.cos(), 1f32.sin(), -2.0 * slow.sin(), 2.0 * slow.cos()];
        assert!(head.iter().zip(wanted).all(|(got, want)| (got - want).abs() < 1e-6));
        let mut still = [1.0, 2.0, 3.0, 4.0];
        rotate(&mut still, 4, &rope.angles(0));
        assert_eq!(still, [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn rms_norm_gives_unit_mean_square() {
        let out = rms_norm(&[3.0, -4.0, 0.5, 0.5], &[1.0, 2.0], 0.0);
        let scale = 1.0 / 12.5_f32.sqrt();
        assert!((out[0] - 3.0 * scale).abs() < 1e-6 && (out[1] + 8.0 * scale).abs() < 1e-6);
        assert!((out[2] - 1.0).abs() < 1e-6 && (out[3] - 2.0).abs() < 1e-6);
    }

    #[test]
    fn silu_is_known() {
        assert_eq!(silu(0.0), 0.0);
        assert!((silu(1.0) - 0.731_058_6).abs() < 1e-6);
        assert!(silu(-100.0).abs() < 1e-6);
    }
}
