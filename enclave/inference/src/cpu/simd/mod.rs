//! Vectors of 16 numbers on every processor, and the choice of instructions at run time.
//!
//! A kernel is written once, over [`Simd`]; [`Level::run`] compiles it for each instruction set and picks one. All
//! implementations give the same bits: every operation is exact or rounded once, as IEEE 754 says, and sums have one order.
//! So an answer does not depend on the processor that computed it.
#![expect(unsafe_code, reason = "calls that need a processor which was checked")]

/// Instructions that the type of `self` proves to be there; addresses come from references to arrays of the size that is loaded
/// or stored.
#[cfg(target_arch = "x86_64")]
macro_rules! vector {
    ($work:expr) => {
        // SAFETY: see the macro.
        unsafe { $work }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use avx512::Avx512;
use portable::Portable;

/// Numbers in a vector.
pub(crate) const LANES: usize = 16;

/// What one load fetches; where it lies in one cache line, from that.
pub(crate) type Line = [u8; 64];

/// Work that is compiled for each instruction set. `run` and all it calls must be `#[inline(always)]`.
pub(crate) trait Kernel {
    type Output;
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// What the processor can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// AVX-512 F, BW, DQ, VL and VNNI: AMD since Zen 4, Intel since Ice Lake.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2, FMA and F16C: all x86-64 servers since 2015.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Any processor.
    Portable,
}

impl Level {
    /// The best that this processor can do.
    pub(crate) fn detect() -> Self {
        Self::all().into_iter().next().unwrap_or(Self::Portable)
    }

    /// All that this processor can do, the best first.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni");
            if avx512 {
                all.push(Self::Avx512);
            }
            if avx2 {
                all.push(Self::Avx2);
            }
        }
        all.push(Self::Portable);
        all
    }

    /// Runs a kernel with the instructions of this level.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            // SAFETY: a level exists only where `all` found its features, or in tests that asked `all`.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { run_avx512(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { run_avx2(kernel) },
            Self::Portable => kernel.run(Portable),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512::proven())
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2::proven())
}

/// Operations on vectors of [`LANES`] numbers, lane by lane unless they say otherwise.
pub(crate) trait Simd: Copy {
    /// `f32` in each lane.
    type F: Copy;
    /// `i32` in each lane.
    type I: Copy;
    /// Four bytes in each lane.
    type B: Copy;
    /// Rows of a product that are computed together: as many as registers hold.
    const ROWS: usize;

    fn splat(self, x: f32) -> Self::F;
    fn load(self, x: &[f32; LANES]) -> Self::F;
    fn store(self, x: Self::F, to: &mut [f32; LANES]);
    fn load_f16(self, x: &[u16; LANES]) -> Self::F;
    /// To the nearest, ties to even.
    fn store_f16(self, x: Self::F, to: &mut [u16; LANES]);
    fn load_bf16(self, x: &[u16; LANES]) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The larger; `b` where one is not a number.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; `b` where one is not a number.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    fn abs(self, a: Self::F) -> Self::F;
    /// `y` where `x` is above `limit`, 0 elsewhere.
    fn keep_above(self, x: Self::F, limit: Self::F, y: Self::F) -> Self::F;
    /// The nearest integer, ties to even, as `i32`; for numbers that have one.
    fn round(self, a: Self::F) -> Self::I;
    fn to_float(self, a: Self::I) -> Self::F;
    /// `2^n` for -126 <= n <= 127.
    fn exp2_of(self, n: Self::I) -> Self::F;

    fn splat_int(self, x: i32) -> Self::I;
    fn store_int(self, x: Self::I, to: &mut [i32; LANES]);
    fn load_bytes(self, x: &Line) -> Self::B;
    /// Bits 0 to 3 of each byte.
    fn low_nibbles(self, x: Self::B) -> Self::B;
    /// Bits 4 to 7 of each byte.
    fn high_nibbles(self, x: Self::B) -> Self::B;
    /// To each lane, the products of its four unsigned bytes with the four signed bytes of `x` are added.
    fn dot(self, sum: Self::I, bytes: Self::B, x: i32) -> Self::I;
    /// As `dot`, for bytes below 16.
    fn dot_nibbles(self, sum: Self::I, bytes: Self::B, x: i32) -> Self::I;

    /// The sum of the lanes: halves added to each other until one is left.
    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(x, &mut lanes);
        fold(&mut lanes, |a, b| a + b)
    }

    /// The largest lane.
    #[inline(always)]
    fn largest(self, x: Self::F) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(x, &mut lanes);
        fold(&mut lanes, |a, b| if a > b { a } else { b })
    }

    /// `e^x`, within two units in the last place; 0 below -87.3 and for what is not a number; at most `e^88`.
    #[inline(always)]
    fn exp(self, x: Self::F) -> Self::F {
        let low = self.splat(-87.336_54);
        let clamped = self.min(self.max(x, low), self.splat(88.02));
        let n = self.round(self.mul(clamped, self.splat(std::f32::consts::LOG2_E)));
        let whole = self.to_float(n);
        // ln 2 in two parts, so that the product with the first is exact.
        let rest = self.fma(whole, self.splat(-0.693_359_4), clamped);
        let rest = self.fma(whole, self.splat(2.121_944_4e-4), rest);
        let mut y = self.splat(1.987_569_1e-4);
        for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            y = self.fma(y, rest, self.splat(coefficient));
        }
        let y = self.fma(self.mul(rest, rest), y, self.add(rest, self.splat(1.0)));
        self.keep_above(x, low, self.mul(y, self.exp2_of(n)))
    }
}

#[inline(always)]
fn fold(lanes: &mut [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = combine(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}
