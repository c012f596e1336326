//! Weights, laid out for the kernels: panels of 16 outputs, so that one vector has the weights of 16 outputs for the same inputs.

use super::blocks::{BLOCK, Block, offset, take_apart};
use super::lines::Lines;
use super::simd::{LANES, Line};
use crate::error::Error;
use crate::weights::{Encoding, Plain, RawTensor};
use half::f16;

/// A matrix of weights, `[outputs, inputs]`.
pub(crate) struct Matrix {
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    /// Integers with a scale per block of 32 inputs.
    Quantised(Quantised),
    /// Per panel and input: 16 numbers.
    Half(Vec<[u16; LANES]>),
    /// As `Half`, as bfloat16.
    Brain(Vec<[u16; LANES]>),
    /// As `Half`, as `f32`.
    Single(Vec<[f32; LANES]>),
}

/// Per panel and block: integers, scales and minima of 16 outputs.
pub(crate) struct Quantised {
    pub(crate) bits: Bits,
    /// Subtracted from every integer.
    pub(crate) offset: i32,
    pub(crate) lines: Lines,
    pub(crate) scales: Scales,
    pub(crate) minima: Option<Scales>,
}

/// How wide the integers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bits {
    /// Four lines a block. In line `n`, lane `o`, byte `b`: input `8n + b` in the low half, `8n + 4 + b` in the high half.
    Four,
    /// Eight lines a block. In line `n`, lane `o`, byte `b`: input `4n + b`.
    Eight,
}

impl Bits {
    pub(crate) fn lines(self) -> usize {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }
}

/// Scales or minima.
pub(crate) enum Scales {
    Half(Vec<[u16; LANES]>),
    Single(Vec<[f32; LANES]>),
    /// Two for a block: of its first and its last 16 inputs.
    Two(Vec<[[f32; LANES]; 2]>),
}

impl Matrix {
    /// Lays a tensor out. Numbers stay as they are; only integers of 5 and 6 bits get 8.
    pub(crate) fn new(tensor: &RawTensor<'_>) -> Result<Self, Error> {
        let &[outputs, inputs] = tensor.shape.as_slice() else {
            return Err(Error::Compute(format!("a matrix of {} dimensions", tensor.shape.len())));
        };
        let row_bytes = inputs / tensor.encoding.block() * tensor.encoding.block_bytes();
        if row_bytes == 0 || tensor.bytes.len() != outputs * row_bytes {
            return Err(Error::Compute("a matrix of another size than its shape".to_owned()));
        }
        let rows: Vec<&[u8]> = tensor.bytes.chunks_exact(row_bytes).collect();
        let kind = match tensor.encoding.plain() {
            Some(Plain::F32) => {
                Kind::Single(panels(&rows, inputs, |bytes: [u8; 4]| f32::from_le_bytes(bytes)))
            }
            Some(Plain::F16) => Kind::Half(panels(&rows, inputs, u16::from_le_bytes)),
            Some(Plain::Bf16) => Kind::Brain(panels(&rows, inputs, u16::from_le_bytes)),
            None => Kind::Quantised(Quantised::new(tensor.encoding, &rows, inputs)),
        };
        Ok(Self { outputs, inputs, kind })
    }

    /// Panels of 16 outputs; the last may have fewer, the rest of it is zero.
    pub(crate) fn panels(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        match &self.kind {
            Kind::Half(x) | Kind::Brain(x) => size_of_val(x.as_slice()),
            Kind::Single(x) => size_of_val(x.as_slice()),
            Kind::Quantised(q) => {
                size_of_val(&*q.lines) + q.scales.bytes() + q.minima.as_ref().map_or(0, Scales::bytes)
            }
        }
    }

    /// The weights of one output as numbers, for embeddings. `to` has as many as there are inputs.
    pub(crate) fn row(&self, output: usize, to: &mut [f32]) {
        let (panel, lane) = (output / LANES, output % LANES);
        let column = |at: usize| panel * self.inputs + at;
        match &self.kind {
            Kind::Half(x) => each(to, |i| f16::from_bits(x[column(i)][lane]).to_f32()),
            Kind::Brain(x) => each(to, |i| f32::from_bits(u32::from(x[column(i)][lane]) << 16)),
            Kind::Single(x) => each(to, |i| x[column(i)][lane]),
            Kind::Quantised(q) => q.row(panel * (self.inputs / BLOCK), lane, to),
        }
    }
}

fn each(to: &mut [f32], value: impl Fn(usize) -> f32) {
    to.iter_mut().enumerate().for_each(|(i, to)| *to = value(i));
}

/// Numbers of `N` bytes, 16 rows side by side.
fn panels<const N: usize, T: Copy + Default>(
    rows: &[&[u8]],
    inputs: usize,
    number: impl Fn([u8; N]) -> T,
) -> Vec<[T; LANES]> {
    let mut all = vec![[T::default(); LANES]; rows.len().div_ceil(LANES) * inputs];
    for (rows, panel) in rows.chunks(LANES).zip(all.chunks_exact_mut(inputs)) {
        for (lane, row) in rows.iter().enumerate() {
            row.as_chunks::<N>()
                .0
                .iter()
                .zip(panel.iter_mut())
                .for_each(|(bytes, to)| to[lane] = number(*bytes));
        }
    }
    all
}

