//! A tokenizer from `tokenizer.json`, the format of Hugging Face's library `tokenizers`.
//!
//! Only what is known is taken: byte-level BPE with one of the known patterns, and SentencePiece's BPE with byte
//! fallback. A component that is anything else is refused by its name.

use crate::error::Error;
use crate::tokenizer::{
    Kind, Prefix, Scheme, Token, Vocabulary, Words, byte_of, digit_pattern, gpt2_pattern, halves,
};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// More than the largest vocabularies (262,208 tokens).
pub(crate) const MAX_TOKENS: usize = 1 << 20;

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
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    dropout: Option<f32>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
}

/// Written with a space between in older files.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Spaced(String),
    Pair(String, String),
}

/// Special tokens by their role, from the files beside `tokenizer.json`.
#[derive(Debug, Default)]
pub(super) struct Roles {
    pub(super) begin: Option<String>,
    pub(super) end: Option<String>,
    /// Padding, unknown..
    pub(super) others: Vec<String>,
    /// Ids that end a turn.
    pub(super) ends: Vec<u32>,
    pub(super) add_begin: Option<bool>,
}

/// Reads a tokenizer of `size` tokens, or of as many as there are. Those that the file lacks stand for nothing; added ones
/// that the model has no row for are left out, as llama.cpp's converter does (Gemma 3 has one for images).
pub(super) fn read(bytes: &[u8], roles: &Roles, size: Option<usize>) -> Result<Vocabulary, Error> {
    let mut file: File = serde_json::from_slice(bytes).map_err(|error| malformed(&error.to_string()))?;
    if let Some(size) = size {
        file.added_tokens.retain(|added| (added.id as usize) < size);
    }
    check(&file)?;
    let begins = begins(file.post_processor.as_ref(), roles);
    let tokens = tokens(&file, size)?;
    let scheme = scheme(&mut file)?;
    let ids: HashMap<&str, u32> =
        (0_u32..).zip(&tokens).map(|(id, token)| (token.text.as_str(), id)).collect();
    let id = |name: &String| match ids.get(name.as_str()) {
        Some(id) => Ok(*id),
        None => Err(malformed(&format!("the special token `{}` is not in it", name.escape_debug()))),
    };
    let begin = roles.begin.as_ref().map(id).transpose()?;
    let end = roles.end.as_ref().map(id).transpose()?;
    let named = roles.others.iter().map(id).collect::<Result<HashSet<_>, _>>()?;
    if roles.ends.iter().any(|id| *id as usize >= tokens.len()) {
        return Err(malformed("an id in `eos_token_id` is none of its tokens"));
    }
    Ok(Vocabulary {
        scheme,
        begin,
        add_begin: begins,
        end,
        ends: roles.ends.iter().copied().collect(),
        named,
        tokens,
    })
}

/// What would change tokens and is not known.
fn check(file: &File) -> Result<(), Error> {
    let model = &file.model;
    match model.kind.as_deref() {
        Some("BPE") | None => (),
        Some(other) => return unsupported("tokenizer model", other, "BPE"),
    }
    if model.dropout.is_some_and(|dropout| dropout != 0.0) {
        return unsupported("tokenizer option", "dropout", "none");
    }
    for (name, option) in [
        ("continuing_subword_prefix", &model.continuing_subword_prefix),
        ("end_of_word_suffix", &model.end_of_word_suffix),
    ] {
        if option.as_ref().is_some_and(|text| !text.is_empty()) {
            return unsupported("tokenizer option", name, "none");
        }
    }
    for added in &file.added_tokens {
        // Special tokens come from templates only, which write what they mean.
        let strips = !added.special && (added.lstrip || added.rstrip);
        if added.single_word || strips {
            return unsupported("option of an added token", "single_word, lstrip or rstrip", "none");
        }
    }
    Ok(())
}

