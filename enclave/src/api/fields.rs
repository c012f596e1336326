//! Fields that several endpoints have.

use cocoon_inference::{GenerateRequest, SecretString};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::error::ApiError;
use super::json::Object;

/// Answers to one request. Each takes a place of its own in the engine.
pub(crate) const MAX_CHOICES: u64 = 8;

/// What every endpoint that generates has: how tokens are chosen, where the answer ends, and fields that mean nothing.
pub(super) fn common(object: &mut Object, generate: &mut GenerateRequest) -> Result<(), ApiError> {
    generate.stop = stop(object)?;
    generate.seed = seed(object)?;
    // A name for the end user: allowed, and used for nothing.
    object.text("user")?;
    sampling(object, generate)
}

/// How many answers.
pub(super) fn choices(object: &mut Object) -> Result<usize, ApiError> {
    let n = object.count("n")?.unwrap_or(1);
    let choices = usize::try_from(n).ok().filter(|_| (1..=MAX_CHOICES).contains(&n));
    choices.ok_or_else(|| object.wrong("n", "must be between 1 and 8"))
}

/// A text, or an array of parts of one of these types.
pub(super) fn content(object: &mut Object, types: &[&str]) -> Result<SecretString, ApiError> {
    let parts = match object.take("content") {
        Some(Value::String(text)) => return Ok(text.into()),
        Some(Value::Array(parts)) => parts,
        _ => return Err(object.wrong("content", "must be a string or an array of text parts")),
    };
    let path = object.path_of("content");
    let mut texts = Vec::new();
    for (i, part) in parts.into_iter().enumerate() {
        let mut part = Object::from_value(part, format!("{path}[{i}]"))?;
        if !types.contains(&part.required_text("type")?.expose()) {
            return Err(part.wrong("type", "must be that of a text: this model takes nothing else"));
        }
        texts.push(part.required_text("text")?);
        // What responses have beside a text, where there is nothing.
        neutral(&mut part, &[("annotations", json!([])), ("logprobs", json!([]))])?;
        part.finish()?;
    }
    let mut whole = String::with_capacity(texts.iter().map(SecretString::len).sum());
    texts.iter().for_each(|text| whole.push_str(text.expose()));
    Ok(whole.into())
}

/// A number of tokens that fits into memory.
pub(super) fn tokens(object: &mut Object, name: &str) -> Result<Option<usize>, ApiError> {
    let max = object.count(name)?.map(usize::try_from).transpose();
    max.map_err(|_too_large| object.wrong(name, "is too large"))
}

fn stop(object: &mut Object) -> Result<Vec<SecretString>, ApiError> {
    match object.take("stop") {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.into()]),
        Some(Value::Array(items)) => items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(text.into()),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    Err(object.wrong("stop", "must be a string or an array of strings"))
                }
            })
            .collect(),
        Some(_) => Err(object.wrong("stop", "must be a string or an array of strings")),
    }
}

/// Everything that says how tokens are chosen. The engine checks the ranges.
fn sampling(object: &mut Object, generate: &mut GenerateRequest) -> Result<(), ApiError> {
    for (name, field) in [
        ("temperature", &mut generate.temperature),
        ("top_p", &mut generate.top_p),
        ("min_p", &mut generate.min_p),
        ("presence_penalty", &mut generate.presence_penalty),
        ("frequency_penalty", &mut generate.frequency_penalty),
        ("repetition_penalty", &mut generate.repetition_penalty),
    ] {
        if let Some(value) = ratio(object, name)? {
            *field = value;
        }
    }
    generate.top_k = top_k(object)?;
    generate.logit_bias = logit_bias(object)?;
    Ok(())
}

/// A number of tokens; 0 and -1 mean all, as vLLM's clients write it.
fn top_k(object: &mut Object) -> Result<Option<usize>, ApiError> {
    let Some(value) = object.take("top_k") else { return Ok(None) };
    if matches!(value.as_i64(), Some(0 | -1)) {
        return Ok(None);
    }
    let k = value.as_u64().ok_or_else(|| object.wrong("top_k", "must be a whole number, or -1 for all"))?;
    Ok(Some(usize::try_from(k).unwrap_or(usize::MAX)))
}

/// An object of token ids, in decimal, with numbers.
fn logit_bias(object: &mut Object) -> Result<Zeroizing<Vec<(u32, f32)>>, ApiError> {
    const PROBLEM: &str = "must be an object of token ids with numbers";
    let mut biases = Zeroizing::new(Vec::new());
    let Some(value) = object.take("logit_bias") else { return Ok(biases) };
    let Value::Object(entries) = value else { return Err(object.wrong("logit_bias", PROBLEM)) };
    biases.reserve_exact(entries.len());
    for (id, bias) in &entries {
        // Written in one way only, so that no token is there twice.
        let id: Option<u32> = id.parse().ok().filter(|parsed: &u32| parsed.to_string() == *id);
        let Some((id, bias)) = id.zip(bias.as_f64()) else {
            return Err(object.wrong("logit_bias", PROBLEM));
        };
        biases.push((id, narrow(bias)));
    }
    Ok(biases)
}

/// Any 64-bit integer, negative ones too.
fn seed(object: &mut Object) -> Result<Option<u64>, ApiError> {
    let to_seed = |value: Value| value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
    object
        .take("seed")
        .map(|v| to_seed(v).ok_or_else(|| object.wrong("seed", "must be a whole number")))
        .transpose()
}

pub(super) fn ratio(object: &mut Object, name: &str) -> Result<Option<f32>, ApiError> {
    Ok(object.number(name)?.map(narrow))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a temperature has few digits, and what is out of range stays out of range"
)]
fn narrow(number: f64) -> f32 {
    number as f32
}

pub(super) fn stream_options(object: &mut Object, stream: bool) -> Result<bool, ApiError> {
    let Some(value) = object.take("stream_options") else { return Ok(false) };
    if !stream {
        return Err(object.wrong("stream_options", "goes with stream: true only"));
    }
    let mut options = Object::from_value(value, "stream_options".to_owned())?;
    let include_usage = options.flag("include_usage")?.unwrap_or(false);
    options.finish()?;
    Ok(include_usage)
}

/// Fields that many clients send with the value that asks for nothing; any other value is refused by name.
pub(super) fn neutral(object: &mut Object, fields: &[(&str, Value)]) -> Result<(), ApiError> {
    for (name, nothing) in fields {
        if let Some(value) = object.take(name)
            && value != *nothing
        {
            return Err(object.wrong(name, "is not supported with this value").code("unsupported_value"));
        }
    }
    Ok(())
}
