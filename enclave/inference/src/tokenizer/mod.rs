//! Text to tokens and back.
//!
//! **No text of a client becomes a token with a meaning.** The encoders know no control token at all: those are kept
//! beside them, and only text that the caller declares as trusted is searched for them. Which tokens have a meaning is
//! not left to the model's converter alone: see [`Vocabulary::settled`]. User-defined tokens that are nothing but text
//! (Gemma's line ends and HTML tags) are found in text of clients too, as the model was trained with it. Here we differ
//! from llama.cpp, which finds every user-defined token in every text, such as `<think>` of Qwen 3.

mod bytes;
mod gguf;
mod merge;
mod pieces;
mod specials;
mod vocabulary;
mod words;

pub(crate) use bytes::byte_alphabet;
pub(crate) use gguf::halves;
pub(crate) use pieces::byte_of;
pub(crate) use vocabulary::{Kind, Prefix, Scheme, Token, Vocabulary};
pub(crate) use words::{Words, digit_pattern, gpt2_pattern};

use crate::error::Error;
use crate::secret::Tokens;
use crate::source::Source;
use bytes::ByteLevel;
use pieces::{Pieces, SPACE};
use specials::Specials;
use std::collections::{HashMap, HashSet};
use zeroize::{Zeroize, Zeroizing};

/// The tokenizer of a model.
pub(crate) struct Tokenizer {
    encoder: Encoder,
    /// Text of each token as bytes; nothing for control tokens.
    bytes: Vec<Vec<u8>>,
    /// Tokens that only trusted text can be.
    reserved: Specials,
    /// User-defined tokens that any text can be.
    plain: Specials,
    /// What the model's owner calls every token that only trusted text can be.
    reserved_names: HashMap<u32, String>,
    end: HashSet<u32>,
    begin: Option<u32>,
    names: Names,
}

enum Encoder {
    Bytes(ByteLevel),
    Pieces(Pieces),
}

/// What templates call the first and the last token.
#[derive(Default)]
pub(crate) struct Names {
    pub(crate) begin: String,
    pub(crate) end: String,
}

