//! Weights in the memory of the GPU, as BF16.

use super::{Buffer, Device};
use crate::error::Error;
use crate::weights::{Encoding, RawTensor};
use half::bf16;

/// Matrices with the same inputs, one below the other.
pub(crate) struct Linear {
    /// `[outputs, inputs]`
    pub(super) weights: Buffer<bf16>,
    pub(super) bias: Option<Buffer<bf16>>,
    pub(super) outputs: usize,
    pub(super) inputs: usize,
}

impl Linear {
    pub(super) fn new(
        device: &Device,
        parts: &[RawTensor<'_>],
        bias: Option<Vec<f32>>,
    ) -> Result<Self, Error> {
        let (mut outputs, mut inputs) = (0, 0);
        for part in parts {
            let &[rows, columns] = part.shape.as_slice() else {
                return Err(Error::Compute("a matrix of other than two dimensions".to_owned()));
            };
            if inputs != 0 && inputs != columns {
                return Err(Error::Compute("matrices of different inputs side by side".to_owned()));
            }
            (outputs, inputs) = (outputs + rows, columns);
        }
        let weights = device.zeros(outputs * inputs)?;
        let mut start = 0;
        for part in parts {
            let numbers = halves(part)?;
            weights.part(start, numbers.len())?.write(&numbers)?;
            start += numbers.len();
        }
        if start != weights.len() || bias.as_ref().is_some_and(|bias| bias.len() != outputs) {
            return Err(Error::Compute("a matrix of another size than its shape".to_owned()));
        }
        let bias = bias.map(|bias| device.upload(&rounded(&bias))).transpose()?;
        Ok(Self { weights, bias, outputs, inputs })
    }

    pub(super) fn bytes(&self) -> usize {
        self.weights.len() * size_of::<bf16>()
    }
}

/// Weights of a normalisation. Those near 1 lie there less 1, for the sake of precision.
pub(crate) struct Vector {
    pub(super) weights: Buffer<bf16>,
    /// Belongs to each weight.
    pub(super) offset: f32,
}

impl Vector {
    pub(super) fn new(device: &Device, numbers: &[f32]) -> Result<Self, Error> {
        let less = |offset: f32| numbers.iter().map(|x| x - offset).collect::<Vec<_>>();
        let lost = |offset: f32| {
            let lost = |x: f32| f64::from(x - bf16::from_f32(x).to_f32()).powi(2);
            less(offset).into_iter().map(lost).sum::<f64>()
        };
        let offset = if lost(1.0) < lost(0.0) { 1.0 } else { 0.0 };
        Ok(Self { weights: device.upload(&rounded(&less(offset)))?, offset })
    }
}

fn halves(tensor: &RawTensor<'_>) -> Result<Vec<bf16>, Error> {
    if tensor.encoding == Encoding::Bf16 {
        return Ok(tensor.bytes.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes)).collect());
    }
    Ok(rounded(&tensor.numbers()?))
}

fn rounded(numbers: &[f32]) -> Vec<bf16> {
    numbers.iter().map(|x| bf16::from_f32(*x)).collect()
}
