//! Weights times rows of activations. The result of a row depends neither on the other rows nor on the number of threads: integers
//! add up exactly, and blocks are added in the order of the inputs.

use super::activations::{Activations, Block};
use super::blocks::BLOCK;
use super::lines::Lines;
use super::matrix::{Bits, Kind, Matrix, Quantised, Scales};
use super::numbers::{Brain, Half, Numbers, Single, number_panel};
use super::pool::{Pool, Tile};
use super::simd::{Kernel, LANES, Level, Line, Simd};
use crate::error::Error;

/// Tasks per thread: enough that a thread which is held up does not hold up the others.
const TASKS_PER_THREAD: usize = 6;

/// Several matrices of the same inputs, whose outputs lie side by side, and what is added to them.
pub(crate) struct Linear {
    parts: Vec<Matrix>,
    bias: Option<Vec<f32>>,
    outputs: usize,
}

/// Activations as products take them.
pub(crate) struct Rows<'a> {
    /// `[rows, inputs]`
    pub(crate) numbers: &'a [f32],
    /// The same, quantised, if any matrix is.
    pub(crate) quantised: &'a Activations,
}

impl Linear {
    /// All but the last of `parts` have a multiple of 16 outputs; `bias` has one number per output.
    pub(crate) fn new(parts: Vec<Matrix>, bias: Option<Vec<f32>>) -> Result<Self, Error> {
        let outputs = parts.iter().map(|part| part.outputs).sum();
        let fits = parts.iter().rev().skip(1).all(|part| part.outputs.is_multiple_of(LANES))
            && parts.windows(2).all(|two| two[0].inputs == two[1].inputs)
            && bias.as_ref().is_none_or(|bias| bias.len() == outputs);
        if !fits || parts.is_empty() {
            return Err(Error::Compute("weights that do not fit together".to_owned()));
        }
        Ok(Self { parts, bias, outputs })
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.parts.iter().map(Matrix::bytes).sum()
    }

    /// What all of it that is quantised lies in.
    pub(super) fn lines(&mut self) -> impl Iterator<Item = &mut Lines> {
        self.parts.iter_mut().filter_map(|part| match &mut part.kind {
            Kind::Quantised(weights) => Some(&mut weights.lines),
            Kind::Half(_) | Kind::Brain(_) | Kind::Single(_) => None,
        })
    }

    /// Whether activations must be quantised.
    pub(crate) fn is_quantised(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.kind, Kind::Quantised(_)))
    }

    /// The weights of one output, for embeddings.
    pub(crate) fn row(&self, output: usize, to: &mut [f32]) {
        if let [matrix] = self.parts.as_slice() {
            matrix.row(output, to);
        }
    }

    /// `out`: `[rows, outputs]`.
    pub(crate) fn multiply(&self, pool: &Pool, level: Level, rows: &Rows<'_>, count: usize, out: &mut [f32]) {
        let panels = self.outputs.div_ceil(LANES);
        let per_task = (panels / (pool.threads() * TASKS_PER_THREAD)).max(1);
        pool.tiles(out, self.outputs, &[0, count], per_task * LANES, |_, task, mut tile| {
            let first = task * per_task;
            for panel in first..panels.min(first + per_task) {
                let (matrix, within) = self.part(panel);
                let columns = (panel - first) * LANES;
                level.run(Panel { matrix, panel: within, rows, columns, out: &mut tile });
                self.add_bias(panel, columns, &mut tile);
            }
        });
    }

    /// The matrix that has a panel, and the number of the panel in it.
    fn part(&self, mut panel: usize) -> (&Matrix, usize) {
        for part in &self.parts {
            if panel < part.panels() {
                return (part, panel);
            }
            panel -= part.panels();
        }
        (&self.parts[0], 0) // cannot be: `panel` is below the sum of all
    }

    fn add_bias(&self, panel: usize, columns: usize, out: &mut Tile<'_, f32>) {
        let Some(bias) = &self.bias else { return };
        let bias = &bias[panel * LANES..];
        for row in 0..out.rows() {
            let row = out.row(row)[columns..].iter_mut().take(LANES);
            row.zip(bias).for_each(|(out, bias)| *out += bias);
        }
    }
}

/// 16 outputs of all rows.
struct Panel<'a, 'b> {
    matrix: &'a Matrix,
    panel: usize,
    rows: &'a Rows<'a>,
    columns: usize,
    out: &'a mut Tile<'b, f32>,
}

