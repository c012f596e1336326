//! What encoders (BERT) compute beside products: attention in which all tokens of a text see each other, norms with a bias, and
//! the exact GELU.
//!
//! Rows of several texts lie one behind the other. What is computed of a text depends on its rows alone, in an order that depends
//! on its length alone: so a text has the same result alone and among others, on any number of threads and on any processor.

use super::activations::Activations;
use super::numbers::{Numbers, Single, number_panel};
use super::pool::{Pool, Step, Tile};
use super::product::{Linear, Rows};
use super::rows::each_row;
use super::simd::{Kernel, LANES, Level, Simd};
use crate::error::Error;
use zeroize::Zeroizing;

/// Rows of a text that one task computes: they share keys and values that were laid out for it.
const ROWS: usize = 64;

/// The threads that compute.
pub(crate) struct Threads {
    pool: Pool,
    level: Level,
    /// Nothing here is quantised.
    unused: Activations,
}

/// Weights and bias of a norm, and what is added to the variance.
pub(crate) struct Norm {
    pub(crate) weights: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    pub(crate) epsilon: f32,
}

/// How rows of queries, keys and values are cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) count: usize,
    /// Numbers of a head: a multiple of 16.
    pub(crate) dim: usize,
}

impl Threads {
    /// `threads` with the caller's; at least 1.
    pub(crate) fn new(threads: usize) -> Result<Self, Error> {
        Ok(Self { pool: Pool::new(threads)?, level: Level::detect(), unused: Activations::default() })
    }

    /// Keeps the threads awake until the result is dropped.
    pub(crate) fn awake(&self) -> Step {
        self.pool.step()
    }

    /// `to = weights * from + bias`, row by row. The weights are not quantised.
    pub(crate) fn multiply(&self, weights: &Linear, from: &[f32], rows: usize, to: &mut [f32]) {
        let from = Rows { numbers: from, quantised: &self.unused };
        weights.multiply(&self.pool, self.level, &from, rows, to);
    }

    /// Normalises each row of `to`, after the row of `add` was added to it.
    pub(crate) fn normalise(&self, norm: &Norm, add: Option<&[f32]>, to: &mut [f32]) {
        let width = norm.weights.len();
        each_row(&self.pool, to, width, |row, to| {
            let add = add.map(|add| &add[row * width..][..width]);
            self.level.run(Normalise { norm, add, to });
        });
    }

    /// `x` times the probability that a normal variable is below it, of each number in rows of `width`.
    pub(crate) fn gelu(&self, rows: &mut [f32], width: usize) {
        each_row(&self.pool, rows, width, |_, numbers| self.level.run(Gelu { numbers }));
    }

    /// Attention of the rows of each text among each other. `lens`: rows of each text. `qkv`: queries, keys and values side by side.
    /// `out`: `[rows, heads * dim]`.
    pub(crate) fn attend(&self, lens: &[usize], heads: Heads, qkv: &[f32], out: &mut [f32]) {
        let width = heads.count * heads.dim;
        let (mut tiles, mut bounds, mut start) = (Vec::new(), vec![0], 0);
        for len in lens {
            let text = &qkv[start * 3 * width..][..len * 3 * width];
            for first in (0..*len).step_by(ROWS) {
                tiles.push((text, first));
                bounds.push(start + len.min(&(first + ROWS)));
            }
            start += len;
        }
        self.pool.tiles(out, width, &bounds, heads.dim, |tile, head, mut out| {
            let (text, first) = tiles[tile];
            let head = Head { text, width, dim: heads.dim, first: head * heads.dim };
            self.level.run(Attend { head, first, out: &mut out });
        });
    }
}

struct Normalise<'a> {
    norm: &'a Norm,
    add: Option<&'a [f32]>,
    to: &'a mut [f32],
}

