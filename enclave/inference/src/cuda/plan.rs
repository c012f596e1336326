//! Launches of each kernel, from the sizes of its buffers and what it shall do.

pub(crate) use super::launch::BLOCK;
use super::launch::{Kind, Launch, Parameter, fits, problem, product};
use crate::backend::Activation;
use crate::error::Error;

/// Threads of a block where a row is worked on together.
const ROW_THREADS: u32 = 256;
/// Threads of a block of attention: four warps.
const ATTENTION_THREADS: u32 = 128;
/// Threads of a block that looks through a vocabulary.
const VOCABULARY_THREADS: u32 = 1024;
/// Rows of a tile of queries: `TILE` in `attention.cuh`.
pub(crate) const TILE: usize = 64;
/// Tokens of context per partial result: fixed, so that an answer does not depend on what else runs.
pub(crate) const SPLIT: usize = 128;
/// Tokens whose keys and values a block has at a time, whatever fits: multiples of [`BLOCK`].
const CHUNKS: [usize; 3] = [64, 32, 16];
/// What a block may have without asking for more.
const MAX_SHARED: usize = 48 * 1024;
/// More are searched for one after the other: that is what the sampler of the CPU is for.
pub(crate) const MAX_TOP_K: usize = 128;

/// A part of each row that is normalised: `groups` times `width` values from `start`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Norm {
    pub(crate) rows: usize,
    pub(crate) stride: usize,
    pub(crate) start: usize,
    pub(crate) groups: usize,
    pub(crate) width: usize,
    pub(crate) eps: f32,
    /// Added to the weights: 1 for Gemma, else 0.
    pub(crate) offset: f32,
}

/// `out, x, weight`; `out` may be `x`.
pub(crate) fn rms_norm([out, x, weight]: [usize; 3], norm: &Norm) -> Result<Launch, Error> {
    let name = "rms_norm";
    let Norm { rows, stride, start, groups, width, eps, offset } = *norm;
    fits(name, out, &[rows, stride])?;
    fits(name, x, &[rows, stride])?;
    fits(name, weight, &[width])?;
    if product(name, &[groups, width])?.checked_add(start).is_none_or(|end| end > stride) {
        return Err(problem(name, "is for more than a row"));
    }
    let launch = Launch::new(name, [rows, groups, 1], ROW_THREADS, &[out, x, weight])?;
    Ok(launch.words([width, stride, start])?.floats([eps, offset]))
}

/// `out, residual, x, weight`.
pub(crate) fn add_rms_norm(
    [out, residual, x, weight]: [usize; 4],
    rows: usize,
    eps: f32,
    offset: f32,
) -> Result<Launch, Error> {
    let name = "add_rms_norm";
    for len in [out, residual, x] {
        fits(name, len, &[rows, weight])?;
    }
    let launch = Launch::new(name, [rows, 1, 1], ROW_THREADS, &[out, residual, x, weight])?;
    Ok(launch.words([weight])?.floats([eps, offset]))
}

/// `x, y`.
pub(crate) fn add([x, y]: [usize; 2]) -> Result<Launch, Error> {
    fits("add", y, &[x])?;
    Launch::for_each("add", x, &[x, y])?.words([x])
}

/// `x, bias`.
pub(crate) fn add_bias([x, bias]: [usize; 2], rows: usize) -> Result<Launch, Error> {
    fits("add_bias", x, &[rows, bias])?;
    Launch::for_each("add_bias", x, &[x, bias])?.words([bias, x])
}

/// `out, gate_up`.
pub(crate) fn gated(
    activation: Activation,
    [out, gate_up]: [usize; 2],
    rows: usize,
    width: usize,
) -> Result<Launch, Error> {
    let name = match activation {
        Activation::Silu => "silu_mul",
        Activation::GeluTanh => "gelu_mul",
    };
    fits(name, out, &[rows, width])?;
    fits(name, gate_up, &[rows, 2, width])?;
    Launch::for_each(name, out, &[out, gate_up])?.words([width, out])
}

