//! What is done to each row of activations by itself.

use super::attention::squeeze;
use super::pool::Pool;
use super::simd::{Kernel, LANES, Simd};
use crate::backend::Activation;

/// Less is not worth handing over.
const NUMBERS_PER_TASK: usize = 4096;

/// Calls `work` with the number of each row and the row.
pub(crate) fn each_row(pool: &Pool, rows: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    let count = rows.len() / width;
    let per_task = count.div_ceil(pool.threads()).max(NUMBERS_PER_TASK.div_ceil(width));
    let bounds: Vec<usize> = (0..count).step_by(per_task).chain([count]).collect();
    pool.tiles(rows, width, &bounds, width, |part, _, mut tile| {
        for row in 0..tile.rows() {
            work(bounds[part] + row, tile.row(row));
        }
    });
}

/// Root mean square normalisation of each head (or of a whole row) in place or elsewhere.
pub(crate) struct Normalise<'a> {
    /// Where the numbers come from, if not from `to`.
    pub(crate) from: Option<&'a [f32]>,
    pub(crate) weights: &'a [f32],
    pub(crate) epsilon: f32,
    pub(crate) to: &'a mut [f32],
}

impl Kernel for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let weights = self.weights.as_chunks::<LANES>().0;
        let len = self.weights.len();
        let parts = self.to.len() / len;
        for part in 0..parts {
            let to = &mut self.to[part * len..][..len];
            if let Some(from) = self.from {
                to.copy_from_slice(&from[part * len..][..len]);
            }
            let to = to.as_chunks_mut::<LANES>().0;
            let mut squares = [s.splat(0.0); 2];
            for (n, x) in to.iter().enumerate() {
                let x = s.load(x);
                squares[n % 2] = s.fma(x, x, squares[n % 2]);
            }
            let mean = s.sum(s.add(squares[0], squares[1])) / len as f32;
            let scale = s.splat(1.0 / (mean + self.epsilon).sqrt());
            for (x, weight) in to.iter_mut().zip(weights) {
                let scaled = s.mul(s.load(x), scale);
                s.store(s.mul(scaled, s.load(weight)), x);
            }
        }
    }
}

/// Rotates each head: dimension `i` with dimension `i + n`, by the `i`th of `n` angles.
pub(crate) struct Rotate<'a> {
    pub(crate) heads: &'a mut [f32],
    pub(crate) dim: usize,
    /// Cosines, then as many sines.
    pub(crate) angles: &'a [f32],
}

impl Kernel for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (cosines, sines) = self.angles.split_at(self.angles.len() / 2);
        let n = cosines.len();
        for head in self.heads.chunks_exact_mut(self.dim) {
            let (low, rest) = head.split_at_mut(n);
            let high = &mut rest[..n];
            let vectors = low.as_chunks_mut::<LANES>().0.iter_mut().zip(high.as_chunks_mut::<LANES>().0);
            let angles = cosines.as_chunks::<LANES>().0.iter().zip(sines.as_chunks::<LANES>().0);
            for ((low, high), (cosine, sine)) in vectors.zip(angles) {
                let (a, b, cosine, sine) = (s.load(low), s.load(high), s.load(cosine), s.load(sine));
                s.store(s.sub(s.mul(a, cosine), s.mul(b, sine)), low);
                s.store(s.add(s.mul(a, sine), s.mul(b, cosine)), high);
            }
            for i in n / LANES * LANES..n {
                let (a, b) = (low[i], high[i]);
                low[i] = a * cosines[i] - b * sines[i];
                high[i] = a * sines[i] + b * cosines[i];
            }
        }
    }
}

/// `activation(gate) * up`, where `from` is gate and up side by side.
pub(crate) struct Gate<'a> {
    pub(crate) activation: Activation,
    pub(crate) from: &'a [f32],
    pub(crate) to: &'a mut [f32],
}

impl Kernel for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (gate, up) = self.from.split_at(self.to.len());
        let pairs = gate.as_chunks::<LANES>().0.iter().zip(up.as_chunks::<LANES>().0);
        for ((gate, up), to) in pairs.zip(self.to.as_chunks_mut::<LANES>().0) {
            let x = s.load(gate);
            let slope = match self.activation {
                Activation::Silu => x,
                // 0.5 (1 + tanh(u)) is the logistic function of 2u.
                Activation::GeluTanh => {
                    let cubic = s.fma(s.mul(x, x), s.splat(0.044_715), s.splat(1.0));
                    s.mul(s.mul(x, cubic), s.splat(1.595_769))
                }
            };
            let exp = s.exp(s.sub(s.splat(0.0), slope));
            s.store(s.mul(s.div(x, s.add(exp, s.splat(1.0))), s.load(up)), to);
        }
    }
}

/// `to += from`
pub(crate) struct Add<'a> {
    pub(crate) from: &'a [f32],
    pub(crate) to: &'a mut [f32],
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let vectors = self.from.as_chunks::<LANES>().0.iter().zip(self.to.as_chunks_mut::<LANES>().0);
        for (from, to) in vectors {
            s.store(s.add(s.load(to), s.load(from)), to);
        }
    }
}

/// Squeezes numbers between minus and plus `cap`.
pub(crate) struct Squeeze<'a> {
    pub(crate) cap: f32,
    pub(crate) numbers: &'a mut [f32],
}

impl Kernel for Squeeze<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (vectors, rest) = self.numbers.as_chunks_mut::<LANES>();
        for x in vectors {
            s.store(squeeze(s, s.load(x), self.cap), x);
        }
        if !rest.is_empty() {
            let mut all = [0.0; LANES];
            all[..rest.len()].copy_from_slice(rest);
            let squeezed = squeeze(s, s.load(&all), self.cap);
            s.store(squeezed, &mut all);
            rest.copy_from_slice(&all[..rest.len()]);
        }
    }
}
