//! Our tokens and embeddings against those of `tokenizers` and `transformers` (`tests/vectors/embedding`). What needs the real
//! model is skipped where that is not at hand.

use super::*;
use crate::model_file::read_model;
use crate::tokenizer::vectors::{corpus_with, same_digests, say};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The vectors are rounded to millionths. Adding up in another order differs by about as much again.
const NEAR: f32 = 2e-6;
const NEAR_COSINE: f64 = 0.999_999_9;

#[derive(Deserialize)]
struct Vector {
    text: String,
    tokens: usize,
    embedding: Vec<f32>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn vectors(file: &str) -> String {
    std::fs::read_to_string(root().join("tests/vectors/embedding").join(file)).unwrap()
}

/// The real model, if it is there.
fn minilm() -> Option<ModelBytes> {
    let folder = root().join("models/all-MiniLM-L6-v2");
    if !folder.exists() {
        say("skipped: no model, run scripts/model fetch --embedding");
        return None;
    }
    Some(read_model(&folder, None, |_, _| ()).unwrap())
}

fn same(name: &str, tokenizer: &WordPiece) -> usize {
    let corpus = corpus_with(serde_json::from_str(&vectors("fragments.json")).unwrap());
    let encode = |line: &str| tokenizer.encode(line, usize::MAX).unwrap_or_default().as_slice().to_vec();
    same_digests(&vectors(&format!("{name}.txt")), &corpus, encode)
}

/// How far the embeddings of a model are from those of the vectors at most, and the smallest cosine.
fn apart(name: &str, embedder: &Embedder) -> (f32, f64) {
    let wanted: Vec<Vector> = serde_json::from_str(&vectors(&format!("{name}.json"))).unwrap();
    let texts: Vec<SecretString> = wanted.iter().map(|vector| vector.text.as_str().into()).collect();
    let ours = embedder.embed(&texts, &|| true).unwrap();
    let (mut furthest, mut cosine) = (0.0_f32, 1.0_f64);
    for (ours, wanted) in ours.iter().zip(&wanted) {
        assert_eq!((ours.tokens(), embedder.count(&wanted.text)), (wanted.tokens, wanted.tokens));
        let theirs: Vec<f32> = wanted.embedding.iter().map(|x| x * 1e-6).collect();
        let pairs = || ours.expose().iter().zip(&theirs);
        furthest = pairs().map(|(a, b)| (a - b).abs()).fold(furthest, f32::max);
        let dot: f64 = pairs().map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        let length = |numbers: &[f32]| numbers.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        assert!((length(ours.expose()) - 1.0).abs() < 1e-6, "no unit vector");
        cosine = cosine.min(dot / length(ours.expose()) / length(&theirs));
    }
    say(&format!("{name}: {} texts, at most {furthest:.7} apart, cosine at least {cosine:.9}", ours.len()));
    assert!(furthest < NEAR && cosine > NEAR_COSINE);
    (furthest, cosine)
}

#[test]
fn a_tiny_model_computes_as_in_transformers() {
    let embedder = Embedder::load(super::tests::tiny(), 2, Turns::default()).unwrap();
    apart("tiny", &embedder);
}

#[test]
fn all_minilm_l6_v2_computes_as_in_transformers() {
    let Some(bytes) = minilm() else { return };
    assert!(Embedder::is_embedder(&bytes));
    let embedder = Embedder::load(bytes, 2, Turns::default()).unwrap();
    assert_eq!((embedder.dimensions(), embedder.context_length()), (384, 512));
    apart("minilm", &embedder);
    assert_eq!(same("minilm", &embedder.tokenizer), 100);
}

#[test]
fn every_way_to_normalise_makes_the_tokens_of_tokenizers() {
    let (_, file) = super::tests::tiny_files().into_iter().find(|(name, _)| name == TOKENIZER).unwrap();
    for (name, changes) in [
        ("tiny", &[][..]),
        ("tiny-cased", &[("lowercase", false)]),
        ("tiny-accents", &[("strip_accents", false)]),
        (
            "tiny-raw",
            &[
                ("clean_text", false),
                ("handle_chinese_chars", false),
                ("lowercase", false),
                ("strip_accents", false),
            ],
        ),
    ] {
        let mut json: serde_json::Value = serde_json::from_slice(&file).unwrap();
        for (key, value) in changes {
            json["normalizer"][key] = (*value).into();
        }
        let tokenizer = vocabulary::read(json.to_string().as_bytes(), 580).unwrap();
        assert_eq!(same(name, &tokenizer), 100, "{name}");
    }
}
