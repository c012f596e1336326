//! WordPiece as BERT has it: text is cleaned, cut at white space and punctuation, and each word into the longest pieces from its
//! start. The same tokens as the library `tokenizers`, whose Unicode tables we use.
//!
//! **No text becomes a token with a meaning**: `[CLS]`, `[SEP]`, `[MASK]` and whatever else the file declares special are not in
//! the tables that words are looked up in. `tokenizers` finds them in any text unless it is told otherwise
//! (`encode_special_tokens`). A word of which some part is unknown is the unknown token as a whole.
//!
//! One walk over the text, in memory for one word. What is not wiped: letters of one run of combining marks.

use super::trie::Trie;
use crate::secret::Tokens;
use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::UnicodeNormalization;
use zeroize::Zeroizing;

/// The tokenizer of a model.
pub(super) struct WordPiece {
    pub(super) normaliser: Normaliser,
    /// What words begin with.
    pub(super) first_pieces: Trie,
    /// What goes on within a word.
    pub(super) later_pieces: Trie,
    pub(super) max_word_chars: usize,
    pub(super) unknown: u32,
    /// `[CLS]`.
    pub(super) before: u32,
    /// `[SEP]`.
    pub(super) behind: u32,
}

/// What is done to text before it is cut (`BertNormalizer`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Normaliser {
    /// Control characters go, all white space becomes spaces.
    pub(super) clean: bool,
    /// Each ideograph is a word.
    pub(super) part_ideographs: bool,
    pub(super) strip_accents: bool,
    pub(super) lowercase: bool,
}

/// Tokens before and behind a text.
const ENDS: usize = 2;

impl WordPiece {
    /// How many tokens a text has, those before and behind it included.
    pub(super) fn count(&self, text: &str) -> usize {
        let mut count = ENDS;
        self.each(text, |_| count += 1);
        count
    }

    /// The tokens of a text, those before and behind it included; where there are more than `most`, how many they are.
    pub(super) fn encode(&self, text: &str, most: usize) -> Result<Tokens, usize> {
        // No letter becomes more than four.
        let (mut tokens, mut count) = (Tokens::with_capacity(most.min(4 * text.len()) + ENDS), ENDS);
        tokens.push(self.before);
        self.each(text, |id| {
            count += 1;
            if count <= most {
                tokens.push(id);
            }
        });
        tokens.push(self.behind);
        if count <= most { Ok(tokens) } else { Err(count) }
    }

    /// Calls `token` with the id of each piece of a text.
    fn each(&self, text: &str, token: impl FnMut(u32)) {
        let mut word = Word {
            tokenizer: self,
            letters: Zeroizing::new(Vec::with_capacity(self.max_word_chars)),
            pieces: Zeroizing::new(Vec::with_capacity(self.max_word_chars)),
            too_long: false,
            token,
        };
        self.normaliser.each(text, |letter| {
            if letter.is_whitespace() {
                word.end();
            } else if is_punctuation(letter) {
                word.end();
                word.push(letter);
                word.end();
            } else {
                word.push(letter);
            }
        });
        word.end();
    }
}

/// The word that is being read.
struct Word<'a, F> {
    tokenizer: &'a WordPiece,
    letters: Zeroizing<Vec<char>>,
    pieces: Zeroizing<Vec<u32>>,
    too_long: bool,
    token: F,
}

impl<F: FnMut(u32)> Word<'_, F> {
    fn push(&mut self, letter: char) {
        if self.letters.len() < self.tokenizer.max_word_chars {
            self.letters.push(letter); // within the capacity: nothing is left behind
        } else {
            self.too_long = true;
        }
    }

    fn end(&mut self) {
        if self.letters.is_empty() {
            return;
        }
        if !self.too_long && self.cut().is_some() {
            self.pieces.iter().for_each(|id| (self.token)(*id));
        } else {
            (self.token)(self.tokenizer.unknown);
        }
        self.letters.clear();
        self.pieces.clear();
        self.too_long = false;
    }

    /// The longest piece that the word begins with, and so on from there. Nothing where there is none.
    fn cut(&mut self) -> Option<()> {
        let mut rest = self.letters.as_slice();
        let mut table = &self.tokenizer.first_pieces;
        while !rest.is_empty() {
            let (len, id) = table.longest(rest)?;
            self.pieces.push(id); // at most one per letter: within the capacity
            rest = rest.get(len..)?;
            table = &self.tokenizer.later_pieces;
        }
        Some(())
    }
}

impl Normaliser {
    /// Calls `letter` with each letter of the normalised text.
    fn each(&self, text: &str, mut letter: impl FnMut(char)) {
        let cleaned = text.chars().filter_map(|c| if self.clean { clean(c) } else { Some(c) });
        let parted = cleaned.flat_map(|c| {
            let apart = (self.part_ideographs && is_ideograph(c)).then_some(' ');
            [apart, Some(c), apart].into_iter().flatten()
        });
        let mut cased = |c: char| {
            if self.lowercase {
                c.to_lowercase().for_each(&mut letter);
            } else {
                letter(c);
            }
        };
        if self.strip_accents {
            let bare = parted.nfd().map(|(c, _)| c).filter(|c| c.is_ascii() || !c.is_mark_nonspacing());
            bare.for_each(&mut cased);
        } else {
            parted.for_each(&mut cased);
        }
    }
}

/// Nothing for control characters, a space for white space.
fn clean(c: char) -> Option<char> {
    match c {
        '\t' | '\n' | '\r' => Some(' '),
        '\0' | '\u{fffd}' => None,
        _ if c.is_ascii() => Some(c).filter(|c| !c.is_ascii_control()),
        _ if c.is_other() => None,
        _ => Some(if c.is_whitespace() { ' ' } else { c }),
    }
}

fn is_punctuation(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_punctuation() } else { c.is_punctuation() }
}

/// The blocks of CJK ideographs that BERT knows.
fn is_ideograph(c: char) -> bool {
    matches!(u32::from(c),
        0x4e00..=0x9fff | 0x3400..=0x4dbf | 0x20000..=0x2a6df | 0x2a700..=0x2b73f | 0x2b740..=0x2b81f
        | 0x2b920..=0x2ceaf | 0xf900..=0xfaff | 0x2f800..=0x2fa1f)
}

#[cfg(test)]
#[path = "wordpiece_tests.rs"]
mod tests;
