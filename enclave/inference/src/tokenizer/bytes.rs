//! Byte-level byte-pair encoding (GPT-2): words, their bytes, merges by rank.

use super::merge::{NO_TOKEN, Rule, Symbol, merge};
use super::vocabulary::Vocabulary;
use super::words::Words;
use crate::error::Error;
use crate::secret::Tokens;
use std::collections::HashMap;
use unicode_normalization_alignments::UnicodeNormalization;
use zeroize::Zeroizing;

/// The encoder of a vocabulary. Knows no control token.
pub(super) struct ByteLevel {
    words: Words,
    compose: bool,
    /// The token of each byte, or [`NO_TOKEN`].
    single: Vec<u32>,
    merges: Merges,
    /// Words that are tokens, where those are taken whole.
    whole: HashMap<Vec<u8>, u32>,
}

/// Rank and result of two neighbouring tokens.
pub(super) struct Merges(HashMap<(u32, u32), (u32, u32)>);

impl Rule for Merges {
    fn merge(&self, left: Symbol, right: Symbol) -> Option<(u32, u32)> {
        self.0.get(&(left.id, right.id)).copied()
    }
}

impl Merges {
    /// Merges by the texts of tokens. Those with a token that text cannot become are left out: nothing leads there.
    pub(super) fn new(vocabulary: &Vocabulary, merges: &[(String, String)]) -> Result<Self, Error> {
        let ids: HashMap<&str, u32> = vocabulary.textual().map(|(id, text)| (text, id)).collect();
        let others: std::collections::HashSet<&str> =
            vocabulary.tokens.iter().map(|t| t.text.as_str()).collect();
        let mut table = HashMap::with_capacity(merges.len());
        for (rank, (left, right)) in (0_u32..).zip(merges) {
            let result = [left.as_str(), right.as_str()].concat();
            let known = |text: &str| ids.get(text).copied();
            if let (Some(left), Some(right), Some(result)) = (known(left), known(right), known(&result)) {
                table.entry((left, right)).or_insert((rank, result));
            } else if ![left.as_str(), right.as_str(), &result].iter().all(|text| others.contains(text)) {
                return Err(Error::Tokenizer(format!("merge {rank} is of texts that are no tokens")));
            }
        }
        Ok(Self(table))
    }
}

impl ByteLevel {
    pub(super) fn new(
        vocabulary: &Vocabulary,
        words: &Words,
        merges: &[(String, String)],
        compose: bool,
    ) -> Result<Self, Error> {
        let alphabet = byte_alphabet();
        let mut single = vec![NO_TOKEN; 256];
        let mut whole = HashMap::new();
        for (id, text) in vocabulary.textual() {
            let Some(bytes) = text.chars().map(|c| alphabet.get(&c).copied()).collect::<Option<Vec<u8>>>()
            else {
                continue; // no bytes spell it
            };
            if let [byte] = bytes[..] {
                single[usize::from(byte)] = id;
            }
            if words.whole_words {
                whole.insert(bytes, id);
            }
        }
        // A byte that is no token vanishes from prompts, in llama.cpp too. Models may lack some that no honest text has
        // (SmolLM2: several control characters), but not these.
        let needed = |byte: &usize| matches!(u8::try_from(*byte), Ok(b'\n' | b' '..=b'~'));
        if let Some(byte) = (0..256).filter(needed).find(|byte| single.get(*byte) == Some(&NO_TOKEN)) {
            return Err(Error::Tokenizer(format!("it has no token for the byte {byte}")));
        }
        Ok(Self { words: words.clone(), compose, single, merges: Merges::new(vocabulary, merges)?, whole })
    }

    pub(super) fn encode(&self, text: &str, tokens: &mut Tokens) -> Result<(), &'static str> {
        if self.compose && !text.is_ascii() {
            // Composing never makes text longer than three times (Unicode Standard Annex 15, section 12).
            let mut composed = Zeroizing::new(String::with_capacity(3 * text.len()));
            composed.extend(text.nfc().map(|(c, _)| c));
            return self.encode_composed(&composed, tokens);
        }
        self.encode_composed(text, tokens)
    }

    fn encode_composed(&self, text: &str, tokens: &mut Tokens) -> Result<(), &'static str> {
        let words = self.words.cut(text)?;
        let longest = words.iter().map(ExactSizeIterator::len).max().unwrap_or_default();
        let mut symbols = Zeroizing::new(Vec::with_capacity(longest));
        for word in words {
            let word = text.as_bytes().get(word).unwrap_or_default();
            if let Some(id) = self.whole.get(word) {
                tokens.push(*id);
                continue;
            }
            symbols.clear();
            let single = |byte: u8| self.single.get(usize::from(byte)).copied().unwrap_or(NO_TOKEN);
            symbols.extend((0_u32..).zip(word).map(|(at, byte)| Symbol::new(at, at + 1, single(*byte))));
            merge(&mut symbols, &self.merges);
            symbols.iter().filter(|symbol| symbol.id != NO_TOKEN).for_each(|symbol| tokens.push(symbol.id));
        }
        Ok(())
    }
}

/// The bytes that a token stands for; characters outside the alphabet for themselves.
pub(super) fn spell(text: &str, alphabet: &HashMap<char, u8>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match alphabet.get(&c) {
            Some(byte) => bytes.push(*byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// The alphabet of byte-level BPE (GPT-2): printable bytes stand for themselves, the others for characters from U+0100.
pub(crate) fn byte_alphabet() -> HashMap<char, u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let shifted = (0..=255).filter(|byte| !printable(*byte)).zip(0x100_u32..);
    let shifted = shifted.filter_map(|(byte, code)| Some((char::from_u32(code)?, byte)));
    (0..=255).filter(|byte| printable(*byte)).map(|byte| (char::from(byte), byte)).chain(shifted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_that_of_gpt2() {
        let alphabet = byte_alphabet();
        assert_eq!(alphabet.len(), 256);
        assert_eq!((alphabet[&'Ġ'], alphabet[&'Ċ'], alphabet[&'a']), (b' ', b'\n', b'a'));
        assert_eq!(spell("aĠ漢", &alphabet), "a 漢".as_bytes());
    }
}
