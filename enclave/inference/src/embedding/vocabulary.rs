//! `tokenizer.json` of a BERT model. Only WordPiece as BERT has it is taken; a component that is anything else is refused by its
//! name.
//!
//! Truncation and padding in the file are not applied: a text that is too long is an error, and rows are never padded.

use super::trie::Trie;
use super::wordpiece::{Normaliser, WordPiece};
use crate::error::Error;
use crate::huggingface::MAX_TOKENS;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;

/// Longer words are unknown tokens: models say 100.
const MAX_WORD_CHARS: usize = 1000;
/// Longer prefixes than `##` mean nothing to us.
const MAX_PREFIX_BYTES: usize = 16;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    unk_token: String,
    continuing_subword_prefix: String,
    max_input_chars_per_word: usize,
    vocab: HashMap<String, u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BertNormalizer {
    #[serde(rename = "type")]
    _kind: String,
    clean_text: bool,
    handle_chinese_chars: bool,
    strip_accents: Option<bool>,
    lowercase: bool,
}

/// Reads the tokenizer of a model with `size` rows of word embeddings.
pub(super) fn read(bytes: &[u8], size: usize) -> Result<WordPiece, Error> {
    let file: File = serde_json::from_slice(bytes).map_err(|error| malformed(&error.to_string()))?;
    let model = &file.model;
    // Older files do not say what they are.
    if let Some(other) = model.kind.as_deref().filter(|kind| *kind != "WordPiece") {
        return unsupported("tokenizer model", other, "WordPiece");
    }
    if !(1..=MAX_WORD_CHARS).contains(&model.max_input_chars_per_word) {
        return Err(malformed(&format!("max_input_chars_per_word is not 1 to {MAX_WORD_CHARS}")));
    }
    let prefix = model.continuing_subword_prefix.as_str();
    if prefix.is_empty() || prefix.len() > MAX_PREFIX_BYTES {
        return Err(malformed(&format!("continuing_subword_prefix has not 1 to {MAX_PREFIX_BYTES} bytes")));
    }
    match file.pre_tokenizer.as_ref().map(kind) {
        Some("BertPreTokenizer") => (),
        other => return unsupported("pre-tokenizer", other.unwrap_or("none"), "BertPreTokenizer"),
    }
    let normaliser = normaliser(file.normalizer.as_ref())?;
    let added = added(&file, size)?;
    let id = |text: &str| {
        let id = added.get(text).or_else(|| model.vocab.get(text)).copied();
        id.ok_or_else(|| malformed(&format!("the token `{}` is not in it", shown(text))))
    };
    let [before, behind] = ends(file.post_processor.as_ref())?;
    let end = |(text, written): End| match (id(&text)?, written) {
        (id, written) if written.as_ref().is_none_or(|written| *written == id) => Ok(id),
        _ => Err(malformed(&format!("the post-processor has another id for `{}`", shown(&text)))),
    };
    let (unknown, before, behind) = (id(&model.unk_token)?, end(before)?, end(behind)?);
    let (mut first_pieces, mut later_pieces) = (Trie::default(), Trie::default());
    for (text, id) in &model.vocab {
        // What has a meaning for the model is no text: see `WordPiece`.
        if [unknown, before, behind].contains(id) || added.contains_key(text.as_str()) {
            continue;
        }
        first_pieces.insert(text, *id).map_err(malformed)?;
        if let Some(text) = text.strip_prefix(prefix) {
            later_pieces.insert(text, *id).map_err(malformed)?;
        }
    }
    let max_word_chars = model.max_input_chars_per_word;
    Ok(WordPiece { normaliser, first_pieces, later_pieces, max_word_chars, unknown, before, behind })
}

