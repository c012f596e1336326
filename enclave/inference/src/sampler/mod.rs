//! The choice of the next token from its scores.
//!
//! Stages, in this order; each that asks for nothing is left out:
//!
//! | Stage | What it does to the scores |
//! |---|---|
//! | logit bias | adds the request's number to the score of each named token |
//! | penalties | `repetition_penalty` on tokens of prompt and answer, then `presence_penalty` and `frequency_penalty` on tokens of the answer |
//! | mask | takes the score of every token that a [`TokenMask`] does not allow |
//! | temperature | 0: takes the best token, and nothing below applies; else divides scores by it |
//! | top-k | keeps the `k` best tokens |
//! | top-p | keeps the fewest best of these that have the share `p` of their probability |
//! | min-p | keeps those of these that have at least `p` times the probability of the best |
//! | draw | one of these, by their probabilities |
//!
//! Where scores are equal the lower id counts as better. A score that is not a finite number is never chosen. The
//! choice depends on the scores, the request, its seed and the place in the answer, not on what else runs, on threads,
//! or on the CPU: there is no call to a mathematical library whose bits could differ.

mod choice;
mod exp;
mod logprobs;
mod mask;
mod penalties;
mod random;
mod scores;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub(crate) use logprobs::Logprobs;
pub use mask::{TokenMask, TokenSet};

use crate::backend::Top;
use crate::error::{Error, SubmitError};
use crate::request::GenerateRequest;
use choice::Shape;
use penalties::Penalties;
use random::Draws;
use scores::Scratch;
use zeroize::Zeroizing;

/// Chooses tokens for one sequence. What else runs does not matter: each sequence has its own draws.
pub(crate) struct Sampler {
    shape: Shape,
    bias: Zeroizing<Vec<(u32, f32)>>,
    penalties: Option<Penalties>,
    mask: Option<Mask>,
    /// How many of the likeliest tokens to report beside the chosen one; nothing is reported if not given.
    top_logprobs: Option<usize>,
    vocabulary: usize,
    draws: Draws,
    /// Scores after the stages that change some of them.
    changed: Zeroizing<Vec<f32>>,
    scratch: Scratch,
}

struct Mask {
    rules: Box<dyn TokenMask>,
    allowed: TokenSet,
}

/// What of the scores a choice depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// The best token, not its score.
    Best,
    /// So many of the best tokens.
    Top(usize),
    All,
}

/// A token that was chosen.
pub(crate) struct Sampled {
    pub(crate) token: u32,
    /// If the request asked for them.
    pub(crate) logprobs: Option<Logprobs>,
}

impl Sampler {
    /// For a request that was checked. The same seed gives the same choices.
    pub(crate) fn new(
        request: &GenerateRequest,
        seed: u64,
        prompt: &[u32],
        vocabulary: usize,
    ) -> Result<Self, SubmitError> {
        if request.logit_bias.iter().any(|(token, _)| *token as usize >= vocabulary) {
            let problem = "must have ids of tokens of this model";
            return Err(SubmitError::BadParameter { name: "logit_bias", problem });
        }
        Ok(Self {
            shape: Shape {
                temperature: request.temperature,
                top_k: request.top_k,
                top_p: request.top_p,
                min_p: request.min_p,
            },
            bias: request.logit_bias.clone(),
            penalties: Penalties::new(request, prompt),
            mask: None,
            top_logprobs: request.logprobs.then_some(request.top_logprobs),
            vocabulary,
            draws: Draws::new(seed),
            changed: Zeroizing::default(),
            scratch: Scratch::default(),
        })
    }

    /// With rules for what may come.
    pub(crate) fn with_mask(self, rules: Option<Box<dyn TokenMask>>) -> Self {
        let mask = rules.map(|rules| Mask { rules, allowed: TokenSet::new(self.vocabulary) });
        Self { mask, ..self }
    }

    /// What of the scores the choice depends on.
    pub(crate) fn needs(&self) -> Needs {
        let changes = !self.bias.is_empty() || self.penalties.is_some() || self.mask.is_some();
        if changes || self.top_logprobs.is_some() {
            Needs::All
        } else if self.shape.temperature == 0.0 {
            Needs::Best
        } else {
            self.shape.top_k.map_or(Needs::All, Needs::Top)
        }
    }

    /// Chooses the next token from the best ones, if they are what the choice depends on.
    pub(crate) fn sample_top(&mut self, top: &Top) -> Result<Sampled, Error> {
        let mut scores = Zeroizing::new(vec![f32::NEG_INFINITY; self.vocabulary]);
        for (token, score) in top.tokens.iter().zip(top.scores.iter()) {
            if let Some(place) = scores.get_mut(*token as usize) {
                *place = *score;
            }
        }
        self.sample(&scores)
    }

    /// Chooses the next token. Scores behind the vocabulary, which models have for the sake of round numbers, do not count.
    pub(crate) fn sample(&mut self, logits: &[f32]) -> Result<Sampled, Error> {
        let too_few = || Error::Compute("not one score per token".to_owned());
        let logits = logits.get(..self.vocabulary).ok_or_else(too_few)?;
        // Also where nothing is drawn: the place in the answer decides.
        let draw = self.draws.next();
        let is_changed = self.change(logits);
        let scores = if is_changed { self.changed.as_slice() } else { logits };
        self.scratch.index(scores);
        let best = match self.scratch.best(scores) {
            Some(best) => best,
            None if self.mask.is_some() => return Err(Error::NoAllowedToken),
            None => return Err(Error::Compute("no finite score".to_owned())),
        };
        let token = if self.shape.temperature == 0.0 {
            best.1
        } else {
            choice::choose(&mut self.scratch, scores, best, self.shape, draw)?
        };
        if let Some(penalties) = &mut self.penalties {
            penalties.accept(token);
        }
        if let Some(mask) = &mut self.mask {
            mask.rules.accept(token);
        }
        let top = self.top_logprobs;
        let logprobs = top.map(|top| logprobs::logprobs(&mut self.scratch, logits, token, top));
        Ok(Sampled { token, logprobs })
    }

    /// Fills `changed` if the request changes scores.
    fn change(&mut self, logits: &[f32]) -> bool {
        if self.bias.is_empty() && self.penalties.is_none() && self.mask.is_none() {
            return false;
        }
        if self.changed.len() != logits.len() {
            self.changed = Zeroizing::new(vec![0.0; logits.len()]);
        }
        self.changed.copy_from_slice(logits);
        for (token, bias) in self.bias.iter() {
            if let Some(score) = self.changed.get_mut(*token as usize) {
                *score += bias;
            }
        }
        if let Some(penalties) = &self.penalties {
            penalties.apply(&mut self.changed);
        }
        if let Some(mask) = &mut self.mask {
            mask.allowed.clear();
            mask.rules.allowed(&mut mask.allowed);
            mask.allowed.apply(&mut self.changed);
        }
        true
    }
}

/// The token with the highest score; the first of equals.
pub(crate) fn argmax(logits: &[f32]) -> Result<u32, Error> {
    scores::best(logits).map(|(_, token)| token).ok_or_else(|| Error::Compute("no finite score".to_owned()))
}
