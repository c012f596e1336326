//! Penalties for tokens that were there before.

use crate::request::GenerateRequest;
use zeroize::Zeroizing;

/// What was said so far, and how much less likely that makes it.
pub(super) struct Penalties {
    /// Of tokens in the prompt or in the answer: a positive score is divided by it, a negative one multiplied (CTRL, Keskar
    /// et al. 2019; Hugging Face and vLLM).
    repetition: f32,
    /// Taken from the score of each token in the answer (OpenAI).
    presence: f32,
    /// Taken once for each time that the token is in the answer (OpenAI).
    frequency: f32,
    /// Tokens by id, with how often each is in the answer; 0 for those that are only in the prompt.
    seen: Zeroizing<Vec<(u32, u32)>>,
}

impl Penalties {
    /// Nothing if there is none: then nothing need be remembered.
    pub(super) fn new(request: &GenerateRequest, prompt: &[u32]) -> Option<Self> {
        let (repetition, presence, frequency) =
            (request.repetition_penalty, request.presence_penalty, request.frequency_penalty);
        if repetition == 1.0 && presence == 0.0 && frequency == 0.0 {
            return None;
        }
        let mut seen = Zeroizing::new(Vec::new());
        if repetition != 1.0 {
            seen.reserve_exact(prompt.len());
            seen.extend(prompt.iter().map(|token| (*token, 0)));
            seen.sort_unstable();
            seen.dedup();
        }
        Some(Self { repetition, presence, frequency, seen })
    }

    pub(super) fn apply(&self, scores: &mut [f32]) {
        for (token, count) in self.seen.iter() {
            let Some(score) = scores.get_mut(*token as usize) else { continue };
            *score = if *score > 0.0 { *score / self.repetition } else { *score * self.repetition };
            if *count > 0 {
                *score -= self.presence + self.frequency * *count as f32;
            }
        }
    }

    /// Remembers a token of the answer.
    pub(super) fn accept(&mut self, token: u32) {
        match self.seen.binary_search_by_key(&token, |(token, _)| *token) {
            Ok(at) => {
                if let Some((_, count)) = self.seen.get_mut(at) {
                    *count = count.saturating_add(1);
                }
            }
            Err(at) => {
                crate::secret::make_room(&mut self.seen);
                self.seen.insert(at, (token, 1));
            }
        }
    }
}
