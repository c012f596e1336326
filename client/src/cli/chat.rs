//! `cocoon chat`

use std::io::Read;
use std::time::Duration;

use anyhow::{Context, bail};
use cocoon_client::{AttestedSession, ChatEvent, ChatRequest, FinishReason, connect};

use super::output::{self, Progress};
use super::{Target, table, verify};

/// As the enclave: prompts are at most a mebibyte.
const MAX_PROMPT: u64 = 1024 * 1024;

/// How often to ask whether the model is loaded.
const POLL: Duration = Duration::from_millis(300);

#[derive(Debug, clap::Args)]
pub(super) struct ChatArgs {
    #[command(flatten)]
    target: Target,

    /// What to ask [default: standard input]
    prompt: Option<String>,

    /// Which model [default: the first that the enclave serves]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// Most tokens of the answer
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,

    /// The same seed gives the same answer
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// 0 always takes the most likely token
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
}

pub(super) async fn run(args: ChatArgs) -> anyhow::Result<()> {
    let policy = args.target.policy()?;
    let session = connect(&args.target.endpoint, policy).await.inspect_err(verify::show_failures)?;
    {
        let result = session.result();
        output::note(&table::summary(result.report()));
        table::warning(result.report()).into_iter().for_each(output::note);
    }
    let prompt = match args.prompt {
        Some(prompt) => prompt,
        None => read_prompt()?,
    };
    wait_for_model(&session).await?;
    let model = match args.model {
        Some(model) => model,
        None => session.models().await?.into_iter().next().context("the enclave serves no model")?,
    };
    let mut request = ChatRequest::new(model, prompt);
    request.max_tokens = args.max_tokens;
    request.seed = args.seed;
    request.temperature = args.temperature;
    stream(&session, &request).await
}

fn read_prompt() -> anyhow::Result<String> {
    let mut prompt = String::new();
    std::io::stdin().take(MAX_PROMPT + 1).read_to_string(&mut prompt).context("cannot read the prompt")?;
    if prompt.len() as u64 > MAX_PROMPT {
        bail!("the prompt has more than {MAX_PROMPT} bytes");
    }
    if prompt.trim().is_empty() {
        bail!("there is no prompt: give one as an argument or on standard input");
    }
    Ok(prompt)
}

async fn wait_for_model(session: &AttestedSession) -> anyhow::Result<()> {
    let mut progress = Progress::new();
    loop {
        let status = session.model_status().await?;
        if status.state == "ready" {
            progress.end();
            return Ok(());
        }
        if status.state == "failed" {
            bail!("the engine of this enclave broke down; ask another one");
        }
        progress.show("the model is loading", status.model_bytes_read, status.model_bytes);
        tokio::time::sleep(POLL).await;
    }
}

async fn stream(session: &AttestedSession, request: &ChatRequest) -> anyhow::Result<()> {
    let mut answer = session.chat(request).await?;
    while let Some(event) = answer.next().await? {
        match event {
            ChatEvent::Text(text) => output::piece(&text).context("nobody reads the answer")?,
            ChatEvent::Finished(FinishReason::Length) => {
                output::line("");
                output::note("(the answer was cut at the limit of tokens)");
            }
            ChatEvent::Finished(_) => output::line(""),
            ChatEvent::Usage(_) | _ => {}
        }
    }
    Ok(())
}