/// Every token by id.
fn tokens(file: &File, size: Option<usize>) -> Result<Vec<Token>, Error> {
    let model = &file.model;
    let ids = model.vocab.values().copied().chain(file.added_tokens.iter().map(|added| added.id));
    let count = size.unwrap_or_else(|| ids.max().map_or(0, |last| last as usize + 1));
    if count > MAX_TOKENS {
        return Err(malformed(&format!("it has {count} tokens, more than {MAX_TOKENS}")));
    }
    let mut tokens: Vec<_> = (0..count).map(|_| None).collect();
    for (text, id) in &model.vocab {
        let kind = match byte_of(text) {
            Some(_) if model.byte_fallback => Kind::Byte,
            _ if model.unk_token.as_ref() == Some(text) => Kind::Unknown,
            _ => Kind::Normal,
        };
        put(&mut tokens, *id, text, kind)?;
    }
    for added in &file.added_tokens {
        if model.vocab.get(&added.content).is_some_and(|id| *id != added.id) {
            return Err(malformed("an added token has another id in the vocabulary"));
        }
        let unknown = model.unk_token.as_ref() == Some(&added.content);
        let kind = match (unknown, added.special) {
            (true, _) => Kind::Unknown,
            (false, true) => Kind::Control,
            (false, false) => Kind::UserDefined,
        };
        put(&mut tokens, added.id, &added.content, kind)?;
    }
    let empty = |id: usize| Token { text: format!("[PAD{id}]"), kind: Kind::Unused };
    Ok(tokens.into_iter().enumerate().map(|(id, token)| token.unwrap_or_else(|| empty(id))).collect())
}

fn put(tokens: &mut [Option<Token>], id: u32, text: &str, kind: Kind) -> Result<(), Error> {
    match tokens.get_mut(id as usize) {
        Some(Some(token)) if token.text != text => Err(malformed(&format!("two tokens have the id {id}"))),
        Some(place) => {
            *place = Some(Token { text: text.to_owned(), kind });
            Ok(())
        }
        None => Err(malformed("a token has an id that is too large")),
    }
}

/// Whether the post-processor puts the first token before a text.
fn begins(processor: Option<&Value>, roles: &Roles) -> bool {
    let written = |value: &Value| {
        let first = value.pointer("/single/0/SpecialToken/id").and_then(Value::as_str);
        first.is_some() && first == roles.begin.as_deref()
    };
    let processors = |value: &Value| value.get("processors").and_then(Value::as_array).cloned();
    let in_file = processor
        .is_some_and(|value| written(value) || processors(value).is_some_and(|all| all.iter().any(written)));
    roles.add_begin.unwrap_or(in_file)
}

fn scheme(file: &mut File) -> Result<Scheme, Error> {
    let merges = std::mem::take(&mut file.model.merges).into_iter().map(|merge| match merge {
        Merge::Pair(left, right) => Some((left, right)),
        Merge::Spaced(text) => halves(&text),
    });
    let merges = merges.collect::<Option<Vec<_>>>().ok_or_else(|| malformed("a merge has no two parts"))?;
    let normalizers = sequence(file.normalizer.as_ref(), "normalizers");
    let stages = sequence(file.pre_tokenizer.as_ref(), "pretokenizers");
    if file.model.byte_fallback {
        return Ok(Scheme::Merges { merges, prefix: prefix(&normalizers, &stages)? });
    }
    let compose = match &normalizers[..] {
        [] => false,
        [only] if kind(only) == "NFC" => true,
        [other, ..] => return unsupported("normalizer", kind(other), "NFC"),
    };
    let words = Words::with_patterns(&patterns(&stages)?, file.model.ignore_merges)?;
    Ok(Scheme::Bytes { words, merges, compose })
}

/// The patterns that cut words, spelled out.
fn patterns(stages: &[&Value]) -> Result<Vec<String>, Error> {
    const SUPPORTED: &str = "Split by a pattern, Digits one by one, and ByteLevel without prefix space, last";
    let mut patterns = Vec::new();
    let mut closed = false;
    for stage in stages {
        let flag = |name: &str, default: bool| stage.get(name).and_then(Value::as_bool).unwrap_or(default);
        let text = |pointer: &str| stage.pointer(pointer).and_then(Value::as_str);
        match kind(stage) {
            "Split" if text("/behavior") == Some("Isolated") && !flag("invert", false) => {
                let pattern = text("/pattern/Regex").ok_or_else(|| malformed("a Split has no pattern"))?;
                patterns.push(pattern.to_owned());
            }
            "Digits" if flag("individual_digits", false) => patterns.push(digit_pattern()),
            "ByteLevel" if !flag("add_prefix_space", true) => {
                patterns.extend(flag("use_regex", true).then(gpt2_pattern));
                closed = true;
                continue;
            }
            other => return unsupported("pre-tokenizer", other, SUPPORTED),
        }
        if closed {
            return unsupported("pre-tokenizer", kind(stage), SUPPORTED);
        }
    }
    if closed { Ok(patterns) } else { unsupported("pre-tokenizer", "without ByteLevel", SUPPORTED) }
}

