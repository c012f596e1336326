//! `cocoon embed`

use std::io::Read;

use anyhow::{Context, bail};
use cocoon_client::{Embeddings, ModelKind};
use serde::Serialize;
use serde_json::{Value, json};

use super::enclave::{first_model, verified, wait_for_model};
use super::{Target, output, receipt};

/// As the enclave: a request has at most two mebibytes.
const MAX_TEXTS: u64 = 2 * 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct EmbedArgs {
    #[command(flatten)]
    target: Target,

    /// What to embed, at most 2048 texts [default: the lines of standard input]
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,

    /// Which model [default: the first for embeddings that the enclave serves]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// Print one JSON object: vectors, tokens, receipt
    #[arg(long)]
    json: bool,
}

/// The result as JSON. Not a `Value`: that would write numbers with digits which they do not have.
#[derive(Serialize)]
struct Whole<'a> {
    vectors: Vec<&'a [f32]>,
    usage: Value,
    receipt: Value,
}

pub(super) async fn run(args: EmbedArgs) -> anyhow::Result<()> {
    let session = verified(&args.target.endpoint, args.target.policy()?).await?;
    let texts = if args.texts.is_empty() { read_lines()? } else { args.texts };
    wait_for_model(&session).await?;
    let model = match args.model {
        Some(model) => model,
        None => first_model(&session, &ModelKind::Embedding).await?,
    };
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    show(&session.embed(&model, &texts).await?, args.json)
}

fn read_lines() -> anyhow::Result<Vec<String>> {
    let mut all = String::new();
    std::io::stdin().take(MAX_TEXTS + 1).read_to_string(&mut all).context("cannot read the texts")?;
    if all.len() as u64 > MAX_TEXTS {
        bail!("the texts have more than {MAX_TEXTS} bytes");
    }
    if all.is_empty() {
        bail!("there is no text: give one as an argument, or one a line on standard input");
    }
    Ok(all.lines().map(str::to_owned).collect())
}

fn show(embeddings: &Embeddings, as_json: bool) -> anyhow::Result<()> {
    let vectors = embeddings.vectors.iter().map(|vector| vector.as_slice());
    if as_json {
        return output::json(&Whole {
            vectors: vectors.collect(),
            usage: json!({ "prompt_tokens": embeddings.prompt_tokens }),
            receipt: receipt::of(&embeddings.receipt)?,
        });
    }
    for vector in vectors {
        output::line(&serde_json::to_string(vector).context("cannot write JSON")?);
    }
    Ok(())
}
