//! Models and the engine on the GPU: a simulated one, or with feature `cuda` this machine's.

use super::Gpu;
use crate::backend::{BLOCK_TOKENS, Computed};
use crate::compute::Room;
use crate::engine_tests::{End, answer, collect, relay, request, sampled, until_idle};
use crate::rotary::{Rope, Rotary};
use crate::testing::Tiny;
use crate::{Engine, EngineConfig, Error, GenerateRequest, Model, ModelBytes, Sequence, Tokens, read_model};
use std::path::Path;

/// On the GPU, or nothing where there is none.
fn on_gpu(bytes: ModelBytes) -> Option<Model> {
    match Model::load_on_gpu(bytes) {
        Ok(model) => Some(model),
        Err(Error::NoGpu(problem)) if problem.contains("no NVIDIA driver") => None,
        Err(error) => panic!("{error}"),
    }
}

pub(super) fn tiny_on_gpu(tiny: &Tiny) -> Option<Model> {
    on_gpu(ModelBytes::from_vec(tiny.build()))
}

/// What rounding activations to BF16 makes of a cosine in random models is above this; a norm or an angle that is wrong, is not.
const ALIKE: f64 = 0.998;

/// How alike the scores of both are, over a prompt, chunks behind it, and single tokens, over the borders of blocks.
fn compare(name: &str, cpu: &Model, gpu: &Model) {
    let (mut ours, mut theirs) = (Sequence::new(gpu, 1).unwrap(), Sequence::new(cpu, 1).unwrap());
    let tokens: Vec<u32> = (0..90).map(|i| 2 + i * 29 % 250).collect();
    let mut first = 0;
    for len in [33, 30, 1, 1, 1, 1, 1, 9, 1] {
        let chunk = Tokens::dangerous_from_ids(&tokens[first..first + len]);
        let (ours, theirs) = (ours.push(&chunk).unwrap(), theirs.push(&chunk).unwrap());
        first += len;
        let (a, b) = (ours.dangerous_values(), theirs.dangerous_values());
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        assert!(a.len() == b.len() && cosine > ALIKE, "{name} at {first}: {cosine}");
    }
}

/// Biases, norms of heads and behind halves, soft caps, windows, two ways to turn, scaled embeddings, files of both kinds.
#[test]
fn every_family_computes_what_it_does_on_processors() {
    for family in ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3"] {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/huggingface").join(family);
        let read = || read_model(&folder, None, |_, _| ()).unwrap();
        let Some(gpu) = on_gpu(read()) else { return };
        compare(family, &Model::load(read()).unwrap(), &gpu);
    }
}

/// Sizes of heads for which rows of a sequence are computed together, and others.
#[test]
fn heads_of_any_size_compute_what_they_do_on_processors() {
    for (query, kv) in [(1, 1), (2, 1), (4, 2), (4, 4)] {
        let tiny = Tiny::default().with_heads(query, kv);
        let Some(gpu) = tiny_on_gpu(&tiny) else { return };
        let cpu = Model::load(ModelBytes::from_vec(tiny.build())).unwrap();
        compare(&format!("{query} heads, {kv} of keys"), &cpu, &gpu);
    }
}

pub(super) fn config(max_running: usize, kv_bytes: Option<usize>) -> EngineConfig {
    let sizes = EngineConfig { threads: 1, max_running, max_waiting: 64, ..EngineConfig::default() };
    EngineConfig { step_tokens: 48, kv_bytes, ..sizes }
}

pub(super) fn plain(seed: usize) -> GenerateRequest {
    request(&"words ".repeat(1 + seed % 7), 24 + seed % 9)
}

/// All that decides what of the scores the host sees.
fn kinds() -> Vec<GenerateRequest> {
    let top_k = |k: usize| GenerateRequest { top_k: Some(k), ..sampled("top", 3) };
    let many = GenerateRequest { top_k: Some(200), ..sampled("more than the kernel finds", 4) };
    let logprobs = GenerateRequest { logprobs: true, top_logprobs: 2, ..plain(2) };
    vec![plain(0), plain(3), sampled("some", 1), top_k(1), top_k(20), many, logprobs]
}

fn together(engine: &Engine, requests: Vec<GenerateRequest>) -> Vec<(String, End)> {
    let submit = |request| {
        let (sink, events) = relay();
        engine.submit(request, sink).unwrap();
        events
    };
    let events: Vec<_> = requests.into_iter().map(submit).collect();
    events.iter().map(collect).collect()
}

