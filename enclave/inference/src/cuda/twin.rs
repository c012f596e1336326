//! What each kernel computes, in the plainest way: f32, rounded to BF16 where the kernel rounds, and no blocks, warps or online sums.

use super::launch::BLOCK;
use super::plan::{Heads, Norm, Rope, Run, Scores};
use crate::backend::Activation;
use half::bf16;

type Row<'a> = &'a [bf16];

fn norm_row(x: Row<'_>, weight: Row<'_>, eps: f32, offset: f32) -> Vec<bf16> {
    let squares: f32 = x.iter().map(|v| v.to_f32() * v.to_f32()).sum();
    let scale = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    let value = |(v, w): (&bf16, &bf16)| bf16::from_f32(v.to_f32() * scale * (offset + w.to_f32()));
    x.iter().zip(weight).map(value).collect()
}

pub(crate) fn rms_norm(x: Row<'_>, weight: Row<'_>, norm: &Norm) -> Vec<bf16> {
    let mut out = x.to_vec();
    for row in out.chunks_mut(norm.stride) {
        for part in row[norm.start..].chunks_mut(norm.width).take(norm.groups) {
            let normal = norm_row(part, weight, norm.eps, norm.offset);
            part.copy_from_slice(&normal);
        }
    }
    out
}

pub(crate) fn add(x: Row<'_>, y: Row<'_>) -> Vec<bf16> {
    x.iter().zip(y.iter().cycle()).map(|(a, b)| bf16::from_f32(a.to_f32() + b.to_f32())).collect()
}

pub(crate) fn add_rms_norm(
    residual: Row<'_>,
    x: Row<'_>,
    weight: Row<'_>,
    eps: f32,
    offset: f32,
) -> (Vec<bf16>, Vec<bf16>) {
    let sum = add(residual, x);
    let out = sum.chunks(weight.len()).flat_map(|row| norm_row(row, weight, eps, offset)).collect();
    (out, sum)
}

pub(crate) fn gated(activation: Activation, gate_up: Row<'_>, width: usize) -> Vec<bf16> {
    let apply = |gate: f32| match activation {
        Activation::Silu => gate / (1.0 + (-gate).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f32::consts::PI).sqrt() * (gate + 0.044_715 * gate.powi(3));
            0.5 * gate * (1.0 + inner.tanh())
        }
    };
    let row = |row: Row<'_>| -> Vec<bf16> {
        let (gate, up) = row.split_at(width);
        gate.iter().zip(up).map(|(g, u)| bf16::from_f32(apply(g.to_f32()) * u.to_f32())).collect()
    };
    gate_up.chunks(2 * width).flat_map(row).collect()
}

pub(crate) fn rows_of(table: Row<'_>, ids: &[u32], width: usize, scale: f32) -> Vec<bf16> {
    let row = |id: &u32| match table.chunks(width).nth(*id as usize) {
        Some(row) => row.iter().map(|v| bf16::from_f32(v.to_f32() * scale)).collect(),
        None => vec![bf16::ZERO; width],
    };
    ids.iter().flat_map(row).collect()
}

pub(crate) fn softcap(x: &[f32], cap: f32) -> Vec<f32> {
    x.iter().map(|v| capped(*v, cap)).collect()
}

fn capped(score: f32, cap: f32) -> f32 {
    if cap > 0.0 { cap * (score / cap).tanh() } else { score }
}

/// Turned queries, keys and values, and both caches.
pub(crate) fn rope_kv(
    qkv: Row<'_>,
    caches: [Row<'_>; 2],
    turns: &[f32],
    positions: &[u32],
    slots: &[u32],
    heads: &Heads,
    rope: &Rope,
) -> (Vec<bf16>, [Vec<bf16>; 2]) {
    let mut out = qkv.to_vec();
    let mut caches = caches.map(<[bf16]>::to_vec);
    for (row, (position, slot)) in out.chunks_mut(heads.row()).zip(positions.iter().zip(slots)) {
        let turned = heads.query + heads.kv;
        for (index, head) in row.chunks_mut(heads.dim).enumerate() {
            if index < turned && (*position as usize) < turns.len() / rope.rotary {
                turn(head, &turns[*position as usize * rope.rotary..], rope);
            }
            let Some(kv) = index.checked_sub(heads.query) else { continue };
            let (cache, kv) = (&mut caches[kv / heads.kv], kv % heads.kv);
            let (block, offset) = (*slot as usize / BLOCK, *slot as usize % BLOCK);
            if block < heads.blocks {
                let at = ((block * heads.kv + kv) * BLOCK + offset) * heads.dim;
                cache[at..at + heads.dim].copy_from_slice(head);
            }
        }
    }
    (out, caches)
}

fn turn(head: &mut [bf16], turns: &[f32], rope: &Rope) {
    for pair in 0..rope.rotary / 2 {
        let (i, j) = if rope.interleaved { (2 * pair, 2 * pair + 1) } else { (pair, pair + rope.rotary / 2) };
        let (a, b, cosine, sine) = (head[i].to_f32(), head[j].to_f32(), turns[2 * pair], turns[2 * pair + 1]);
        head[i] = bf16::from_f32(a * cosine - b * sine);
        head[j] = bf16::from_f32(b * cosine + a * sine);
    }
}

/// A cache of one layer.
#[derive(Clone, Copy)]
pub(crate) struct Cache<'a> {
    pub(crate) keys: Row<'a>,
    pub(crate) values: Row<'a>,
    pub(crate) tables: &'a [u32],
    pub(crate) sequences: usize,
}