/// Checks every id, and finds the special tokens, by their text.
fn added(file: &File, size: usize) -> Result<HashMap<&str, u32>, Error> {
    let vocab = &file.model.vocab;
    if vocab.len() > MAX_TOKENS {
        return Err(malformed(&format!("it has {} tokens, more than {MAX_TOKENS}", vocab.len())));
    }
    let mut taken = vec![false; size];
    for id in vocab.values() {
        let Some(taken) = taken.get_mut(*id as usize) else {
            return Err(malformed(&format!("the id {id} is not below vocab_size, {size}")));
        };
        if std::mem::replace(taken, true) {
            return Err(malformed(&format!("two tokens have the id {id}")));
        }
    }
    let mut added = HashMap::new();
    for token in &file.added_tokens {
        if !token.special {
            let name = shown(&token.content);
            return unsupported(
                "added token that is not special",
                &name,
                "none; remove it from tokenizer.json",
            );
        }
        let mut free =
            || taken.get_mut(token.id as usize).is_some_and(|taken| !std::mem::replace(taken, true));
        if vocab.get(&token.content).map_or_else(|| !free(), |id| *id != token.id) {
            let problem =
                format!("the added token `{}` has an id that is not its own", shown(&token.content));
            return Err(malformed(&problem));
        }
        added.insert(token.content.as_str(), token.id);
    }
    Ok(added)
}

fn normaliser(value: Option<&Value>) -> Result<Normaliser, Error> {
    let Some(value) = value.filter(|value| kind(value) == "BertNormalizer") else {
        return unsupported("normalizer", value.map_or("none", kind), "BertNormalizer");
    };
    let read: BertNormalizer =
        serde_json::from_value(value.clone()).map_err(|error| malformed(&format!("normalizer: {error}")))?;
    Ok(Normaliser {
        clean: read.clean_text,
        part_ideographs: read.handle_chinese_chars,
        strip_accents: read.strip_accents.unwrap_or(read.lowercase),
        lowercase: read.lowercase,
    })
}

/// Text of a token, and the id that the post-processor has for it, if it has one.
type End = (String, Option<Value>);

/// The tokens before and behind a text.
fn ends(processor: Option<&Value>) -> Result<[End; 2], Error> {
    const SUPPORTED: &str =
        "BertProcessing, or TemplateProcessing with one token before and one behind a text";
    let name = processor.map_or("none", kind);
    let at = |pointer: &str| processor.and_then(|value| value.pointer(pointer));
    let text = |pointer: &str| at(pointer).and_then(Value::as_str).map(str::to_owned);
    let ends = match name {
        "BertProcessing" => text("/cls/0")
            .zip(text("/sep/0"))
            .map(|(before, behind)| [(before, at("/cls/1").cloned()), (behind, at("/sep/1").cloned())]),
        "TemplateProcessing" if is_plain(at("/single")) => {
            let tokens = at("/special_tokens");
            let with_id = |text: String| {
                let ids = tokens.and_then(|tokens| tokens.get(&text)?.get("ids")).map(only);
                (text, ids)
            };
            let ends = text("/single/0/SpecialToken/id").zip(text("/single/2/SpecialToken/id"));
            ends.map(|(before, behind)| [with_id(before), with_id(behind)])
        }
        _ => None,
    };
    ends.map_or_else(|| unsupported("post-processor", name, SUPPORTED), Ok)
}

/// The only member of a list; `null`, which is no id, if there are others.
fn only(ids: &Value) -> Value {
    match ids.as_array().map(Vec::as_slice) {
        Some([id]) => id.clone(),
        _ => Value::Null,
    }
}

/// Whether a template is a token, the text and a token, all of the first type: the embedding of no other is added.
fn is_plain(template: Option<&Value>) -> bool {
    let Some([first, text, last]) = template.and_then(Value::as_array).map(Vec::as_slice) else {
        return false;
    };
    let is = |part: &Value, kind: &str| {
        part.as_object().is_some_and(|part| part.len() == 1)
            && part.get(kind).and_then(|part| part.get("type_id")) == Some(&Value::from(0))
    };
    is(first, "SpecialToken")
        && is(last, "SpecialToken")
        && is(text, "Sequence")
        && text.pointer("/Sequence/id") == Some(&Value::from("A"))
}

fn kind(value: &Value) -> &str {
    value.get("type").and_then(Value::as_str).unwrap_or("without a type")
}

fn shown(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_debug).collect()
}

fn unsupported<T>(what: &'static str, name: &str, supported: &'static str) -> Result<T, Error> {
    Err(Error::Unsupported { what, name: name.chars().take(100).collect(), supported })
}

fn malformed(problem: &str) -> Error {
    Error::Tokenizer(format!("tokenizer.json: {problem}"))
}

#[cfg(test)]
#[path = "vocabulary_tests.rs"]
mod tests;
