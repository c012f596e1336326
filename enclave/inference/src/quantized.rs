//! Products of quantised weights (Q4_1, Q8_0) with activations that are quantised to eight bits, as llama.cpp does it.
//!
//! candle computes the same products, but rounds the sums of its activation blocks differently (so that near ties in
//! the scores fall otherwise than in llama.cpp), does Q4_1 without vector instructions, and takes its thread count from
//! the environment. Block formats: `ggml-common.h`; quantisation: `quantize_row_q8_1` in ggml.

use crate::error::{Error, compute};
use candle_core::quantized::{GgmlDType, QTensor};
use half::f16;
use zeroize::Zeroizing;

/// Values per block.
const BLOCK: usize = 32;

/// Rows of activations in blocks of 8-bit values.
pub(crate) struct Activations {
    /// 8-bit values, widened once so that products need no conversion.
    values: Zeroizing<Vec<i16>>,
    /// Per block: scale, and scale times the sum of the values.
    scales: Zeroizing<Vec<[f32; 2]>>,
    width: usize,
}

impl Activations {
    /// `rows`: `[.., width]`; `width` is a multiple of the block.
    pub(crate) fn quantize(rows: &[f32], width: usize) -> Self {
        let mut values = Zeroizing::new(vec![0; rows.len()]);
        let mut scales = Zeroizing::new(vec![[0.0; 2]; rows.len() / BLOCK]);
        let blocks = rows.as_chunks::<BLOCK>().0.iter().zip(values.as_chunks_mut::<BLOCK>().0);
        for ((block, values), scales) in blocks.zip(scales.iter_mut()) {
            let max = block.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
            let scale = max / 127.0;
            let inverse = if max == 0.0 { 0.0 } else { 127.0 / max };
            let mut sum = 0;
            for (value, x) in values.iter_mut().zip(block) {
                *value = round(x * inverse);
                sum += i32::from(*value);
            }
            *scales = [half(scale), half(scale * sum as f32)];
        }
        Self { values, scales, width }
    }

    pub(crate) fn rows(&self) -> usize {
        self.values.len() / self.width
    }
}

/// To the nearest integer, ties to even, for numbers between -2^22 and 2^22. Faster than `round_ties_even`, which is a
/// call into libm on the x86-64 that we build for.
fn round(x: f32) -> i16 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 * 2^23: the unit in the last place is 1
    #[expect(clippy::cast_possible_truncation, reason = "between -127 and 127; NaN becomes 0")]
    let rounded = ((x + SHIFT) - SHIFT) as i16;
    rounded
}

