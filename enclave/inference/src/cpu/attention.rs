//! Causal attention of rows over the cached keys and values of their sequences, grouped-query, with online softmax.
//!
//! Positions are taken in chunks of 256, counted from the start of the sequence. The result of a chunk depends on the row alone, and
//! chunks are merged in order: so a row's result is the same alone and among others, on any number of threads, and whether its
//! chunks were computed by one thread or by several.

use super::cache::{Cache, HeadView};
use super::pool::{Pool, Tile};
use super::simd::{Kernel, LANES, Level, Simd};
use crate::backend::{Attention, BLOCK_TOKENS, Span};
use zeroize::Zeroizing;

/// Positions of a chunk.
const CHUNK: usize = 256;
const CHUNK_BLOCKS: usize = CHUNK / BLOCK_TOKENS;
/// Rows of a tile up to which threads share its chunks.
const FEW_ROWS: usize = 8;
/// Chunks of all tiles and heads whose results wait to be merged: some megabytes.
const MAX_STATES: usize = 2048;
/// Rows of one sequence that are computed together, so that they share what is fetched of the cache.
const ROWS: usize = 16;

/// `queries`: rows of width `width`, queries first. `out`: `[rows, heads * dim]`.
pub(crate) struct Call<'a> {
    pub(crate) attention: Attention,
    pub(crate) layer: usize,
    pub(crate) cache: &'a Cache,
    pub(crate) spans: &'a [Span<'a>],
    pub(crate) queries: &'a [f32],
    pub(crate) width: usize,
}

pub(crate) fn attend(pool: &Pool, level: Level, call: &Call<'_>, out: &mut [f32]) {
    let Attention { heads, kv_heads, dim, .. } = call.attention;
    let mut tiles = Vec::new();
    let mut bounds = vec![0];
    for span in call.spans {
        for first in (0..span.rows).step_by(ROWS) {
            let rows = ROWS.min(span.rows - first);
            tiles.push(Span {
                row: span.row + first,
                rows,
                position: span.position + first,
                table: span.table,
            });
            bounds.push(span.row + first + rows);
        }
    }
    let parts: Vec<usize> = tiles.iter().map(|tile| call.attention.chunks(tile).len()).collect();
    let enough =
        tiles.len() * kv_heads >= 4 * pool.threads() || tiles.iter().any(|tile| tile.rows > FEW_ROWS);
    if enough || parts.iter().all(|parts| *parts < 2) || pool.threads() == 1 {
        let columns = heads / kv_heads * dim;
        pool.tiles(out, heads * dim, &bounds, columns, |tile, head, mut out| {
            let task = Task::new(call, &tiles[tile], head);
            let mut state = State::new(task.pairs(), dim);
            for chunk in call.attention.chunks(&tiles[tile]) {
                level.run(OneChunk { task: &task, chunk, state: &mut state });
            }
            level.run(Finish { state: &state, task: &task, out: &mut out });
        });
        return;
    }
    // Some tiles at a time: every chunk of theirs has memory of its own.
    let mut first = 0;
    while first < tiles.len() {
        let mut states = 0;
        let fit = parts[first..].iter().take_while(|parts| {
            states += **parts * kv_heads;
            states <= MAX_STATES
        });
        let next = first + fit.count().max(1);
        in_parts(pool, level, call, &tiles[first..next], &parts[first..next], &bounds[first..=next], out);
        first = next;
    }
}

