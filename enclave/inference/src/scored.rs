//! Tokens of an answer with how likely they were, told together with their text.

use crate::sampler::Logprobs;
use crate::secret::SecretString;
use crate::tokenizer::Tokenizer;
use std::collections::VecDeque;
use zeroize::Zeroizing;

/// A token and how likely it was. Wiped when dropped; cannot be formatted.
#[expect(missing_debug_implementations, reason = "part of an answer")]
pub struct ScoredToken {
    text: SecretString,
    bytes: Option<Zeroizing<Vec<u8>>>,
    logprob: Zeroizing<f32>,
}

impl ScoredToken {
    fn new(tokenizer: &Tokenizer, token: u32, logprob: f32) -> Self {
        let logprob = Zeroizing::new(logprob);
        match tokenizer.special_name(token) {
            Some(name) => Self { text: name.into(), bytes: None, logprob },
            None => {
                let bytes = Zeroizing::new(tokenizer.bytes(token).to_vec());
                let text = SecretString::from(String::from_utf8_lossy(&bytes).into_owned());
                Self { text, bytes: Some(bytes), logprob }
            }
        }
    }

    /// The text of the token; U+FFFD for bytes that are part of a character only. The name of a special token.
    pub fn text(&self) -> &str {
        self.text.expose()
    }

    /// The bytes of the token: those of all tokens together are the text. Nothing for special tokens, which have no text.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.bytes.as_ref().map(|bytes| bytes.as_slice())
    }

    /// The natural logarithm of the probability that the model gave it, before anything in the request changed that; at
    /// most 0.
    pub fn logprob(&self) -> f32 {
        *self.logprob
    }
}

/// How likely a token of the answer was, and what would have been likely in its place.
#[expect(missing_debug_implementations, reason = "part of an answer")]
pub struct TokenLogprobs {
    /// The token of the answer.
    pub chosen: ScoredToken,
    /// As many of the most likely tokens as the request asked for, most likely first. The chosen one may be among them.
    pub top: Vec<ScoredToken>,
}

impl TokenLogprobs {
    pub(crate) fn new(tokenizer: &Tokenizer, token: u32, logprobs: &Logprobs) -> Self {
        let top = logprobs.top.iter();
        let top = top.map(|(logprob, token)| ScoredToken::new(tokenizer, *token, *logprob)).collect();
        Self { chosen: ScoredToken::new(tokenizer, token, *logprobs.chosen), top }
    }
}

/// Tokens whose text was not passed on yet, since it is part of a character or may be part of a stop string. What
/// belongs to a stop string is never told.
#[derive(Default)]
pub(crate) struct Untold {
    /// With the place in the text at which each begins.
    tokens: VecDeque<(usize, TokenLogprobs)>,
    read: usize,
    passed: usize,
}

impl Untold {
    /// Takes a token, if they are asked for, and how many bytes of text it completed.
    pub(crate) fn push(&mut self, token: Option<TokenLogprobs>, text: usize) {
        self.tokens.extend(token.map(|token| (self.read, token)));
        self.read += text;
    }

    /// The tokens that begin in the next `text` bytes.
    pub(crate) fn pass(&mut self, text: usize) -> Vec<TokenLogprobs> {
        self.passed += text;
        let told = self.tokens.iter().take_while(|(begin, _)| *begin < self.passed).count();
        self.tokens.drain(..told).map(|(_, token)| token).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf;
    use crate::testing::tiny_model;

    #[test]
    fn tokens_are_told_with_the_text_in_which_they_begin() {
        let token = |n: u8| {
            let scored = ScoredToken {
                text: "".into(),
                bytes: Some(Zeroizing::new(vec![n])),
                logprob: Zeroizing::new(0.0),
            };
            Some(TokenLogprobs { chosen: scored, top: Vec::new() })
        };
        let mut untold = Untold::default();
        let pass = |untold: &mut Untold, text: usize| -> Vec<u8> {
            let told = untold.pass(text);
            told.iter().flat_map(|token| token.chosen.bytes().unwrap().to_vec()).collect()
        };
        untold.push(token(1), 3);
        assert_eq!(pass(&mut untold, 3), [1]);
        untold.push(token(2), 0); // part of a character
        assert!(pass(&mut untold, 0).is_empty());
        untold.push(token(3), 4);
        untold.push(token(4), 2);
        assert_eq!(pass(&mut untold, 5), [2, 3, 4], "the last character of 4 is held back");
        assert!(pass(&mut untold, 1).is_empty());
        untold.push(token(5), 2); // a stop string
        assert!(pass(&mut untold, 0).is_empty());
    }

    #[test]
    fn a_token_has_text_and_bytes_or_a_name() {
        let tokenizer = Tokenizer::load(&gguf::parse(&tiny_model()).unwrap()).unwrap();
        let of = |token| ScoredToken::new(&tokenizer, token, -0.5);
        assert_eq!((of(1).text(), of(1).bytes()), ("<|im_end|>", None));
        let whole = tokenizer.encode(&[crate::tokenizer::Piece::Text("\u{e9}")]).unwrap();
        let parts: Vec<ScoredToken> = whole.as_slice().iter().map(|token| of(*token)).collect();
        assert_eq!(parts.len(), 2);
        assert_eq!((parts[0].text(), parts[0].bytes()), ("\u{fffd}", Some(&[0xc3][..])));
        assert_eq!((parts[1].bytes(), parts[1].logprob()), (Some(&[0xa9][..]), -0.5));
    }
}