#[test]
fn answers_are_the_same_alone_and_among_others() {
    for heads in [(4, 2), (1, 1)] {
        let tiny = Tiny::default().with_heads(heads.0, heads.1);
        let Some(model) = tiny_on_gpu(&tiny) else { return };
        let engine = Engine::start(model, config(1, None)).unwrap();
        let alone: Vec<_> = kinds().into_iter().map(|request| answer(&engine, request)).collect();
        drop(engine);
        // Memory for a few, so that some give way to others.
        let model = tiny_on_gpu(&tiny).unwrap();
        let block = model.spec().sizes.block_bytes();
        let engine = Engine::start(model, config(16, Some(20 * block))).unwrap();
        let mut crowd = kinds();
        crowd.extend((0..20).map(plain));
        let answers = together(&engine, crowd);
        assert!(answers.iter().all(|(_, end)| matches!(end, End::Finished { .. })), "{answers:?}");
        if cfg!(not(feature = "cuda")) {
            assert_eq!(answers[..alone.len()], alone, "{heads:?}");
            assert!(engine.counts().preemptions > 0);
        }
    }
}

/// A step computes several tokens if that is all that is asked for; an answer ends where it would.
#[test]
fn tokens_go_on_without_the_host() {
    let Some(model) = tiny_on_gpu(&Tiny::default()) else { return };
    let engine = Engine::start(model, config(4, None)).unwrap();
    let (text, end) = answer(&engine, plain(1));
    until_idle(&engine);
    let counts = engine.counts();
    assert!(matches!(end, End::Finished { completion: 25, .. }), "{end:?}");
    assert_eq!(counts.completion_tokens, 25);
    let prompts = engine.model().prompt(&plain(1).messages).unwrap().len().div_ceil(48);
    // 25 tokens: one with the prompt, and six times four.
    assert_eq!(counts.steps, prompts as u64 + 24, "a step counts as often as the model runs");
    let by_hand = engine.model().prompt(&plain(1).messages).unwrap();
    let by_hand = engine.model().generate_greedy(&by_hand, 25, 1).unwrap();
    let bytes: Vec<u8> =
        by_hand.dangerous_ids().iter().flat_map(|id| engine.model().tokenizer.bytes(*id)).copied().collect();
    assert_eq!(text, String::from_utf8_lossy(&bytes));
    let stopping = GenerateRequest { stop: vec![text[3..6].into()], ..plain(1) };
    let stopped = answer(&engine, stopping).0;
    assert!(text.starts_with(&stopped) && stopped.len() < 6, "{stopped} of {text}");
    until_idle(&engine);
}

#[test]
fn a_context_ends_where_it_ends() {
    let Some(model) = tiny_on_gpu(&Tiny::default()) else { return };
    let engine = Engine::start(model, config(2, None)).unwrap();
    let mut request = request("to the end", 1);
    request.max_tokens = None;
    let prompt = engine.model().prompt(&request.messages).unwrap().len();
    let (_, end) = answer(&engine, request);
    let End::Finished { completion, .. } = end else { panic!("{end:?}") };
    assert!(prompt + completion <= 256);
}

#[test]
fn nothing_is_left_of_what_was_wiped() {
    let Some(model) = tiny_on_gpu(&Tiny::default()) else { return };
    let room = Room { threads: 1, blocks: 20, rows: 64, wanted: 8 };
    let device = std::sync::Arc::new(super::Device::open().unwrap());
    let rope = Rope { base: 1e4, dims: model.spec().sizes.dim, divisor: 1.0 };
    let rotary = Rotary { ropes: vec![rope], factors: None };
    let mut gpu = Gpu::new(device, model.spec(), &rotary, room).unwrap();
    gpu.fill_for_test();
    assert!(!gpu.is_wiped(&[3, 19]));
    gpu.wipe(&[3, 19, 20]).unwrap(); // the last is not there
    assert!(gpu.is_wiped(&[3, 19]) && !gpu.is_wiped(&[2]) && !gpu.is_wiped(&[4]) && !gpu.is_wiped(&[18]));
    assert!(!gpu.rows_are_wiped());
    gpu.wipe_rows().unwrap();
    assert!(gpu.rows_are_wiped());
    const { assert!(BLOCK_TOKENS == super::plan::BLOCK) };
}