/// `out, table, tokens`.
pub(crate) fn embed([out, table, tokens]: [usize; 3], width: usize, scale: f32) -> Result<Launch, Error> {
    let vocabulary = table.checked_div(width).unwrap_or_default();
    fits("embed", table, &[vocabulary, width])?;
    fits("embed", out, &[tokens, width])?;
    let launch = Launch::new("embed", [tokens, 1, 1], ROW_THREADS, &[out, table, tokens])?;
    Ok(launch.words([width, vocabulary])?.floats([scale]))
}

/// `out, x, rows`.
pub(crate) fn gather_rows([out, x, rows]: [usize; 3], width: usize) -> Result<Launch, Error> {
    let height = x.checked_div(width).unwrap_or_default();
    fits("gather_rows", x, &[height, width])?;
    fits("gather_rows", out, &[rows, width])?;
    Launch::new("gather_rows", [rows, 1, 1], ROW_THREADS, &[out, x, rows])?.words([width, height])
}

/// `out, x, weights` of a matrix product: `shape` is rows, inputs, outputs. cuBLASLt does it, so there is no launch. Gives
/// the kind of the result.
pub(crate) fn gemm(buffers: [(usize, Parameter); 3], shape: [usize; 3]) -> Result<Kind, Error> {
    let [rows, inputs, outputs] = shape;
    let [(out, result), (x, left), (weights, right)] = buffers;
    let halves = left.kind == Kind::Half && right.kind == Kind::Half;
    if !halves || result.kind == Kind::Word || !result.is_written {
        return Err(problem("gemm", "has buffers of another kind"));
    }
    fits("gemm", out, &[rows, outputs])?;
    fits("gemm", x, &[rows, inputs])?;
    fits("gemm", weights, &[outputs, inputs])?;
    if shape.contains(&0) || shape.iter().any(|n| i32::try_from(*n).is_err()) {
        return Err(problem("gemm", "has nothing to do or too much"));
    }
    Ok(result.kind)
}

/// `x`.
pub(crate) fn softcap(x: usize, cap: f32) -> Result<Launch, Error> {
    Launch::for_each("softcap", x, &[x])?.floats([cap]).words([x])
}

/// Heads of queries, keys and values in a row, and where they are cached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) query: usize,
    pub(crate) kv: usize,
    pub(crate) dim: usize,
    /// Blocks of the cache of one layer.
    pub(crate) blocks: usize,
}

impl Heads {
    /// Values of a row of queries, keys and values.
    pub(crate) fn row(&self) -> usize {
        (self.query + 2 * self.kv) * self.dim
    }

    /// Values of the keys of one layer, and of its values.
    pub(crate) fn cache_len(&self, name: &'static str) -> Result<usize, Error> {
        product(name, &[self.blocks, self.kv, BLOCK, self.dim])
    }

    /// Query heads that share keys and values.
    fn group(&self, name: &'static str) -> Result<usize, Error> {
        match self.query.checked_div(self.kv) {
            Some(group) if group > 0 && group * self.kv == self.query => Ok(group),
            _ => Err(problem(name, "has query heads that are no multiple of the others")),
        }
    }

    fn check_cache(&self, name: &'static str, keys: usize, values: usize) -> Result<(), Error> {
        let len = self.cache_len(name)?;
        fits(name, keys, &[len])?;
        fits(name, values, &[len])
    }
}

/// How positions turn queries and keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rope {
    /// Values of a head that are turned.
    pub(crate) rotary: usize,
    /// Whether pairs are neighbours.
    pub(crate) interleaved: bool,
}

/// `qkv, keys, values, turns, positions, slots`.
pub(crate) fn rope_kv(
    [qkv, keys, values, turns, positions, slots]: [usize; 6],
    heads: &Heads,
    rope: &Rope,
) -> Result<Launch, Error> {
    let name = "rope_kv";
    fits(name, qkv, &[positions, heads.row()])?;
    fits(name, slots, &[positions])?;
    heads.check_cache(name, keys, values)?;
    let context = turns.checked_div(rope.rotary).unwrap_or_default();
    fits(name, turns, &[context, rope.rotary])?;
    if !rope.rotary.is_multiple_of(2) || rope.rotary > heads.dim {
        return Err(problem(name, "turns more than a head, or half a pair"));
    }
    let grid = [positions, heads.query + 2 * heads.kv, 1];
    let interleaved = usize::from(rope.interleaved);
    let words = [heads.query, heads.kv, heads.dim, rope.rotary, interleaved, context, heads.blocks];
    Launch::new(name, grid, 64, &[qkv, keys, values, turns, positions, slots])?.words(words)
}

