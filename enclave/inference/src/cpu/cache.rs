//! Keys and values of all sequences, in blocks of 16 positions, as 16-bit floats.
//!
//! A key-value head of a layer has its own memory, so that threads can write heads side by side. In a block, keys lie with 16
//! positions of one dimension side by side (scores of 16 positions are one vector), values with the dimensions of one position.

use super::pool::Pool;
use super::simd::{Kernel, LANES, Level, Simd};
use crate::backend::BLOCK_TOKENS;
use zeroize::Zeroize;

// A vector of numbers is of the positions of a block.
const _: () = assert!(BLOCK_TOKENS == LANES);

/// The largest 16-bit float.
const MOST: f32 = 65504.0;

/// Memory for the blocks.
pub(crate) struct Cache {
    heads: Vec<Head>,
    per_layer: usize,
    dim: usize,
    /// Blocks that are not all zero.
    written: Vec<bool>,
}

struct Head {
    keys: Vec<u16>,
    values: Vec<u16>,
}

/// Where the key and value of one row go.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) block: u32,
    pub(crate) within: usize,
}

/// One head of one layer.
#[derive(Clone, Copy)]
pub(crate) struct HeadView<'a> {
    keys: &'a [u16],
    values: &'a [u16],
    dim: usize,
}

impl Cache {
    /// `dim` is a multiple of 16.
    pub(crate) fn new(layers: usize, heads: usize, dim: usize, blocks: usize) -> Self {
        let len = blocks * BLOCK_TOKENS * dim;
        // Zeroed memory that nobody wrote to takes no space yet.
        let head = |_| Head { keys: vec![0; len], values: vec![0; len] };
        Self {
            heads: (0..layers * heads).map(head).collect(),
            per_layer: heads,
            dim,
            written: vec![false; blocks],
        }
    }

    pub(crate) fn head(&self, layer: usize, head: usize) -> HeadView<'_> {
        let Head { keys, values } = &self.heads[layer * self.per_layer + head];
        HeadView { keys, values, dim: self.dim }
    }

    /// Writes keys and values of rows. `rows`: of width `width`, keys from column `keys`, values from column `values`.
    pub(crate) fn write(
        &mut self,
        pool: &Pool,
        level: Level,
        layer: usize,
        slots: &[Slot],
        rows: &Written<'_>,
    ) {
        let dim = self.dim;
        slots.iter().for_each(|slot| self.written[slot.block as usize] = true);
        let heads = &mut self.heads[layer * self.per_layer..][..self.per_layer];
        pool.each(heads, |index, head| {
            for (slot, row) in slots.iter().zip(rows.rows.chunks_exact(rows.width)) {
                let block = slot.block as usize * BLOCK_TOKENS * dim;
                let keys = &mut head.keys[block..][..BLOCK_TOKENS * dim];
                let values = &mut head.values[block + slot.within * dim..][..dim];
                let key = &row[rows.keys + index * dim..][..dim];
                let value = &row[rows.values + index * dim..][..dim];
                level.run(WriteRow { key, value, keys, values, within: slot.within });
            }
        });
    }

    /// Overwrites blocks that no sequence has any more.
    pub(crate) fn wipe(&mut self, blocks: &[u32]) {
        let len = BLOCK_TOKENS * self.dim;
        for head in &mut self.heads {
            for block in blocks {
                let range = *block as usize * len..(*block as usize + 1) * len;
                head.keys[range.clone()].zeroize();
                head.values[range].zeroize();
            }
        }
        blocks.iter().for_each(|block| self.written[*block as usize] = false);
    }
}

impl Drop for Cache {
    /// Wipes what was written; memory that never was is not touched.
    fn drop(&mut self) {
        let written: Vec<u32> =
            (0..).zip(&self.written).filter(|(_, written)| **written).map(|(block, _)| block).collect();
        self.wipe(&written);
    }
}

/// Rows with keys and values in them.
pub(crate) struct Written<'a> {
    pub(crate) rows: &'a [f32],
    pub(crate) width: usize,
    /// Column of the first key.
    pub(crate) keys: usize,
    /// Column of the first value.
    pub(crate) values: usize,
}

struct WriteRow<'a> {
    key: &'a [f32],
    value: &'a [f32],
    keys: &'a mut [u16],
    values: &'a mut [u16],
    within: usize,
}

impl Kernel for WriteRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // Never infinite: rows before this one multiply what they do not see with 0.
        let bounded = |from: &[f32; LANES]| from.map(|x| x.clamp(-MOST, MOST));
        let value = self.value.as_chunks::<LANES>().0;
        for (from, to) in value.iter().zip(self.values.as_chunks_mut::<LANES>().0) {
            s.store_f16(s.load(&bounded(from)), to);
        }
        let key = self.key.as_chunks::<LANES>().0;
        let mut rounded = [0; LANES];
        for (from, to) in key.iter().zip(self.keys.as_chunks_mut::<{ LANES * LANES }>().0) {
            s.store_f16(s.load(&bounded(from)), &mut rounded);
            for (lane, x) in rounded.iter().enumerate() {
                to[lane * BLOCK_TOKENS + self.within] = *x;
            }
        }
    }
}

impl<'a> HeadView<'a> {
    /// Per dimension: the keys of 16 positions.
    #[inline(always)]
    pub(crate) fn keys(self, block: u32) -> &'a [[u16; LANES]] {
        let len = BLOCK_TOKENS * self.dim;
        self.keys[block as usize * len..][..len].as_chunks().0
    }

    /// The value of one position, 16 dimensions each.
    #[inline(always)]
    pub(crate) fn value(self, block: u32, within: usize) -> &'a [[u16; LANES]] {
        self.values[(block as usize * BLOCK_TOKENS + within) * self.dim..][..self.dim].as_chunks().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_land_where_they_are_read_and_wiped_blocks_are_zero() {
        let (pool, dim) = (Pool::new(2).unwrap(), 32);
        for level in Level::all() {
            let mut cache = Cache::new(2, 3, dim, 4);
            let row: Vec<f32> = (0..6 * 32).map(|i| i as f32 + 1.0).collect();
            let slots = [Slot { block: 2, within: 5 }];
            let rows = Written { rows: &row, width: row.len(), keys: 0, values: 3 * dim };
            cache.write(&pool, level, 1, &slots, &rows);
            for head in 0..3 {
                let view = cache.head(1, head);
                let numbers = |bits: &u16| half::f16::from_bits(*bits).to_f32();
                let key: Vec<f32> = view.keys(2).iter().map(|lanes| numbers(&lanes[5])).collect();
                let value: Vec<f32> = view.value(2, 5).as_flattened().iter().map(numbers).collect();
                assert_eq!(key, row[head * dim..][..dim]);
                assert_eq!(value, row[(3 + head) * dim..][..dim]);
                assert!(view.keys(2).iter().all(|lanes| lanes[4] == 0 && lanes[6] == 0));
            }
            cache.wipe(&[2]);
            let zero = |head: &Head| head.keys.iter().chain(&head.values).all(|x| *x == 0);
            assert!(cache.heads.iter().all(zero) && !cache.written[2]);
        }
    }
}