/// A piece of a prompt.
#[derive(Clone, Copy)]
pub(crate) enum Piece<'a> {
    /// Written by the model's owner: special tokens are parsed.
    Trusted(&'a str),
    /// Written by a client: never anything but text.
    Text(&'a str),
}

impl Tokenizer {
    /// The tokenizer of a model.
    pub(crate) fn load(source: &Source<'_>) -> Result<Self, Error> {
        let template = source.optional_string("tokenizer.chat_template")?.unwrap_or_default();
        match source.vocabulary() {
            Some(vocabulary) => Self::new(vocabulary),
            None => Self::new(&gguf::read(source)?.settled(template)),
        }
    }

    /// A tokenizer of single bytes and one control token with the pre-tokenizer of this name, for fuzzing.
    pub(crate) fn of_bytes(pre: &str) -> Result<Self, Error> {
        let letters = bytes::byte_alphabet().into_keys().map(|c| (c.to_string(), Kind::Normal));
        let tokens = std::iter::once(("<|im_end|>".to_owned(), Kind::Control)).chain(letters);
        let vocabulary = Vocabulary {
            tokens: tokens.map(|(text, kind)| Token { text, kind }).collect(),
            scheme: Scheme::Bytes { words: Words::named(pre)?, merges: Vec::new(), compose: false },
            begin: None,
            add_begin: false,
            end: Some(0),
            ends: HashSet::new(),
            named: HashSet::new(),
        };
        Self::new(&vocabulary.settled(""))
    }

    /// The tokenizer of a vocabulary without a chat template, for tests.
    #[cfg(test)]
    pub(crate) fn of(vocabulary: Vocabulary) -> Self {
        Self::new(&vocabulary.settled("")).unwrap()
    }

    /// Builds the encoder of a settled vocabulary.
    fn new(vocabulary: &Vocabulary) -> Result<Self, Error> {
        if vocabulary.tokens.len() >= merge::NO_TOKEN as usize - 1 {
            return Err(Error::Tokenizer("it has too many tokens".to_owned()));
        }
        let encoder = match &vocabulary.scheme {
            Scheme::Bytes { words, merges, compose } => {
                Encoder::Bytes(ByteLevel::new(vocabulary, words, merges, *compose)?)
            }
            Scheme::Scores { scores, prefix } => {
                Encoder::Pieces(Pieces::by_scores(vocabulary, scores, *prefix)?)
            }
            Scheme::Merges { merges, prefix } => {
                Encoder::Pieces(Pieces::by_merges(vocabulary, merges, *prefix)?)
            }
        };
        let tokens = || (0_u32..).zip(&vocabulary.tokens);
        let reserved = |id: u32, kind: Kind| match kind {
            Kind::Control | Kind::Unknown => true,
            Kind::UserDefined => !vocabulary.is_plain(id),
            Kind::Normal | Kind::Unused | Kind::Byte => false,
        };
        let texts = |wanted: bool| {
            tokens()
                .filter(
                    |(id, token)| if wanted { reserved(*id, token.kind) } else { vocabulary.is_plain(*id) },
                )
                .map(|(id, token)| (token.text.as_str(), id))
                .collect::<Vec<_>>()
        };
        Ok(Self {
            encoder,
            bytes: spelled(vocabulary),
            reserved_names: texts(true).into_iter().map(|(text, id)| (id, text.to_owned())).collect(),
            reserved: Specials::new(texts(true)),
            plain: Specials::new(texts(false)),
            begin: vocabulary.begin.filter(|_| vocabulary.add_begin),
            names: Names { begin: vocabulary.text(vocabulary.begin), end: vocabulary.text(vocabulary.end) },
            end: vocabulary.ends.clone(),
        })
    }

    /// How many tokens there are.
    pub(crate) fn vocabulary(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// Whether a token ends the model's turn.
    pub(crate) fn is_end(&self, token: u32) -> bool {
        self.end.contains(&token)
    }

    /// Tokens that end the model's turn, in order.
    pub(crate) fn ends(&self) -> Vec<u32> {
        let mut ends: Vec<_> =
            self.end.iter().copied().filter(|id| (*id as usize) < self.bytes.len()).collect();
        ends.sort_unstable();
        ends
    }

    /// The text of a token; nothing for control tokens.
    pub(crate) fn bytes(&self, token: u32) -> &[u8] {
        self.bytes.get(token as usize).map_or(&[], Vec::as_slice)
    }

    /// What the model's owner calls a token that only trusted text can be; nothing for tokens that are text.
    pub(crate) fn special_name(&self, token: u32) -> Option<&str> {
        self.reserved_names.get(&token).map(String::as_str)
    }

    /// The tokens of a prompt. Text is merged across the borders of pieces, as if the prompt were one string. No last
    /// token is added, whatever the file says: a prompt waits for an answer.
    pub(crate) fn encode(&self, pieces: &[Piece<'_>]) -> Result<Tokens, &'static str> {
        let len: usize = pieces.iter().map(|(Piece::Trusted(text) | Piece::Text(text))| text.len()).sum();
        // A token has one byte at least; what SentencePiece puts before text follows a special token.
        let mut tokens = Tokens::with_capacity(3 * len + 2);
        let mut run = Zeroizing::new(String::with_capacity(len));
        for piece in pieces {
            match piece {
                Piece::Text(text) => run.push_str(text),
                Piece::Trusted(text) => self.encode_trusted(text, &mut run, &mut tokens)?,
            }
        }
        self.flush(&mut run, &mut tokens)?;
        match self.begin {
            Some(begin) if tokens.as_slice().first() != Some(&begin) => {
                let mut with_begin = Tokens::with_capacity(tokens.len() + 1);
                with_begin.push(begin);
                tokens.as_slice().iter().for_each(|id| with_begin.push(*id));
                Ok(with_begin)
            }
            _ => Ok(tokens),
        }
    }

    /// Special tokens as such, the rest appended to the run of text.
    fn encode_trusted(
        &self,
        mut text: &str,
        run: &mut String,
        tokens: &mut Tokens,
    ) -> Result<(), &'static str> {
        while let Some((start, end, id)) = self.reserved.find(text) {
            run.push_str(text.get(..start).unwrap_or_default());
            self.flush(run, tokens)?;
            tokens.push(id);
            text = text.get(end..).unwrap_or_default();
        }
        run.push_str(text);
        Ok(())
    }

    /// Encodes and empties the run.
    fn flush(&self, run: &mut String, tokens: &mut Tokens) -> Result<(), &'static str> {
        let before = tokens.len();
        let mut text = run.as_str();
        while let Some((start, end, id)) = self.plain.find(text) {
            self.encode_text(text.get(..start).unwrap_or_default(), tokens)?;
            tokens.push(id);
            text = text.get(end..).unwrap_or_default();
        }
        self.encode_text(text, tokens)?;
        if tokens.as_slice().iter().skip(before).any(|id| self.reserved_names.contains_key(id)) {
            return Err("text became a special token"); // cannot happen: the encoders do not know them
        }
        run.zeroize(); // keeps the capacity
        Ok(())
    }

    fn encode_text(&self, text: &str, tokens: &mut Tokens) -> Result<(), &'static str> {
        match &self.encoder {
            Encoder::Bytes(encoder) => encoder.encode(text, tokens),
            Encoder::Pieces(encoder) => encoder.encode(text, tokens.is_empty(), tokens),
        }
    }
}

/// The text of every token as bytes.
fn spelled(vocabulary: &Vocabulary) -> Vec<Vec<u8>> {
    let alphabet = bytes::byte_alphabet();
    let byte_level = matches!(vocabulary.scheme, Scheme::Bytes { .. });
    let spell = |token: &Token| match token.kind {
        Kind::Control | Kind::Unknown | Kind::Unused => Vec::new(),
        Kind::Byte => byte_of(&token.text).into_iter().collect(),
        Kind::Normal if byte_level => bytes::spell(&token.text, &alphabet),
        Kind::UserDefined if byte_level => token.text.clone().into_bytes(),
        Kind::Normal | Kind::UserDefined => token.text.replace(SPACE, " ").into_bytes(),
    };
    vocabulary.tokens.iter().map(spell).collect()
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod vectors;
