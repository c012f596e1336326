//! The scores of a vocabulary, and the best of them without sorting it.
//!
//! A vocabulary has up to 260,000 tokens, of which a handful matters. The scores are taken in blocks with the maximum of each:
//! blocks that have nothing above a bound are skipped, and the `k`-th best maximum is a bound for the `k` best scores.

use crate::secret::push;
use std::cmp::Ordering;
use zeroize::Zeroizing;

/// Scores per block: few enough that a block is cheap, many enough that their maxima are.
pub(super) const BLOCK: usize = IDS as usize;
const IDS: u32 = 64;

/// A token and its score.
pub(super) type Candidate = (f32, u32);

/// Buffers of one sequence, kept from step to step.
#[derive(Default)]
pub(super) struct Scratch {
    maxima: Zeroizing<Vec<f32>>,
    order: Zeroizing<Vec<f32>>,
    pub(super) candidates: Zeroizing<Vec<Candidate>>,
    pub(super) sums: Zeroizing<Vec<f64>>,
}

/// Better first: the higher score, of equal ones the lower id. So nothing depends on the order of a computation.
pub(super) fn better(a: &Candidate, b: &Candidate) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// A score as it counts: what is not a finite number is never chosen, and there is one zero.
#[inline]
pub(super) fn sane(score: f32) -> f32 {
    if score.abs() < f32::INFINITY { score + 0.0 } else { f32::NEG_INFINITY }
}

/// The best token; nothing if no score is a finite number.
pub(super) fn best(scores: &[f32]) -> Option<Candidate> {
    let mut best = (f32::NEG_INFINITY, 0);
    for (id, score) in (0..).zip(scores) {
        let score = sane(*score);
        if score > best.0 {
            best = (score, id);
        }
    }
    (best.0 > f32::NEG_INFINITY).then_some(best)
}

impl Scratch {
    /// Has to be called before the functions below, for each set of scores.
    pub(super) fn index(&mut self, scores: &[f32]) {
        let blocks = scores.len().div_ceil(BLOCK);
        if self.maxima.len() != blocks {
            self.maxima = Zeroizing::new(vec![0.0; blocks]);
            self.order = Zeroizing::new(vec![0.0; blocks]);
            self.sums = Zeroizing::new(vec![0.0; blocks]);
        }
        for (max, block) in self.maxima.iter_mut().zip(scores.chunks(BLOCK)) {
            *max = block.iter().fold(f32::NEG_INFINITY, |max, score| max.max(sane(*score)));
        }
    }

    /// The best token; nothing if no score is a finite number.
    pub(super) fn best(&self, scores: &[f32]) -> Option<Candidate> {
        let (max, block) = best(&self.maxima)?;
        let ids = (block.saturating_mul(IDS)..).zip(scores.chunks(BLOCK).nth(block as usize)?);
        ids.map(|(id, score)| (sane(*score), id)).find(|(score, _)| *score >= max)
    }

    /// Makes `candidates` the `k` best tokens, in no order; all that have a finite score if there are fewer.
    pub(super) fn select(&mut self, scores: &[f32], k: usize) {
        let bound = self.bound(k);
        self.collect(scores, (bound, u32::MAX));
        if k == 0 {
            self.candidates.clear();
        } else if k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, better);
            self.candidates.truncate(k);
        }
    }

    /// Makes `candidates` all tokens with a finite score that are not worse than `cut`, by id.
    pub(super) fn collect(&mut self, scores: &[f32], cut: Candidate) {
        self.candidates.clear();
        for (block, (max, id)) in scores.chunks(BLOCK).zip(self.maxima.iter().zip((0..).step_by(BLOCK))) {
            if *max < cut.0 {
                continue;
            }
            for (id, score) in (id..).zip(block) {
                let candidate = (sane(*score), id);
                if candidate.0 > f32::NEG_INFINITY && better(&candidate, &cut).is_le() {
                    push(&mut self.candidates, candidate);
                }
            }
        }
    }

    /// Blocks with their maxima and the ids of their first tokens, each with the place of its sum.
    pub(super) fn blocks<'a>(
        &'a mut self,
        scores: &'a [f32],
    ) -> impl Iterator<Item = (f32, u32, &'a [f32], &'a mut f64)> {
        let heads = self.maxima.iter().zip((0..).step_by(BLOCK));
        heads
            .zip(scores.chunks(BLOCK))
            .zip(self.sums.iter_mut())
            .map(|(((max, id), block), sum)| (*max, id, block, sum))
    }

    /// A score that at least `k` tokens reach, since that many blocks have one.
    fn bound(&mut self, k: usize) -> f32 {
        if k == 0 || k > self.order.len() {
            return f32::NEG_INFINITY;
        }
        self.order.copy_from_slice(&self.maxima);
        *self.order.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores with many ties, both zeros, and some that are no numbers.
    fn scores(n: usize, seed: u64) -> Vec<f32> {
        let value = |i: usize| match (i as u64 * 7919 + seed * 104_729) % 1009 {
            0 => f32::NAN,
            1 => f32::NEG_INFINITY,
            2 => f32::INFINITY,
            3 => -0.0,
            other => (other % 211) as f32 / 7.0 - 15.0,
        };
        (0..n).map(value).collect()
    }

    fn sorted(scores: &[f32]) -> Vec<Candidate> {
        let finite = (0..).zip(scores).filter(|(_, score)| score.is_finite());
        let mut all: Vec<Candidate> = finite.map(|(id, score)| (score + 0.0, id)).collect();
        all.sort_by(better);
        all
    }

    #[test]
    fn the_best_are_those_of_a_full_sort() {
        let mut scratch = Scratch::default();
        for (n, seed) in [(1, 0), (63, 1), (64, 2), (65, 3), (1000, 4), (49_152, 5), (260_001, 6)] {
            let scores = scores(n, seed);
            let wanted = sorted(&scores);
            scratch.index(&scores);
            assert_eq!(scratch.best(&scores), wanted.first().copied());
            assert_eq!(best(&scores), wanted.first().copied());
            for k in [0, 1, 2, 20, 63, 64, 65, 1000, n - 1, n, n + 1] {
                scratch.select(&scores, k);
                scratch.candidates.sort_by(better);
                assert_eq!(*scratch.candidates, wanted[..k.min(wanted.len())], "{k} of {n}");
            }
        }
    }

    #[test]
    fn without_a_finite_score_there_is_no_best() {
        let mut scratch = Scratch::default();
        for scores in [&[][..], &[f32::NAN], &[f32::INFINITY, f32::NEG_INFINITY]] {
            scratch.index(scores);
            assert_eq!((scratch.best(scores), best(scores)), (None, None));
            scratch.select(scores, 3);
            assert!(scratch.candidates.is_empty());
        }
    }
}
