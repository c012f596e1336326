//! AVX2: 16 numbers are two registers.
#![expect(unsafe_code, reason = "vector instructions, which `vector!` explains")]

use super::{LANES, Line, Simd};
use std::arch::x86_64::*;

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;

/// Proof that the processor has what `Level::Avx2` says.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    /// For callers that run on such a processor.
    pub(super) fn proven() -> Self {
        Self(())
    }
}

/// The same for each half of a vector. Not a closure: the compiler would not know which instructions it may use.
macro_rules! both {
    ($half:ident => $work:expr) => {
        [
            {
                const $half: usize = 0;
                $work
            },
            {
                const $half: usize = 1;
                $work
            },
        ]
    };
}

impl Simd for Avx2 {
    type F = [__m256; 2];
    type I = [__m256i; 2];
    type B = [__m256i; 2];
    const ROWS: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [vector!(_mm256_set1_ps(x)); 2]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        let halves = x.as_chunks::<8>().0;
        [vector!(_mm256_loadu_ps(halves[0].as_ptr())), vector!(_mm256_loadu_ps(halves[1].as_ptr()))]
    }
    #[inline(always)]
    fn store(self, x: Self::F, to: &mut [f32; LANES]) {
        let halves = to.as_chunks_mut::<8>().0;
        vector!(_mm256_storeu_ps(halves[0].as_mut_ptr(), x[0]));
        vector!(_mm256_storeu_ps(halves[1].as_mut_ptr(), x[1]));
    }
    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> Self::F {
        let halves = x.as_chunks::<8>().0;
        both!(H => vector!(_mm256_cvtph_ps(_mm_loadu_si128(halves[H].as_ptr().cast()))))
    }
    #[inline(always)]
    fn store_f16(self, x: Self::F, to: &mut [u16; LANES]) {
        let halves = to.as_chunks_mut::<8>().0;
        vector!(_mm_storeu_si128(halves[0].as_mut_ptr().cast(), _mm256_cvtps_ph::<NEAREST>(x[0])));
        vector!(_mm_storeu_si128(halves[1].as_mut_ptr().cast(), _mm256_cvtps_ph::<NEAREST>(x[1])));
    }
    #[inline(always)]
    fn load_bf16(self, x: &[u16; LANES]) -> Self::F {
        let halves = x.as_chunks::<8>().0;
        both!(H => {
            vector!({
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(halves[H].as_ptr().cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            })
        })
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        [vector!(_mm256_add_ps(a[0], b[0])), vector!(_mm256_add_ps(a[1], b[1]))]
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        [vector!(_mm256_sub_ps(a[0], b[0])), vector!(_mm256_sub_ps(a[1], b[1]))]
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        [vector!(_mm256_mul_ps(a[0], b[0])), vector!(_mm256_mul_ps(a[1], b[1]))]
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        [vector!(_mm256_div_ps(a[0], b[0])), vector!(_mm256_div_ps(a[1], b[1]))]
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        [vector!(_mm256_fmadd_ps(a[0], b[0], c[0])), vector!(_mm256_fmadd_ps(a[1], b[1], c[1]))]
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        [vector!(_mm256_max_ps(a[0], b[0])), vector!(_mm256_max_ps(a[1], b[1]))]
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        [vector!(_mm256_min_ps(a[0], b[0])), vector!(_mm256_min_ps(a[1], b[1]))]
    }
    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        both!(H => vector!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), a[H])))
    }
    #[inline(always)]
    fn keep_above(self, x: Self::F, limit: Self::F, y: Self::F) -> Self::F {
        both!(H => vector!(_mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(x[H], limit[H]), y[H])))
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::I {
        both!(H => vector!(_mm256_cvtps_epi32(a[H])))
    }
    #[inline(always)]
    fn to_float(self, a: Self::I) -> Self::F {
        both!(H => vector!(_mm256_cvtepi32_ps(a[H])))
    }
    #[inline(always)]
    fn exp2_of(self, n: Self::I) -> Self::F {
        both!(H => {
            vector!(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n[H], _mm256_set1_epi32(127)))))
        })
    }
    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::I {
        [vector!(_mm256_set1_epi32(x)); 2]
    }
    #[inline(always)]
    fn store_int(self, x: Self::I, to: &mut [i32; LANES]) {
        let halves = to.as_chunks_mut::<8>().0;
        vector!(_mm256_storeu_si256(halves[0].as_mut_ptr().cast(), x[0]));
        vector!(_mm256_storeu_si256(halves[1].as_mut_ptr().cast(), x[1]));
    }
    #[inline(always)]
    fn load_bytes(self, x: &Line) -> Self::B {
        let halves = x.as_chunks::<32>().0;
        both!(H => vector!(_mm256_loadu_si256(halves[H].as_ptr().cast())))
    }
    #[inline(always)]
    fn low_nibbles(self, x: Self::B) -> Self::B {
        both!(H => vector!(_mm256_and_si256(x[H], _mm256_set1_epi8(15))))
    }
    #[inline(always)]
    fn high_nibbles(self, x: Self::B) -> Self::B {
        both!(H => vector!(_mm256_and_si256(_mm256_srli_epi16::<4>(x[H]), _mm256_set1_epi8(15))))
    }
    /// There is no instruction for this without rounding at 16 bits; in halves of a byte there is.
    #[inline(always)]
    fn dot(self, sum: Self::I, bytes: Self::B, x: i32) -> Self::I {
        let (low, high) = (self.low_nibbles(bytes), self.high_nibbles(bytes));
        both!(H => {
            vector!({
                let x = _mm256_set1_epi32(x);
                let low = _mm256_madd_epi16(_mm256_maddubs_epi16(low[H], x), _mm256_set1_epi16(1));
                let high = _mm256_madd_epi16(_mm256_maddubs_epi16(high[H], x), _mm256_set1_epi16(16));
                _mm256_add_epi32(sum[H], _mm256_add_epi32(low, high))
            })
        })
    }
    #[inline(always)]
    fn dot_nibbles(self, sum: Self::I, bytes: Self::B, x: i32) -> Self::I {
        both!(H => {
            vector!({
                let pairs = _mm256_maddubs_epi16(bytes[H], _mm256_set1_epi32(x));
                _mm256_add_epi32(sum[H], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            })
        })
    }
}
