//! Launches of kernels as values: what is checked on a machine without a GPU is what runs on one with it.
//!
//! Every plan checks the sizes of its buffers against the shapes, so that no kernel can reach outside of one: the kernels bound
//! what they read from buffers (token ids, slots, block tables) themselves. All pointers of a kernel come first, outputs
//! before inputs, then its numbers.

use crate::error::Error;

/// Tokens per block of the cache: `BLOCK` in `device.cuh`.
pub(crate) const BLOCK: usize = 16;
/// The most blocks in the second and third dimension of a grid.
const MAX_GRID: u32 = 65_535;

/// What a buffer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Half,
    Float,
    Word,
}

/// A buffer as a kernel takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub(crate) kind: Kind,
    pub(crate) is_written: bool,
}

/// What the buffers of each kernel are: `h` BF16, `f` f32, `w` 32-bit words; capital if the kernel writes it.
pub(crate) const KERNELS: [(&str, &str); 20] = [
    ("rms_norm", "Hhh"),
    ("add_rms_norm", "HHhh"),
    ("add", "Hh"),
    ("add_bias", "Hh"),
    ("silu_mul", "Hh"),
    ("gelu_mul", "Hh"),
    ("embed", "Hhw"),
    ("gather_rows", "Hhw"),
    ("softcap", "F"),
    ("rope_kv", "HHHfww"),
    ("attention_decode", "Fhhhww"),
    ("attention_combine", "Hf"),
    ("attention_prefill_64", "Hhhhww"),
    ("attention_prefill_96", "Hhhhww"),
    ("attention_prefill_128", "Hhhhww"),
    ("attention_prefill_256", "Hhhhww"),
    ("top_k", "FWf"),
    ("argmax", "Wf"),
    ("advance", "WWWw"),
    ("wipe_blocks", "Hw"),
];

/// The buffers of a kernel.
pub(crate) fn parameters(kernel: &str) -> impl Iterator<Item = Parameter> {
    let letters = KERNELS.iter().find(|(name, _)| *name == kernel).map_or("", |(_, letters)| *letters);
    letters.chars().map(|letter| Parameter {
        kind: match letter.to_ascii_lowercase() {
            'h' => Kind::Half,
            'f' => Kind::Float,
            _ => Kind::Word,
        },
        is_written: letter.is_ascii_uppercase(),
    })
}

/// An argument that is not a buffer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Word(u32),
    Float(f32),
}

/// A kernel with everything but the addresses of its buffers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Launch {
    pub(crate) kernel: &'static str,
    pub(crate) grid: [u32; 3],
    pub(crate) threads: u32,
    /// Bytes of dynamic shared memory.
    pub(crate) shared: u32,
    /// Values of each buffer; buffers come before numbers.
    pub(crate) buffers: Vec<usize>,
    pub(crate) numbers: Vec<Number>,
}

impl Launch {
    /// Checks that buffers, by number of values, are those that this was planned for.
    pub(super) fn check(&self, buffers: &[(usize, Parameter)]) -> Result<(), Error> {
        let lens = buffers.iter().map(|(len, _)| *len);
        let kinds = buffers.iter().map(|(_, parameter)| *parameter);
        if lens.eq(self.buffers.iter().copied()) && kinds.eq(parameters(self.kernel)) {
            return Ok(());
        }
        Err(problem(self.kernel, "has other buffers than it was planned for"))
    }

    /// A launch of `grid` blocks. Dimensions that are 0 or too large are errors.
    pub(super) fn new(
        kernel: &'static str,
        grid: [usize; 3],
        threads: u32,
        buffers: &[usize],
    ) -> Result<Self, Error> {
        let grid = [word(kernel, grid[0])?, word(kernel, grid[1])?, word(kernel, grid[2])?];
        if grid.contains(&0) || grid[0] > i32::MAX.cast_unsigned() || grid[1].max(grid[2]) > MAX_GRID {
            return Err(problem(kernel, "has nothing to do or too much"));
        }
        Ok(Self { kernel, grid, threads, shared: 0, buffers: buffers.to_vec(), numbers: Vec::new() })
    }

    /// One thread for each of `n` values, which a thread has to count in 32 bits.
    pub(super) fn for_each(kernel: &'static str, n: usize, buffers: &[usize]) -> Result<Self, Error> {
        if n > i32::MAX as usize {
            return Err(problem(kernel, "has nothing to do or too much"));
        }
        Self::new(kernel, [n.div_ceil(256), 1, 1], 256, buffers)
    }

    pub(super) fn words<const N: usize>(mut self, words: [usize; N]) -> Result<Self, Error> {
        for value in words {
            self.numbers.push(Number::Word(word(self.kernel, value)?));
        }
        Ok(self)
    }

    pub(super) fn floats<const N: usize>(mut self, floats: [f32; N]) -> Self {
        self.numbers.extend(floats.map(Number::Float));
        self
    }

    pub(super) fn shared(self, bytes: usize) -> Result<Self, Error> {
        let shared = word(self.kernel, bytes)?;
        Ok(Self { shared, ..self })
    }
}

/// Checks that a buffer has as many values as a kernel may touch.
pub(super) fn fits(kernel: &'static str, len: usize, factors: &[usize]) -> Result<(), Error> {
    if product(kernel, factors)? == len {
        Ok(())
    } else {
        Err(problem(kernel, "has a buffer of another size"))
    }
}

/// The product, which has to be countable by a kernel.
pub(super) fn product(kernel: &'static str, factors: &[usize]) -> Result<usize, Error> {
    factors
        .iter()
        .try_fold(1_usize, |product, factor| product.checked_mul(*factor))
        .ok_or_else(|| problem(kernel, "is for more than can be counted"))
}

pub(super) fn problem(kernel: &'static str, what: &str) -> Error {
    Error::Compute(format!("the launch of {kernel} {what}"))
}

fn word(kernel: &'static str, value: usize) -> Result<u32, Error> {
    u32::try_from(value).ok().ok_or_else(|| problem(kernel, "has a number above 32 bits"))
}