/// Few rows with many positions: threads share the chunks of a row.
fn in_parts(
    pool: &Pool,
    level: Level,
    call: &Call<'_>,
    tiles: &[Span<'_>],
    parts: &[usize],
    bounds: &[usize],
    out: &mut [f32],
) {
    let Attention { heads, kv_heads, dim, .. } = call.attention;
    let mut tasks = Vec::new();
    for (tile, parts) in parts.iter().enumerate() {
        tasks.extend((0..kv_heads).flat_map(|head| (0..*parts).map(move |part| (tile, head, part))));
    }
    let mut states: Vec<Option<State>> = tasks.iter().map(|_| None).collect();
    pool.each(&mut states, |index, result| {
        let (tile, head, part) = tasks[index];
        let task = Task::new(call, &tiles[tile], head);
        let mut state = State::new(task.pairs(), dim);
        let chunk = call.attention.chunks(&tiles[tile]).start + part;
        level.run(OneChunk { task: &task, chunk, state: &mut state });
        *result = Some(state);
    });
    let columns = heads / kv_heads * dim;
    let first: Vec<usize> =
        parts.iter().scan(0, |sum, parts| Some(std::mem::replace(sum, *sum + parts * kv_heads))).collect();
    pool.tiles(out, heads * dim, bounds, columns, |tile, head, mut out| {
        let task = Task::new(call, &tiles[tile], head);
        let mut all = State::new(task.pairs(), dim);
        for state in states[first[tile] + head * parts[tile]..][..parts[tile]].iter().flatten() {
            level.run(Merge { from: state, into: &mut all });
        }
        level.run(Finish { state: &all, task: &task, out: &mut out });
    });
}

impl Attention {
    /// First position that a row sees.
    fn start(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// Chunks that any row of a tile sees.
    fn chunks(&self, tile: &Span<'_>) -> std::ops::Range<usize> {
        self.start(tile.position) / CHUNK..(tile.position + tile.rows - 1) / CHUNK + 1
    }
}

/// The rows of a tile and the query heads of one key-value head: pairs, heads of a row side by side.
struct Task<'a> {
    attention: Attention,
    view: HeadView<'a>,
    table: &'a [u32],
    position: usize,
    rows: usize,
    group: usize,
    /// Scaled queries of each pair.
    queries: Zeroizing<Vec<f32>>,
}

impl<'a> Task<'a> {
    fn new(call: &Call<'a>, tile: &Span<'a>, head: usize) -> Self {
        let attention = call.attention;
        let group = attention.heads / attention.kv_heads;
        let len = group * attention.dim;
        let mut queries = Zeroizing::new(Vec::with_capacity(tile.rows * len));
        for row in tile.row..tile.row + tile.rows {
            let heads = &call.queries[row * call.width + head * len..][..len];
            queries.extend(heads.iter().map(|x| x * attention.scale));
        }
        let view = call.cache.head(call.layer, head);
        Self { attention, view, table: tile.table, position: tile.position, rows: tile.rows, group, queries }
    }

    fn pairs(&self) -> usize {
        self.rows * self.group
    }

    /// The position of a pair's row.
    fn position(&self, pair: usize) -> usize {
        self.position + pair / self.group
    }
}

/// Softmax so far, of each pair: the largest score, the sum of weights, and the weighted sum of values.
struct State {
    max: Zeroizing<Vec<f32>>,
    sum: Zeroizing<Vec<f32>>,
    values: Zeroizing<Vec<f32>>,
    dim: usize,
}

impl State {
    fn new(pairs: usize, dim: usize) -> Self {
        let values = Zeroizing::new(vec![0.0; pairs * dim]);
        let (max, sum) = (vec![f32::NEG_INFINITY; pairs], vec![0.0; pairs]);
        Self { max: Zeroizing::new(max), sum: Zeroizing::new(sum), values, dim }
    }

    #[inline(always)]
    fn merge<S: Simd>(&mut self, s: S, pair: usize, max: f32, sum: f32, values: &[f32]) {
        let larger = if self.max[pair] > max { self.max[pair] } else { max };
        let mut factors = [0.0; LANES];
        (factors[0], factors[1]) = (self.max[pair] - larger, max - larger);
        let exp = s.exp(s.load(&factors));
        s.store(exp, &mut factors);
        let [old, new, ..] = factors;
        self.max[pair] = larger;
        self.sum[pair] = self.sum[pair] * old + sum * new;
        let (old, new) = (s.splat(old), s.splat(new));
        let all = self.values[pair * self.dim..][..self.dim].as_chunks_mut::<LANES>().0;
        for (to, from) in all.iter_mut().zip(values.as_chunks::<LANES>().0) {
            s.store(s.fma(s.load(from), new, s.mul(s.load(to), old)), to);
        }
    }
}

struct Merge<'a> {
    from: &'a State,
    into: &'a mut State,
}