impl Kernel for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let len = self.to.len() as f32;
        let to = self.to.as_chunks_mut::<LANES>().0;
        if let Some(add) = self.add {
            for (x, add) in to.iter_mut().zip(add.as_chunks::<LANES>().0) {
                s.store(s.add(s.load(x), s.load(add)), x);
            }
        }
        let sum = to.iter().fold(s.splat(0.0), |sum, x| s.add(sum, s.load(x)));
        let mean = s.splat(s.sum(sum) / len);
        let squares = to.iter().fold(s.splat(0.0), |sum, x| {
            let away = s.sub(s.load(x), mean);
            s.fma(away, away, sum)
        });
        let variance = s.sum(squares) / len;
        let scale = s.splat(1.0 / (variance + self.norm.epsilon).sqrt());
        let weights = self.norm.weights.as_chunks::<LANES>().0.iter();
        let norm = weights.zip(self.norm.bias.as_chunks::<LANES>().0);
        for (x, (weight, bias)) in to.iter_mut().zip(norm) {
            let scaled = s.mul(s.sub(s.load(x), mean), scale);
            s.store(s.fma(scaled, s.load(weight), s.load(bias)), x);
        }
    }
}

struct Gelu<'a> {
    numbers: &'a mut [f32],
}

impl Kernel for Gelu<'_> {
    type Output = ();

    /// The tail of the normal distribution by Abramowitz and Stegun 7.1.26: within 1.5e-7. It is that of the absolute value, so
    /// that nothing cancels out below 0.
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for x in self.numbers.as_chunks_mut::<LANES>().0 {
            let value = s.load(x);
            let size = s.abs(value);
            // 0.3275911 / sqrt(2)
            let t = s.div(s.splat(1.0), s.fma(size, s.splat(0.231_641_89), s.splat(1.0)));
            let mut y = s.splat(1.061_405_4);
            for coefficient in [-1.453_152, 1.421_413_8, -0.284_496_74, 0.254_829_6] {
                y = s.fma(y, t, s.splat(coefficient));
            }
            let exp = s.exp(s.mul(s.mul(size, size), s.splat(-0.5)));
            let tail = s.mul(s.mul(s.mul(y, t), s.splat(0.5)), exp);
            let whole = s.keep_above(value, s.splat(0.0), value);
            s.store(s.sub(whole, s.mul(size, tail)), x);
        }
    }
}

/// One head of a text.
#[derive(Clone, Copy)]
struct Head<'a> {
    /// Rows of queries, keys and values, each `width` wide.
    text: &'a [f32],
    width: usize,
    dim: usize,
    /// Where the head begins in each.
    first: usize,
}

impl Head<'_> {
    /// `part`: 0 queries, 1 keys, 2 values.
    #[inline(always)]
    fn rows(&self, part: usize) -> impl Iterator<Item = &[f32]> {
        let start = part * self.width + self.first;
        self.text.chunks_exact(3 * self.width).map(move |row| &row[start..][..self.dim])
    }

    fn len(&self) -> usize {
        self.text.len() / (3 * self.width)
    }

    /// Keys in panels of 16, number by number. What fills up the last panel is zero.
    fn keys(&self) -> Zeroizing<Vec<[f32; LANES]>> {
        let mut panels = Zeroizing::new(vec![[0.0; LANES]; self.len().div_ceil(LANES) * self.dim]);
        for (at, key) in self.rows(1).enumerate() {
            let panel = panels[at / LANES * self.dim..].iter_mut();
            panel.zip(key).for_each(|(panel, x)| panel[at % LANES] = *x);
        }
        panels
    }

    /// Values in columns of 16, each as long as the keys' panels.
    fn values(&self, padded: usize) -> Zeroizing<Vec<[f32; LANES]>> {
        let mut columns = Zeroizing::new(vec![[0.0; LANES]; self.dim / LANES * padded]);
        for (at, value) in self.rows(2).enumerate() {
            for (column, x) in value.as_chunks::<LANES>().0.iter().enumerate() {
                columns[column * padded + at] = *x;
            }
        }
        columns
    }
}

