//! AVX-512: 16 numbers are one register.
#![expect(unsafe_code, reason = "vector instructions, which `vector!` explains")]

use super::{LANES, Line, Simd};
use std::arch::x86_64::*;

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;

/// Proof that the processor has what `Level::Avx512` says.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

impl Avx512 {
    /// For callers that run on such a processor.
    pub(super) fn proven() -> Self {
        Self(())
    }
}

impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    type B = __m512i;
    const ROWS: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        vector!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> __m512 {
        vector!(_mm512_loadu_ps(x.as_ptr()))
    }
    #[inline(always)]
    fn store(self, x: __m512, to: &mut [f32; LANES]) {
        vector!(_mm512_storeu_ps(to.as_mut_ptr(), x));
    }
    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> __m512 {
        vector!(_mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())))
    }
    #[inline(always)]
    fn store_f16(self, x: __m512, to: &mut [u16; LANES]) {
        vector!(_mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtps_ph::<NEAREST>(x)));
    }
    #[inline(always)]
    fn load_bf16(self, x: &[u16; LANES]) -> __m512 {
        vector!({
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        })
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        vector!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        vector!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        vector!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        vector!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        vector!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        vector!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        vector!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        vector!(_mm512_abs_ps(a))
    }
    #[inline(always)]
    fn keep_above(self, x: __m512, limit: __m512, y: __m512) -> __m512 {
        vector!(_mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, limit), y))
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512i {
        vector!(_mm512_cvtps_epi32(a))
    }
    #[inline(always)]
    fn to_float(self, a: __m512i) -> __m512 {
        vector!(_mm512_cvtepi32_ps(a))
    }
    #[inline(always)]
    fn exp2_of(self, n: __m512i) -> __m512 {
        vector!(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_add_epi32(n, _mm512_set1_epi32(127)))))
    }
    #[inline(always)]
    fn splat_int(self, x: i32) -> __m512i {
        vector!(_mm512_set1_epi32(x))
    }
    #[inline(always)]
    fn store_int(self, x: __m512i, to: &mut [i32; LANES]) {
        vector!(_mm512_storeu_si512(to.as_mut_ptr().cast(), x));
    }
    #[inline(always)]
    fn load_bytes(self, x: &Line) -> __m512i {
        vector!(_mm512_loadu_si512(x.as_ptr().cast()))
    }
    #[inline(always)]
    fn low_nibbles(self, x: __m512i) -> __m512i {
        vector!(_mm512_and_si512(x, _mm512_set1_epi8(15)))
    }
    #[inline(always)]
    fn high_nibbles(self, x: __m512i) -> __m512i {
        vector!(_mm512_and_si512(_mm512_srli_epi16::<4>(x), _mm512_set1_epi8(15)))
    }
    #[inline(always)]
    fn dot(self, sum: __m512i, bytes: __m512i, x: i32) -> __m512i {
        vector!(_mm512_dpbusd_epi32(sum, bytes, _mm512_set1_epi32(x)))
    }
    #[inline(always)]
    fn dot_nibbles(self, sum: __m512i, bytes: __m512i, x: i32) -> __m512i {
        self.dot(sum, bytes, x)
    }
}
