//! `cocoon-enclave bench`: what the engine reaches on this machine, in this process, without network and attestation.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use cocoon_inference::bench::{Figures, Plan, measure, random_model};
use cocoon_inference::{Model, read_model};

/// Measures the engine on this machine: no network, no attestation, one process.
#[derive(Debug, Parser)]
#[command(
    name = "cocoon-enclave bench",
    version,
    after_help = "Exit codes: 0 measured, 2 could not (usage, missing file, unusable model). \
    Several values, as in --batch 1,8,64, measure all combinations; with --json each is a line of its own."
)]
pub struct BenchSettings {
    /// GGUF file or folder
    #[arg(long, value_name = "FILE", required_unless_present = "random")]
    model: Option<PathBuf>,

    /// Random weights in the shape of a known model instead: smollm2-135m, smollm2-1.7b, llama-3.2-1b, llama-3.1-8b
    #[arg(long, value_name = "SHAPE", conflicts_with = "model")]
    random: Option<String>,

    /// Encoding of random weights: f32, f16, bf16, q8_0, q4_0, q4_1, q4_k, q6_k
    #[arg(long, value_name = "NAME", default_value = "q4_0", requires = "random")]
    encoding: String,

    /// Compute on this machine's GPU; needs a program built with feature cuda
    #[arg(long)]
    gpu: bool,

    /// Threads that compute [default: as many as there are processors]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Vec<u16>,

    /// Tokens to read into each sequence
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    prefill: u32,

    /// Tokens to write into each sequence
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    decode: u32,

    /// Sequences at a time
    #[arg(long, value_name = "N", default_value = "1", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: Vec<u16>,

    /// Tokens that each sequence has before anything is measured
    #[arg(long, value_name = "N", default_value = "0", value_delimiter = ',')]
    context: Vec<u32>,

    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl BenchSettings {
    /// Measures and writes to `out`.
    ///
    /// # Errors
    /// When the model cannot be loaded, a combination does not fit into its context, or `out` is gone.
    pub fn run(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let model = self.load()?;
        let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads: Vec<usize> = if self.threads.is_empty() {
            vec![all]
        } else {
            self.threads.iter().map(|n| (*n).into()).collect()
        };
        if !self.json {
            writeln!(out, "threads batch context  prefill/s   decode/s  MB/token  memory GB/s  share")?;
        }
        for threads in threads {
            for batch in &self.batch {
                for context in &self.context {
                    let plan = Plan {
                        threads,
                        batch: (*batch).into(),
                        context: usize::try_from(*context)?,
                        prefill: usize::try_from(self.prefill)?,
                        decode: usize::try_from(self.decode)?,
                    };
                    self.write(out, &measure(&model, plan)?)?;
                }
            }
        }
        Ok(())
    }

    fn load(&self) -> anyhow::Result<Model> {
        if let Some(shape) = &self.random {
            return Ok(random_model(shape, &self.encoding, self.gpu)?);
        }
        let path = self.model.as_ref().context("--model or --random is needed")?;
        let bytes = read_model(path, None, |_, _| ())?;
        Ok(if self.gpu { Model::load_on_gpu(bytes) } else { Model::load(bytes) }?)
    }

    fn write(&self, out: &mut impl Write, figures: &Figures) -> anyhow::Result<()> {
        if self.json {
            writeln!(out, "{}", serde_json::to_string(figures)?)?;
        } else {
            writeln!(
                out,
                "{:>7} {:>5} {:>7} {:>10.1} {:>10.1} {:>9.2} {:>12.1} {:>6.2}",
                figures.threads,
                figures.batch,
                figures.context,
                figures.prefill_tokens_per_s,
                figures.decode_tokens_per_s,
                figures.bytes_moved_per_token / 1e6,
                figures.memory_bandwidth_bytes_per_s / 1e9,
                figures.share_of_bandwidth,
            )?;
        }
        out.flush()?;
        Ok(())
    }
}