impl Kernel for Panel<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { matrix, panel, rows, columns, out } = self;
        let inputs = matrix.inputs;
        let numbers = Numbers { rows: rows.numbers, inputs };
        match &matrix.kind {
            Kind::Quantised(weights) => {
                quantised_panel(s, weights, panel, inputs, rows.quantised, columns, out)
            }
            Kind::Half(w) => number_panel(s, &w[panel * inputs..][..inputs], Half, numbers, columns, out),
            Kind::Brain(w) => number_panel(s, &w[panel * inputs..][..inputs], Brain, numbers, columns, out),
            Kind::Single(w) => number_panel(s, &w[panel * inputs..][..inputs], Single, numbers, columns, out),
        }
    }
}

#[inline(always)]
fn quantised_panel<S: Simd>(
    s: S,
    weights: &Quantised,
    panel: usize,
    inputs: usize,
    rows: &Activations,
    columns: usize,
    out: &mut Tile<'_, f32>,
) {
    let blocks = inputs / BLOCK;
    let first = panel * blocks;
    let count = weights.bits.lines();
    let lines = &weights.lines[first * count..][..blocks * count];
    let offset = weights.offset;
    let minima = weights.minima.as_ref();
    match (weights.bits, &weights.scales) {
        (Bits::Four, Scales::Half(scales)) => {
            let minima = minima.and_then(Scales::half).map(|all| &all[first..]);
            let integers =
                Integers { lines: lines.as_chunks::<4>().0, offset, scales: &scales[first..], minima };
            all_rows(s, integers, rows, columns, out);
        }
        (Bits::Four, Scales::Single(scales)) => {
            let minima = minima.and_then(Scales::single).map(|all| &all[first..]);
            let integers =
                Integers { lines: lines.as_chunks::<4>().0, offset, scales: &scales[first..], minima };
            all_rows(s, integers, rows, columns, out);
        }
        (Bits::Eight, Scales::Half(scales)) => {
            let minima = minima.and_then(Scales::half).map(|all| &all[first..]);
            let integers =
                Integers { lines: lines.as_chunks::<8>().0, offset, scales: &scales[first..], minima };
            all_rows(s, integers, rows, columns, out);
        }
        (Bits::Eight, Scales::Single(scales)) => {
            let minima = minima.and_then(Scales::single).map(|all| &all[first..]);
            let integers =
                Integers { lines: lines.as_chunks::<8>().0, offset, scales: &scales[first..], minima };
            all_rows(s, integers, rows, columns, out);
        }
        (_, Scales::Two(scales)) => {
            let halves = Halves { lines: lines.as_chunks::<8>().0, offset, scales: &scales[first..] };
            all_rows(s, halves, rows, columns, out);
        }
    }
}

/// Blocks of one panel.
trait Blocks: Copy {
    fn len(self) -> usize;

    /// Adds the products of a block with the same block of each row.
    fn add<S: Simd, const R: usize>(self, s: S, at: usize, x: &[&Block; R], sums: &mut [S::F; R]);
}

/// Scales as they lie in memory.
trait Scale: Copy {
    fn load<S: Simd>(&self, s: S) -> S::F;
}

impl Scale for [u16; LANES] {
    #[inline(always)]
    fn load<S: Simd>(&self, s: S) -> S::F {
        s.load_f16(self)
    }
}

impl Scale for [f32; LANES] {
    #[inline(always)]
    fn load<S: Simd>(&self, s: S) -> S::F {
        s.load(self)
    }
}

/// One scale, and perhaps one minimum, per block and output. `LINES`: 4 for integers of four bits, 8 for those of eight.
#[derive(Clone, Copy)]
struct Integers<'a, const LINES: usize, T> {
    lines: &'a [[Line; LINES]],
    offset: i32,
    scales: &'a [T],
    minima: Option<&'a [T]>,
}

