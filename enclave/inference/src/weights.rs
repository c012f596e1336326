//! Tensors as they lie in a model file: bytes, how they encode numbers, and a shape.

use crate::error::{Error, compute};
use candle_core::Device;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use half::{bf16, f16};
use std::borrow::Cow;

/// How the numbers of a tensor are encoded. Names and layouts: `ggml-common.h` of ggml.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Encoding {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// Encodings in which every number stands for itself; all others are of blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Plain {
    F32,
    F16,
    Bf16,
}

impl Encoding {
    /// Which plain encoding this is; none if it is one of blocks.
    pub(crate) fn plain(self) -> Option<Plain> {
        match self {
            Self::F32 => Some(Plain::F32),
            Self::F16 => Some(Plain::F16),
            Self::Bf16 => Some(Plain::Bf16),
            Self::Q4_0
            | Self::Q4_1
            | Self::Q5_0
            | Self::Q5_1
            | Self::Q8_0
            | Self::Q4K
            | Self::Q5K
            | Self::Q6K => None,
        }
    }

    pub(crate) fn of_candle(dtype: GgmlDType) -> Result<Self, Error> {
        Ok(match dtype {
            GgmlDType::F32 => Self::F32,
            GgmlDType::F16 => Self::F16,
            GgmlDType::BF16 => Self::Bf16,
            GgmlDType::Q4_0 => Self::Q4_0,
            GgmlDType::Q4_1 => Self::Q4_1,
            GgmlDType::Q5_0 => Self::Q5_0,
            GgmlDType::Q5_1 => Self::Q5_1,
            GgmlDType::Q8_0 => Self::Q8_0,
            GgmlDType::Q4K => Self::Q4K,
            GgmlDType::Q5K => Self::Q5K,
            GgmlDType::Q6K => Self::Q6K,
            GgmlDType::Q8_1 | GgmlDType::Q2K | GgmlDType::Q3K | GgmlDType::Q8K => {
                return Err(Error::Unsupported {
                    what: "tensor type",
                    name: format!("{dtype:?}"),
                    supported: "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K",
                });
            }
        })
    }

    pub(crate) fn candle(self) -> GgmlDType {
        match self {
            Self::F32 => GgmlDType::F32,
            Self::F16 => GgmlDType::F16,
            Self::Bf16 => GgmlDType::BF16,
            Self::Q4_0 => GgmlDType::Q4_0,
            Self::Q4_1 => GgmlDType::Q4_1,
            Self::Q5_0 => GgmlDType::Q5_0,
            Self::Q5_1 => GgmlDType::Q5_1,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q4K => GgmlDType::Q4K,
            Self::Q5K => GgmlDType::Q5K,
            Self::Q6K => GgmlDType::Q6K,
        }
    }

    /// Numbers per block: a row of a tensor is a whole number of blocks.
    pub(crate) fn block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes per block.
    pub(crate) fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }
}

/// A tensor of a model file. `bytes` has as many as encoding and shape say.
#[derive(Debug, Clone)]
pub(crate) struct RawTensor<'a> {
    pub(crate) encoding: Encoding,
    /// Outermost dimension first.
    pub(crate) shape: Vec<usize>,
    /// Row after row.
    pub(crate) bytes: Cow<'a, [u8]>,
}

impl RawTensor<'_> {
    /// The numbers that are encoded, row after row.
    pub(crate) fn numbers(&self) -> Result<Vec<f32>, Error> {
        // Wherever they lie: candle takes plain floats only where they are aligned, and does not look.
        let halves = || self.bytes.as_chunks().0.iter();
        match self.encoding.plain() {
            Some(Plain::F32) => Ok(self.bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect()),
            Some(Plain::F16) => Ok(halves().map(|x| f16::from_le_bytes(*x).to_f32()).collect()),
            Some(Plain::Bf16) => Ok(halves().map(|x| bf16::from_le_bytes(*x).to_f32()).collect()),
            None => self.dequantised(),
        }
    }

    fn dequantised(&self) -> Result<Vec<f32>, Error> {
        let tensor = qtensor_from_ggml(self.encoding.candle(), &self.bytes, self.shape.clone(), &Device::Cpu);
        let numbers = tensor.and_then(|tensor| tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1());
        numbers.map_err(compute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_floats_are_read_wherever_they_lie() {
        for (encoding, bytes) in [
            (Encoding::F32, [1.5_f32, -2.0].map(f32::to_le_bytes).concat()),
            (Encoding::F16, [1.5, -2.0].map(|x| f16::from_f32(x).to_le_bytes()).concat()),
            (Encoding::Bf16, [1.5, -2.0].map(|x| bf16::from_f32(x).to_le_bytes()).concat()),
        ] {
            for shift in 0..4 {
                let all = [vec![0; shift], bytes.clone()].concat();
                let tensor = RawTensor { encoding, shape: vec![2], bytes: Cow::Borrowed(&all[shift..]) };
                assert_eq!(tensor.numbers().unwrap(), [1.5, -2.0], "{encoding:?} at {shift}");
            }
        }
    }
}
