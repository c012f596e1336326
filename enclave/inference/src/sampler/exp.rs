//! e^x for weights: fast over whole vocabularies, and the same bits on every CPU.

use std::f32::consts::LOG2_E;

/// Below this the weight is 0: the result would leave the normal numbers.
pub(super) const LEAST: f32 = -87.0;
/// Added to a small number, its last bits are the number rounded to an integer: 1.5 * 2^23.
const ROUND: f32 = 12_582_912.0;
/// The natural logarithm of 2 in two parts; products of the first with small integers are exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// e^x for x <= 0, within 2e-7 of the result; 0 below [`LEAST`]. Only additions and products, so that compilers can
/// take many at once and no library decides the bits.
#[inline]
pub(super) fn exp(x: f32) -> f32 {
    let rounded = x * LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW; // |r| <= ln(2) / 2
    // The series to r^7: what is left out is below 1e-8.
    let mut p = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + coefficient;
    }
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    let power = f32::from_bits(exponent << 23);
    if x < LEAST { 0.0 } else { p * power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_e_to_the_x() {
        let mut worst = 0_f64;
        for i in 0..=870_000 {
            let x = -(i as f32) / 10_000.0;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2e-7, "{worst}");
        assert_eq!((exp(0.0), exp(-0.0)), (1.0, 1.0));
        for x in [-87.01, -1000.0, -1e30, f32::NEG_INFINITY] {
            assert_eq!(exp(x), 0.0, "{x}");
        }
    }
}