/// How scores are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scores {
    pub(crate) scale: f32,
    /// Soft cap of scores; 0: none.
    pub(crate) cap: f32,
    /// Tokens that a query sees, itself included; 0: all.
    pub(crate) window: usize,
}

/// Values of a partial result of a head, for a context of up to `context` tokens.
pub(crate) fn partial_len(heads: &Heads, sequences: usize, context: usize) -> Result<usize, Error> {
    product("attention_decode", &[sequences, heads.query, splits(context), heads.dim + 2])
}

fn splits(context: usize) -> usize {
    context.div_ceil(SPLIT).max(1)
}

/// Refuses heads that no kernel computes: more in a group than fit.
pub(crate) fn attends(heads: &Heads) -> Result<(), Error> {
    let (group, partial) = (heads.group("attention_decode")?, partial_len(heads, 1, 1)?);
    let cache = heads.cache_len("attention_decode")?;
    let planned = attention_decode(
        [partial, heads.row(), cache, cache, 1, 1],
        heads,
        &Scores { scale: 1.0, cap: 0.0, window: 0 },
        1,
    );
    planned.map(|_launch| ()).map_err(|_does_not_fit| Error::Unsupported {
        what: "attention on a GPU",
        name: format!("{group} query heads of {} numbers for one of keys", heads.dim),
        supported: "groups whose queries and sums fit into 48 KiB",
    })
}

/// `partial, q, keys, values, tables, lengths`; `q` has rows of [`Heads::row`]. No length is above `context`.
pub(crate) fn attention_decode(
    [partial, q, keys, values, tables, lengths]: [usize; 6],
    heads: &Heads,
    scores: &Scores,
    context: usize,
) -> Result<Launch, Error> {
    let name = "attention_decode";
    let group = heads.group(name)?;
    fits(name, partial, &[partial_len(heads, lengths, context)?])?;
    fits(name, q, &[lengths, heads.row()])?;
    heads.check_cache(name, keys, values)?;
    let table = tables.checked_div(lengths).unwrap_or_default();
    fits(name, tables, &[lengths, table])?;
    // As many tokens at a time as fit.
    let row = heads.dim.next_multiple_of(8) + 8;
    let shared =
        |chunk: usize| 4 * chunk * row + 4 * group * (2 * heads.dim + chunk + 3) + 4 * (chunk / BLOCK);
    let chunk = CHUNKS.into_iter().find(|chunk| shared(*chunk) <= MAX_SHARED);
    let chunk = chunk.filter(|_| group <= ATTENTION_THREADS as usize);
    let chunk = chunk.ok_or_else(|| problem(name, "has more heads in a group than fit"))?;
    let grid = [splits(context), heads.kv, lengths];
    let launch = Launch::new(name, grid, ATTENTION_THREADS, &[partial, q, keys, values, tables, lengths])?
        .shared(shared(chunk))?;
    let launch = launch.words([heads.kv, group, heads.dim, heads.row(), table, heads.blocks, SPLIT])?;
    launch.floats([scores.scale, scores.cap]).words([scores.window, chunk])
}

/// `out, partial`.
pub(crate) fn attention_combine(
    [out, partial]: [usize; 2],
    heads: &Heads,
    sequences: usize,
    context: usize,
) -> Result<Launch, Error> {
    let name = "attention_combine";
    fits(name, out, &[sequences, heads.query, heads.dim])?;
    fits(name, partial, &[partial_len(heads, sequences, context)?])?;
    let launch = Launch::new(name, [heads.query, sequences, 1], ATTENTION_THREADS, &[out, partial])?;
    launch.words([heads.dim, splits(context)])
}

/// Queries of one sequence that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) sequence: u32,
    pub(crate) first_row: u32,
    pub(crate) rows: u32,
    /// Of the first row.
    pub(crate) position: u32,
}

