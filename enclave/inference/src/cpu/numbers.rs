//! Products of weights that are not quantised.

use super::pool::Tile;
use super::product::store;
use super::simd::{LANES, Simd};

/// Rows that are not quantised.
#[derive(Clone, Copy)]
pub(super) struct Numbers<'a> {
    pub(super) rows: &'a [f32],
    pub(super) inputs: usize,
}

/// How 16 weights lie in memory.
pub(super) trait Format: Copy {
    type Weights;
    fn load<S: Simd>(self, s: S, weights: &Self::Weights) -> S::F;
}

#[derive(Clone, Copy)]
pub(super) struct Half;
#[derive(Clone, Copy)]
pub(super) struct Brain;
#[derive(Clone, Copy)]
pub(super) struct Single;

impl Format for Half {
    type Weights = [u16; LANES];

    #[inline(always)]
    fn load<S: Simd>(self, s: S, weights: &Self::Weights) -> S::F {
        s.load_f16(weights)
    }
}

impl Format for Brain {
    type Weights = [u16; LANES];

    #[inline(always)]
    fn load<S: Simd>(self, s: S, weights: &Self::Weights) -> S::F {
        s.load_bf16(weights)
    }
}

impl Format for Single {
    type Weights = [f32; LANES];

    #[inline(always)]
    fn load<S: Simd>(self, s: S, weights: &Self::Weights) -> S::F {
        s.load(weights)
    }
}

#[inline(always)]
pub(super) fn number_panel<S: Simd, T: Format>(
    s: S,
    weights: &[T::Weights],
    format: T,
    numbers: Numbers<'_>,
    columns: usize,
    out: &mut Tile<'_, f32>,
) {
    let mut row = 0;
    while row < out.rows() {
        row += match S::ROWS.min(out.rows() - row) {
            8.. => some_numbers::<8, S, T>(s, weights, format, numbers, row, columns, out),
            4..8 => some_numbers::<4, S, T>(s, weights, format, numbers, row, columns, out),
            2..4 => some_numbers::<2, S, T>(s, weights, format, numbers, row, columns, out),
            _ => some_numbers::<1, S, T>(s, weights, format, numbers, row, columns, out),
        };
    }
}

/// Sums of the even and of the odd inputs apart, so that additions need not wait for each other.
#[inline(always)]
fn some_numbers<const R: usize, S: Simd, T: Format>(
    s: S,
    weights: &[T::Weights],
    format: T,
    numbers: Numbers<'_>,
    first: usize,
    columns: usize,
    out: &mut Tile<'_, f32>,
) -> usize {
    let x: [&[f32]; R] =
        std::array::from_fn(|row| &numbers.rows[(first + row) * numbers.inputs..][..weights.len()]);
    let mut sums = [[s.splat(0.0); 2]; R];
    let (pairs, rest) = weights.as_chunks::<2>();
    for (n, pair) in pairs.iter().enumerate() {
        for (odd, weights) in pair.iter().enumerate() {
            let w = format.load(s, weights);
            for row in 0..R {
                sums[row][odd] = s.fma(w, s.splat(x[row][2 * n + odd]), sums[row][odd]);
            }
        }
    }
    for (row, [even, odd]) in sums.into_iter().enumerate() {
        let mut sum = s.add(even, odd);
        if let [weights] = rest {
            sum = s.fma(format.load(s, weights), s.splat(x[row][2 * pairs.len()]), sum);
        }
        store(s, sum, &mut out.row(first + row)[columns..]);
    }
    R
}