impl Kernel for Merge<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let dim = self.from.dim;
        for pair in 0..self.from.max.len() {
            if self.from.max[pair] != f32::NEG_INFINITY {
                let values = &self.from.values[pair * dim..][..dim];
                self.into.merge(s, pair, self.from.max[pair], self.from.sum[pair], values);
            }
        }
    }
}

struct Finish<'a, 'b> {
    state: &'a State,
    task: &'a Task<'a>,
    out: &'a mut Tile<'b, f32>,
}

impl Kernel for Finish<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (state, dim) = (self.state, self.state.dim);
        for (pair, values) in state.values.chunks_exact(dim).enumerate() {
            let sum = s.splat(state.sum[pair]);
            let to = &mut self.out.row(pair / self.task.group)[pair % self.task.group * dim..][..dim];
            for (from, to) in values.as_chunks::<LANES>().0.iter().zip(to.as_chunks_mut::<LANES>().0) {
                s.store(s.div(s.load(from), sum), to);
            }
        }
    }
}

/// Adds a chunk to the state of every pair that sees it.
struct OneChunk<'a> {
    task: &'a Task<'a>,
    chunk: usize,
    state: &'a mut State,
}

impl Kernel for OneChunk<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut pair = 0;
        let pairs = self.task.pairs();
        while pair < pairs {
            pair += match S::ROWS.min(pairs - pair) {
                8.. => some_pairs::<8, S>(s, self.task, self.chunk, pair, self.state),
                4..8 => some_pairs::<4, S>(s, self.task, self.chunk, pair, self.state),
                2..4 => some_pairs::<2, S>(s, self.task, self.chunk, pair, self.state),
                _ => some_pairs::<1, S>(s, self.task, self.chunk, pair, self.state),
            };
        }
    }
}

#[inline(always)]
fn some_pairs<const P: usize, S: Simd>(
    s: S,
    task: &Task<'_>,
    chunk: usize,
    first: usize,
    state: &mut State,
) -> usize {
    let start = chunk * CHUNK;
    let last = task.position(first + P - 1);
    if last < start {
        return P; // rows before this chunk
    }
    let blocks = &task.table[chunk * CHUNK_BLOCKS..];
    let blocks = &blocks[..((last - start) / BLOCK_TOKENS + 1).min(CHUNK_BLOCKS)];
    let mut weights = [[[0.0; LANES]; CHUNK_BLOCKS]; P];
    scores(s, task, first, blocks, &mut weights);
    let (mut max, mut sum) = ([f32::NEG_INFINITY; P], [0.0; P]);
    for pair in 0..P {
        let position = task.position(first + pair);
        let seen = task.attention.start(position)..position + 1;
        (max[pair], sum[pair]) =
            softmax(s, &mut weights[pair][..blocks.len()], start, seen, task.attention.softcap);
    }
    let dim = task.attention.dim;
    let mut values = [[0.0; LANES * MAX_VECTORS]; P];
    let mut at = 0;
    while at < dim / LANES {
        at += match dim / LANES - at {
            4.. => weighted::<4, P, S>(s, task, blocks, &weights, at, &mut values),
            2..4 => weighted::<2, P, S>(s, task, blocks, &weights, at, &mut values),
            _ => weighted::<1, P, S>(s, task, blocks, &weights, at, &mut values),
        };
    }
    for pair in 0..P {
        if max[pair] != f32::NEG_INFINITY {
            state.merge(s, first + pair, max[pair], sum[pair], &values[pair][..dim]);
        }
    }
    P
}

/// Vectors of the largest head: of 512 numbers.
const MAX_VECTORS: usize = 32;
/// The largest head.
pub(crate) const MAX_DIM: usize = LANES * MAX_VECTORS;

/// Products of queries and keys.
#[inline(always)]
fn scores<const P: usize, S: Simd>(
    s: S,
    task: &Task<'_>,
    first: usize,
    blocks: &[u32],
    scores: &mut [[[f32; LANES]; CHUNK_BLOCKS]; P],
) {
    let dim = task.attention.dim;
    let queries: [&[f32]; P] = std::array::from_fn(|pair| &task.queries[(first + pair) * dim..][..dim]);
    for (n, block) in blocks.iter().enumerate() {
        let keys = &task.view.keys(*block)[..dim];
        let mut sums = [[s.splat(0.0); 2]; P];
        for d in 0..dim / 2 {
            let (even, odd) = (s.load_f16(&keys[2 * d]), s.load_f16(&keys[2 * d + 1]));
            for pair in 0..P {
                sums[pair][0] = s.fma(even, s.splat(queries[pair][2 * d]), sums[pair][0]);
                sums[pair][1] = s.fma(odd, s.splat(queries[pair][2 * d + 1]), sums[pair][1]);
            }
        }
        for pair in 0..P {
            s.store(s.add(sums[pair][0], sums[pair][1]), &mut scores[pair][n]);
        }
    }
}

