//! What a tokenizer consists of, whatever format it came in, and which of its tokens text may become.

use super::words::Words;
use std::collections::HashSet;

/// Tokens that end a turn in the models we know, beside those that the file names.
const END_NAMES: [&str; 15] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<｜end▁of▁sentence｜>",
    "<EOT>",
    "[EOT]",
    "[EOS]",
    "</s>",
    "<eos>",
];
/// Tokens that have a meaning to a model even where a converter took them for words.
const TURN_NAMES: [&str; 12] = [
    "<start_of_turn>",
    "<s>",
    "<bos>",
    "<pad>",
    "<unk>",
    "<mask>",
    "[INST]",
    "[/INST]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[BOS]",
    "[PAD]",
];

/// A tokenizer as its file describes it.
pub(crate) struct Vocabulary {
    /// By id.
    pub(crate) tokens: Vec<Token>,
    pub(crate) scheme: Scheme,
    /// The first token of a text.
    pub(crate) begin: Option<u32>,
    /// Whether prompts begin with it even where the template does not write it.
    pub(crate) add_begin: bool,
    /// The last token of a text.
    pub(crate) end: Option<u32>,
    /// Other tokens that end the model's turn.
    pub(crate) ends: HashSet<u32>,
    /// Other tokens that the file gives a meaning: padding, separators..
    pub(crate) named: HashSet<u32>,
}

pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) kind: Kind,
}

/// `llama_token_type` of llama.cpp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// How text becomes tokens.
pub(crate) enum Scheme {
    /// Byte-pair encoding over bytes, as GPT-2: words, then merges. `compose`: text is brought to Unicode's NFC first.
    Bytes { words: Words, merges: Vec<(String, String)>, compose: bool },
    /// SentencePiece: characters, merged into the token with the highest score first.
    Scores { scores: Vec<f32>, prefix: Prefix },
    /// The same, with the merges written out (`tokenizer.json`).
    Merges { merges: Vec<(String, String)>, prefix: Prefix },
}

/// Where SentencePiece puts a space before text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefix {
    Never,
    /// At the beginning of a prompt.
    First,
    /// There, and behind every special token.
    Always,
}

impl Vocabulary {
    /// Corrects kinds, so that from here on a kind says what a token may be made from: tokens with a meaning are
    /// control tokens, whatever the converter thought. `template` is the chat template.
    ///
    /// What the template writes to structure a conversation, a client cannot write: a user-defined token that occurs in
    /// the template is kept apart as well, unless it is white space.
    pub(crate) fn settled(mut self, template: &str) -> Self {
        self.ends.extend(self.end);
        for (id, token) in (0_u32..).zip(&mut self.tokens) {
            let by_name = END_NAMES.contains(&token.text.as_str());
            let meaning = by_name
                || TURN_NAMES.contains(&token.text.as_str())
                || self.ends.contains(&id)
                || self.named.contains(&id)
                || self.begin == Some(id);
            if meaning && matches!(token.kind, Kind::Normal | Kind::UserDefined) {
                token.kind = Kind::Control;
            }
            if by_name && token.kind == Kind::Control {
                self.ends.insert(id);
            }
        }
        let structural: Vec<_> = (0_u32..)
            .zip(&self.tokens)
            .filter(|(_, token)| token.kind == Kind::UserDefined && is_structural(&token.text, template))
            .map(|(id, _)| id)
            .collect();
        self.named.extend(structural);
        self
    }

    /// Whether text of a client may become this token when it contains the token's text.
    pub(crate) fn is_plain(&self, id: u32) -> bool {
        let kind = self.tokens.get(id as usize).map(|token| token.kind);
        kind == Some(Kind::UserDefined) && !self.named.contains(&id)
    }

    /// Tokens that words of a text may be made of, with their ids: never control tokens.
    pub(super) fn textual(&self) -> impl Iterator<Item = (u32, &str)> {
        let plain = |id: u32, kind: Kind| match kind {
            Kind::Normal => true,
            Kind::UserDefined => {
                matches!(self.scheme, Scheme::Scores { .. } | Scheme::Merges { .. }) && self.is_plain(id)
            }
            Kind::Unknown | Kind::Control | Kind::Unused | Kind::Byte => false,
        };
        (0_u32..)
            .zip(&self.tokens)
            .filter(move |(id, token)| plain(*id, token.kind))
            .map(|(id, token)| (id, token.text.as_str()))
    }

    /// The text of a token, or nothing.
    pub(super) fn text(&self, id: Option<u32>) -> String {
        id.and_then(|id| self.tokens.get(id as usize)).map(|token| token.text.clone()).unwrap_or_default()
    }
}

fn is_structural(text: &str, template: &str) -> bool {
    let between = |start, end| text.starts_with(start) && text.ends_with(end);
    let blank = text.chars().all(|c| c.is_whitespace() || c == '\u{2581}');
    between("<|", "|>")
        || between("<｜", "｜>")
        || between("<unused", ">")
        || (!blank && template.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(tokens: &[(&str, Kind)], template: &str) -> Vocabulary {
        let tokens =
            tokens.iter().map(|(text, kind)| Token { text: (*text).to_owned(), kind: *kind }).collect();
        let scheme = Scheme::Scores { scores: Vec::new(), prefix: Prefix::Never };
        let vocabulary = Vocabulary {
            tokens,
            scheme,
            begin: None,
            add_begin: false,
            end: Some(0),
            ends: HashSet::new(),
            named: HashSet::from([1]),
        };
        vocabulary.settled(template)
    }

    #[test]
    fn tokens_with_a_meaning_are_control_tokens() {
        use Kind::{Control, Normal, UserDefined};
        let vocabulary = settled(
            &[
                ("stop", Normal),
                ("pad", UserDefined),
                ("<end_of_turn>", UserDefined),
                ("<start_of_turn>", Normal),
                ("word", Normal),
            ],
            "",
        );
        let kinds: Vec<_> = vocabulary.tokens.iter().map(|token| token.kind).collect();
        assert_eq!(kinds, [Control, Control, Control, Control, Normal]);
        assert_eq!(vocabulary.ends, HashSet::from([0, 2]));
        assert_eq!(vocabulary.textual().collect::<Vec<_>>(), [(4, "word")]);
    }

    #[test]
    fn what_the_template_writes_is_kept_from_clients() {
        let texts = ["x", "y", "<think>", "\n\n", "<h1>", "<|role|>", "\u{2581}\u{2581}"];
        let tokens: Vec<_> = texts.iter().map(|text| (*text, Kind::UserDefined)).collect();
        let vocabulary = settled(&tokens, "{{ '<think>\n\n' }}");
        let plain: Vec<_> = (0..7).filter(|id| vocabulary.is_plain(*id)).collect();
        assert_eq!(plain, [3, 4, 6]);
        // They are still the model's to write and the template's to use: not control tokens.
        assert_eq!(vocabulary.tokens[2].kind, Kind::UserDefined);
    }
}