/// Some rows of one head of a text, from `first` on.
struct Attend<'a, 'b> {
    head: Head<'a>,
    first: usize,
    out: &'a mut Tile<'b, f32>,
}

impl Kernel for Attend<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { head, first, out } = self;
        let (rows, dim, len) = (out.rows(), head.dim, head.len());
        let padded = len.next_multiple_of(LANES);
        let (keys, values) = (head.keys(), head.values(padded));
        let scale = 1.0 / (dim as f32).sqrt();
        let mut queries = Zeroizing::new(Vec::with_capacity(rows * dim));
        head.rows(0).skip(first).take(rows).for_each(|row| queries.extend(row.iter().map(|x| x * scale)));
        let mut scores = Zeroizing::new(vec![0.0; rows * padded]);
        let mut tile = Tile::whole(&mut scores, padded);
        let numbers = Numbers { rows: &queries, inputs: dim };
        for (panel, keys) in keys.chunks_exact(dim).enumerate() {
            number_panel(s, keys, Single, numbers, panel * LANES, &mut tile);
        }
        let mut sums = [0.0; ROWS];
        for (scores, sum) in scores.chunks_exact_mut(padded).zip(&mut sums) {
            scores[len..].fill(f32::NEG_INFINITY);
            *sum = exponentials(s, scores.as_chunks_mut().0);
        }
        let numbers = Numbers { rows: &scores, inputs: padded };
        for (column, values) in values.chunks_exact(padded).enumerate() {
            number_panel(s, values, Single, numbers, column * LANES, out);
        }
        for (row, sum) in sums.iter().enumerate().take(rows) {
            for x in out.row(row).as_chunks_mut::<LANES>().0 {
                s.store(s.div(s.load(x), s.splat(*sum)), x);
            }
        }
    }
}

