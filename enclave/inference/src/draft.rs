//! Guesses of the next tokens from what was said before (prompt lookup), to be checked by the model several at a time.
//!
//! A guess that is wrong costs a row of a step and changes nothing: the answer is made of the model's own choices.

/// Tokens that must have been said before for what followed them to be a guess.
const MATCH: usize = 3;
/// Most tokens of a guess.
pub(crate) const MAX_DRAFT: usize = 7;
/// Steps without guesses after guesses that were wrong.
const PAUSE: usize = 8;

/// Guesses for one sequence, more where they come true.
pub(crate) struct Drafter {
    /// Tokens to guess next time.
    len: usize,
    /// Steps until the next guess.
    pause: usize,
}

impl Default for Drafter {
    fn default() -> Self {
        Self { len: 3, pause: 0 }
    }
}

impl Drafter {
    /// Appends at most `most` tokens that may follow `said`.
    pub(crate) fn propose(&mut self, said: &[u32], most: usize, to: &mut crate::secret::Tokens) {
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        let Some(last) = said.last_chunk::<MATCH>() else { return };
        let earlier = &said[..said.len() - 1];
        let Some(at) = earlier.windows(MATCH).rposition(|window| window == last) else { return };
        let follows = &said[at + MATCH..];
        follows.iter().take(self.len.min(most)).for_each(|id| to.push(*id));
    }

    /// How many of the guesses came true.
    pub(crate) fn learn(&mut self, drafted: usize, accepted: usize) {
        if drafted == 0 {
            return;
        }
        if accepted == drafted {
            self.len = (self.len + 2).min(MAX_DRAFT);
        } else if accepted == 0 {
            (self.len, self.pause) = (1, PAUSE);
        } else {
            self.len = accepted;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Tokens;

    fn guess(drafter: &mut Drafter, said: &[u32], most: usize) -> Vec<u32> {
        let mut to = Tokens::default();
        drafter.propose(said, most, &mut to);
        to.dangerous_ids().to_vec()
    }

    #[test]
    fn what_followed_the_last_time_is_guessed() {
        let mut drafter = Drafter::default();
        assert_eq!(guess(&mut drafter, &[1, 2, 3, 4, 5, 6, 9, 1, 2, 3], 5), [4, 5, 6]);
        assert_eq!(guess(&mut drafter, &[1, 2, 3, 4, 5, 6, 9, 1, 2, 3], 2), [4, 5]);
        assert_eq!(guess(&mut drafter, &[1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3], 1), [8], "the latest");
        assert_eq!(guess(&mut drafter, &[5, 5, 5, 5], 3), [5], "it may overlap");
        for nothing in [&[][..], &[1], &[1, 2, 3], &[1, 2, 3, 4, 5, 6]] {
            assert!(guess(&mut drafter, nothing, 5).is_empty());
        }
    }

    #[test]
    fn wrong_guesses_become_fewer_and_right_ones_more() {
        let mut drafter = Drafter::default();
        let said: Vec<u32> = (0..20).chain([0, 1, 2]).collect();
        drafter.learn(3, 3);
        assert_eq!(guess(&mut drafter, &said, 9).len(), 5);
        drafter.learn(5, 2);
        assert_eq!(guess(&mut drafter, &said, 9).len(), 2);
        drafter.learn(2, 0);
        for _ in 0..PAUSE {
            assert!(guess(&mut drafter, &said, 9).is_empty());
        }
        assert_eq!(guess(&mut drafter, &said, 9).len(), 1);
    }
}