/// Where SentencePiece puts a space before text.
fn prefix(normalizers: &[&Value], stages: &[&Value]) -> Result<Prefix, Error> {
    const SUPPORTED: &str = "Prepend and Replace of a space, or Metaspace, as SentencePiece does";
    let text =
        |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let spaces = |value: &Value| {
        text(value, "/pattern/String").as_deref() == Some(" ")
            && text(value, "/content").as_deref() == Some("▁")
    };
    let (mut prefix, mut replaced) = (Prefix::Never, false);
    for normalizer in normalizers {
        match kind(normalizer) {
            "Prepend" if text(normalizer, "/prepend").as_deref() == Some("▁") => prefix = Prefix::Always,
            "Replace" if spaces(normalizer) => replaced = true,
            other => return unsupported("normalizer", other, SUPPORTED),
        }
    }
    for stage in stages {
        match kind(stage) {
            // Behind the normalizer there are no spaces to split at (Gemma).
            "Split" if replaced && text(stage, "/pattern/String").as_deref() == Some(" ") => (),
            "Metaspace" if text(stage, "/replacement").as_deref() == Some("▁") => {
                let whole = stage.get("split").and_then(Value::as_bool) == Some(false);
                prefix = match text(stage, "/prepend_scheme").as_deref() {
                    Some("first") if whole => Prefix::First,
                    Some("always") if whole => Prefix::Always,
                    Some("never") if whole => Prefix::Never,
                    _ => return unsupported("pre-tokenizer", "Metaspace that splits words", SUPPORTED),
                };
                replaced = true;
            }
            other => return unsupported("pre-tokenizer", other, SUPPORTED),
        }
    }
    if replaced { Ok(prefix) } else { unsupported("normalizer", "that keeps spaces", SUPPORTED) }
}

/// The members of a component that may be a sequence.
fn sequence<'v>(value: Option<&'v Value>, members: &str) -> Vec<&'v Value> {
    match value {
        None => Vec::new(),
        Some(value) if kind(value) == "Sequence" => {
            value.get(members).and_then(Value::as_array).map(|all| all.iter().collect()).unwrap_or_default()
        }
        Some(value) => vec![value],
    }
}

fn kind(value: &Value) -> &str {
    value.get("type").and_then(Value::as_str).unwrap_or("without a type")
}

fn unsupported<T>(what: &'static str, name: &str, supported: &'static str) -> Result<T, Error> {
    Err(Error::Unsupported { what, name: name.chars().take(100).collect(), supported })
}