/// One query head of one token against the tokens `0..=position` of a sequence.
fn attend(
    query: Row<'_>,
    head: usize,
    sequence: usize,
    position: usize,
    cache: &Cache<'_>,
    heads: &Heads,
    scores: &Scores,
) -> Vec<bf16> {
    let table_len = cache.tables.len() / cache.sequences;
    let kv = head / (heads.query / heads.kv);
    let first = if scores.window == 0 { 0 } else { (position + 1).saturating_sub(scores.window) };
    let mut seen: Vec<(f32, usize)> = Vec::new();
    for token in first..=position {
        if token / BLOCK >= table_len {
            continue;
        }
        let block = cache.tables[sequence * table_len + token / BLOCK] as usize;
        if block >= heads.blocks {
            continue;
        }
        let at = ((block * heads.kv + kv) * BLOCK + token % BLOCK) * heads.dim;
        let key = &cache.keys[at..at + heads.dim];
        let dot: f32 = query.iter().zip(key).map(|(q, k)| q.to_f32() * k.to_f32()).sum();
        seen.push((capped(dot * scores.scale, scores.cap), at));
    }
    let max = seen.iter().map(|(score, _)| *score).fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = seen.iter().map(|(score, _)| (score - max).exp()).sum();
    let value = |i: usize| {
        let sum: f32 =
            seen.iter().map(|(score, at)| (score - max).exp() * cache.values[at + i].to_f32()).sum();
        if seen.is_empty() { bf16::ZERO } else { bf16::from_f32(sum / total) }
    };
    (0..heads.dim).map(value).collect()
}

/// The next token of each sequence; `lengths` include it.
pub(crate) fn attention_decode(
    q: Row<'_>,
    lengths: &[u32],
    cache: &Cache<'_>,
    heads: &Heads,
    scores: &Scores,
) -> Vec<bf16> {
    let mut out = Vec::new();
    for (sequence, (row, length)) in q.chunks(heads.row()).zip(lengths).enumerate() {
        for (head, query) in row.chunks(heads.dim).take(heads.query).enumerate() {
            if *length == 0 {
                out.extend(vec![bf16::ZERO; heads.dim]);
            } else {
                out.extend(attend(query, head, sequence, *length as usize - 1, cache, heads, scores));
            }
        }
    }
    out
}

/// Rows that no run has stay zero.
pub(crate) fn attention_prefill(
    q: Row<'_>,
    runs: &[Run],
    cache: &Cache<'_>,
    heads: &Heads,
    scores: &Scores,
) -> Vec<bf16> {
    let width = heads.query * heads.dim;
    let mut out = vec![bf16::ZERO; q.len() / heads.row() * width];
    for run in runs {
        for offset in 0..run.rows as usize {
            let row = run.first_row as usize + offset;
            for head in 0..heads.query {
                let query = &q[row * heads.row() + head * heads.dim..][..heads.dim];
                let position = run.position as usize + offset;
                let result = attend(query, head, run.sequence as usize, position, cache, heads, scores);
                out[row * width + head * heads.dim..][..heads.dim].copy_from_slice(&result);
            }
        }
    }
    out
}

/// Scores and ids of the best, by row.
pub(crate) fn top_k(logits: &[f32], rows: usize, k: usize) -> (Vec<f32>, Vec<u32>) {
    let (mut scores, mut ids) = (Vec::new(), Vec::new());
    for row in logits.chunks(logits.len() / rows) {
        let finite = (0..).zip(row).filter(|(_, score)| score.is_finite());
        let mut order: Vec<(u32, f32)> = finite.map(|(id, score)| (id, *score)).collect();
        order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        order.resize(k.max(order.len()), (u32::MAX, f32::NEG_INFINITY));
        order.truncate(k);
        scores.extend(order.iter().map(|(_, score)| *score));
        ids.extend(order.iter().map(|(id, _)| *id));
    }
    (scores, ids)
}

/// Positions, lengths and slots after the next token.
pub(crate) fn advance(positions: &[u32], tables: &[u32]) -> [Vec<u32>; 3] {
    let table_len = tables.len() / positions.len();
    let next: Vec<u32> = positions.iter().map(|position| position + 1).collect();
    let slot = |(table, position): (&[u32], &u32)| {
        let block = table.get(*position as usize / BLOCK);
        let block = block.filter(|block| **block < u32::MAX / 16);
        block.map_or(u32::MAX, |block| block * 16 + position % 16)
    };
    let slots = tables.chunks(table_len).zip(&next).map(slot).collect();
    let lengths = next.iter().map(|position| position + 1).collect();
    [next, lengths, slots]
}

/// The cache without some blocks.
pub(crate) fn wipe_blocks(cache: Row<'_>, ids: &[u32], block: usize) -> Vec<bf16> {
    let mut cache = cache.to_vec();
    for id in ids {
        if let Some(block) = cache.chunks_mut(block).nth(*id as usize) {
            block.fill(bf16::ZERO);
        }
    }
    cache
}