impl Quantised {
    fn new(encoding: Encoding, rows: &[&[u8]], inputs: usize) -> Self {
        let blocks = inputs / BLOCK;
        let panels = rows.len().div_ceil(LANES);
        let bits = if matches!(encoding, Encoding::Q4_0 | Encoding::Q4_1 | Encoding::Q4K) {
            Bits::Four
        } else {
            Bits::Eight
        };
        let offset = offset(encoding).unwrap_or(0);
        // Outputs that only fill the last panel up have scale 0.
        let mut all = Self {
            bits,
            offset,
            lines: Lines::default(),
            scales: Scales::new(encoding, panels * blocks),
            minima: (offset == 0).then(|| Scales::minima(encoding, panels * blocks)),
        };
        let mut packed = vec![[0; 64]; panels * blocks * bits.lines()];
        for (output, row) in rows.iter().enumerate() {
            let mut at = output / LANES * blocks;
            for bytes in row.chunks_exact(encoding.block_bytes()) {
                take_apart(encoding, bytes, |block| {
                    all.put(&mut packed, at, output % LANES, &block);
                    at += 1;
                });
            }
        }
        Self { lines: Lines::from(packed), ..all }
    }

    fn put(&mut self, packed: &mut [Line], at: usize, lane: usize, block: &Block) {
        let lines = self.bits.lines();
        for (n, line) in packed[at * lines..(at + 1) * lines].iter_mut().enumerate() {
            for b in 0..4 {
                line[lane * 4 + b] = match self.bits {
                    Bits::Four => block.q[8 * n + b] | block.q[8 * n + 4 + b] << 4,
                    Bits::Eight => block.q[4 * n + b],
                };
            }
        }
        self.scales.put(at, lane, block.scale);
        if let Some(minima) = &mut self.minima {
            minima.put(at, lane, [block.minimum; 2]);
        }
    }

    fn row(&self, first: usize, lane: usize, to: &mut [f32]) {
        for (n, block) in to.chunks_exact_mut(BLOCK).enumerate() {
            let at = first + n;
            let lines = &self.lines[at * self.bits.lines()..];
            let [low, high] = self.scales.get(at, lane);
            let minimum = self.minima.as_ref().map_or(0.0, |minima| minima.get(at, lane)[0]);
            each(block, |i| {
                let q = match self.bits {
                    Bits::Four => lines[i / 8][lane * 4 + i % 4] >> (i / 4 % 2 * 4) & 15,
                    Bits::Eight => lines[i / 4][lane * 4 + i % 4],
                };
                let scale = if i < BLOCK / 2 { low } else { high };
                (i32::from(q) - self.offset) as f32 * scale + minimum
            });
        }
    }
}

impl Scales {
    /// Large blocks have scales that are products of two numbers, which need 32 bits.
    fn new(encoding: Encoding, len: usize) -> Self {
        if encoding == Encoding::Q6K {
            Self::Two(vec![[[0.0; LANES]; 2]; len])
        } else if encoding.block() > BLOCK {
            Self::Single(vec![[0.0; LANES]; len])
        } else {
            Self::Half(vec![[0; LANES]; len])
        }
    }

    fn minima(encoding: Encoding, len: usize) -> Self {
        match Self::new(encoding, 0) {
            Self::Half(_) => Self::Half(vec![[0; LANES]; len]),
            Self::Single(_) | Self::Two(_) => Self::Single(vec![[0.0; LANES]; len]),
        }
    }

    pub(crate) fn half(&self) -> Option<&[[u16; LANES]]> {
        if let Self::Half(x) = self { Some(x) } else { None }
    }

    pub(crate) fn single(&self) -> Option<&[[f32; LANES]]> {
        if let Self::Single(x) = self { Some(x) } else { None }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Half(x) => size_of_val(x.as_slice()),
            Self::Single(x) => size_of_val(x.as_slice()),
            Self::Two(x) => size_of_val(x.as_slice()),
        }
    }

    fn put(&mut self, at: usize, lane: usize, values: [f32; 2]) {
        match self {
            Self::Half(x) => x[at][lane] = f16::from_f32(values[0]).to_bits(), // exact: it was one
            Self::Single(x) => x[at][lane] = values[0],
            Self::Two(x) => (x[at][0][lane], x[at][1][lane]) = (values[0], values[1]),
        }
    }

    fn get(&self, at: usize, lane: usize) -> [f32; 2] {
        match self {
            Self::Half(x) => [f16::from_bits(x[at][lane]).to_f32(); 2],
            Self::Single(x) => [x[at][lane]; 2],
            Self::Two(x) => [x[at][0][lane], x[at][1][lane]],
        }
    }
}
