//! The choice of the next token from its scores.

use crate::error::Error;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Chooses tokens for one sequence. What else runs does not matter: each sequence has its own generator.
pub(crate) struct Sampler {
    temperature: f32,
    top_p: f32,
    rng: StdRng,
}

impl Sampler {
    /// `temperature` 0 is greedy; the same seed gives the same choices.
    pub(crate) fn new(temperature: f32, top_p: f32, seed: u64) -> Self {
        Self { temperature, top_p, rng: StdRng::seed_from_u64(seed) }
    }

    pub(crate) fn sample(&mut self, logits: &[f32]) -> Result<u32, Error> {
        let best = argmax(logits)?;
        if self.temperature == 0.0 {
            return Ok(best);
        }
        let max = logits.get(best as usize).copied().unwrap_or_default();
        let weights = logits.iter().map(|logit| libm::expf((logit - max) / self.temperature));
        let mut candidates: Vec<(u32, f32)> = (0..).zip(weights).collect();
        let mut total: f64 = candidates.iter().map(|(_, weight)| f64::from(*weight)).sum();
        if self.top_p < 1.0 {
            total = keep_nucleus(&mut candidates, f64::from(self.top_p), total);
        }
        let mut left = self.rng.random::<f64>() * total;
        for (token, weight) in &candidates {
            left -= f64::from(*weight);
            if left < 0.0 {
                return Ok(*token);
            }
        }
        Ok(best) // rounding left nothing over
    }
}

/// Keeps the most likely tokens that together have the share `top_p` of `total`; gives their sum.
fn keep_nucleus(candidates: &mut Vec<(u32, f32)>, top_p: f64, total: f64) -> f64 {
    // Tokens below this cannot be in the nucleus, even if all others were equal: most need not be sorted.
    let others = candidates.len().saturating_sub(1).max(1) as f64;
    let cutoff = (1.0 - top_p) * total / others;
    candidates.retain(|(_, weight)| f64::from(*weight) >= cutoff);
    candidates.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut sum = 0.0;
    let mut kept = 0;
    for (_, weight) in candidates.iter() {
        sum += f64::from(*weight);
        kept += 1;
        if sum >= top_p * total {
            break;
        }
    }
    candidates.truncate(kept);
    sum
}

/// The token with the highest score; the first of equals.
pub(crate) fn argmax(logits: &[f32]) -> Result<u32, Error> {
    let mut best: Option<(u32, f32)> = None;
    for (token, &logit) in (0..).zip(logits) {
        if logit.is_finite() && best.is_none_or(|(_, most)| logit > most) {
            best = Some((token, logit));
        }
    }
    best.map(|(token, _)| token).ok_or_else(|| Error::Compute("no finite score".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(sampler: &mut Sampler, logits: &[f32], n: usize) -> Vec<u32> {
        (0..n).map(|_| sampler.sample(logits).unwrap()).collect()
    }

    #[test]
    fn zero_temperature_is_greedy_and_ties_go_to_the_first() {
        let mut sampler = Sampler::new(0.0, 1.0, 1);
        assert_eq!(sampler.sample(&[0.0, 3.0, 3.0, f32::NAN]).unwrap(), 1);
        assert!(sampler.sample(&[f32::NAN, f32::NEG_INFINITY]).is_err());
        assert!(sampler.sample(&[]).is_err());
    }

    #[test]
    fn the_seed_decides() {
        let logits: Vec<f32> = (0..100).map(|i| (i as f32 * 0.7).sin()).collect();
        let run = |seed| draws(&mut Sampler::new(0.9, 0.95, seed), &logits, 50);
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn shares_follow_the_scores() {
        let logits = [0.0, 2f32.ln(), f32::NEG_INFINITY, 5f32.ln()];
        let counts =
            draws(&mut Sampler::new(1.0, 1.0, 3), &logits, 8000).iter().fold([0; 4], |mut counts, token| {
                counts[*token as usize] += 1;
                counts
            });
        assert_eq!(counts[2], 0);
        assert!((800..1200).contains(&counts[0]) && (1800..2200).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn top_p_cuts_the_tail() {
        let logits = [5f32.ln(), 3f32.ln(), 1.0_f32.ln(), 1.0_f32.ln()]; // 0.5, 0.3, 0.1, 0.1
        let seen = |top_p| {
            let mut tokens = draws(&mut Sampler::new(1.0, top_p, 3), &logits, 500);
            tokens.sort_unstable();
            tokens.dedup();
            tokens
        };
        assert_eq!(seen(0.0001), [0]);
        assert_eq!(seen(0.5), [0]);
        assert_eq!(seen(0.51), [0, 1]);
        assert_eq!(seen(0.85), [0, 1, 2]);
        assert_eq!(seen(1.0), [0, 1, 2, 3]);
    }

    #[test]
    fn a_low_temperature_sharpens() {
        let tokens = draws(&mut Sampler::new(0.01, 1.0, 3), &[1.0, 1.5], 200);
        assert!(tokens.iter().all(|token| *token == 1));
    }
}
