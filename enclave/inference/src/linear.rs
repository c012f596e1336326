//! A matrix of weights times rows of activations, shared among the threads of the current pool.

use crate::error::{Error, compute};
use crate::quantized::{Activations, Matrix};
use candle_core::quantized::{QMatMul, QTensor};
use candle_core::{Device, Module, Tensor};
use rayon::prelude::*;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Multiply-adds that one thread takes at a time: enough to be worth handing over.
const WORK_PER_TASK: usize = 100_000;

/// A weight matrix of shape `[outputs, inputs]`, as quantised in the file.
pub(crate) enum Linear {
    /// Types that we compute ourselves.
    Own(Matrix),
    /// The others. candle uses its own threads for them.
    Candle { weights: QMatMul, inputs: usize },
}

impl Linear {
    pub(crate) fn new(weights: Arc<QTensor>) -> Result<Self, Error> {
        if let Some(matrix) = Matrix::new(&weights)? {
            return Ok(Self::Own(matrix));
        }
        let (_, inputs) = weights.shape().dims2().map_err(compute)?;
        Ok(Self::Candle { weights: QMatMul::from_arc(weights).map_err(compute)?, inputs })
    }

    /// `[rows, inputs]` to `[rows, outputs]`. The result of a row depends neither on the other rows nor on threads.
    pub(crate) fn apply(&self, rows: &[f32]) -> Result<Zeroizing<Vec<f32>>, Error> {
        match self {
            Self::Own(matrix) => Ok(multiply(matrix, &Activations::quantize(rows, matrix.inputs()))),
            Self::Candle { weights, inputs } => {
                let input = Tensor::from_slice(rows, (rows.len() / inputs, *inputs), &Device::Cpu)
                    .map_err(compute)?;
                let output = weights.forward(&input).and_then(|out| out.flatten_all()).map_err(compute)?;
                output.to_vec1().map(Zeroizing::new).map_err(compute)
            }
        }
    }
}

fn multiply(matrix: &Matrix, activations: &Activations) -> Zeroizing<Vec<f32>> {
    let (rows, outputs) = (activations.rows(), matrix.outputs());
    // Output by output, so that a weight is fetched once for all rows and threads write apart from each other.
    let mut by_output = Zeroizing::new(vec![0.0; rows * outputs]);
    let per_task = (WORK_PER_TASK / (rows * matrix.inputs()).max(1)).max(1);
    by_output.par_chunks_mut(rows * per_task).enumerate().for_each(|(task, part)| {
        for (index, out) in part.chunks_exact_mut(rows).enumerate() {
            matrix.product(task * per_task + index, activations, out);
        }
    });
    if rows == 1 {
        return by_output;
    }
    let mut by_row = Zeroizing::new(vec![0.0; rows * outputs]);
    for (row, out) in by_row.chunks_exact_mut(outputs).enumerate() {
        out.iter_mut().zip(by_output.iter().skip(row).step_by(rows)).for_each(|(out, x)| *out = *x);
    }
    by_row
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::GgmlDType;

    #[test]
    fn rows_alone_and_together_are_the_same_on_any_number_of_threads() {
        let wave = |len: usize, step: f32| (0..len).map(|i| (i as f32 * step).sin()).collect::<Vec<_>>();
        for kind in [GgmlDType::Q4_1, GgmlDType::Q8_0, GgmlDType::Q5_0] {
            let weights = Tensor::from_vec(wave(500 * 64, 0.37), (500, 64), &Device::Cpu).unwrap();
            let linear = Linear::new(Arc::new(QTensor::quantize(&weights, kind).unwrap())).unwrap();
            let input = wave(9 * 64, 0.13);
            let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let together = pool(1).install(|| linear.apply(&input)).unwrap();
            assert!(together == pool(3).install(|| linear.apply(&input)).unwrap());
            let alone =
                input.chunks(64).flat_map(|row| linear.apply(row).unwrap().to_vec()).collect::<Vec<_>>();
            assert_eq!(*together, alone);
        }
    }
}
