//! Numbers of a schema that the library keeps as they are: it has them as floats, and multiples in 32 bits.

use serde_json::Number;

/// What is wrong with the others.
pub(super) const TOO_LONG: &str = "a whole number beyond 2^53";

/// Whether a number is the same as a float.
pub(super) fn is_exact(number: &Number) -> bool {
    let whole = number.as_i128();
    #[expect(clippy::cast_possible_truncation, reason = "no float of a 64-bit number is beyond 128 bits")]
    let float = number.as_f64().map(|float| float as i128);
    whole.is_none() || whole == float
}

/// The ends of the range of whole numbers count as such: nothing beyond them is written.
pub(super) fn is_kept_bound(number: &Number) -> bool {
    is_exact(number) || number.as_i64() == Some(i64::MAX)
}

/// Largest coefficient and most places of a multiple: ten of it and nine more still are a 32-bit number.
const MAX_COEFFICIENT: u32 = 300_000_000;
const MAX_PLACES: u32 = 8;

/// `coefficient` divided by 10 as often as `places` says.
#[derive(Clone, Copy)]
pub(super) struct Decimal {
    coefficient: u32,
    places: u32,
}

impl Decimal {
    /// What the library makes of a number above 0, if it can count in it.
    pub(super) fn new(mut value: f64) -> Option<Self> {
        let mut places = 0;
        while value.fract() != 0.0 {
            (value, places) = (value * 10.0, places + 1);
        }
        let is_small = value <= f64::from(MAX_COEFFICIENT) && places <= MAX_PLACES;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, and in bounds")]
        is_small.then_some(Self { coefficient: value as u32, places })
    }
}

/// Whether the least common multiple of any of these can be computed in 32 bits: the library does not look.
pub(super) fn fit_together(all: &[Decimal]) -> bool {
    let places = all.iter().map(|one| one.places).max().unwrap_or_default();
    let scaled = all.iter().map(|one| u128::from(one.coefficient) * 10_u128.pow(places - one.places));
    let mut multiple = 1;
    for one in scaled.clone() {
        multiple = multiple / gcd(multiple, one) * one;
        if multiple > u128::from(MAX_COEFFICIENT) {
            return false;
        }
    }
    // It multiplies before it divides.
    all.len() < 2 || multiple * scaled.max().unwrap_or(1) <= u128::from(u32::MAX)
}

fn gcd(one: u128, other: u128) -> u128 {
    if other == 0 { one } else { gcd(other, one % other) }
}
