//! The keys and values of one sequence, in blocks that are added as it grows and wiped when it goes.

use zeroize::Zeroizing;

/// Positions per block: small enough that a short conversation takes little, large enough that blocks are few.
const BLOCK: usize = 16;

/// Keys and values of all layers. Position `p` lies in block `p / BLOCK`; within it: layer, key or value, position.
pub(crate) struct KvCache {
    blocks: Vec<Zeroizing<Vec<f32>>>,
    layers: usize,
    width: usize,
    len: usize,
}

/// Which of the two vectors of a position.
#[derive(Clone, Copy)]
pub(crate) enum Half {
    Key = 0,
    Value = 1,
}

impl KvCache {
    /// `width`: floats per key, that is heads times their dimension.
    pub(crate) fn new(layers: usize, width: usize) -> Self {
        Self { blocks: Vec::new(), layers, width, len: 0 }
    }

    /// Positions written and committed.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Makes room for positions below `len`.
    pub(crate) fn reserve(&mut self, len: usize) {
        while self.blocks.len() * BLOCK < len {
            self.blocks.push(Zeroizing::new(vec![0.0; self.layers * 2 * BLOCK * self.width]));
        }
    }

    /// Declares positions below `len` as written in all layers.
    pub(crate) fn commit(&mut self, len: usize) {
        self.len = len;
    }

    /// The vector of one reserved position.
    pub(crate) fn at(&self, layer: usize, half: Half, position: usize) -> &[f32] {
        let start = self.offset(layer, half, position);
        &self.blocks[position / BLOCK][start..start + self.width]
    }

    pub(crate) fn write(&mut self, layer: usize, half: Half, position: usize, vector: &[f32]) {
        let start = self.offset(layer, half, position);
        self.blocks[position / BLOCK][start..start + self.width].copy_from_slice(vector);
    }

    fn offset(&self, layer: usize, half: Half, position: usize) -> usize {
        ((layer * 2 + half as usize) * BLOCK + position % BLOCK) * self.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_do_not_overlap_across_blocks_and_layers() {
        let mut kv = KvCache::new(2, 3);
        kv.reserve(BLOCK + 1);
        let mut tag = 0.0;
        for position in 0..=BLOCK {
            for layer in 0..2 {
                for half in [Half::Key, Half::Value] {
                    kv.write(layer, half, position, &[tag, tag + 0.25, tag + 0.5]);
                    tag += 1.0;
                }
            }
        }
        assert_eq!(kv.at(0, Half::Key, 0), [0.0, 0.25, 0.5]);
        assert_eq!(kv.at(1, Half::Value, BLOCK), [tag - 1.0, tag - 0.75, tag - 0.5]);
        assert_eq!(kv.at(0, Half::Value, 1), [5.0, 5.25, 5.5]);
        assert_eq!(kv.blocks.len(), 2);
    }
}
