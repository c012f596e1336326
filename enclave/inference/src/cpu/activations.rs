//! Rows of activations in blocks of 8-bit integers, as llama.cpp quantises them before a product (`quantize_row_q8_1` in ggml).

use super::blocks::BLOCK;
use super::pool::Pool;
use super::simd::{Kernel, LANES, Level, Simd};
use zeroize::{Zeroize, Zeroizing};

/// 32 numbers: integers between -127 and 127 times a scale.
#[derive(Clone, Copy, Default)]
pub(crate) struct Block {
    /// Four integers each, the first in the lowest byte.
    pub(crate) words: [i32; BLOCK / 4],
    pub(crate) scale: f32,
    /// Scale times the sum of the integers.
    pub(crate) scaled_sum: f32,
    /// Sums of the first and of the last 16 integers.
    pub(crate) sums: [i32; 2],
}

impl Zeroize for Block {
    fn zeroize(&mut self) {
        self.words.zeroize();
        (self.scale, self.scaled_sum, self.sums) = (0.0, 0.0, [0; 2]);
    }
}

/// Rows that were quantised; the memory is used again for the next ones.
#[derive(Default)]
pub(crate) struct Activations {
    blocks: Zeroizing<Vec<Block>>,
    per_row: usize,
}

impl Activations {
    /// `rows`: `[.., width]`; `width` is a multiple of the block.
    pub(crate) fn quantise(&mut self, pool: &Pool, level: Level, rows: &[f32], width: usize) {
        self.per_row = width / BLOCK;
        let wanted = rows.len() / BLOCK;
        if self.blocks.len() < wanted {
            self.blocks = Zeroizing::new(vec![Block::default(); wanted]);
        }
        let count = rows.len() / width;
        let per_task = count.div_ceil(pool.threads()).max(ROWS_PER_TASK);
        let bounds: Vec<usize> = (0..count).step_by(per_task).chain([count]).collect();
        pool.tiles(&mut self.blocks, self.per_row, &bounds, self.per_row, |part, _, mut tile| {
            for row in 0..tile.rows() {
                let from = &rows[(bounds[part] + row) * width..][..width];
                level.run(Quantise { from, to: tile.row(row) });
            }
        });
    }

    pub(crate) fn row(&self, row: usize) -> &[Block] {
        &self.blocks[row * self.per_row..][..self.per_row]
    }

    pub(crate) fn wipe(&mut self) {
        self.blocks.iter_mut().for_each(Zeroize::zeroize);
    }
}

/// Blocks without a larger number are zero: their scale is none of 16 bits, and the inverse of it may be none of 32.
const SMALLEST: f32 = 1e-30;
/// Less is not worth handing over.
const ROWS_PER_TASK: usize = 8;

struct Quantise<'a> {
    from: &'a [f32],
    to: &'a mut [Block],
}

impl Kernel for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (from, to) in self.from.as_chunks::<BLOCK>().0.iter().zip(self.to) {
            let halves = from.as_chunks::<LANES>().0;
            let (a, b) = (s.load(&halves[0]), s.load(&halves[1]));
            let max = s.largest(s.max(s.abs(a), s.abs(b)));
            // What is not a finite number times 0 is not a number.
            let zero = s.splat(0.0);
            let finite = !s.sum(s.fma(a, zero, s.mul(b, zero))).is_nan();
            let inverse = s.splat(if finite && max > SMALLEST { 127.0 / max } else { 0.0 });
            let mut q = [[0; LANES]; 2];
            s.store_int(s.round(s.mul(a, inverse)), &mut q[0]);
            s.store_int(s.round(s.mul(b, inverse)), &mut q[1]);
            for (word, four) in to.words.iter_mut().zip(q.as_flattened().as_chunks::<4>().0) {
                *word = i32::from_le_bytes(four.map(|q| q.to_le_bytes()[0]));
            }
            // Of what is not a number the integers mean nothing: the scale, which is none either, makes it none again.
            to.sums = if finite { q.map(|half| half.iter().sum()) } else { [0; 2] };
            let scale = if finite { max / 127.0 } else { f32::NAN };
            let mut rounded = [0; LANES];
            let mut values = [0.0; LANES];
            values[0] = scale;
            values[1] = scale * (to.sums[0] + to.sums[1]) as f32;
            s.store_f16(s.load(&values), &mut rounded);
            s.store(s.load_f16(&rounded), &mut values);
            (to.scale, to.scaled_sum) = (values[0], values[1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_stays_none_on_every_processor() {
        let pool = Pool::new(1).unwrap();
        for (index, odd) in [(3, f32::NAN), (20, f32::NAN), (7, f32::INFINITY), (31, f32::NEG_INFINITY)] {
            let mut row = vec![1.0; 64];
            row[index] = odd;
            for level in Level::all() {
                let mut blocks = Activations::default();
                blocks.quantise(&pool, level, &row, 64);
                let [first, second] = blocks.row(0) else { panic!("two blocks") };
                assert!(
                    first.scale.is_nan() && first.scaled_sum.is_nan() && first.sums == [0; 2],
                    "{level:?} {odd}"
                );
                assert!(second.scale > 0.0);
            }
        }
        let mut blocks = Activations::default();
        blocks.quantise(&pool, Level::detect(), &[1e-38; 32], 32);
        assert_eq!((blocks.row(0)[0].words, blocks.row(0)[0].sums), ([0; 8], [0; 2]));
    }

    #[test]
    fn blocks_are_the_same_on_every_processor_and_near_the_numbers() {
        let rows: Vec<f32> = (0..5 * 64).map(|i| (i as f32 * 0.37).sin() * i as f32).collect();
        let pool = Pool::new(2).unwrap();
        let mut portable = Activations::default();
        portable.quantise(&pool, Level::Portable, &rows, 64);
        for level in Level::all() {
            let mut ours = Activations::default();
            ours.quantise(&pool, level, &rows, 64);
            for row in 0..5 {
                for (index, (a, b)) in ours.row(row).iter().zip(portable.row(row)).enumerate() {
                    assert!(
                        (a.words, a.scale, a.scaled_sum, a.sums) == (b.words, b.scale, b.scaled_sum, b.sums)
                    );
                    for i in 0..BLOCK {
                        let q = a.words[i / 4].to_le_bytes()[i % 4].cast_signed();
                        let wanted = rows[row * 64 + index * BLOCK + i];
                        assert!((f32::from(q) * a.scale - wanted).abs() <= 0.51 * a.scale, "{level:?}");
                    }
                }
            }
        }
    }
}
