//! Tensors of safetensors files, under the names and in the layout that GGUF files have (`convert_hf_to_gguf.py` of
//! llama.cpp).

use super::config::{Config, Family};
use super::safetensors::{self, Entry};
use crate::error::Error;
use crate::weights::{Encoding, RawTensor};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

const EMBEDDING: &str = "model.embed_tokens.weight";
const OUTPUT: &str = "lm_head.weight";
/// Which file has which tensor, where there are several files.
pub(super) const INDEX: &str = "model.safetensors.index.json";

pub(crate) type Tensors<'a> = BTreeMap<String, RawTensor<'a>>;

/// Every tensor of a folder under its own name, but for those that `skip` names, which may be of any type.
pub(crate) fn all<'a>(
    files: &[(&'a str, &'a [u8])],
    skip: impl Fn(&str) -> bool,
) -> Result<Tensors<'a>, Error> {
    let weights: Vec<_> = files.iter().copied().filter(|(name, _)| super::is_weights(name)).collect();
    if weights.is_empty() {
        return Err(malformed("model.safetensors", "it is missing; fetch the whole folder"));
    }
    let mut found = BTreeMap::new();
    for (file, bytes) in &weights {
        for (name, entry) in safetensors::parse(file, bytes, &skip)? {
            if found.insert(name.clone(), (*file, tensor(entry, bytes))).is_some() {
                return Err(malformed(
                    file,
                    &format!("another file has the tensor `{}` too", name.escape_debug()),
                ));
            }
        }
    }
    match super::find(files, INDEX) {
        Some(index) => check_index(index, &found, skip)?,
        None if weights.len() == 1 => (),
        None => return Err(malformed(INDEX, "it is missing, or there are several files without need")),
    }
    Ok(found.into_iter().map(|(name, (_, tensor))| (name, tensor)).collect())
}

/// Every tensor of a folder, translated.
pub(super) fn read<'a>(files: &[(&'a str, &'a [u8])], config: &Config) -> Result<Tensors<'a>, Error> {
    let mut tensors = all(files, |_| false)?;
    settle_output(&mut tensors, config.tied)?;
    let mut translated = Tensors::new();
    for (name, tensor) in tensors {
        let Some(new) = translate(&name, config.family) else { continue };
        let tensor = convert(tensor, &new, config)?;
        if translated.insert(new, tensor).is_some() {
            return Err(malformed(
                "model.safetensors",
                &format!("two tensors mean what `{}` means", name.escape_debug()),
            ));
        }
    }
    if let Some(factors) = &config.rope_factors {
        translated.insert("rope_freqs.weight".to_owned(), floats(vec![factors.len()], factors));
    }
    Ok(translated)
}

fn tensor<'a>(entry: Entry, file: &'a [u8]) -> RawTensor<'a> {
    let bytes = file.get(entry.bytes).unwrap_or_default();
    RawTensor { encoding: entry.encoding, shape: entry.shape, bytes: Cow::Borrowed(bytes) }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The index and the files must agree on every tensor.
fn check_index(
    index: &[u8],
    found: &BTreeMap<String, (&str, RawTensor<'_>)>,
    skip: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    let mut index: Index =
        serde_json::from_slice(index).map_err(|error| malformed(INDEX, &error.to_string()))?;
    index.weight_map.retain(|name, _| !skip(name));
    let listed = index.weight_map.iter().map(|(name, file)| (name.as_str(), file.as_str()));
    let there = found.iter().map(|(name, (file, _))| (name.as_str(), *file));
    match listed.clone().zip(there.clone()).find(|(listed, there)| listed != there) {
        None if listed.len() == there.len() => Ok(()),
        None => Err(malformed(
            INDEX,
            &format!("it lists {} tensors, the files have {}", listed.len(), there.len()),
        )),
        Some(((name, file), _)) => {
            let problem = format!(
                "tensor `{}` in {} is not what the files have",
                name.escape_debug(),
                file.escape_debug()
            );
            Err(malformed(INDEX, &problem))
        }
    }
}

/// In a GGUF file, a model without an output matrix has its embedding as that.
fn settle_output(tensors: &mut Tensors<'_>, tied: bool) -> Result<(), Error> {
    match (tied, tensors.get(OUTPUT), tensors.get(EMBEDDING)) {
        (false, None, _) => Err(Error::MissingTensor { name: OUTPUT.to_owned() }),
        (true, Some(output), Some(embedding)) if output.bytes == embedding.bytes => {
            tensors.remove(OUTPUT);
            Ok(())
        }
        (true, Some(_), _) => Err(Error::Unsupported {
            what: "tensor",
            name: OUTPUT.to_owned(),
            supported: "none beside tie_word_embeddings, unless it is the embedding",
        }),
        _ => Ok(()),
    }
}

/// The name in a GGUF file, or nothing for tensors that are computed anyway. Names that are not known stay as they are,
/// and are refused by the architecture.
fn translate(name: &str, family: Family) -> Option<String> {
    match name {
        EMBEDDING => return Some("token_embd.weight".to_owned()),
        OUTPUT => return Some("output.weight".to_owned()),
        "model.norm.weight" => return Some("output_norm.weight".to_owned()),
        _ if name.ends_with(".rotary_emb.inv_freq") => return None,
        _ => (),
    }
    let part = || {
        let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
        let layer: u32 = layer.parse().ok().filter(|number: &u32| number.to_string() == layer)?;
        let (part, kind) = rest.rsplit_once('.')?;
        Some(format!("blk.{layer}.{}.{kind}", part_name(part, family)?))
    };
    Some(part().unwrap_or_else(|| name.to_owned()))
}

fn part_name(part: &str, family: Family) -> Option<&'static str> {
    Some(match (part, family.is_gemma()) {
        ("input_layernorm", _) => "attn_norm",
        ("self_attn.q_proj", _) => "attn_q",
        ("self_attn.k_proj", _) => "attn_k",
        ("self_attn.v_proj", _) => "attn_v",
        ("self_attn.o_proj", _) => "attn_output",
        ("self_attn.q_norm", _) => "attn_q_norm",
        ("self_attn.k_norm", _) => "attn_k_norm",
        ("mlp.gate_proj", _) => "ffn_gate",
        ("mlp.up_proj", _) => "ffn_up",
        ("mlp.down_proj", _) => "ffn_down",
        ("post_attention_layernorm", false) | ("pre_feedforward_layernorm", true) => "ffn_norm",
        ("post_attention_layernorm", true) => "post_attention_norm",
        ("post_feedforward_layernorm", true) => "post_ffw_norm",
        _ => return None,
    })
}