impl<const LINES: usize, T: Scale> Blocks for Integers<'_, LINES, T> {
    #[inline(always)]
    fn len(self) -> usize {
        self.lines.len()
    }

    #[inline(always)]
    fn add<S: Simd, const R: usize>(self, s: S, at: usize, x: &[&Block; R], sums: &mut [S::F; R]) {
        let mut dots = [s.splat_int(0); R];
        for row in 0..R {
            dots[row] = s.splat_int(-self.offset * (x[row].sums[0] + x[row].sums[1]));
        }
        let lines = &self.lines[at];
        for (n, line) in lines.iter().enumerate() {
            let bytes = s.load_bytes(line);
            if LINES == 4 {
                let (low, high) = (s.low_nibbles(bytes), s.high_nibbles(bytes));
                for row in 0..R {
                    dots[row] = s.dot_nibbles(dots[row], low, x[row].words[2 * n]);
                    dots[row] = s.dot_nibbles(dots[row], high, x[row].words[2 * n + 1]);
                }
            } else {
                for row in 0..R {
                    dots[row] = s.dot(dots[row], bytes, x[row].words[n]);
                }
            }
        }
        let scale = self.scales[at].load(s);
        for row in 0..R {
            sums[row] = s.fma(s.mul(scale, s.splat(x[row].scale)), s.to_float(dots[row]), sums[row]);
        }
        if let Some(minima) = self.minima {
            let minimum = minima[at].load(s);
            for row in 0..R {
                sums[row] = s.fma(minimum, s.splat(x[row].scaled_sum), sums[row]);
            }
        }
    }
}

/// Integers of eight bits with two scales per block and output: of its first and of its last 16 inputs.
#[derive(Clone, Copy)]
struct Halves<'a> {
    lines: &'a [[Line; 8]],
    offset: i32,
    scales: &'a [[[f32; LANES]; 2]],
}

impl Blocks for Halves<'_> {
    #[inline(always)]
    fn len(self) -> usize {
        self.lines.len()
    }

    #[inline(always)]
    fn add<S: Simd, const R: usize>(self, s: S, at: usize, x: &[&Block; R], sums: &mut [S::F; R]) {
        for half in 0..2 {
            let mut dots = [s.splat_int(0); R];
            for row in 0..R {
                dots[row] = s.splat_int(-self.offset * x[row].sums[half]);
            }
            for n in 4 * half..4 * half + 4 {
                let bytes = s.load_bytes(&self.lines[at][n]);
                for row in 0..R {
                    dots[row] = s.dot(dots[row], bytes, x[row].words[n]);
                }
            }
            let scale = s.load(&self.scales[at][half]);
            for row in 0..R {
                sums[row] = s.fma(s.mul(scale, s.splat(x[row].scale)), s.to_float(dots[row]), sums[row]);
            }
        }
    }
}

#[inline(always)]
fn all_rows<S: Simd, B: Blocks>(
    s: S,
    weights: B,
    rows: &Activations,
    columns: usize,
    out: &mut Tile<'_, f32>,
) {
    let mut row = 0;
    while row < out.rows() {
        row += match S::ROWS.min(out.rows() - row) {
            8.. => some_rows::<8, S, B>(s, weights, rows, row, columns, out),
            4..8 => some_rows::<4, S, B>(s, weights, rows, row, columns, out),
            2..4 => some_rows::<2, S, B>(s, weights, rows, row, columns, out),
            _ => some_rows::<1, S, B>(s, weights, rows, row, columns, out),
        };
    }
}

#[inline(always)]
fn some_rows<const R: usize, S: Simd, B: Blocks>(
    s: S,
    weights: B,
    rows: &Activations,
    first: usize,
    columns: usize,
    out: &mut Tile<'_, f32>,
) -> usize {
    let x: [&[Block]; R] = std::array::from_fn(|row| &rows.row(first + row)[..weights.len()]);
    let mut sums = [s.splat(0.0); R];
    #[expect(clippy::needless_range_loop, reason = "of several rows")]
    for at in 0..weights.len() {
        weights.add(s, at, &std::array::from_fn(|row| &x[row][at]), &mut sums);
    }
    for (row, sum) in sums.into_iter().enumerate() {
        store(s, sum, &mut out.row(first + row)[columns..]);
    }
    R
}

