//! SentencePiece's byte-pair encoding (Llama 2, Mistral, Gemma): characters merged into the best token first, characters
//! without a token as bytes.

use super::bytes::Merges;
use super::merge::{NO_TOKEN, Rule, Symbol, merge};
use super::vocabulary::{Kind, Prefix, Vocabulary};
use crate::error::Error;
use crate::secret::Tokens;
use std::collections::HashMap;
use zeroize::Zeroizing;

/// Stands for a space.
pub(super) const SPACE: char = '\u{2581}';

/// The encoder of a vocabulary. Knows no control token.
pub(super) struct Pieces {
    by_text: HashMap<String, u32>,
    /// Length in bytes of the longest token: longer text is none.
    longest: usize,
    rule: PieceRule,
    /// The token of each byte.
    bytes: Vec<u32>,
    prefix: Prefix,
}

enum PieceRule {
    /// Rank of each token, lowest first.
    Ranks(Vec<u32>),
    Merges(Merges),
}

/// Ranks need the text: which token two neighbours become is told by what they spell together.
struct Spelled<'a> {
    pieces: &'a Pieces,
    ranks: &'a [u32],
    text: &'a str,
}

impl Rule for Spelled<'_> {
    fn merge(&self, left: Symbol, right: Symbol) -> Option<(u32, u32)> {
        let (start, end) = (left.start as usize, right.end as usize);
        if end.checked_sub(start)? > self.pieces.longest {
            return None;
        }
        let id = *self.pieces.by_text.get(self.text.get(start..end)?)?;
        Some((*self.ranks.get(id as usize)?, id))
    }
}

impl Pieces {
    /// By the scores of tokens, the highest first.
    pub(super) fn by_scores(vocabulary: &Vocabulary, scores: &[f32], prefix: Prefix) -> Result<Self, Error> {
        if scores.len() != vocabulary.tokens.len() || scores.iter().any(|score| score.is_nan()) {
            return Err(Error::Tokenizer("its scores are not one number per token".to_owned()));
        }
        Self::new(vocabulary, PieceRule::Ranks(scores.iter().copied().map(rank).collect()), prefix)
    }

    /// By a list of merges, the first one first.
    pub(super) fn by_merges(
        vocabulary: &Vocabulary,
        merges: &[(String, String)],
        prefix: Prefix,
    ) -> Result<Self, Error> {
        Self::new(vocabulary, PieceRule::Merges(Merges::new(vocabulary, merges)?), prefix)
    }

    fn new(vocabulary: &Vocabulary, rule: PieceRule, prefix: Prefix) -> Result<Self, Error> {
        let mut bytes = vec![NO_TOKEN; 256];
        for (id, token) in (0_u32..).zip(&vocabulary.tokens) {
            if let Some(byte) = byte_of(&token.text).filter(|_| token.kind == Kind::Byte) {
                bytes[usize::from(byte)] = id;
            }
        }
        if let Some(byte) = bytes.iter().position(|id| *id == NO_TOKEN) {
            return Err(Error::Tokenizer(format!("it has no token for the byte {byte}")));
        }
        let by_text: HashMap<_, _> = vocabulary.textual().map(|(id, text)| (text.to_owned(), id)).collect();
        let longest = by_text.keys().map(String::len).max().unwrap_or_default();
        Ok(Self { by_text, longest, rule, bytes, prefix })
    }

    /// `first`: nothing is before this text in the prompt; else a special token is.
    pub(super) fn encode(&self, text: &str, first: bool, tokens: &mut Tokens) -> Result<(), &'static str> {
        if text.is_empty() {
            return Ok(());
        }
        let prefixed = self.prefix == Prefix::Always || (self.prefix == Prefix::First && first);
        // A space has one byte, what stands for it three.
        let mut escaped = Zeroizing::new(String::with_capacity(3 * (text.len() + 1)));
        escaped.extend(prefixed.then_some(SPACE));
        escaped.extend(text.chars().map(|c| if c == ' ' { SPACE } else { c }));
        if u32::try_from(escaped.len()).is_err() {
            return Err("it is too long");
        }
        let mut symbols = Zeroizing::new(Vec::with_capacity(escaped.len()));
        let mut start = 0_u32;
        for piece in escaped.split_inclusive(|_| true) {
            let end = start.saturating_add(u32::try_from(piece.len()).unwrap_or(u32::MAX));
            symbols.push(Symbol::new(start, end, self.by_text.get(piece).copied().unwrap_or(NO_TOKEN)));
            start = end;
        }
        match &self.rule {
            PieceRule::Ranks(ranks) => merge(&mut symbols, &Spelled { pieces: self, ranks, text: &escaped }),
            PieceRule::Merges(merges) => merge(&mut symbols, merges),
        }
        for symbol in symbols.iter() {
            if symbol.id != NO_TOKEN {
                tokens.push(symbol.id);
                continue;
            }
            let spelled = escaped.as_bytes().get(symbol.start as usize..symbol.end as usize);
            for byte in spelled.unwrap_or_default() {
                self.bytes.get(usize::from(*byte)).iter().for_each(|id| tokens.push(**id));
            }
        }
        Ok(())
    }
}

/// Ranks in the opposite order of scores.
fn rank(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits(); // no negative zero
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !ascending
}

/// The byte of a token `<0xAB>`.
pub(crate) fn byte_of(text: &str) -> Option<u8> {
    let hex = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let digits = hex.len() == 2 && hex.bytes().all(|digit| digit.is_ascii_hexdigit());
    u8::from_str_radix(hex, 16).ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_turn_scores_around() {
        let scores = [f32::INFINITY, 3.5, 1e-9, 0.0, -1e-9, -2.0, -1e9, f32::NEG_INFINITY];
        assert!(scores.map(rank).is_sorted_by(|a, b| a < b));
        assert_eq!(rank(0.0), rank(-0.0));
    }

    #[test]
    fn bytes_are_read_from_names() {
        assert_eq!(byte_of("<0x0A>"), Some(10));
        assert_eq!(byte_of("<0xff>"), Some(255));
        for text in ["<0x0A", "0x0A>", "<0x+A>", "<0x0>", "<0x00A>", "<0xZZ>", ""] {
            assert_eq!(byte_of(text), None, "{text}");
        }
    }
}
