//! Tokens per second of a model file: `cargo run --release -p cocoon-inference --example speed -- MODEL.gguf THREADS`.
#![expect(clippy::disallowed_methods, reason = "a program for people writes to standard output")]

use cocoon_inference::{Model, Sequence, Tokens, read_model};
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

const PROMPT: usize = 128;
const ANSWER: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout();
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().unwrap_or_default());
    let threads = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1);
    let started = Instant::now();
    let model = Model::load(read_model(&path, None, |_, _| ())?)?;
    writeln!(out, "loaded in {:.2} s", started.elapsed().as_secs_f64())?;

    let mut sequence = Sequence::new(&model, threads)?;
    let started = Instant::now();
    let mut logits = sequence.push(&Tokens::dangerous_from_ids(&[100; PROMPT]))?;
    writeln!(out, "prefill {:.1} tokens/s", PROMPT as f64 / started.elapsed().as_secs_f64())?;
    let started = Instant::now();
    for _ in 0..ANSWER {
        logits = sequence.push(&Tokens::dangerous_from_ids(&[logits.argmax()?]))?;
    }
    writeln!(
        out,
        "decode {:.1} tokens/s on {threads} threads",
        ANSWER as f64 / started.elapsed().as_secs_f64()
    )?;
    Ok(())
}
