//! Logarithms of the model's probabilities.

use super::choice::log_total;
use super::scores::{Candidate, Scratch, better, sane};
use zeroize::Zeroizing;

/// What the model thought of a token, and of the likeliest.
///
/// As in the OpenAI API these are the model's own probabilities: of its scores as they came, before bias, penalties,
/// mask, temperature and filters. So a token that was chosen may be among the unlikely, and the sum over all is 1.
pub(crate) struct Logprobs {
    /// Of the token that was chosen.
    pub(crate) chosen: Zeroizing<f32>,
    /// The likeliest with their tokens, best first; of equal ones the lowest id first.
    pub(crate) top: Zeroizing<Vec<Candidate>>,
}

/// Of `token` and of the `top` likeliest.
pub(super) fn logprobs(scratch: &mut Scratch, logits: &[f32], token: u32, top: usize) -> Logprobs {
    scratch.index(logits);
    let log_total = scratch.best(logits).map_or(0.0, |best| log_total(scratch, logits, best));
    #[expect(clippy::cast_possible_truncation, reason = "rounded to what the scores have")]
    let logprob = |score: f32| (f64::from(score) - log_total).min(0.0) as f32;
    let score = logits.get(token as usize).map_or(f32::NEG_INFINITY, |score| sane(*score));
    scratch.select(logits, top);
    scratch.candidates.sort_unstable_by(better);
    let mut likeliest = Zeroizing::new(Vec::with_capacity(scratch.candidates.len()));
    likeliest.extend(scratch.candidates.iter().map(|(score, token)| (logprob(*score), *token)));
    Logprobs { chosen: Zeroizing::new(logprob(score)), top: likeliest }
}
