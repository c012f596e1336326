//! Causal attention of some rows over the key-value cache of their sequence, grouped-query, in `f32`.

use crate::kv::{Half, KvCache};
use rayon::prelude::*;

/// Multiply-adds below which waking other threads costs more than it saves.
const PARALLEL_WORK: usize = 200_000;

/// The shape of attention in a model.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    /// Query heads.
    pub(crate) count: usize,
    /// Query heads that share a key and value head.
    pub(crate) group: usize,
    /// Values per head.
    pub(crate) dim: usize,
}

/// `queries` and `out`: `[rows, heads, dim]`; row `i` is position `first + i` and sees itself and all before it.
///
/// Every (row, head) is computed by one thread in one order, so the result does not depend on the number of threads
/// in the current pool.
pub(crate) fn attend(
    heads: Heads,
    kv: &KvCache,
    layer: usize,
    first: usize,
    queries: &[f32],
    out: &mut [f32],
) {
    let one = |index: usize, query: &[f32], out: &mut [f32]| {
        let (row, head) = (index / heads.count, index % heads.count);
        let start = head / heads.group * heads.dim;
        attend_one(kv, layer, first + row, start, query, out);
    };
    let work = queries.len() * (first + 1);
    if work < PARALLEL_WORK {
        let pairs = queries.chunks_exact(heads.dim).zip(out.chunks_exact_mut(heads.dim));
        pairs.enumerate().for_each(|(index, (query, out))| one(index, query, out));
    } else {
        let pairs = queries.par_chunks_exact(heads.dim).zip(out.par_chunks_exact_mut(heads.dim));
        pairs.enumerate().for_each(|(index, (query, out))| one(index, query, out));
    }
}

/// One head at one position; `start`: where the head's key and value begin.
fn attend_one(kv: &KvCache, layer: usize, position: usize, start: usize, query: &[f32], out: &mut [f32]) {
    let part = start..start + query.len();
    let scale = 1.0 / (query.len() as f32).sqrt();
    let mut weights: Vec<f32> =
        (0..=position).map(|past| dot(query, &kv.at(layer, Half::Key, past)[part.clone()]) * scale).collect();
    let max = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0_f64;
    for weight in &mut weights {
        *weight = libm::expf(*weight - max);
        sum += f64::from(*weight);
    }
    #[expect(clippy::cast_possible_truncation, reason = "back to the precision of the activations")]
    let norm = (1.0 / sum) as f32;
    out.fill(0.0);
    for (past, weight) in weights.iter().enumerate() {
        let weight = weight * norm;
        let value = &kv.at(layer, Half::Value, past)[part.clone()];
        out.iter_mut().zip(value).for_each(|(out, value)| *out += weight * value);
    }
}

/// Eight partial sums, so that the compiler can use vector registers, and a fixed order, so that runs agree.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + tail
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: Heads = Heads { count: 4, group: 2, dim: 8 };

    fn filled(rows: usize) -> (KvCache, Vec<f32>) {
        let mut kv = KvCache::new(1, 16);
        kv.reserve(rows);
        let wave =
            |seed: usize, n: usize| (0..n).map(|i| ((seed * 31 + i * 7) as f32).sin()).collect::<Vec<_>>();
        for position in 0..rows {
            kv.write(0, Half::Key, position, &wave(position, 16));
            kv.write(0, Half::Value, position, &wave(position + 1000, 16));
        }
        (kv, wave(5000, rows * 32))
    }

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    #[test]
    fn one_position_gives_its_own_value() {
        let (kv, queries) = filled(1);
        let mut out = vec![9.0; 32];
        attend(HEADS, &kv, 0, 0, &queries, &mut out);
        let value = kv.at(0, Half::Value, 0);
        assert_eq!(out[..8], value[..8]);
        assert_eq!(out[8..16], value[..8]);
        assert_eq!(out[24..], value[8..]);
    }

    #[test]
    fn rows_and_threads_do_not_change_the_result() {
        let rows = 100;
        let (kv, queries) = filled(rows);
        let mut together = vec![0.0; rows * 32];
        pool(1).install(|| attend(HEADS, &kv, 0, 0, &queries, &mut together));
        let mut threaded = vec![0.0; rows * 32];
        pool(2).install(|| attend(HEADS, &kv, 0, 0, &queries, &mut threaded));
        assert_eq!(together, threaded);
        for row in 0..rows {
            let part = row * 32..(row + 1) * 32;
            let mut alone = vec![0.0; 32];
            attend(HEADS, &kv, 0, row, &queries[part.clone()], &mut alone);
            assert_eq!(alone, together[part]);
        }
    }

    #[test]
    fn dot_handles_odd_lengths() {
        let a: Vec<f32> = (0..19).map(|i| i as f32).collect();
        assert_eq!(dot(&a, &a), (0..19).map(|i| (i * i) as f32).sum::<f32>());
    }
}
