//! Models with random weights, in the shapes of known ones: what matters for speed is there without a file.

use crate::error::Error;
use crate::model::Model;
use crate::source::Source;
use crate::tokenizer::byte_alphabet;
use crate::weights::{Encoding, Plain, RawTensor};
use candle_core::quantized::gguf_file::Value;
use half::{bf16, f16};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

/// The sizes of a Llama.
#[derive(Debug, Clone, Copy)]
struct Shape {
    name: &'static str,
    layers: usize,
    hidden: usize,
    feed_forward: usize,
    heads: usize,
    kv_heads: usize,
    vocabulary: usize,
}

/// As published with these models.
const SHAPES: [Shape; 4] = [
    Shape {
        name: "smollm2-135m",
        layers: 30,
        hidden: 576,
        feed_forward: 1536,
        heads: 9,
        kv_heads: 3,
        vocabulary: 49_152,
    },
    Shape {
        name: "smollm2-1.7b",
        layers: 24,
        hidden: 2048,
        feed_forward: 8192,
        heads: 32,
        kv_heads: 32,
        vocabulary: 49_152,
    },
    Shape {
        name: "llama-3.2-1b",
        layers: 16,
        hidden: 2048,
        feed_forward: 8192,
        heads: 32,
        kv_heads: 8,
        vocabulary: 128_256,
    },
    Shape {
        name: "llama-3.1-8b",
        layers: 32,
        hidden: 4096,
        feed_forward: 14_336,
        heads: 32,
        kv_heads: 8,
        vocabulary: 128_256,
    },
];
const SHAPE_NAMES: &str = "smollm2-135m, smollm2-1.7b, llama-3.2-1b, llama-3.1-8b";
const ENCODINGS: [(&str, Encoding); 8] = [
    ("f32", Encoding::F32),
    ("f16", Encoding::F16),
    ("bf16", Encoding::Bf16),
    ("q8_0", Encoding::Q8_0),
    ("q4_0", Encoding::Q4_0),
    ("q4_1", Encoding::Q4_1),
    ("q4_k", Encoding::Q4K),
    ("q6_k", Encoding::Q6K),
];
const ENCODING_NAMES: &str = "f32, f16, bf16, q8_0, q4_0, q4_1, q4_k, q6_k";
/// The longest context that is measured, and room to write.
const CONTEXT: usize = 16_384;

/// A model of a known shape with random weights, on processors or the GPU.
///
/// # Errors
/// If the shape or the encoding has no such name, or they do not fit each other.
pub fn random_model(shape: &str, encoding: &str, on_gpu: bool) -> Result<Model, Error> {
    let unknown = |what, name: &str, supported| Error::Unsupported { what, name: name.to_owned(), supported };
    let shape = SHAPES
        .iter()
        .find(|known| known.name == shape)
        .ok_or_else(|| unknown("shape", shape, SHAPE_NAMES))?;
    let (_, encoding) = ENCODINGS
        .iter()
        .find(|(name, _)| *name == encoding)
        .ok_or_else(|| unknown("encoding", encoding, ENCODING_NAMES))?;
    if !shape.hidden.is_multiple_of(encoding.block()) {
        return Err(Error::BadConfig {
            name: "encoding",
            problem: "has blocks that do not divide the width of this shape",
        });
    }
    let source = source(shape, *encoding);
    if on_gpu { Model::gpu_from_source(source, [0; 32]) } else { Model::from_source(source, [0; 32]) }
}

fn source(shape: &Shape, encoding: Encoding) -> Source<'static> {
    let mut tensors = BTreeMap::new();
    let mut noise = Noise(1);
    let mut matrix = |name: String, outputs: usize, inputs: usize| {
        let bytes = Cow::Owned(noise.weights(encoding, outputs * inputs));
        tensors.insert(name, RawTensor { encoding, shape: vec![outputs, inputs], bytes });
    };
    let kv_width = shape.hidden / shape.heads * shape.kv_heads;
    matrix("token_embd.weight".to_owned(), shape.vocabulary, shape.hidden);
    for layer in 0..shape.layers {
        for (part, outputs, inputs) in [
            ("attn_q", shape.hidden, shape.hidden),
            ("attn_k", kv_width, shape.hidden),
            ("attn_v", kv_width, shape.hidden),
            ("attn_output", shape.hidden, shape.hidden),
            ("ffn_gate", shape.feed_forward, shape.hidden),
            ("ffn_up", shape.feed_forward, shape.hidden),
            ("ffn_down", shape.hidden, shape.feed_forward),
        ] {
            matrix(format!("blk.{layer}.{part}.weight"), outputs, inputs);
        }
    }
    let norms = (0..shape.layers)
        .flat_map(|layer| ["attn_norm", "ffn_norm"].map(|part| format!("blk.{layer}.{part}.weight")));
    for name in norms.chain(["output_norm.weight".to_owned()]) {
        let bytes = Cow::Owned(1_f32.to_le_bytes().repeat(shape.hidden));
        tensors.insert(name, RawTensor { encoding: Encoding::F32, shape: vec![shape.hidden], bytes });
    }
    Source::new(metadata(shape), tensors)
}

