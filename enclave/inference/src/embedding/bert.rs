//! The forward pass of BERT, on rows of several texts one behind the other, and the mean over the rows of each text.

use super::config::Config;
use crate::backend::Backend;
use crate::cpu::{Cpu, Heads, Linear, Norm, Threads};
use crate::error::Error;
use crate::huggingface::Tensors;
use crate::secret::Tokens;
use crate::source::Source;
use std::collections::{BTreeMap, HashMap};
use zeroize::{Zeroize, Zeroizing};

/// Shorter vectors are not made longer, as in torch (`normalize`).
const SHORTEST: f32 = 1e-12;

/// The weights.
pub(super) struct Bert {
    config: Config,
    words: Linear,
    /// Of each position, with that of the first token type, row after row.
    positions: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
}

struct Layer {
    query_key_value: Linear,
    attended: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    norm: Norm,
}

/// Rows of activations, of as many tokens as came at most. Wiped by [`Buffers::wipe`] and when dropped.
#[derive(Default)]
pub(super) struct Buffers {
    stream: Zeroizing<Vec<f32>>,
    /// Queries, keys and values, or what is between the two products of a layer's second half.
    wide: Zeroizing<Vec<f32>>,
    attended: Zeroizing<Vec<f32>>,
    /// What is added to the stream.
    change: Zeroizing<Vec<f32>>,
}

/// Whether a tensor changes no embedding: numbers that are computed anyway, and a head that is not ours.
pub(super) fn is_unused(name: &str) -> bool {
    let name = name.strip_prefix("bert.").unwrap_or(name);
    matches!(name, "embeddings.position_ids" | "embeddings.token_type_ids") || name.starts_with("pooler.")
}

impl Bert {
    /// Takes all of the model's tensors, whose names may begin with `bert.`.
    pub(super) fn new(tensors: Tensors<'_>, config: Config) -> Result<Self, Error> {
        let mut named = BTreeMap::new();
        for (name, tensor) in tensors {
            let short = name.strip_prefix("bert.").unwrap_or(&name).to_owned();
            if named.insert(short, tensor).is_some() {
                let problem = format!("it has the tensor `{}` twice", name.escape_debug());
                return Err(Error::MalformedFile { name: "model.safetensors".to_owned(), problem });
            }
        }
        let mut source = Reader { source: Source::new(HashMap::new(), named), config };
        let Config { hidden, positions, token_types, vocabulary, .. } = config;
        let words = source.linear(&["embeddings.word_embeddings"], vocabulary, hidden, false)?;
        let mut places = source.matrix("embeddings.position_embeddings.weight", positions, hidden)?;
        let types = source.matrix("embeddings.token_type_embeddings.weight", token_types, hidden)?;
        for row in places.chunks_exact_mut(hidden) {
            row.iter_mut().zip(&types).for_each(|(x, first)| *x += first);
        }
        let norm = source.norm("embeddings.LayerNorm")?;
        let layers = (0..config.layers).map(|layer| source.layer(layer)).collect::<Result<_, _>>()?;
        source.source.finish()?;
        Ok(Self { config, words, positions: places, norm, layers })
    }

    /// Unit vectors of texts, each of at most as many tokens as there are positions, and of at least one.
    pub(super) fn embed(
        &self,
        threads: &Threads,
        texts: &[Tokens],
        buffers: &mut Buffers,
    ) -> Result<Vec<Zeroizing<Vec<f32>>>, Error> {
        let _awake = threads.awake();
        let lens: Vec<usize> = texts.iter().map(Tokens::len).collect();
        let rows = lens.iter().sum();
        let Config { hidden, intermediate, heads, .. } = self.config;
        let heads = Heads { count: heads, dim: hidden / heads };
        let Buffers { stream, wide, attended, change } = buffers;
        let stream = room(stream, rows * hidden);
        self.look_up(texts, stream)?;
        threads.normalise(&self.norm, None, stream);
        let (attended, change) = (room(attended, rows * hidden), room(change, rows * hidden));
        for layer in &self.layers {
            let qkv = room(wide, rows * 3 * hidden);
            threads.multiply(&layer.query_key_value, stream, rows, qkv);
            threads.attend(&lens, heads, qkv, attended);
            threads.multiply(&layer.attended, attended, rows, change);
            threads.normalise(&layer.attention_norm, Some(change), stream);
            let between = room(wide, rows * intermediate);
            threads.multiply(&layer.up, stream, rows, between);
            threads.gelu(between, intermediate);
            threads.multiply(&layer.down, between, rows, change);
            threads.normalise(&layer.norm, Some(change), stream);
        }
        let mut rest: &[f32] = stream;
        let means = lens.iter().map(|len| {
            let (text, others) = rest.split_at(len * hidden);
            rest = others;
            unit_mean(text, hidden)
        });
        means.collect()
    }

