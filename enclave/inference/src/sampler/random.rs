//! Draws: numbers that the seed and the place of the token in the answer decide, and nothing else.
//!
//! Not a generator of the `rand` crate. `StdRng` may give other numbers with any new version, and so may the
//! conversions to floats; the same seed would then give another answer after an upgrade. A generator with a state would
//! also have to be kept when a request is interrupted and computed again. This one is a function of `(seed, position)`:
//! SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014) read as a counter, 64 bits of
//! which pass the usual statistical tests. It protects no secret: who knows the seed may know the draws.

/// 2^64 divided by the golden ratio, odd: multiples of it are spread evenly.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// Separates seeds from positions: two seeds a multiple of [`GOLDEN`] apart must not give shifted copies of one stream.
const SEEDS: u64 = 0x436f_636f_6f6e_2031;

/// The draws of one request.
pub(super) struct Draws {
    key: u64,
    position: u64,
}

impl Draws {
    pub(super) fn new(seed: u64) -> Self {
        Self { key: mix(mix(seed ^ SEEDS)), position: 0 }
    }

    /// The next draw: at least 0, below 1, in steps of 2^-53.
    pub(super) fn next(&mut self) -> f64 {
        self.position = self.position.wrapping_add(1);
        let bits = mix(self.key.wrapping_add(self.position.wrapping_mul(GOLDEN)));
        (bits >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }
}

/// A permutation of 64-bit numbers in which every bit depends on every bit.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the draws are below 1")]
mod tests {
    use super::*;

    #[test]
    fn it_is_splitmix64() {
        let stream: Vec<u64> =
            (1..=5).map(|n| mix(1_234_567_u64.wrapping_add(GOLDEN.wrapping_mul(n)))).collect();
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(stream, published);
    }

    /// A change here changes the answers of every seed that somebody noted.
    #[test]
    fn the_draws_of_a_seed_never_change() {
        let mut draws = Draws::new(42);
        let first: Vec<u64> = (0..4).map(|_| (draws.next() * (1_u64 << 53) as f64) as u64).collect();
        assert_eq!(first, NOTED);
    }
    const NOTED: [u64; 4] =
        [7_418_601_279_038_199, 4_233_623_025_866_717, 8_029_663_324_077_324, 8_174_755_526_047_013];

    #[test]
    fn draws_are_even_and_seeds_are_unrelated() {
        let n = 100_000;
        for seed in [0, 1, GOLDEN, u64::MAX] {
            let (mut one, mut other) = (Draws::new(seed), Draws::new(seed.wrapping_add(GOLDEN)));
            let mut bins = [0_u32; 16];
            let mut product = 0.0;
            for _ in 0..n {
                let (a, b) = (one.next(), other.next());
                assert!((0.0..1.0).contains(&a));
                bins[(a * 16.0) as usize] += 1;
                product += (a - 0.5) * (b - 0.5);
            }
            let expected = f64::from(n) / 16.0;
            let chi2: f64 = bins.iter().map(|seen| (f64::from(*seen) - expected).powi(2) / expected).sum();
            assert!(chi2 < 45.0, "{chi2}"); // 15 degrees of freedom: 1 in 10,000
            assert!((product / f64::from(n) * 12.0).abs() < 0.015, "correlation");
        }
    }
}
