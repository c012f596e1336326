//! Texts of tokens, letter by letter: the longest that a word begins with is found in one walk.

use std::collections::HashMap;

/// Letters of all tokens, but for shared beginnings: BERT's vocabularies have some 100,000, those of many languages 600,000.
const MAX_NODES: usize = 1 << 23;

/// Texts, each with an id. Where a letter leads has the id of the text that ends there, if one does.
#[derive(Default)]
pub(super) struct Trie(HashMap<(u32, char), (u32, Option<u32>)>);

impl Trie {
    /// Adds a text. An empty one is no beginning of anything, and left out.
    pub(super) fn insert(&mut self, text: &str, id: u32) -> Result<(), &'static str> {
        let mut node = 0;
        let mut letters = text.chars().peekable();
        while let Some(letter) = letters.next() {
            let next = u32::try_from(self.0.len() + 1).unwrap_or(u32::MAX);
            let (next, end) = self.0.entry((node, letter)).or_insert((next, None));
            node = *next;
            if letters.peek().is_none() {
                *end = Some(id);
            }
            if self.0.len() > MAX_NODES {
                return Err("its tokens have too many letters");
            }
        }
        Ok(())
    }

    /// The longest text that `word` begins with: how many letters, and its id.
    pub(super) fn longest(&self, word: &[char]) -> Option<(usize, u32)> {
        let (mut node, mut found) = (0, None);
        for (at, letter) in word.iter().enumerate() {
            let Some((next, end)) = self.0.get(&(node, *letter)) else { break };
            node = *next;
            found = end.map(|id| (at + 1, id)).or(found);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_beginning_is_found() {
        let mut trie = Trie::default();
        for (text, id) in [("a", 1), ("abc", 2), ("ü", 3), ("", 4), ("b", 5)] {
            trie.insert(text, id).unwrap();
        }
        let longest = |word: &str| trie.longest(&word.chars().collect::<Vec<_>>());
        assert_eq!(longest("abcd"), Some((3, 2)));
        assert_eq!(longest("abd"), Some((1, 1)));
        assert_eq!(longest("übc"), Some((1, 3)));
        assert_eq!((longest("c"), longest("")), (None, None));
    }
}
