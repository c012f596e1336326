//! Any processor.

use super::{LANES, Line, Simd};

/// No vector instructions but what the compiler finds.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Simd for Portable {
    type F = [f32; LANES];
    type I = [i32; LANES];
    type B = [u8; 64];
    const ROWS: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        *x
    }
    #[inline(always)]
    fn store(self, x: Self::F, to: &mut [f32; LANES]) {
        *to = x;
    }
    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> Self::F {
        x.map(|bits| half::f16::from_bits(bits).to_f32_const())
    }
    #[inline(always)]
    fn store_f16(self, x: Self::F, to: &mut [u16; LANES]) {
        *to = x.map(|x| half::f16::from_f32_const(x).to_bits());
    }
    #[inline(always)]
    fn load_bf16(self, x: &[u16; LANES]) -> Self::F {
        x.map(|bits| f32::from_bits(u32::from(bits) << 16))
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|lane| a[lane] - b[lane])
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|lane| a[lane] * b[lane])
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|lane| a[lane] / b[lane])
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|lane| a[lane].mul_add(b[lane], c[lane]))
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|lane| if a[lane] < b[lane] { a[lane] } else { b[lane] })
    }
    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        a.map(f32::abs)
    }
    #[inline(always)]
    fn keep_above(self, x: Self::F, limit: Self::F, y: Self::F) -> Self::F {
        std::array::from_fn(|lane| if x[lane] > limit[lane] { y[lane] } else { 0.0 })
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::I {
        #[expect(clippy::cast_possible_truncation, reason = "callers have numbers that fit")]
        a.map(|x| x.round_ties_even() as i32)
    }
    #[inline(always)]
    fn to_float(self, a: Self::I) -> Self::F {
        a.map(|x| x as f32)
    }
    #[inline(always)]
    fn exp2_of(self, n: Self::I) -> Self::F {
        n.map(|n| f32::from_bits(((n + 127) << 23).cast_unsigned()))
    }
    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::I {
        [x; LANES]
    }
    #[inline(always)]
    fn store_int(self, x: Self::I, to: &mut [i32; LANES]) {
        *to = x;
    }
    #[inline(always)]
    fn load_bytes(self, x: &Line) -> Self::B {
        *x
    }
    #[inline(always)]
    fn low_nibbles(self, x: Self::B) -> Self::B {
        x.map(|byte| byte & 15)
    }
    #[inline(always)]
    fn high_nibbles(self, x: Self::B) -> Self::B {
        x.map(|byte| byte >> 4)
    }
    #[inline(always)]
    fn dot(self, sum: Self::I, bytes: Self::B, x: i32) -> Self::I {
        let x = x.to_le_bytes().map(|byte| i32::from(byte.cast_signed()));
        let lanes = bytes.as_chunks::<4>().0;
        std::array::from_fn(|lane| {
            let products = lanes[lane].iter().zip(x).map(|(byte, x)| i32::from(*byte) * x);
            sum[lane] + products.sum::<i32>()
        })
    }
    #[inline(always)]
    fn dot_nibbles(self, sum: Self::I, bytes: Self::B, x: i32) -> Self::I {
        self.dot(sum, bytes, x)
    }
}