fn metadata(shape: &Shape) -> HashMap<String, Value> {
    let number = |n: usize| Value::U64(n as u64);
    let strings = |all: Vec<String>| Value::Array(all.into_iter().map(Value::String).collect());
    let mut tokens: Vec<String> = byte_alphabet().into_keys().map(String::from).collect();
    tokens.sort();
    tokens.extend((tokens.len()..shape.vocabulary).map(|n| format!("<{n}>")));
    let entries = [
        ("general.architecture", Value::String("llama".to_owned())),
        ("general.name", Value::String(format!("random {}", shape.name))),
        ("tokenizer.ggml.model", Value::String("gpt2".to_owned())),
        ("tokenizer.ggml.pre", Value::String("gpt-2".to_owned())),
        ("tokenizer.ggml.token_type", Value::Array(vec![Value::I32(1); tokens.len()])),
        ("tokenizer.ggml.tokens", strings(tokens)),
        ("tokenizer.ggml.merges", strings(Vec::new())),
        (
            "tokenizer.chat_template",
            Value::String("{% for m in messages %}{{ m.content }}{% endfor %}".to_owned()),
        ),
        ("llama.block_count", number(shape.layers)),
        ("llama.context_length", number(CONTEXT)),
        ("llama.embedding_length", number(shape.hidden)),
        ("llama.feed_forward_length", number(shape.feed_forward)),
        ("llama.attention.head_count", number(shape.heads)),
        ("llama.attention.head_count_kv", number(shape.kv_heads)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
    ];
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Numbers without a pattern, the same every time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 ^ self.0 >> 29
    }

    /// Between -0.05 and 0.05.
    fn number(&mut self) -> f32 {
        (self.next() % 2001) as f32 / 20_000.0 - 0.05
    }

    fn weights(&mut self, encoding: Encoding, count: usize) -> Vec<u8> {
        match encoding.plain() {
            Some(Plain::F32) => (0..count).flat_map(|_| self.number().to_le_bytes()).collect(),
            Some(Plain::F16) => (0..count).flat_map(|_| f16::from_f32(self.number()).to_le_bytes()).collect(),
            Some(Plain::Bf16) => {
                (0..count).flat_map(|_| bf16::from_f32(self.number()).to_le_bytes()).collect()
            }
            None => self.blocks(encoding, count / encoding.block()),
        }
    }

    /// Random integers, with scales that make small numbers of them. Two 16-bit floats lead a block, or one ends it.
    fn blocks(&mut self, encoding: Encoding, count: usize) -> Vec<u8> {
        let len = encoding.block_bytes();
        let mut bytes: Vec<u8> =
            (0..(count * len).div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(count * len);
        let scale = f16::from_f32(1e-4).to_le_bytes();
        for block in bytes.chunks_exact_mut(len) {
            if encoding == Encoding::Q6K {
                block[len - 2..].copy_from_slice(&scale);
                continue;
            }
            block[..2].copy_from_slice(&scale);
            if matches!(encoding, Encoding::Q4_1 | Encoding::Q5_1 | Encoding::Q4K | Encoding::Q5K) {
                block[2..4].copy_from_slice(&scale);
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Plan, measure};

    #[test]
    fn a_random_model_computes_in_every_encoding() {
        for (name, encoding) in ENCODINGS {
            let tiny = Shape {
                name: "tiny",
                layers: 1,
                hidden: 256,
                feed_forward: 256,
                heads: 4,
                kv_heads: 2,
                vocabulary: 300,
            };
            let model = Model::from_source(source(&tiny, encoding), [0; 32]).unwrap();
            let figures = measure(&model, Plan { threads: 1, batch: 1, context: 0, prefill: 3, decode: 2 });
            assert!(figures.is_ok(), "{name}");
        }
    }

    #[test]
    fn unknown_names_are_answered_with_the_known_ones() {
        assert!(random_model("gpt-5", "q4_0", false).unwrap_err().to_string().contains("llama-3.1-8b"));
        assert!(random_model("smollm2-135m", "q3", false).unwrap_err().to_string().contains("q4_1"));
        assert!(random_model("smollm2-135m", "q4_k", false).is_err(), "576 is not a multiple of 256");
        for shape in SHAPES {
            assert!(SHAPE_NAMES.contains(shape.name));
        }
        assert!(ENCODINGS.iter().all(|(name, _)| ENCODING_NAMES.contains(name)));
    }
}
