//! What the engine reaches: tokens per second on the same files, against llama.cpp with the same number of threads.

use std::path::Path;
use std::time::Instant;

use cocoon_inference::bench::Lockstep;
use cocoon_inference::{Model, read_model};
use cocoon_tests::requantised::requantised;

use crate::llama::Llama;
use crate::pairs::{Pairs, alternate};
use crate::report::{Better, Row};

/// A pair takes up to half a minute.
const PAIRS: usize = 3;
const ENCODINGS: [&str; 3] = ["Q4_1", "Q4_0", "Q8_0"];
/// Tokens of the prompt, and tokens written after it; one sequence.
const ALONE: [(usize, usize); 3] = [(128, 48), (512, 1), (2048, 48)];
/// Sequences at a time, each with a short prompt.
const TOGETHER: [usize; 3] = [8, 16, 32];
const SHORT_PROMPT: usize = 16;
const ANSWER: usize = 32;

/// Measures everything about the engine; `peers` holds node-llama-cpp, `folder` is for files that are made of the model.
///
/// # Errors
/// When a model cannot be loaded or either engine fails.
pub fn measure(peers: &Path, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let file = cocoon_tests::model();
    let cores = std::thread::available_parallelism()?.get();
    let mut rows = Vec::new();
    for encoding in ENCODINGS {
        let path = requantised(&file, encoding, folder)?;
        let model = Model::load(read_model(&path, None, |_, _| ())?)?;
        for threads in [1, 2].into_iter().filter(|threads| *threads <= cores) {
            let mut cell = Cell { encoding, threads, baseline: String::new(), rows: &mut rows };
            let (longest, answer) = ALONE[ALONE.len() - 1];
            let mut llama = Llama::start(peers, &path, threads, (1, longest + answer + 64))?;
            cell.baseline = llama.release().to_owned();
            for (prompt, answer) in ALONE {
                let [read, write] = pairs(&model, &mut llama, threads, prompt, answer, 1)?;
                cell.add(format!("prefill of {prompt}"), read);
                if answer > 1 {
                    cell.add(format!("decode at {prompt}"), write);
                }
            }
            drop(llama);
            let most = TOGETHER[TOGETHER.len() - 1];
            let mut llama = Llama::start(peers, &path, threads, (most, 128))?;
            for sequences in TOGETHER {
                let [_, write] = pairs(&model, &mut llama, threads, SHORT_PROMPT, ANSWER, sequences)?;
                cell.add(format!("decode, batch of {sequences}"), write);
            }
        }
    }
    Ok(rows)
}

/// Where the rows of one file and number of threads go.
struct Cell<'a> {
    encoding: &'a str,
    threads: usize,
    baseline: String,
    rows: &'a mut Vec<Row>,
}

impl Cell<'_> {
    fn add(&mut self, what: String, pairs: Pairs) {
        let s = if self.threads == 1 { "" } else { "s" };
        eprintln!("bench: {} x {}, {what}: {:.2}", self.encoding, self.threads, pairs.ratio().median);
        self.rows.push(Row {
            what: format!("{}, {} thread{s}: {what}", self.encoding, self.threads),
            baseline: self.baseline.clone(),
            better: Better::Higher,
            unit: "tokens/s",
            pairs,
            note: String::new(),
        });
    }
}

/// Tokens per second of reading and of writing.
fn pairs(
    model: &Model,
    llama: &mut Llama,
    threads: usize,
    prompt: usize,
    answer: usize,
    sequences: usize,
) -> anyhow::Result<[Pairs; 2]> {
    // Ordinary tokens; which ones does not matter for speed.
    let ids: Vec<u32> = (0..u32::try_from(prompt)?).map(|n| 1000 + 5 * n).collect();
    let rates =
        |[read, write]: [f64; 2]| [(prompt * sequences) as f64 / read, (answer * sequences) as f64 / write];
    let theirs = || llama.generate(&ids, answer, sequences).map(rates);
    let ours = || {
        let mut lockstep = Lockstep::new(model, threads, sequences, prompt + answer + 1)?;
        let start = Instant::now();
        lockstep.read(prompt)?;
        let first = Instant::now();
        lockstep.write(answer)?;
        Ok(rates([(first - start).as_secs_f64(), first.elapsed().as_secs_f64()]))
    };
    alternate(PAIRS, theirs, ours)
}
