//! What a model's forward pass is made of: the operations that processors and GPUs implement.

use crate::error::Error;
use crate::rotary::Rotary;
use crate::weights::RawTensor;
use zeroize::Zeroizing;

/// Positions per block of the cache.
pub(crate) const BLOCK_TOKENS: usize = 16;

/// The sizes of a model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) vocabulary: usize,
    pub(crate) hidden: usize,
    pub(crate) feed_forward: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) dim: usize,
}

impl Sizes {
    /// Bytes of the cache that a block takes in all layers: keys and values of 16 bits.
    pub(crate) fn block_bytes(&self) -> usize {
        self.layers * self.kv_heads * 2 * BLOCK_TOKENS * self.dim * size_of::<u16>()
    }

    /// Numbers per row.
    pub(crate) fn width(&self, place: Place) -> usize {
        match place {
            Place::Stream | Place::Normed | Place::Result => self.hidden,
            Place::Qkv => (self.heads + 2 * self.kv_heads) * self.dim,
            Place::Attended => self.heads * self.dim,
            Place::GateUp => 2 * self.feed_forward,
            Place::Gated => self.feed_forward,
            Place::Scores => self.vocabulary,
        }
    }
}

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

/// What one step computes.
pub(crate) struct Batch<'a> {
    /// Of all sequences, one after another.
    pub(crate) tokens: &'a [u32],
    pub(crate) spans: &'a [Span<'a>],
    /// Rows whose scores are wanted, ascending.
    pub(crate) wanted: &'a [usize],
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

impl Place {
    pub(crate) const ALL: [Self; 8] = [
        Self::Stream,
        Self::Normed,
        Self::Qkv,
        Self::Attended,
        Self::Result,
        Self::GateUp,
        Self::Gated,
        Self::Scores,
    ];
}

/// Operations on the rows of a batch. Rows are `f32` where the backend says nothing else. Every result of a row depends on that row
/// and its sequence alone. An operation may be under way when its function returns; what fails then, fails a later one.
pub(crate) trait Backend: Sized {
    /// How many tokens are worth computing ahead, see [`Backend::go_on`].
    const MOST_AHEAD: usize = 0;
    /// Where weights lie.
    type Memory;
    /// Weights of one or several matrices with the same inputs, `[outputs, inputs]` each.
    type Linear: Send + Sync;
    /// Weights of a normalisation.
    type Vector: Send + Sync;

    /// Lays weights out. `bias` has one number per output of all parts.
    fn linear(
        memory: &Self::Memory,
        parts: &[RawTensor<'_>],
        bias: Option<Vec<f32>>,
    ) -> Result<Self::Linear, Error>;
    /// Bytes that they take.
    fn linear_bytes(weights: &Self::Linear) -> usize;
    fn vector(memory: &Self::Memory, numbers: Vec<f32>) -> Result<Self::Vector, Error>;
    /// Told once of all weights of a model, which may then lie better.
    fn settle(_weights: Vec<&mut Self::Linear>) {}

    /// Begins a step, after which `ahead` more follow. Operations that are given a batch are given this one.
    fn begin(&mut self, batch: &Batch<'_>, rotary: &Rotary, ahead: usize) -> Result<(), Error>;
    /// Begins the next step: every sequence goes on with the token that was chosen for it.
    fn go_on(&mut self) -> Result<(), Error> {
        Err(Error::Compute("this backend does not choose".to_owned()))
    }
    /// Runs the operations of a forward pass, or repeats them, if they were recorded for a batch of the same shape.
    fn run(&mut self, pass: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        pass(self)
    }

    /// Rows of `Stream` from the embeddings of the batch's tokens.
    fn embed(&mut self, batch: &Batch<'_>, table: &Self::Linear, scale: f32) -> Result<(), Error>;
    /// `to = norm(from) * weights`
    fn normalise(
        &mut self,
        from: Place,
        weights: &Self::Vector,
        epsilon: f32,
        to: Place,
    ) -> Result<(), Error>;
    /// `Stream += from`, and `Normed = norm(Stream) * weights`
    fn add_and_normalise(&mut self, from: Place, weights: &Self::Vector, epsilon: f32) -> Result<(), Error> {
        self.add(from)?;
        self.normalise(Place::Stream, weights, epsilon, Place::Normed)
    }
    /// `to = from * weights`
    fn multiply(&mut self, from: Place, weights: &Self::Linear, to: Place) -> Result<(), Error>;
    /// Normalises and rotates queries and keys in `Qkv`, and writes keys and values to the cache.
    fn rotate_and_write(
        &mut self,
        layer: usize,
        attention: &Attention,
        norms: Option<&HeadNorms<Self::Vector>>,
        rope: usize,
    ) -> Result<(), Error>;
    /// `Attended` from the queries in `Qkv` and the cache.
    fn attend(&mut self, batch: &Batch<'_>, layer: usize, attention: &Attention) -> Result<(), Error>;
    /// `Gated` from `GateUp`.
    fn gate(&mut self, activation: Activation) -> Result<(), Error>;
    /// `Stream += from`
    fn add(&mut self, from: Place) -> Result<(), Error>;
    /// Only the wanted rows of `Stream` go on.
    fn keep(&mut self, batch: &Batch<'_>) -> Result<(), Error>;
    /// Squeezes `Scores` between minus and plus `cap`.
    fn squeeze(&mut self, cap: f32) -> Result<(), Error>;
    /// Chooses the best token of each row, if that is better done where the scores are.
    fn choose(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// The best tokens of a row and their scores.
pub(crate) struct Top {
    pub(crate) tokens: Zeroizing<Vec<u32>>,
    pub(crate) scores: Zeroizing<Vec<f32>>,
}

/// What a backend has computed, and keeps.
pub(crate) trait Computed {
    /// The best token of a wanted row, if it was chosen where the scores are; of the row's next ones, the `ahead`th.
    fn best(&mut self, _row: usize, _ahead: usize) -> Result<Option<u32>, Error> {
        Ok(None)
    }
    /// The `most` best tokens of a wanted row and their scores, if they can be had without all others; best first.
    fn top(&mut self, _row: usize, _most: usize) -> Result<Option<Top>, Error> {
        Ok(None)
    }
    /// The scores of a wanted row, one per token of the vocabulary.
    fn scores(&mut self, row: usize) -> Result<&[f32], Error>;
    /// Overwrites blocks of the cache.
    fn wipe(&mut self, blocks: &[u32]) -> Result<(), Error>;
    /// Overwrites the rows of past steps.
    fn wipe_rows(&mut self) -> Result<(), Error>;
}