/// `e^x`, divided by that of the largest; returns the sum.
#[inline(always)]
fn exponentials<S: Simd>(s: S, scores: &mut [[f32; LANES]]) -> f32 {
    let largest = scores.iter().fold(s.splat(f32::NEG_INFINITY), |max, x| s.max(s.load(x), max));
    let largest = s.splat(s.largest(largest));
    let mut sum = s.splat(0.0);
    for x in scores {
        let exp = s.exp(s.sub(s.load(x), largest));
        sum = s.add(sum, exp);
        s.store(exp, x);
    }
    s.sum(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(len: usize, step: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * step).sin() + 0.1 * (i as f32 * 7.1 * step).cos()).collect()
    }

    fn everywhere(check: impl Fn(&Threads)) {
        for level in Level::all() {
            for threads in [1, 3] {
                check(&Threads { level, ..Threads::new(threads).unwrap() });
            }
        }
    }

    /// Whether results have the same bits everywhere.
    #[derive(Default)]
    struct Same(std::cell::OnceCell<Vec<u32>>);

    impl Same {
        fn check(&self, bits: Vec<u32>) {
            assert!(*self.0.get_or_init(|| bits.clone()) == bits, "other bits than elsewhere");
        }
    }

    #[test]
    fn gelu_is_that_of_the_exact_distribution() {
        let numbers: Vec<f32> = (-2000..2000).map(|n| n as f32 * 0.01 + 0.003).collect();
        let seen = Same::default();
        everywhere(|threads| {
            let mut ours = [numbers.clone(), vec![f32::NAN, 0.0, -0.0, 40.0, -40.0, 1e30, -1e30]].concat();
            ours.resize(ours.len().next_multiple_of(LANES), 0.0);
            let width = ours.len();
            threads.gelu(&mut ours, width);
            for (x, ours) in numbers.iter().map(|x| f64::from(*x)).zip(&ours) {
                let exact = x * 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2);
                assert!((f64::from(*ours) - exact).abs() < 4e-7 * x.abs().max(1.0), "{x}: {ours} {exact}");
            }
            let [nan, rest @ ..] = &ours[numbers.len()..] else { panic!("seven more") };
            assert!(nan.is_nan());
            assert_eq!(rest[..6], [0.0, 0.0, 40.0, 0.0, 1e30, 0.0]);
            let bits: Vec<u32> = ours.iter().map(|x| x.to_bits()).collect();
            seen.check(bits);
        });
    }

    #[test]
    fn norms_have_mean_and_variance_of_the_sum() {
        let (width, rows) = (96, 40);
        let norm = Norm { weights: wave(width, 0.3), bias: wave(width, 0.7), epsilon: 1e-3 };
        let (x, add) = (wave(rows * width, 0.11), wave(rows * width, 0.23));
        everywhere(|threads| {
            let mut ours = x.clone();
            threads.normalise(&norm, Some(&add), &mut ours);
            let mut summed: Vec<f32> = x.iter().zip(&add).map(|(a, b)| a + b).collect();
            for (row, ours) in summed.chunks(width).zip(ours.chunks(width)) {
                let row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
                let mean = row.iter().sum::<f64>() / width as f64;
                let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
                for i in 0..width {
                    let wanted = (row[i] - mean) / (variance + 1e-3).sqrt() * f64::from(norm.weights[i]);
                    assert!((f64::from(ours[i]) - wanted - f64::from(norm.bias[i])).abs() < 1e-5);
                }
            }
            threads.normalise(&norm, None, &mut summed);
            assert!(summed == ours);
        });
    }

    /// By the definition, in 64-bit floats.
    fn exact(lens: &[usize], heads: Heads, qkv: &[f32]) -> Vec<f64> {
        let width = heads.count * heads.dim;
        let (mut out, mut start) = (Vec::new(), 0);
        for len in lens {
            let at = |row: usize, part: usize, head: usize, i: usize| {
                f64::from(qkv[(start + row) * 3 * width + part * width + head * heads.dim + i])
            };
            for row in 0..*len {
                for head in 0..heads.count {
                    let score = |key: usize| {
                        let dot: f64 =
                            (0..heads.dim).map(|i| at(row, 0, head, i) * at(key, 1, head, i)).sum();
                        (dot / (heads.dim as f64).sqrt()).exp()
                    };
                    let weights: Vec<f64> = (0..*len).map(score).collect();
                    let sum: f64 = weights.iter().sum();
                    out.extend((0..heads.dim).map(|i| {
                        weights.iter().enumerate().map(|(key, w)| w * at(key, 2, head, i)).sum::<f64>() / sum
                    }));
                }
            }
            start += len;
        }
        out
    }

    #[test]
    fn every_text_attends_to_all_of_itself_and_nothing_else() {
        let lens = [1, 2, 15, 16, 17, 64, 65, 130];
        for heads in [Heads { count: 2, dim: 32 }, Heads { count: 3, dim: 16 }] {
            let width = heads.count * heads.dim;
            let rows: usize = lens.iter().sum();
            let qkv = wave(rows * 3 * width, 0.37);
            let wanted = exact(&lens, heads, &qkv);
            let seen = Same::default();
            everywhere(|threads| {
                let mut ours = vec![f32::NAN; rows * width];
                threads.attend(&lens, heads, &qkv, &mut ours);
                let apart = ours.iter().zip(&wanted).map(|(a, b)| (f64::from(*a) - b).abs());
                assert!(apart.fold(0.0, f64::max) < 1e-5);
                let mut start = 0;
                for len in lens {
                    let mut alone = vec![f32::NAN; len * width];
                    threads.attend(&[len], heads, &qkv[start * 3 * width..][..len * 3 * width], &mut alone);
                    assert!(alone == ours[start * width..][..len * width], "{len} rows alone");
                    start += len;
                }
                seen.check(ours.iter().map(|x| x.to_bits()).collect());
            });
        }
    }
}
