//! What the engine reaches: tokens per second on one file, against llama.cpp with the same file and number of threads.

use std::path::Path;
use std::time::Instant;

use cocoon_inference::{Model, Sequence, Tokens, read_model};

use crate::llama::Llama;
use crate::pairs::alternate;
use crate::report::{Better, Row};

/// A pair takes up to ten seconds.
const PAIRS: usize = 5;
/// Tokens that are read.
const PROMPT: u32 = 128;
/// Tokens that are written, one after another.
const ANSWER: u32 = 64;

/// Measures everything about the engine; `peers` holds node-llama-cpp.
///
/// # Errors
/// When the model cannot be loaded or either engine fails.
pub fn measure(peers: &Path) -> anyhow::Result<Vec<Row>> {
    let file = cocoon_tests::model();
    let model = Model::load(read_model(&file, None, |_, _| ())?)?;
    let cores = std::thread::available_parallelism()?.get();
    let mut rows = Vec::new();
    for threads in [1, 2].into_iter().filter(|threads| *threads <= cores) {
        let mut llama = Llama::start(peers, &file, threads)?;
        let baseline = format!("{}, same file and threads", llama.release());
        let theirs = || llama.generate(&prompt(), ANSWER).map(tokens_per_second);
        let ours = || ours(&model, threads).map(tokens_per_second);
        let [prefill, decode] = alternate(PAIRS, theirs, ours)?;
        let s = if threads == 1 { "" } else { "s" };
        let row = |what: String, pairs| Row {
            what,
            baseline: baseline.clone(),
            better: Better::Higher,
            unit: "tokens/s",
            pairs,
            note: String::new(),
        };
        rows.push(row(format!("prefill of {PROMPT} tokens, {threads} thread{s}"), prefill));
        rows.push(row(format!("decode of {ANSWER} tokens, {threads} thread{s}"), decode));
    }
    Ok(rows)
}

/// Ordinary tokens of every vocabulary that is used here; which ones does not matter for speed.
fn prompt() -> Vec<u32> {
    (0..PROMPT).map(|n| 1000 + 37 * n).collect()
}

/// Seconds until the first token is chosen, and from then until [`ANSWER`] more are.
fn ours(model: &Model, threads: usize) -> anyhow::Result<[f64; 2]> {
    let mut sequence = Sequence::new(model, threads)?;
    let start = Instant::now();
    let mut token = sequence.push(&Tokens::dangerous_from_ids(&prompt()))?.argmax()?;
    let first = Instant::now();
    for _ in 0..ANSWER {
        token = sequence.push(&Tokens::dangerous_from_ids(&[token]))?.argmax()?;
    }
    Ok([(first - start).as_secs_f64(), first.elapsed().as_secs_f64()])
}

fn tokens_per_second([prefill, decode]: [f64; 2]) -> [f64; 2] {
    [f64::from(PROMPT) / prefill, f64::from(ANSWER) / decode]
}
