//! A tiny Llama with random weights, written as GGUF, for tests.

use crate::tokenizer::byte_alphabet;
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::io::Cursor;

const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
const HIDDEN: usize = 64;
const FEED_FORWARD: usize = 128;
const LAYERS: usize = 2;

/// The metadata of a tiny model, to be changed before it is built.
pub(crate) struct Tiny {
    metadata: BTreeMap<String, Value>,
    vocabulary: usize,
    kv_width: usize,
}

/// The tiny model as it is.
pub(crate) fn tiny_model() -> Vec<u8> {
    Tiny::default().build()
}

impl Default for Tiny {
    fn default() -> Self {
        let strings =
            |all: &[&str]| Value::Array(all.iter().map(|text| Value::String((*text).to_owned())).collect());
        let mut alphabet: Vec<_> = byte_alphabet().into_keys().map(String::from).collect();
        alphabet.sort();
        let mut tokens = vec!["<|im_start|>", "<|im_end|>"];
        tokens.extend(alphabet.iter().map(String::as_str));
        tokens.extend(["th", "the", "re", "there", "Ġt"]);
        let types = (0..tokens.len()).map(|id| Value::I32(if id < 2 { 3 } else { 1 })).collect();
        let mut tiny = Self { metadata: BTreeMap::new(), vocabulary: tokens.len(), kv_width: 32 };
        tiny.set("tokenizer.ggml.tokens", strings(&tokens));
        tiny.set("tokenizer.ggml.token_type", Value::Array(types));
        tiny.set("tokenizer.ggml.merges", strings(&["t h", "th e", "r e", "the re", "Ġ t"]));
        for (key, number) in [
            ("llama.block_count", LAYERS),
            ("llama.context_length", 256),
            ("llama.embedding_length", HIDDEN),
            ("llama.feed_forward_length", FEED_FORWARD),
            ("tokenizer.ggml.eos_token_id", 1),
        ] {
            tiny = tiny.with_number(key, number);
        }
        tiny.set("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
        tiny.with_heads(4, 2)
            .with_string("general.architecture", "llama")
            .with_string("general.name", "Tiny")
            .with_string("tokenizer.ggml.model", "gpt2")
            .with_string("tokenizer.ggml.pre", "smollm")
            .with_string("tokenizer.chat_template", CHATML)
    }
}

impl Tiny {
    pub(crate) fn with_string(mut self, key: &str, value: &str) -> Self {
        self.set(key, Value::String(value.to_owned()));
        self
    }

    pub(crate) fn with(mut self, key: &str, value: Value) -> Self {
        self.set(key, value);
        self
    }

    /// Heads of queries, and of keys and values.
    pub(crate) fn with_heads(self, query: usize, kv: usize) -> Self {
        let tiny = Self { kv_width: HIDDEN / query * kv, ..self };
        tiny.with_number("llama.attention.head_count", query).with_number("llama.attention.head_count_kv", kv)
    }

    pub(crate) fn with_number(mut self, key: &str, value: usize) -> Self {
        self.set(key, Value::U32(u32::try_from(value).unwrap()));
        self
    }

    pub(crate) fn with_float(mut self, key: &str, value: f32) -> Self {
        self.set(key, Value::F32(value));
        self
    }

    pub(crate) fn without(mut self, key: &str) -> Self {
        self.metadata.remove(key);
        self
    }

    fn set(&mut self, key: &str, value: Value) {
        self.metadata.insert(key.to_owned(), value);
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut tensors = vec![
            ("token_embd.weight".to_owned(), weights(1, self.vocabulary, HIDDEN)),
            ("output_norm.weight".to_owned(), ones(HIDDEN)),
        ];
        for layer in 0..LAYERS {
            for (seed, (part, outputs, inputs)) in (10 * layer as u64 + 10..).zip([
                ("attn_q", HIDDEN, HIDDEN),
                ("attn_k", self.kv_width, HIDDEN),
                ("attn_v", self.kv_width, HIDDEN),
                ("attn_output", HIDDEN, HIDDEN),
                ("ffn_gate", FEED_FORWARD, HIDDEN),
                ("ffn_up", FEED_FORWARD, HIDDEN),
                ("ffn_down", HIDDEN, FEED_FORWARD),
            ]) {
                tensors.push((format!("blk.{layer}.{part}.weight"), weights(seed, outputs, inputs)));
            }
            tensors.push((format!("blk.{layer}.attn_norm.weight"), ones(HIDDEN)));
            tensors.push((format!("blk.{layer}.ffn_norm.weight"), ones(HIDDEN)));
        }
        let metadata: Vec<_> = self.metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut file = Cursor::new(Vec::new());
        gguf_file::write(&mut file, &metadata, &tensors).unwrap();
        file.into_inner()
    }

    /// Where the tensor data of the built file begin.
    pub(crate) fn header_len(&self) -> usize {
        let content = gguf_file::Content::read(&mut Cursor::new(self.build())).unwrap();
        usize::try_from(content.tensor_data_offset).unwrap()
    }
}

fn weights(seed: u64, rows: usize, columns: usize) -> QTensor {
    let value = |i: usize| ((i as f32 * 0.37 + seed as f32 * 1.7).sin() * 43_758.547).fract() * 0.5;
    let values: Vec<f32> = (0..rows * columns).map(value).collect();
    QTensor::quantize(&Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap(), GgmlDType::Q8_0)
        .unwrap()
}

fn ones(len: usize) -> QTensor {
    QTensor::quantize(&Tensor::from_vec(vec![1f32; len], len, &Device::Cpu).unwrap(), GgmlDType::F32).unwrap()
}