/// The layout in a GGUF file. Vectors are 32-bit floats there.
fn convert<'a>(tensor: RawTensor<'a>, name: &str, config: &Config) -> Result<RawTensor<'a>, Error> {
    if tensor.shape.len() == 1 {
        // Gemma scales by one more than its norms say; GGUF files have the sum.
        let plus = if config.family.is_gemma() && name.ends_with("norm.weight") { 1.0 } else { 0.0 };
        let values: Vec<f32> = tensor.numbers()?.into_iter().map(|x| x + plus).collect();
        return Ok(floats(tensor.shape, &values));
    }
    let heads = match name.rsplit_once(".attn_") {
        Some((_, "q.weight")) => config.heads,
        Some((_, "k.weight")) => config.kv_heads,
        _ => return Ok(tensor),
    };
    if config.family.permutes() { permute(tensor, name, heads) } else { Ok(tensor) }
}

/// Within each head, rows of the first and of the second half take turns: rotary embedding turns neighbours in GGUF
/// files, and what is half a head apart in the original.
fn permute<'a>(tensor: RawTensor<'a>, name: &str, heads: usize) -> Result<RawTensor<'a>, Error> {
    let rows = tensor.shape.first().copied().unwrap_or_default();
    let half = rows / (2 * heads.max(1));
    if half * 2 * heads != rows || half == 0 {
        return Err(Error::BadTensor {
            name: name.to_owned(),
            got: tensor.shape.clone(),
            wanted: vec![(half + 1) * 2 * heads, tensor.shape.get(1).copied().unwrap_or_default()],
        });
    }
    let width = tensor.bytes.len() / rows;
    let mut bytes = Vec::with_capacity(tensor.bytes.len());
    for row in 0..rows {
        let (head, within) = (row / (2 * half), row % (2 * half));
        let from = head * 2 * half + (within % 2) * half + within / 2;
        bytes.extend_from_slice(tensor.bytes.get(from * width..(from + 1) * width).unwrap_or_default());
    }
    Ok(RawTensor { bytes: Cow::Owned(bytes), ..tensor })
}

fn floats(shape: Vec<usize>, values: &[f32]) -> RawTensor<'static> {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    RawTensor { encoding: Encoding::F32, shape, bytes: Cow::Owned(bytes) }
}

fn malformed(file: &str, problem: &str) -> Error {
    Error::MalformedFile { name: file.to_owned(), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn names_are_those_of_gguf() {
        let name = |name: &str, family| translate(name, family).unwrap();
        assert_eq!(name("model.layers.12.self_attn.q_proj.bias", Family::Qwen2), "blk.12.attn_q.bias");
        assert_eq!(
            name("model.layers.0.post_attention_layernorm.weight", Family::Llama),
            "blk.0.ffn_norm.weight"
        );
        assert_eq!(
            name("model.layers.0.post_attention_layernorm.weight", Family::Gemma2),
            "blk.0.post_attention_norm.weight"
        );
        assert_eq!(
            name("model.layers.0.pre_feedforward_layernorm.weight", Family::Gemma3),
            "blk.0.ffn_norm.weight"
        );
        assert_eq!(translate("model.layers.0.self_attn.rotary_emb.inv_freq", Family::Llama), None);
        for unknown in
            ["model.layers.00.mlp.up_proj.weight", "model.layers.0.mlp.x.weight", "x", "blk.0.attn_q.weight"]
        {
            assert_eq!(name(unknown, Family::Llama), unknown);
        }
    }

    #[test]
    fn rows_of_a_head_take_turns() {
        let tensor =
            RawTensor { encoding: Encoding::F16, shape: vec![8, 1], bytes: Cow::Owned((0..16).collect()) };
        let permuted = permute(tensor.clone(), "q", 2).unwrap();
        let rows: Vec<_> = permuted.bytes.chunks(2).map(|row| row[0] / 2).collect();
        assert_eq!(rows, [0, 2, 1, 3, 4, 6, 5, 7]);
        assert!(permute(tensor.clone(), "q", 3).is_err());
        assert!(permute(tensor, "q", 8).is_err());
    }

    #[test]
    fn numbers_of_all_kinds_are_read() {
        let read = |encoding, bytes: &[u8]| {
            RawTensor { encoding, shape: vec![1], bytes: Cow::Borrowed(bytes) }.numbers().unwrap()
        };
        assert_eq!(read(Encoding::F32, &1.5_f32.to_le_bytes()), [1.5]);
        assert_eq!(read(Encoding::F16, &f16::from_f32(1.5).to_le_bytes()), [1.5]);
        assert_eq!(read(Encoding::Bf16, &bf16::from_f32(1.5).to_le_bytes()), [1.5]);
    }
}
