//! Constrained decoding: which tokens may come next.

use zeroize::Zeroizing;

/// Decides which tokens an answer may go on with, one token at a time: a grammar, a JSON schema, a choice of texts.
///
/// It is called on the engine's thread, once per token: it should take well under a millisecond. Tokens that end an answer are
/// tokens like others: a mask that allows none of them forbids the end, and one that allows only them demands it.
pub trait TokenMask: Send {
    /// Puts the tokens that may come next into `allowed`, which is empty. If it stays empty, or the model gives none of them a
    /// score, the request fails with [`FailureKind::NoAllowedToken`](crate::FailureKind::NoAllowedToken).
    fn allowed(&mut self, allowed: &mut TokenSet);

    /// Hears which token was chosen; always one that was allowed.
    fn accept(&mut self, token: u32);

    /// The same rules in the same state, for another answer.
    fn copy(&self) -> Box<dyn TokenMask>;
}

/// A set of token ids. Wiped when dropped; cannot be formatted.
#[expect(missing_debug_implementations, reason = "what may come next reveals what came before")]
pub struct TokenSet {
    words: Zeroizing<Vec<u64>>,
    vocabulary: usize,
}

impl TokenSet {
    /// The empty set, for ids below `vocabulary`.
    #[must_use]
    pub fn new(vocabulary: usize) -> Self {
        Self { words: Zeroizing::new(vec![0; vocabulary.div_ceil(64)]), vocabulary }
    }

    /// How many ids there are; they begin with 0.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Takes all ids out.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Puts an id in. One outside of the vocabulary is ignored.
    pub fn insert(&mut self, id: u32) {
        let id = id as usize;
        if let Some(word) = self.words.get_mut(id / 64).filter(|_| id < self.vocabulary) {
            *word |= 1 << (id % 64);
        }
    }

    /// Whether an id is in it.
    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        let id = id as usize;
        id < self.vocabulary && self.words.get(id / 64).is_some_and(|word| word >> (id % 64) & 1 == 1)
    }

    /// The set as bits: id `i` is bit `i % 64` of word `i / 64`. Bits outside of the vocabulary mean nothing.
    pub fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// Takes the score of every token that is not in the set.
    pub(super) fn apply(&self, scores: &mut [f32]) {
        for (word, scores) in self.words.iter().zip(scores.chunks_mut(64)) {
            for (bit, score) in scores.iter_mut().enumerate() {
                if word >> bit & 1 == 0 {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in() {
        let mut set = TokenSet::new(130);
        for id in [0, 63, 64, 129, 130, u32::MAX] {
            set.insert(id);
        }
        let inside: Vec<u32> = (0..400).filter(|id| set.contains(*id)).collect();
        assert_eq!(inside, [0, 63, 64, 129]);
        set.words_mut()[2] = u64::MAX;
        assert!(set.contains(129) && set.contains(128) && !set.contains(130));
        set.clear();
        assert!((0..130).all(|id| !set.contains(id)) && set.vocabulary() == 130);
    }
}