fn half(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

/// Weights of one block: scale and minimum beside the `N` bytes that they apply to, so that memory is read in order.
struct Block<const N: usize> {
    scale: f32,
    minimum: f32,
    quants: [u8; N],
}

enum Blocks {
    /// 4-bit values, those of the first half of a block in the low bits.
    Q4_1(Vec<Block<16>>),
    /// Signed bytes; no minimum.
    Q8_0(Vec<Block<32>>),
}

/// A matrix `[outputs, inputs]` of quantised weights.
pub(crate) struct Matrix {
    blocks: Blocks,
    outputs: usize,
    inputs: usize,
}

impl Matrix {
    /// Takes a tensor of a type that this file computes; nothing for others.
    pub(crate) fn new(tensor: &QTensor) -> Result<Option<Self>, Error> {
        let (outputs, inputs) = tensor.shape().dims2().map_err(compute)?;
        let data = tensor.data().map_err(compute)?;
        let blocks = if tensor.dtype() == GgmlDType::Q4_1 {
            let block = |bytes: &[u8; 20]| {
                let [s0, s1, m0, m1, quants @ ..] = *bytes;
                Block { scale: from_half([s0, s1]), minimum: from_half([m0, m1]), quants }
            };
            Blocks::Q4_1(data.as_chunks().0.iter().map(block).collect())
        } else if tensor.dtype() == GgmlDType::Q8_0 {
            let block = |bytes: &[u8; 34]| {
                let [s0, s1, quants @ ..] = *bytes;
                Block { scale: from_half([s0, s1]), minimum: 0.0, quants }
            };
            Blocks::Q8_0(data.as_chunks().0.iter().map(block).collect())
        } else {
            return Ok(None);
        };
        Ok(Some(Self { blocks, outputs, inputs }))
    }

    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// One output for all rows.
    pub(crate) fn product(&self, output: usize, activations: &Activations, out: &mut [f32]) {
        let count = self.inputs / BLOCK;
        let part = output * count..(output + 1) * count;
        let values = activations.values.as_chunks::<BLOCK>().0.chunks_exact(count);
        let rows = values.zip(activations.scales.chunks_exact(count));
        match &self.blocks {
            Blocks::Q4_1(blocks) => {
                let blocks = &blocks[part];
                rows.zip(out).for_each(|((values, scales), out)| *out = dot_q4_1(blocks, values, scales));
            }
            Blocks::Q8_0(blocks) => {
                let blocks = &blocks[part];
                rows.zip(out).for_each(|((values, scales), out)| *out = dot_q8_0(blocks, values, scales));
            }
        }
    }
}

fn from_half(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

/// Cannot overflow: 32 products of at most 128 * 127. Wrapping, because checks keep debug builds from using vector
/// instructions.
fn add_product(sum: i32, a: i16, b: i16) -> i32 {
    sum.wrapping_add(i32::from(a).wrapping_mul(i32::from(b)))
}

fn dot_q4_1(blocks: &[Block<16>], values: &[[i16; BLOCK]], scales: &[[f32; 2]]) -> f32 {
    let (mut products, mut minima) = (0.0, 0.0);
    for ((block, values), [scale, sum]) in blocks.iter().zip(values).zip(scales) {
        let (low, high) = values.split_at(16);
        let mut dot = 0;
        for ((quant, low), high) in block.quants.iter().zip(low).zip(high) {
            dot = add_product(dot, i16::from(quant & 15), *low);
            dot = add_product(dot, i16::from(quant >> 4), *high);
        }
        products += block.scale * scale * dot as f32;
        minima += block.minimum * sum;
    }
    products + minima
}

fn dot_q8_0(blocks: &[Block<32>], values: &[[i16; BLOCK]], scales: &[[f32; 2]]) -> f32 {
    let mut products = 0.0;
    for ((block, values), [scale, _]) in blocks.iter().zip(values).zip(scales) {
        let mut dot = 0;
        for (quant, value) in block.quants.iter().zip(values) {
            dot = add_product(dot, i16::from(quant.cast_signed()), *value);
        }
        products += block.scale * scale * dot as f32;
    }
    products
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::QMatMul;
    use candle_core::{Device, Module, Tensor};

    fn wave(len: usize, step: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * step).sin() + 0.3).collect()
    }

    #[test]
    fn products_agree_with_candle() {
        for kind in [GgmlDType::Q4_1, GgmlDType::Q8_0] {
            let (outputs, inputs, rows) = (6, 128, 3);
            let weights =
                Tensor::from_vec(wave(outputs * inputs, 0.37), (outputs, inputs), &Device::Cpu).unwrap();
            let tensor = QTensor::quantize(&weights, kind).unwrap();
            let matrix = Matrix::new(&tensor).unwrap().unwrap();
            assert_eq!((matrix.outputs(), matrix.inputs()), (outputs, inputs));
            let input = wave(rows * inputs, 0.11);
            let activations = Activations::quantize(&input, inputs);
            assert_eq!(activations.rows(), rows);
            let wanted = QMatMul::from_qtensor(tensor).unwrap();
            let wanted =
                wanted.forward(&Tensor::from_vec(input, (rows, inputs), &Device::Cpu).unwrap()).unwrap();
            let wanted = wanted.to_vec2::<f32>().unwrap();
            for output in 0..outputs {
                let mut out = vec![0.0; rows];
                matrix.product(output, &activations, &mut out);
                for (got, wanted) in out.iter().zip(&wanted) {
                    let want = wanted[output];
                    assert!((got - want).abs() < 0.02 + 0.002 * want.abs(), "{kind:?}: {got} {want}");
                }
            }
        }
    }

    #[test]
    fn other_types_are_left_to_candle() {
        let weights = Tensor::from_vec(wave(64, 0.37), (2, 32), &Device::Cpu).unwrap();
        assert!(Matrix::new(&QTensor::quantize(&weights, GgmlDType::Q5_0).unwrap()).unwrap().is_none());
    }

    #[test]
    fn rounding_is_to_nearest_ties_to_even() {
        for (x, wanted) in
            [(0.5, 0), (1.5, 2), (-0.5, 0), (-1.5, -2), (126.6, 127), (-127.0, -127), (0.49, 0)]
        {
            assert_eq!(round(x), wanted, "{x}");
        }
        assert_eq!(round(f32::NAN), 0);
    }

    #[test]
    fn a_block_of_zeros_stays_zero() {
        let activations = Activations::quantize(&[0.0; 32], 32);
        assert!(activations.values.iter().all(|value| *value == 0));
        assert_eq!(activations.scales[0], [0.0, 0.0]);
    }
}
