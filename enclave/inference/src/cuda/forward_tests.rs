//! A forward pass of nothing but the device's operations, by their twins: they are enough for a Llama, and mean what the CPU's mean.

use super::launch::BLOCK;
use super::plan::{Activation, Heads, Norm, Rope, Run, Scores, tiles};
use super::twin::{self, Cache};
use crate::testing::tiny_model;
use crate::{Model, ModelBytes, Sequence, Tokens};
use candle_core::Device;
use candle_core::quantized::gguf_file::Content;
use half::bf16;
use std::collections::HashMap;
use std::io::Cursor;

const HIDDEN: usize = 64;
const WIDE: usize = 128;
const LAYERS: usize = 2;
const EPS: f32 = 1e-5;
const CONTEXT: usize = 256;
const HEADS: Heads = Heads { query: 4, kv: 2, dim: 16, blocks: 9 };

/// The tiny model in BF16, and one sequence in a cache with blocks in any order.
struct Pass {
    weights: HashMap<String, Vec<bf16>>,
    caches: Vec<[Vec<bf16>; 2]>,
    table: Vec<u32>,
    turns: Vec<f32>,
}

impl Pass {
    fn new(bytes: &[u8]) -> Self {
        let mut file = Cursor::new(bytes);
        let content = Content::read(&mut file).unwrap();
        let mut weights = HashMap::new();
        for name in content.tensor_infos.keys() {
            let tensor = content.tensor(&mut file, name, &Device::Cpu).unwrap();
            let values = tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap();
            let values: Vec<f32> = values.to_vec1().unwrap();
            weights.insert(name.clone(), values.into_iter().map(bf16::from_f32).collect());
        }
        let cache = || vec![bf16::NAN; HEADS.cache_len("test").unwrap()];
        let turn = |at: usize| {
            let (position, pair) = (at / HEADS.dim, at % HEADS.dim / 2);
            let angle = position as f32 * 10_000_f32.powf(-2.0 * pair as f32 / HEADS.dim as f32);
            if at.is_multiple_of(2) { angle.cos() } else { angle.sin() }
        };
        Self {
            weights,
            caches: (0..LAYERS).map(|_| [cache(), cache()]).collect(),
            table: vec![4, 1, 7, 0, 8, 2],
            turns: (0..CONTEXT * HEADS.dim).map(turn).collect(),
        }
    }

    fn weight(&self, name: &str) -> &[bf16] {
        &self.weights[name]
    }

    /// `x * transposed(weights)`, as cuBLASLt does it.
    fn product(&self, x: &[bf16], name: &str, inputs: usize) -> Vec<bf16> {
        self.scores(x, name, inputs).into_iter().map(bf16::from_f32).collect()
    }

    fn scores(&self, x: &[bf16], name: &str, inputs: usize) -> Vec<f32> {
        let dot = |x: &[bf16], w: &[bf16]| x.iter().zip(w).map(|(a, b)| a.to_f32() * b.to_f32()).sum();
        let weights = self.weight(name);
        x.chunks(inputs).flat_map(|x| weights.chunks(inputs).map(move |w| dot(x, w))).collect()
    }

    /// Two products whose rows are put side by side, as fused weights give them.
    fn fused(&self, x: &[bf16], names: &[String], inputs: usize) -> Vec<bf16> {
        let rows = x.len() / inputs;
        let parts: Vec<Vec<bf16>> = names.iter().map(|name| self.product(x, name, inputs)).collect();
        let row =
            |row: usize| parts.iter().flat_map(move |part| part.chunks(part.len() / rows).nth(row).unwrap());
        (0..rows).flat_map(row).copied().collect()
    }

