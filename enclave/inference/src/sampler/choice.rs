//! A random choice among the likely tokens.
//!
//! Every filter keeps the tokens that are not worse than some token, so filters one after the other come down to one
//! cut, and the choice is one pass over the scores in order of ids, whatever the filters were.

use super::exp::{LEAST, exp};
use super::scores::{BLOCK, Candidate, Scratch, better, sane};
use crate::error::Error;

/// How random the choice is.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Above 0.
    pub(super) temperature: f32,
    pub(super) top_k: Option<usize>,
    pub(super) top_p: f32,
    pub(super) min_p: f32,
}

/// Scores as weights: 1 for the best.
#[derive(Clone, Copy)]
struct Weigher {
    best: f32,
    temperature: f32,
}

impl Weigher {
    #[inline]
    fn weight(self, score: f32) -> f32 {
        exp((score - self.best) / self.temperature)
    }

    /// The score that has a weight.
    fn score(self, weight: f32) -> f32 {
        self.best + self.temperature * libm::logf(weight)
    }
}

/// Chooses one token; `draw` from 0 to 1 decides which. `scores` were indexed and `best` is the best of them.
pub(super) fn choose(
    scratch: &mut Scratch,
    scores: &[f32],
    best: Candidate,
    shape: Shape,
    draw: f64,
) -> Result<u32, Error> {
    let weigher = Weigher { best: best.0, temperature: shape.temperature };
    let cut = cut(scratch, scores, weigher, shape);
    let mut left = draw * weigh(scratch, scores, weigher, cut);
    // The block in which the sum passes the draw, or the last one if rounding left nothing over.
    let mut here = None;
    for (_, first, block, sum) in scratch.blocks(scores).filter(|(.., sum)| **sum > 0.0) {
        here = Some((first, block));
        if left < *sum {
            break;
        }
        left -= *sum;
    }
    // The token in it in which it does.
    let mut chosen = None;
    let (first, block) = here.unwrap_or_default();
    for (id, score) in (first..).zip(block) {
        let candidate = (sane(*score), id);
        if better(&candidate, &cut).is_le() {
            chosen = Some(id);
            left -= f64::from(weigher.weight(candidate.0));
            if left < 0.0 {
                break;
            }
        }
    }
    chosen.ok_or_else(|| Error::Compute("no token is left to choose from".to_owned()))
}

/// The worst token that may be chosen: top-k, then top-p among what that leaves, then min-p.
fn cut(scratch: &mut Scratch, scores: &[f32], weigher: Weigher, shape: Shape) -> Candidate {
    // What is below weighs nothing.
    let mut cut = (weigher.best + LEAST * weigher.temperature, u32::MAX);
    if let Some(k) = shape.top_k.filter(|k| *k < scores.len()) {
        scratch.select(scores, k);
        if let Some(worst) = scratch.candidates.iter().copied().max_by(better) {
            cut = tighter(cut, worst);
        }
    }
    if shape.top_p < 1.0 {
        cut = tighter(cut, nucleus(scratch, scores, weigher, cut, f64::from(shape.top_p)));
    }
    if shape.min_p > 0.0 {
        cut = tighter(cut, (weigher.score(shape.min_p).min(weigher.best), u32::MAX));
    }
    cut
}

fn tighter(a: Candidate, b: Candidate) -> Candidate {
    if better(&a, &b).is_le() { a } else { b }
}

/// The last of the fewest best tokens above `cut` that together have the share `top_p` of the weight above `cut`.
fn nucleus(scratch: &mut Scratch, scores: &[f32], weigher: Weigher, cut: Candidate, top_p: f64) -> Candidate {
    let total = weigh(scratch, scores, weigher, cut);
    // All tokens that weigh less than this together have less than the share that is not wanted: none is in the
    // nucleus. The margin is for rounding.
    let least = (1.0 - top_p) * total / scores.len().max(1) as f64 * 0.999;
    #[expect(clippy::cast_possible_truncation, reason = "a bound, and its margin is wider than the rounding")]
    let bound = weigher.score((least as f32).max(f32::MIN_POSITIVE));
    scratch.collect(scores, tighter(cut, (bound.min(weigher.best), u32::MAX)));

    // Halves the candidates around their median until one is left; each time the better half is in the nucleus as a
    // whole, or has the end of it.
    let mut rest = scratch.candidates.as_mut_slice();
    let mut wanted = top_p * total;
    while rest.len() > 1 {
        let half = rest.len() / 2;
        rest.select_nth_unstable_by(half - 1, better);
        let (upper, lower) = rest.split_at_mut(half);
        let weight: f64 = upper.iter().map(|(score, _)| f64::from(weigher.weight(*score))).sum();
        if weight >= wanted {
            rest = upper;
        } else {
            wanted -= weight;
            rest = lower;
        }
    }
    rest.first().copied().unwrap_or(cut)
}

/// Sums the weights above `cut`, of each block and of all.
fn weigh(scratch: &mut Scratch, scores: &[f32], weigher: Weigher, cut: Candidate) -> f64 {
    let mut total = 0.0;
    for (max, first, block, sum) in scratch.blocks(scores) {
        *sum = if max < cut.0 { 0.0 } else { weigh_block(block, first, weigher, cut) };
        total += *sum;
    }
    total
}

fn weigh_block(block: &[f32], first: u32, weigher: Weigher, cut: Candidate) -> f64 {
    let mut weights = [0_f32; BLOCK];
    for ((weight, score), id) in weights.iter_mut().zip(block).zip(first..) {
        let score = sane(*score);
        let above = score > cut.0 || (score == cut.0 && id <= cut.1);
        *weight = if above { weigher.weight(score) } else { 0.0 };
    }
    let mut sums = [0_f64; 4]; // four at a time, always in this order
    for four in weights.chunks(4) {
        for (sum, weight) in sums.iter_mut().zip(four) {
            *sum += f64::from(*weight);
        }
    }
    sums.iter().sum()
}

/// The logarithm of the sum of e^score over all scores. `scores` were indexed and `best` is the best of them.
pub(super) fn log_total(scratch: &mut Scratch, scores: &[f32], best: Candidate) -> f64 {
    let weigher = Weigher { best: best.0, temperature: 1.0 };
    let total = weigh(scratch, scores, weigher, (best.0 + LEAST, u32::MAX));
    f64::from(best.0) + libm::log(total)
}

#[cfg(test)]
pub(super) fn tests_cut(scratch: &mut Scratch, scores: &[f32], best: Candidate, shape: Shape) -> Candidate {
    cut(scratch, scores, Weigher { best: best.0, temperature: shape.temperature }, shape)
}
