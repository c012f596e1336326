//! A tokenizer from the metadata of a GGUF file. Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>,
//! defaults: `llama_vocab::impl::load` of llama.cpp.

use super::vocabulary::{Kind, Prefix, Scheme, Token, Vocabulary};
use super::words::Words;
use crate::error::Error;
use crate::source::{Source, bad};
use std::collections::HashSet;

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";
const BEGIN: &str = "tokenizer.ggml.bos_token_id";
const END: &str = "tokenizer.ggml.eos_token_id";
/// Tokens that end a turn beside [`END`].
const ENDS: [&str; 2] = ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
/// Tokens with other meanings.
const NAMED: [&str; 11] = [
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.seperator_token_id", // spelled so by the format
    "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.cls_token_id",
    "tokenizer.ggml.mask_token_id",
    "tokenizer.ggml.fim_pre_token_id",
    "tokenizer.ggml.fim_suf_token_id",
    "tokenizer.ggml.fim_mid_token_id",
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
];

/// Reads the tokenizer that the metadata describe.
pub(super) fn read(source: &Source<'_>) -> Result<Vocabulary, Error> {
    let model = source.string("tokenizer.ggml.model")?;
    if !matches!(model, "gpt2" | "llama") {
        let name = model.to_owned();
        let supported = "gpt2 (byte-level BPE), llama (SentencePiece)";
        return Err(Error::Unsupported { what: "tokenizer", name, supported });
    }
    let tokens = tokens(source)?;
    let id = |key: &str| id_of(source, key, tokens.len());
    let ids =
        |keys: &[&str]| keys.iter().filter_map(|key| id(key).transpose()).collect::<Result<HashSet<_>, _>>();
    let (begin, end) = (id(BEGIN)?, id(END)?);
    let (ends, named) = (ids(&ENDS)?, ids(&NAMED)?);
    let (scheme, begins) = match model {
        "gpt2" => byte_level(source)?,
        _ => (pieces(source)?, true),
    };
    let add_begin = source.optional_bool("tokenizer.ggml.add_bos_token")?.unwrap_or(begins);
    Ok(Vocabulary { tokens, scheme, begin, add_begin, end, ends, named })
}

fn tokens(source: &Source<'_>) -> Result<Vec<Token>, Error> {
    let (texts, types) = (source.strings(TOKENS)?, source.integers(TYPES)?);
    if texts.len() != types.len() {
        return Err(bad(TYPES, "has not one entry per token"));
    }
    let mut seen = HashSet::with_capacity(texts.len());
    if !texts.iter().all(|text| text.is_empty() || seen.insert(*text)) {
        return Err(bad(TOKENS, "has two tokens with the same text"));
    }
    let token = |(text, number): (&str, i64)| Token { text: text.to_owned(), kind: kind(number) };
    Ok(texts.into_iter().zip(types).map(token).collect())
}

fn kind(token_type: i64) -> Kind {
    match token_type {
        2 => Kind::Unknown,
        3 => Kind::Control,
        4 => Kind::UserDefined,
        5 => Kind::Unused,
        6 => Kind::Byte,
        _ => Kind::Normal,
    }
}

fn id_of(source: &Source<'_>, key: &str, tokens: usize) -> Result<Option<u32>, Error> {
    match source.optional_number(key)? {
        Some(id) if id >= tokens => Err(bad(key, "is not a token")),
        id => Ok(id.and_then(|id| u32::try_from(id).ok())),
    }
}

/// The scheme, and whether prompts begin with the first token unless the file says otherwise.
fn byte_level(source: &Source<'_>) -> Result<(Scheme, bool), Error> {
    let words = Words::named(source.string("tokenizer.ggml.pre")?)?;
    let begins = words.begins;
    let merges = source.strings(MERGES)?.into_iter().map(halves).collect::<Option<Vec<_>>>();
    let merges = merges.ok_or_else(|| bad(MERGES, "has an entry without two parts"))?;
    Ok((Scheme::Bytes { words, merges, compose: false }, begins))
}

fn pieces(source: &Source<'_>) -> Result<Scheme, Error> {
    let prefix = match source.optional_bool("tokenizer.ggml.add_space_prefix")? {
        Some(false) => Prefix::Never,
        Some(true) | None => Prefix::Always,
    };
    Ok(Scheme::Scores { scores: source.floats(SCORES)?, prefix })
}

/// The two halves of a merge. The separator is the first space behind the first character, since a token may itself
/// begin with one.
pub(crate) fn halves(merge: &str) -> Option<(String, String)> {
    let (at, _) = merge.char_indices().skip(1).find(|(_, c)| *c == ' ')?;
    Some((merge.get(..at)?.to_owned(), merge.get(at + 1..)?.to_owned()))
}