    /// Runs tokens that begin at `first`; gives the scores of what follows the last. A single token is decoded.
    fn push(&mut self, tokens: &[u32], first: u32) -> Vec<f32> {
        let positions: Vec<u32> = (first..).take(tokens.len()).collect();
        let slot = |position: &u32| self.table[*position as usize / BLOCK] * 16 + position % 16;
        let slots: Vec<u32> = positions.iter().map(slot).collect();
        let mut x = twin::rows_of(self.weight("token_embd.weight"), tokens, HIDDEN, 1.0);
        let norm = Norm {
            rows: tokens.len(),
            stride: HIDDEN,
            start: 0,
            groups: 1,
            width: HIDDEN,
            eps: EPS,
            offset: 0.0,
        };
        let mut normal = twin::rms_norm(&x, self.weight("blk.0.attn_norm.weight"), &norm);
        for layer in 0..LAYERS {
            let name = |part: &str| format!("blk.{layer}.{part}.weight");
            let qkv = self.fused(&normal, &[name("attn_q"), name("attn_k"), name("attn_v")], HIDDEN);
            let attended = self.attend(layer, &qkv, &positions, &slots);
            let added = self.product(&attended, &name("attn_output"), HIDDEN);
            (normal, x) = twin::add_rms_norm(&x, &added, self.weight(&name("ffn_norm")), EPS, 0.0);
            let gate_up = self.fused(&normal, &[name("ffn_gate"), name("ffn_up")], HIDDEN);
            let gated = twin::gated(Activation::Silu, &gate_up, WIDE);
            let added = self.product(&gated, &name("ffn_down"), WIDE);
            let next = format!("blk.{}.attn_norm.weight", layer + 1);
            let next = if layer + 1 == LAYERS { "output_norm.weight" } else { &next };
            (normal, x) = twin::add_rms_norm(&x, &added, self.weight(next), EPS, 0.0);
        }
        let last = u32::try_from(tokens.len() - 1).unwrap();
        self.scores(&twin::rows_of(&normal, &[last], HIDDEN, 1.0), "token_embd.weight", HIDDEN)
    }

    fn attend(&mut self, layer: usize, qkv: &[bf16], positions: &[u32], slots: &[u32]) -> Vec<bf16> {
        let rope = Rope { rotary: HEADS.dim, interleaved: true }; // as GGUF has Llama's weights
        let [keys, values] = &self.caches[layer];
        let (qkv, caches) = twin::rope_kv(qkv, [keys, values], &self.turns, positions, slots, &HEADS, &rope);
        self.caches[layer] = caches;
        let [keys, values] = &self.caches[layer];
        let cache = Cache { keys, values, tables: &self.table, sequences: 1 };
        let scores = Scores { scale: 0.25, cap: 0.0, window: 0 };
        if let [position] = positions {
            return twin::attention_decode(&qkv, &[position + 1], &cache, &HEADS, &scores);
        }
        let rows = u32::try_from(positions.len()).unwrap();
        let run = Run { sequence: 0, first_row: 0, rows, position: positions[0] };
        assert!(!tiles(&[run], positions.len(), 1).unwrap().is_empty());
        twin::attention_prefill(&qkv, &[run], &cache, &HEADS, &scores)
    }
}

#[test]
fn the_operations_make_a_llama() {
    let bytes = tiny_model();
    let model = Model::load(ModelBytes::from_vec(bytes.clone())).unwrap();
    let (mut cpu, mut pass) = (Sequence::new(&model, 1).unwrap(), Pass::new(&bytes));
    let tokens: Vec<u32> = (0..75).map(|i| 2 + i * 29 % 250).collect();
    // A prompt, a chunk behind it, and tokens one by one, over the borders of blocks.
    let mut first = 0;
    for len in [33, 30, 1, 1, 1, 9] {
        let chunk = &tokens[first..first + len];
        let ours = pass.push(chunk, u32::try_from(first).unwrap());
        let theirs = cpu.push(&Tokens::dangerous_from_ids(chunk)).unwrap();
        let theirs = theirs.dangerous_values();
        first += len;
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let cosine = dot(&ours, theirs) / (dot(&ours, &ours) * dot(theirs, theirs)).sqrt();
        assert!(ours.len() == theirs.len() && cosine > 0.9995, "{first}: {cosine}");
    }
}