/// Sixteen numbers, or as many as there is room for.
#[inline(always)]
pub(super) fn store<S: Simd>(s: S, x: S::F, to: &mut [f32]) {
    match to.first_chunk_mut() {
        Some(to) => s.store(x, to),
        None => {
            let mut all = [0.0; LANES];
            s.store(x, &mut all);
            let len = to.len();
            to.copy_from_slice(&all[..len]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{Encoding, RawTensor};
    use candle_core::quantized::{GgmlDType, QTensor};
    use candle_core::{Device, Tensor};
    use std::borrow::Cow;

    const ENCODINGS: [Encoding; 11] = [
        Encoding::F32,
        Encoding::F16,
        Encoding::Bf16,
        Encoding::Q4_0,
        Encoding::Q4_1,
        Encoding::Q5_0,
        Encoding::Q5_1,
        Encoding::Q8_0,
        Encoding::Q4K,
        Encoding::Q5K,
        Encoding::Q6K,
    ];

    fn wave(len: usize, step: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * step).sin() + 0.1 * (i as f32 * 7.1 * step).cos()).collect()
    }

    fn matrix(encoding: Encoding, outputs: usize, inputs: usize) -> (Matrix, Vec<f32>) {
        let numbers =
            Tensor::from_vec(wave(outputs * inputs, 0.37), (outputs, inputs), &Device::Cpu).unwrap();
        let dtype: GgmlDType = encoding.candle();
        let tensor = QTensor::quantize(&numbers, dtype).unwrap();
        let bytes = Cow::Owned(tensor.data().unwrap().to_vec());
        let exact = tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        (Matrix::new(&RawTensor { encoding, shape: vec![outputs, inputs], bytes }).unwrap(), exact)
    }

    fn product(linear: &Linear, threads: usize, level: Level, rows: &[f32]) -> Vec<f32> {
        let pool = Pool::new(threads).unwrap();
        let mut quantised = Activations::default();
        quantised.quantise(&pool, level, rows, linear.parts[0].inputs);
        let count = rows.len() / linear.parts[0].inputs;
        let mut out = vec![f32::NAN; count * linear.outputs];
        linear.multiply(&pool, level, &Rows { numbers: rows, quantised: &quantised }, count, &mut out);
        out
    }

    #[test]
    fn products_are_near_exact_ones_and_the_same_everywhere() {
        let rows = wave(15 * 512, 0.113);
        for encoding in ENCODINGS {
            let (matrix, exact) = matrix(encoding, 50, 512);
            let linear = Linear::new(vec![matrix], None).unwrap();
            let ours = product(&linear, 1, Level::Portable, &rows);
            for (row, out) in rows.chunks(512).zip(ours.chunks(50)) {
                for (weights, out) in exact.chunks(512).zip(out) {
                    let wanted: f32 = row.iter().zip(weights).map(|(a, b)| a * b).sum();
                    let size: f32 = row.iter().zip(weights).map(|(a, b)| (a * b).abs()).sum();
                    assert!((out - wanted).abs() < 4e-3 * size, "{encoding:?}: {out} {wanted}");
                }
            }
            for level in Level::all() {
                assert!(product(&linear, 3, level, &rows) == ours, "{encoding:?} {level:?}");
                let alone: Vec<f32> =
                    rows.chunks(512).flat_map(|row| product(&linear, 1, level, row)).collect();
                assert!(alone == ours, "{encoding:?} {level:?}: alone");
            }
        }
    }

    #[test]
    fn parts_lie_side_by_side_and_rows_can_be_read_back() {
        let rows = wave(3 * 256, 0.2);
        let parts = [(Encoding::Q4_1, 32), (Encoding::Q8_0, 16), (Encoding::F16, 20)];
        let all = Linear::new(
            parts.map(|(kind, outputs)| matrix(kind, outputs, 256).0).into(),
            Some(wave(68, 1.0)),
        )
        .unwrap();
        let together = product(&all, 2, Level::detect(), &rows);
        let mut column = 0;
        for (encoding, outputs) in parts {
            let (matrix, exact) = matrix(encoding, outputs, 256);
            let mut row = vec![0.0; 256];
            matrix.row(outputs - 1, &mut row);
            assert!(row.iter().zip(&exact[(outputs - 1) * 256..]).all(|(a, b)| (a - b).abs() < 1e-6));
            let bias = wave(68, 1.0)[column..column + outputs].to_vec();
            let alone = product(&Linear::new(vec![matrix], Some(bias)).unwrap(), 1, Level::detect(), &rows);
            for (row, alone) in alone.chunks(outputs).enumerate() {
                assert_eq!(alone, &together[row * 68 + column..][..outputs]);
            }
            column += outputs;
        }
    }
}
