//! What a model's forward pass is made of: the operations that processors and GPUs implement.

use crate::error::Error;
use crate::weights::RawTensor;

/// Function between the two halves of a feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `x / (1 + e^-x)`
    Silu,
    /// The approximation of GELU by a hyperbolic tangent.
    GeluTanh,
}

/// What attention computes in a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attention {
    /// Query heads.
    pub(crate) heads: usize,
    /// Heads of keys and values.
    pub(crate) kv_heads: usize,
    /// Numbers per head; a multiple of 16.
    pub(crate) dim: usize,
    /// What scores are multiplied with.
    pub(crate) scale: f32,
    /// Scores are squeezed between minus and plus this.
    pub(crate) softcap: Option<f32>,
    /// How many positions a row sees, itself included.
    pub(crate) window: Option<usize>,
}

impl Attention {
    /// Columns of the queries of a row, and of its keys or values.
    pub(crate) fn widths(&self) -> (usize, usize) {
        (self.heads * self.dim, self.kv_heads * self.dim)
    }
}

/// Normalisation of each head of queries and keys before they are rotated.
pub(crate) struct HeadNorms<V> {
    pub(crate) query: V,
    pub(crate) key: V,
    pub(crate) epsilon: f32,
}

/// Tokens of one sequence that take part in a step: they come one after another.
#[derive(Clone, Copy)]
pub(crate) struct Span<'a> {
    /// First row in the batch.
    pub(crate) row: usize,
    pub(crate) rows: usize,
    /// Position of the first row.
    pub(crate) position: usize,
    /// Blocks of the sequence, of 16 positions each.
    pub(crate) table: &'a [u32],
}

/// A place for rows of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The residual stream.
    Stream,
    /// Normalised input of a layer's half.
    Normed,
    /// Queries, keys and values side by side.
    Qkv,
    /// Result of attention.
    Attended,
    /// Result of a layer's half, before it is added to the stream.
    Result,
    /// Gate and up side by side.
    GateUp,
    /// Input of the down projection.
    Gated,
    /// Scores of every token of the vocabulary.
    Scores,
}

/// Operations on the rows of a batch. Rows are `f32` where the backend says nothing else. Every result of a row depends on that row
/// and its sequence alone.
pub(crate) trait Backend {
    /// Weights of one or several matrices with the same inputs, `[outputs, inputs]` each.
    type Linear: Send + Sync;
    /// Weights of a normalisation.
    type Vector: Send + Sync;

    /// Lays weights out. `bias` has one number per output of all parts.
    fn linear(parts: &[RawTensor<'_>], bias: Option<Vec<f32>>) -> Result<Self::Linear, Error>;
    /// Bytes that they take.
    fn linear_bytes(weights: &Self::Linear) -> usize;
    fn vector(numbers: Vec<f32>) -> Self::Vector;

    /// Begins a step: the rows of each sequence, and the tables of angles (per table and row: cosines, then sines).
    fn begin(&mut self, rows: usize, spans: &[Span<'_>], angles: Vec<Vec<f32>>) -> Result<(), Error>;
    /// Rows of `Stream` from the embeddings of tokens.
    fn embed(&mut self, table: &Self::Linear, tokens: &[u32], scale: f32);
    /// `to = norm(from) * weights`
    fn normalise(&mut self, from: Place, weights: &Self::Vector, epsilon: f32, to: Place);
    /// `to = from * weights`
    fn multiply(&mut self, from: Place, weights: &Self::Linear, to: Place);
    /// Normalises and rotates queries and keys in `Qkv`, and writes keys and values to the cache.
    fn rotate_and_write(
        &mut self,
        layer: usize,
        attention: &Attention,
        norms: Option<&HeadNorms<Self::Vector>>,
        angles: usize,
    );
    /// `Attended` from the queries in `Qkv` and the cache.
    fn attend(&mut self, layer: usize, attention: &Attention, spans: &[Span<'_>]);
    /// `Gated` from `GateUp`.
    fn gate(&mut self, activation: Activation);
    /// `Stream += from`
    fn add(&mut self, from: Place);
    /// `to` gets some rows of `Stream`; from now on there are no others.
    fn keep(&mut self, rows: &[usize]);
    /// Squeezes `Scores` between minus and plus `cap`.
    fn squeeze(&mut self, cap: f32);
    /// `Scores`, row after row.
    fn scores(&mut self) -> Result<&[f32], Error>;
    /// Overwrites blocks of the cache.
    fn wipe(&mut self, blocks: &[u32]);
}
