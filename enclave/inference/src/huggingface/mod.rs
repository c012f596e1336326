//! A model as Hugging Face publishes it, a folder of safetensors and JSON files, made to look like the GGUF file that
//! llama.cpp's `convert_hf_to_gguf.py` would make of it.

mod config;
mod keys;
mod safetensors;
mod tensors;
mod tokenizer;

use crate::error::Error;
use crate::source::{Source, bad};
use candle_core::quantized::gguf_file::Value as Meta;
pub(crate) use keys::{Keys, unsupported};
use serde_json::{Map, Value};
use std::collections::HashMap;
pub(crate) use tensors::{Tensors, all as tensors};
pub(crate) use tokenizer::MAX_TOKENS;
use tokenizer::Roles;

pub(crate) const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
pub(crate) const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";

/// Whether a file of this name is part of a model; others are not read.
pub(crate) fn is_part(name: &str) -> bool {
    let texts = [CONFIG, GENERATION, TOKENIZER, TOKENIZER_CONFIG, TEMPLATE, tensors::INDEX];
    texts.contains(&name) || is_weights(name)
}

/// `model.safetensors`, or `model-00001-of-00002.safetensors`.
fn is_weights(name: &str) -> bool {
    let Some(middle) = name.strip_prefix("model").and_then(|rest| rest.strip_suffix(".safetensors")) else {
        return false;
    };
    let number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let part = middle.strip_prefix('-').and_then(|middle| middle.split_once("-of-"));
    middle.is_empty() || part.is_some_and(|(nth, all)| number(nth) && number(all))
}

/// Takes the files of a folder apart, each with its name.
pub(crate) fn parse<'a>(files: &[(&'a str, &'a [u8])]) -> Result<Source<'a>, Error> {
    let find = |wanted: &str| find(files, wanted);
    let config = config::read(need(files, CONFIG)?)?;
    let tensors = tensors::read(files, &config)?;
    let about =
        find(TOKENIZER_CONFIG).map(|bytes| object(TOKENIZER_CONFIG, bytes)).transpose()?.unwrap_or_default();
    let generation = find(GENERATION).map(|bytes| object(GENERATION, bytes)).transpose()?.unwrap_or_default();
    let mut roles = roles(&about)?;
    roles.ends = [config.ends.clone(), ids(generation.get("eos_token_id"))].concat();
    let template = template(find(TEMPLATE), &about)?;
    let vocabulary =
        tokenizer::read(need(files, TOKENIZER)?, &roles, Some(config.vocabulary))?.settled(&template);
    let mut metadata: HashMap<String, Meta> = config.metadata;
    metadata.insert("tokenizer.chat_template".to_owned(), Meta::String(template));
    Ok(Source::new(metadata, tensors).with_vocabulary(vocabulary))
}

fn find<'a>(files: &[(&str, &'a [u8])], wanted: &str) -> Option<&'a [u8]> {
    files.iter().find(|(name, _)| *name == wanted).map(|(_, bytes)| *bytes)
}

/// The content of a file that must be there.
pub(crate) fn need<'a>(files: &[(&str, &'a [u8])], name: &str) -> Result<&'a [u8], Error> {
    find(files, name).ok_or_else(|| malformed(name, "it is missing; fetch the whole folder"))
}

/// The template of the file for it, or the one in `tokenizer_config.json`, where it may be one of several.
fn template(file: Option<&[u8]>, about: &Map<String, Value>) -> Result<String, Error> {
    if let Some(bytes) = file {
        let text = std::str::from_utf8(bytes).map_err(|error| malformed(TEMPLATE, &error.to_string()))?;
        return Ok(text.to_owned());
    }
    let written = about.get("chat_template");
    let named = |entry: &&Value| entry.get("name").and_then(Value::as_str) == Some("default");
    let several = || written?.as_array()?.iter().find(named)?.get("template")?.as_str();
    let text = written.and_then(Value::as_str).or_else(several);
    text.map(str::to_owned).ok_or_else(|| Error::MissingMetadata { key: "chat_template".to_owned() })
}

/// Special tokens, by what `tokenizer_config.json` says.
fn roles(about: &Map<String, Value>) -> Result<Roles, Error> {
    let text = |key: &str| match about.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        // Older files have an object with the token and how it is matched.
        Some(other) => match other.get("content").and_then(Value::as_str) {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(bad(key, "is no token")),
        },
    };
    let others = ["unk_token", "pad_token", "sep_token", "cls_token", "mask_token"];
    let others = others.into_iter().filter_map(|key| text(key).transpose()).collect::<Result<_, _>>()?;
    let add_begin = about.get("add_bos_token").and_then(Value::as_bool);
    Ok(Roles { begin: text("bos_token")?, end: text("eos_token")?, others, ends: Vec::new(), add_begin })
}

/// A token id, or a list of them.
fn ids(value: Option<&Value>) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(all)) => all.iter().filter_map(id).collect(),
        Some(one) => id(one).into_iter().collect(),
        None => Vec::new(),
    }
}

/// The object in a file of JSON.
pub(crate) fn object(name: &str, bytes: &[u8]) -> Result<Map<String, Value>, Error> {
    serde_json::from_slice(bytes).map_err(|error| malformed(name, &error.to_string()))
}

fn malformed(name: &str, problem: &str) -> Error {
    Error::MalformedFile { name: name.to_owned(), problem: problem.to_owned() }
}

/// A `tokenizer.json` without the files beside it.
#[cfg(test)]
pub(crate) fn tokenizer_for_tests(bytes: &[u8]) -> crate::tokenizer::Vocabulary {
    tokenizer::read(bytes, &Roles::default(), None).unwrap()
}

#[cfg(test)]
mod tests;