fn malformed(problem: &str) -> Error {
    Error::Tokenizer(format!("tokenizer.json: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::{Piece, Tokenizer};

    const PIECES: &str = r#"{"added_tokens":[{"id":0,"content":"<unk>","special":true},{"id":1,"content":"<s>","special":true},
        {"id":2,"content":"</s>","special":true},{"id":3,"content":"\n\n","special":false}],
        "normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]},
        "pre_tokenizer":null,"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}}]},
        "model":{"type":"BPE","unk_token":"<unk>","byte_fallback":true,"vocab":VOCAB,"merges":["▁ a",["▁a","b"]]}}"#;

    fn pieces() -> String {
        let mut vocab: HashMap<String, u32> =
            (0_u32..=255).map(|byte| (format!("<0x{byte:02X}>"), byte + 4)).collect();
        let texts = ["<unk>", "<s>", "</s>"]
            .into_iter()
            .zip(0..)
            .chain(["▁", "a", "b", "▁a", "▁ab"].into_iter().zip(260..));
        vocab.extend(texts.map(|(text, id)| (text.to_owned(), id)));
        PIECES.replace("VOCAB", &serde_json::to_string(&vocab).unwrap())
    }

    fn roles() -> Roles {
        Roles { begin: Some("<s>".into()), end: Some("</s>".into()), ..Roles::default() }
    }

    fn error(text: &str) -> String {
        read(text.as_bytes(), &roles(), None).err().unwrap().to_string()
    }

    #[test]
    fn a_sentencepiece_tokenizer_is_read() {
        let vocabulary = read(pieces().as_bytes(), &roles(), Some(270)).unwrap();
        assert_eq!(vocabulary.tokens.len(), 270);
        assert_eq!(vocabulary.tokens[269].kind, Kind::Unused);
        let tokenizer = Tokenizer::of(vocabulary);
        let tokens = tokenizer.encode(&[Piece::Trusted("<s>ab</s>é"), Piece::Text("\n\n</s>")]).unwrap();
        let bytes = |text: &str| text.bytes().map(|byte| u32::from(byte) + 4).collect::<Vec<_>>();
        let wanted = [vec![1, 264, 2, 260], bytes("é"), vec![3, 260], bytes("</s>")].concat();
        assert_eq!(tokens.as_slice(), wanted);
    }

    #[test]
    fn what_is_unknown_is_refused_by_name() {
        let good = pieces();
        let change = |from: &str, to: &str| {
            assert!(good.contains(from), "{from}");
            error(&good.replace(from, to))
        };
        assert!(change("\"BPE\"", "\"Unigram\"").contains("tokenizer model `Unigram`"));
        assert!(change("\"Prepend\"", "\"Strip\"").contains("normalizer `Strip`"));
        assert!(
            change("\"pre_tokenizer\":null", "\"pre_tokenizer\":{\"type\":\"Whitespace\"}")
                .contains("`Whitespace`")
        );
        assert!(
            change("\"byte_fallback\":true", "\"byte_fallback\":true,\"dropout\":0.5").contains("`dropout`")
        );
        assert!(
            change("\"byte_fallback\":true", "\"byte_fallback\":true,\"end_of_word_suffix\":\"</w>\"")
                .contains("`end_of_word_suffix`")
        );
        assert!(
            change("\"special\":false", "\"special\":false,\"single_word\":true").contains("single_word")
        );
        assert!(change("\"byte_fallback\":true", "\"byte_fallback\":false").contains("normalizer `Prepend`"));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let good = pieces();
        assert!(error("{}").contains("model"));
        assert!(error(&good.replace("\"▁ a\"", "\"▁a\"")).contains("two parts"));
        assert!(error(&good.replace("{\"id\":3,", "{\"id\":2,")).contains("the id 2"));
        assert!(error(&good.replace("{\"id\":2,", "{\"id\":300,")).contains("another id"));
        assert!(error(&good.replace("{\"id\":3,", "{\"id\":4294967295,")).contains("more than"));
        let missing = Roles { begin: Some("<none>".into()), ..Roles::default() };
        assert!(read(good.as_bytes(), &missing, None).err().unwrap().to_string().contains("`<none>`"));
        // An added token beyond the model's rows is left out, a word there is not.
        let image = good.replace(
            "\"added_tokens\":[",
            "\"added_tokens\":[{\"id\":265,\"content\":\"<image>\",\"special\":true},",
        );
        assert_eq!(read(image.as_bytes(), &roles(), Some(265)).unwrap().tokens.len(), 265);
        assert_eq!(read(image.as_bytes(), &roles(), None).unwrap().tokens.len(), 266);
        assert!(read(image.as_bytes(), &roles(), Some(264)).err().unwrap().to_string().contains("too large"));
        let end = Roles { ends: vec![265], ..Roles::default() };
        assert!(read(good.as_bytes(), &end, None).is_err());
        assert!(read(good.as_bytes(), &end, Some(266)).is_ok());
        assert!(read(good.as_bytes(), &Roles::default(), Some(MAX_TOKENS)).is_ok());
        assert!(read(good.as_bytes(), &Roles::default(), Some(MAX_TOKENS + 1)).is_err());
    }
}