    fn look_up(&self, texts: &[Tokens], stream: &mut [f32]) -> Result<(), Error> {
        let hidden = self.config.hidden;
        let mut to = stream.chunks_exact_mut(hidden);
        for text in texts {
            for (token, position) in text.as_slice().iter().zip(self.positions.chunks_exact(hidden)) {
                let (Some(row), true) = (to.next(), (*token as usize) < self.config.vocabulary) else {
                    return Err(Error::Compute("a token without a row".to_owned()));
                };
                self.words.row(*token as usize, row);
                row.iter_mut().zip(position).for_each(|(x, position)| *x += position);
            }
        }
        // A text that is longer than the positions would leave rows over.
        if to.next().is_none() { Ok(()) } else { Err(Error::Compute("a text that is too long".to_owned())) }
    }
}

impl Buffers {
    /// Overwrites what is in them with zeros.
    pub(super) fn wipe(&mut self) {
        let Self { stream, wide, attended, change } = self;
        [stream, wide, attended, change].into_iter().for_each(|rows| rows.as_mut_slice().zeroize());
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> [&[f32]; 4] {
        [&self.stream, &self.wide, &self.attended, &self.change]
    }
}

/// The first numbers of a buffer, which grows if it must.
fn room(buffer: &mut Zeroizing<Vec<f32>>, wanted: usize) -> &mut [f32] {
    if buffer.len() < wanted {
        *buffer = Zeroizing::new(vec![0.0; wanted]);
    }
    &mut buffer[..wanted]
}

/// The mean of rows, scaled to length 1.
fn unit_mean(rows: &[f32], width: usize) -> Result<Zeroizing<Vec<f32>>, Error> {
    let mut mean = Zeroizing::new(vec![0.0_f32; width]);
    for row in rows.chunks_exact(width) {
        mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    let count = (rows.len() / width) as f32;
    mean.iter_mut().for_each(|sum| *sum /= count);
    let squares: f32 = mean.iter().map(|x| x * x).sum();
    if !squares.is_finite() {
        return Err(Error::Compute("an embedding is not finite; the weights may be broken".to_owned()));
    }
    let length = squares.sqrt().max(SHORTEST);
    mean.iter_mut().for_each(|x| *x /= length);
    Ok(mean)
}

/// Takes tensors out of the model.
struct Reader<'a> {
    source: Source<'a>,
    config: Config,
}

impl Reader<'_> {
    fn matrix(&mut self, name: &str, rows: usize, width: usize) -> Result<Vec<f32>, Error> {
        self.source.raw_tensor(name, &[rows, width])?.numbers()
    }

    /// Matrices of the same shape, side by side, with their biases.
    fn linear(
        &mut self,
        names: &[&str],
        outputs: usize,
        inputs: usize,
        with_bias: bool,
    ) -> Result<Linear, Error> {
        let (mut parts, mut bias) = (Vec::new(), Vec::new());
        for name in names {
            parts.push(self.source.raw_tensor(&format!("{name}.weight"), &[outputs, inputs])?);
            if with_bias {
                bias.extend(self.source.vector(&format!("{name}.bias"), outputs)?);
            }
        }
        Cpu::linear(&(), &parts, with_bias.then_some(bias))
    }

    fn norm(&mut self, name: &str) -> Result<Norm, Error> {
        Ok(Norm {
            weights: self.source.vector(&format!("{name}.weight"), self.config.hidden)?,
            bias: self.source.vector(&format!("{name}.bias"), self.config.hidden)?,
            epsilon: self.config.epsilon,
        })
    }

    fn layer(&mut self, layer: usize) -> Result<Layer, Error> {
        let Config { hidden, intermediate, .. } = self.config;
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        let attention = ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
        Ok(Layer {
            query_key_value: self.linear(&attention.each_ref().map(String::as_str), hidden, hidden, true)?,
            attended: self.linear(&[&name("attention.output.dense")], hidden, hidden, true)?,
            attention_norm: self.norm(&name("attention.output.LayerNorm"))?,
            up: self.linear(&[&name("intermediate.dense")], intermediate, hidden, true)?,
            down: self.linear(&[&name("output.dense")], hidden, intermediate, true)?,
            norm: self.norm(&name("output.LayerNorm"))?,
        })
    }
}