/// Runs cut into tiles, checked: every row is in the batch, every sequence has a table.
pub(crate) fn tiles(runs: &[Run], rows: usize, sequences: usize) -> Result<Vec<u32>, Error> {
    let mut tiles = Vec::new();
    for run in runs {
        let end = run.first_row.checked_add(run.rows).is_some_and(|end| end as usize <= rows);
        let is_good =
            end && run.position.checked_add(run.rows).is_some() && (run.sequence as usize) < sequences;
        if !is_good {
            return Err(problem("attention_prefill", "has rows or a sequence that are not there"));
        }
        for offset in (0..run.rows).step_by(TILE) {
            let rows = (run.rows - offset).min(64);
            tiles.extend([run.sequence, run.first_row + offset, rows, run.position + offset]);
        }
    }
    Ok(tiles)
}

/// `out, q, keys, values, tables, tiles`; the tiles are those of [`tiles`] for `rows` and `sequences`.
pub(crate) fn attention_prefill(
    [out, q, keys, values, tables, tiles]: [usize; 6],
    heads: &Heads,
    scores: &Scores,
    rows: usize,
    sequences: usize,
) -> Result<Launch, Error> {
    let name = match heads.dim {
        64 => "attention_prefill_64",
        96 => "attention_prefill_96",
        128 => "attention_prefill_128",
        256 => "attention_prefill_256",
        _ => return Err(problem("attention_prefill", "is for heads of 64, 96, 128 or 256 values")),
    };
    let group = heads.group(name)?;
    fits(name, out, &[rows, heads.query, heads.dim])?;
    fits(name, q, &[rows, heads.row()])?;
    heads.check_cache(name, keys, values)?;
    fits(name, tiles, &[tiles / 4, 4])?;
    let table = tables.checked_div(sequences).unwrap_or_default();
    fits(name, tables, &[sequences, table])?;
    let launch = Launch::new(
        name,
        [tiles / 4, heads.query, 1],
        ATTENTION_THREADS,
        &[out, q, keys, values, tables, tiles],
    )?;
    let chunk = if heads.dim > 128 { 32 } else { 64 };
    let launch = launch.shared(2 * 2 * chunk * (heads.dim + 8))?;
    let launch = launch.words([heads.kv, group, heads.row(), table, heads.blocks])?;
    launch.floats([scores.scale, scores.cap]).words([scores.window])
}

/// `scores, ids, logits`.
pub(crate) fn top_k([scores, ids, logits]: [usize; 3], rows: usize, k: usize) -> Result<Launch, Error> {
    let vocabulary = logits.checked_div(rows).unwrap_or_default();
    fits("top_k", logits, &[rows, vocabulary])?;
    fits("top_k", scores, &[rows, k])?;
    fits("top_k", ids, &[rows, k])?;
    if !(1..=MAX_TOP_K).contains(&k) {
        return Err(problem("top_k", "is for 1 to 128 tokens"));
    }
    Launch::new("top_k", [rows, 1, 1], VOCABULARY_THREADS, &[scores, ids, logits])?.words([vocabulary, k])
}

/// `tokens, logits`.
pub(crate) fn argmax([tokens, logits]: [usize; 2]) -> Result<Launch, Error> {
    let vocabulary = logits.checked_div(tokens).unwrap_or_default();
    fits("argmax", logits, &[tokens, vocabulary])?;
    Launch::new("argmax", [tokens, 1, 1], VOCABULARY_THREADS, &[tokens, logits])?.words([vocabulary])
}

/// `cache, ids`.
pub(crate) fn wipe_blocks([cache, ids]: [usize; 2], heads: &Heads) -> Result<Launch, Error> {
    let name = "wipe_blocks";
    fits(name, cache, &[heads.cache_len(name)?])?;
    let block = product(name, &[heads.kv, BLOCK, heads.dim])?;
    Launch::new(name, [ids, 1, 1], ROW_THREADS, &[cache, ids])?.words([block, heads.blocks])
}

/// `positions, lengths, slots, tables`.
pub(crate) fn advance([positions, lengths, slots, tables]: [usize; 4]) -> Result<Launch, Error> {
    let table = tables.checked_div(positions).unwrap_or_default();
    fits("advance", tables, &[positions, table])?;
    fits("advance", lengths, &[positions])?;
    fits("advance", slots, &[positions])?;
    Launch::for_each("advance", positions, &[positions, lengths, slots, tables])?.words([table, positions])
}