/// Scores to weights; gives the largest score and the sum of the weights. Positions that are not seen get weight 0.
#[inline(always)]
fn softmax<S: Simd>(
    s: S,
    scores: &mut [[f32; LANES]],
    start: usize,
    seen: std::ops::Range<usize>,
    softcap: Option<f32>,
) -> (f32, f32) {
    let mut max = s.splat(f32::NEG_INFINITY);
    for (n, block) in scores.iter_mut().enumerate() {
        if let Some(cap) = softcap {
            s.store(squeeze(s, s.load(block), cap), block);
        }
        let first = start + n * BLOCK_TOKENS;
        if first < seen.start || first + BLOCK_TOKENS > seen.end {
            for (lane, score) in block.iter_mut().enumerate() {
                if !seen.contains(&(first + lane)) {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
        max = s.max(s.load(block), max);
    }
    let max = s.largest(max);
    let largest = s.splat(max);
    let mut sum = s.splat(0.0);
    for block in scores {
        let weights = s.exp(s.sub(s.load(block), largest));
        s.store(weights, block);
        sum = s.add(sum, weights);
    }
    (max, s.sum(sum))
}

/// `cap * tanh(x / cap)`
#[inline(always)]
pub(super) fn squeeze<S: Simd>(s: S, x: S::F, cap: f32) -> S::F {
    let e = s.exp(s.mul(x, s.splat(2.0 / cap)));
    let one = s.splat(1.0);
    let tanh = s.sub(one, s.div(s.splat(2.0), s.add(e, one)));
    s.mul(tanh, s.splat(cap))
}

/// Weighted sums of `V` vectors of values, from vector `at`.
#[inline(always)]
fn weighted<const V: usize, const P: usize, S: Simd>(
    s: S,
    task: &Task<'_>,
    blocks: &[u32],
    weights: &[[[f32; LANES]; CHUNK_BLOCKS]; P],
    at: usize,
    values: &mut [[f32; LANES * MAX_VECTORS]; P],
) -> usize {
    let mut pair = 0;
    while pair < P {
        // Half as many pairs as rows: each has several vectors.
        pair += match (S::ROWS / 2).min(P - pair) {
            4.. => weighted_pairs::<4, V, P, S>(s, task, blocks, weights, pair, at, values),
            2..4 => weighted_pairs::<2, V, P, S>(s, task, blocks, weights, pair, at, values),
            _ => weighted_pairs::<1, V, P, S>(s, task, blocks, weights, pair, at, values),
        };
    }
    V
}

#[inline(always)]
fn weighted_pairs<const R: usize, const V: usize, const P: usize, S: Simd>(
    s: S,
    task: &Task<'_>,
    blocks: &[u32],
    weights: &[[[f32; LANES]; CHUNK_BLOCKS]; P],
    first: usize,
    at: usize,
    values: &mut [[f32; LANES * MAX_VECTORS]; P],
) -> usize {
    let mut sums = [[s.splat(0.0); V]; R];
    for (n, block) in blocks.iter().enumerate() {
        #[expect(clippy::needless_range_loop, reason = "of several arrays")]
        for within in 0..BLOCK_TOKENS {
            let value = &task.view.value(*block, within)[at..at + V];
            for v in 0..V {
                let x = s.load_f16(&value[v]);
                for pair in 0..R {
                    sums[pair][v] = s.fma(x, s.splat(weights[first + pair][n][within]), sums[pair][v]);
                }
            }
        }
    }
    for pair in 0..R {
        let to = values[first + pair].as_chunks_mut::<LANES>().0;
        for v in 0..V {
            s.store(sums[pair][v], &mut to[at + v]);
        }
    }
    R
}
