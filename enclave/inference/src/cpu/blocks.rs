//! Blocks of quantised numbers as files encode them, taken apart into integers, scales and minima.
//!
//! Layouts: `ggml-common.h` and `dequantize_row_*` of ggml. A number is `scale * (q - offset) + minimum`; the offset is that of the
//! encoding.

use crate::weights::Encoding;
use half::f16;

/// Numbers in a block of ours: those of larger blocks are cut.
pub(crate) const BLOCK: usize = 32;

/// 32 numbers.
pub(crate) struct Block {
    pub(crate) q: [u8; BLOCK],
    /// Of the first and of the last 16 numbers; the same but for Q6_K.
    pub(crate) scale: [f32; 2],
    pub(crate) minimum: f32,
}

/// What is subtracted from the integers of an encoding. `None`: it has no integers.
pub(crate) fn offset(encoding: Encoding) -> Option<i32> {
    match encoding {
        Encoding::F32 | Encoding::F16 | Encoding::Bf16 => None,
        Encoding::Q4_0 => Some(8),
        Encoding::Q5_0 => Some(16),
        Encoding::Q6K => Some(32),
        Encoding::Q8_0 => Some(128),
        Encoding::Q4_1 | Encoding::Q5_1 | Encoding::Q4K | Encoding::Q5K => Some(0),
    }
}

/// The blocks of ours in one block of the file, which has the size that the encoding says.
pub(crate) fn take_apart(encoding: Encoding, bytes: &[u8], mut each: impl FnMut(Block)) {
    match encoding {
        Encoding::F32 | Encoding::F16 | Encoding::Bf16 => (),
        Encoding::Q4_0 => each(plain(nibbles(&bytes[2..]), half(bytes, 0), 0.0)),
        Encoding::Q4_1 => each(plain(nibbles(&bytes[4..]), half(bytes, 0), half(bytes, 2))),
        Encoding::Q5_0 => each(plain(fifth_bits(nibbles(&bytes[6..]), &bytes[2..6]), half(bytes, 0), 0.0)),
        Encoding::Q5_1 => {
            each(plain(fifth_bits(nibbles(&bytes[8..]), &bytes[4..8]), half(bytes, 0), half(bytes, 2)));
        }
        Encoding::Q8_0 => each(plain(std::array::from_fn(|i| bytes[2 + i] ^ 0x80), half(bytes, 0), 0.0)),
        Encoding::Q4K => q4_k(bytes, each),
        Encoding::Q5K => q5_k(bytes, each),
        Encoding::Q6K => q6_k(bytes, each),
    }
}

fn plain(q: [u8; BLOCK], scale: f32, minimum: f32) -> Block {
    Block { q, scale: [scale; 2], minimum }
}

fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// The low halves of 16 bytes, then the high halves.
fn nibbles(bytes: &[u8]) -> [u8; BLOCK] {
    std::array::from_fn(|i| if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 })
}

fn fifth_bits(q: [u8; BLOCK], bits: &[u8]) -> [u8; BLOCK] {
    std::array::from_fn(|i| q[i] | (bits[i / 8] >> (i % 8) & 1) << 4)
}

/// Six-bit scale and minimum of one of eight parts, from twelve bytes.
fn scale_and_minimum(bytes: &[u8], part: usize) -> (f32, f32) {
    let (scale, minimum) = if part < 4 {
        (bytes[part] & 63, bytes[part + 4] & 63)
    } else {
        let (low, high) = (bytes[part + 4], |at: usize| bytes[at] >> 6 << 4);
        (low & 15 | high(part - 4), low >> 4 | high(part))
    };
    (f32::from(scale), f32::from(minimum))
}

fn q4_k(bytes: &[u8], mut each: impl FnMut(Block)) {
    let (scale, minimum) = (half(bytes, 0), half(bytes, 2));
    for part in 0..8 {
        let values = &bytes[16 + part / 2 * 32..][..32];
        let q = std::array::from_fn(|i| if part % 2 == 0 { values[i] & 15 } else { values[i] >> 4 });
        let (s, m) = scale_and_minimum(&bytes[4..16], part);
        each(plain(q, scale * s, -(minimum * m)));
    }
}

fn q5_k(bytes: &[u8], mut each: impl FnMut(Block)) {
    let (scale, minimum) = (half(bytes, 0), half(bytes, 2));
    let high = &bytes[16..48];
    for part in 0..8 {
        let values = &bytes[48 + part / 2 * 32..][..32];
        let q = std::array::from_fn(|i| {
            let low = if part % 2 == 0 { values[i] & 15 } else { values[i] >> 4 };
            low | (high[i] >> part & 1) << 4
        });
        let (s, m) = scale_and_minimum(&bytes[4..16], part);
        each(plain(q, scale * s, -(minimum * m)));
    }
}

fn q6_k(bytes: &[u8], mut each: impl FnMut(Block)) {
    let scale = half(bytes, 208);
    for part in 0..8 {
        let (half, quarter) = (part / 4, part % 4);
        let low = &bytes[half * 64 + quarter % 2 * 32..][..32];
        let high = &bytes[128 + half * 32..][..32];
        let q = std::array::from_fn(|i| {
            let nibble = if quarter < 2 { low[i] & 15 } else { low[i] >> 4 };
            nibble | (high[i] >> (2 * quarter) & 3) << 4
        });
        let scales = [0, 1].map(|i| scale * f32::from(bytes[192 + part * 2 + i].cast_signed()));
        each(Block { q, scale: scales, minimum: 0.0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use candle_core::quantized::ggml_file::qtensor_from_ggml;

    #[test]
    fn numbers_are_those_of_candle() {
        use Encoding::{Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
        for encoding in [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4K, Q5K, Q6K] {
            let count = 3;
            let mut bytes: Vec<u8> =
                (0..count * encoding.block_bytes()).map(|i| u8::try_from(i * 37 % 251).unwrap()).collect();
            // Scales that are numbers.
            for block in bytes.chunks_exact_mut(encoding.block_bytes()) {
                let at = if encoding == Q6K { 208 } else { 0 };
                block[at..at + 2].copy_from_slice(&f16::from_f32(0.37).to_le_bytes());
                if offset(encoding) == Some(0) {
                    block[2..4].copy_from_slice(&f16::from_f32(-1.25).to_le_bytes());
                }
            }
            let mut ours = Vec::new();
            let off = offset(encoding).unwrap();
            for block in bytes.chunks_exact(encoding.block_bytes()) {
                take_apart(encoding, block, |block| {
                    ours.extend(
                        (0..BLOCK).map(|i| {
                            block.scale[i / 16] * (i32::from(block.q[i]) - off) as f32 + block.minimum
                        }),
                    );
                });
            }
            let shape = vec![count * encoding.block()];
            let theirs = qtensor_from_ggml(encoding.candle(), &bytes, shape, &Device::Cpu).unwrap();
            let theirs: Vec<f32> = theirs.dequantize(&Device::Cpu).unwrap().to_vec1().unwrap();
            assert_eq!(ours.len(), theirs.len());
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert!(
                    (ours - theirs).abs() <= 1e-5 * theirs.abs().max(1.0),
                    "{encoding:?}: {ours} {theirs}"
                );
            }
        }
    }
}
