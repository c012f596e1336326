//! Times an embedding model on the lines of a file: `embeddings MODEL TEXTS THREADS SECONDS`. Prints texts, tokens and seconds of the
//! fastest pass over all lines, as JSON, for `scripts/bench embeddings`.
#![allow(clippy::disallowed_methods, reason = "arguments and the clock of a measurement")]

use cocoon_inference::{EmbedError, Embedder, Embedding, Error, SecretString, Turns, read_model};
use std::io::Write;
use std::time::Instant;

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("usage: embeddings MODEL TEXTS THREADS SECONDS")]
    Usage,
    #[error(transparent)]
    Model(#[from] Error),
    #[error(transparent)]
    Texts(#[from] EmbedError),
    #[error(transparent)]
    File(#[from] std::io::Error),
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, texts, threads, seconds] = arguments.as_slice() else { return Err(Failure::Usage) };
    let (Ok(threads), Ok(seconds)) = (threads.parse(), seconds.parse::<f64>()) else {
        return Err(Failure::Usage);
    };
    let embedder = Embedder::load(read_model(model.as_ref(), None, |_, _| ())?, threads, Turns::default())?;
    let texts = std::fs::read_to_string(texts)?;
    let texts: Vec<SecretString> = texts.lines().map(SecretString::from).collect();
    let (started, mut fastest, mut tokens) = (Instant::now(), f64::INFINITY, 0);
    while started.elapsed().as_secs_f64() < seconds {
        let pass = Instant::now();
        let embeddings = embedder.embed(&texts, &|| true)?;
        fastest = fastest.min(pass.elapsed().as_secs_f64());
        tokens = embeddings.iter().map(Embedding::tokens).sum();
    }
    let texts = texts.len();
    let line = format!("{{\"texts\": {texts}, \"tokens\": {tokens}, \"seconds\": {fastest}}}");
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
