//! Models as Hugging Face publishes them, against what transformers computes with them (`tests/vectors/huggingface`).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a skipped test must be seen")]

use cocoon_inference::{Error, Message, Model, Role, Sequence, Tokens, read_model};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Scores have a spread of about 1.5. Two ways of adding up BF16 weights in F32 differ by far less; a wrong order of rows,
/// a norm that is off by one or a missing softcap by far more.
const NEAR: f32 = 2e-2;
const FAMILIES: [&str; 6] = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3"];

fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/huggingface").join(family)
}

fn load(family: &str) -> Result<Model, Error> {
    Model::load(read_model(&folder(family), None, |_, _| ()).unwrap())
}

#[test]
fn folders_compute_as_in_transformers() {
    for family in FAMILIES {
        let model = match load(family) {
            Ok(model) => model,
            Err(Error::Unsupported { what: what @ ("architecture" | "tensor"), name, .. }) => {
                writeln!(std::io::stdout(), "skipped: {family}, no {what} {name}").unwrap();
                continue;
            }
            Err(error) => panic!("{family}: {error}"),
        };
        let text = std::fs::read(folder(family).join("logits.json")).unwrap();
        let wanted: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let ids: Vec<u32> = serde_json::from_value(wanted["ids"].clone()).unwrap();
        let wanted: Vec<f32> = serde_json::from_value(wanted["logits"].clone()).unwrap();
        let mut sequence = Sequence::new(&model, 1).unwrap();
        let logits = sequence.push(&Tokens::dangerous_from_ids(&ids)).unwrap();
        let apart = logits.dangerous_values().iter().zip(&wanted).map(|(a, b)| (a - b).abs());
        let furthest = apart.fold(0.0, f32::max);
        writeln!(std::io::stdout(), "{family}: at most {furthest:.5} apart").unwrap();
        assert!(furthest < NEAR, "{family}: {furthest}");
    }
}

#[test]
fn tokenizer_and_template_come_from_their_files() {
    let model = load("mistral").unwrap();
    let message = Message::new(Role::User, "a<|end|>");
    let prompt = model.prompt(&[message]).unwrap();
    let ids = prompt.dangerous_ids();
    // <|begin|><|user|> .. <|end|><|assistant|>, and the text between is eight letters.
    assert_eq!((&ids[..2], &ids[ids.len() - 2..], ids.len()), (&[256, 257][..], &[258, 259][..], 12));
}
