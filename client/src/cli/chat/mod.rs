//! `cocoon chat`

mod lines;
mod talk;

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use cocoon_client::{
    AttestedSession, ChatAnswer, ChatEvent, ChatRequest, FinishReason, Message, ModelKind, ReceiptBundle,
    Role,
};
use serde_json::json;

use super::enclave::{first_model, verified, wait_for_model};
use super::{Target, output, receipt};

/// As the enclave: prompts are at most a mebibyte.
const MAX_PROMPT: u64 = 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct ChatArgs {
    #[command(flatten)]
    target: Target,

    /// What to ask [default: a conversation at a terminal; otherwise all of standard input]
    prompt: Option<String>,

    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,

    /// Which model [default: the first for chats that the enclave serves]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// Most tokens of an answer
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,

    /// The same seed gives the same answer
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// 0 always takes the most likely token
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,

    /// Keep the receipt of the answer, for `cocoon receipt verify`
    #[arg(long, value_name = "FILE", conflicts_with = "interactive")]
    receipt: Option<PathBuf>,

    /// Have a conversation, one line of standard input after the other, without a terminal too
    #[arg(long, short)]
    interactive: bool,

    /// Print one JSON object at the end: text, usage, finish reason, receipt
    #[arg(long, conflicts_with = "interactive")]
    json: bool,
}

impl ChatArgs {
    fn is_conversation(&self) -> bool {
        let alone = self.prompt.is_none() && !self.json && self.receipt.is_none();
        self.interactive || (alone && std::io::stdin().is_terminal())
    }

    fn request(&self, model: String) -> ChatRequest {
        let system = self.system.iter().map(|text| Message::new(Role::System, text));
        let mut request = ChatRequest::of(model, system);
        request.max_tokens = self.max_tokens;
        request.seed = self.seed;
        request.temperature = self.temperature;
        request
    }
}

pub(super) async fn run(mut args: ChatArgs) -> anyhow::Result<()> {
    let policy = args.target.policy()?;
    let session = verified(&args.target.endpoint, policy.clone()).await?;
    let (is_conversation, prompt) = (args.is_conversation(), args.prompt.take());
    let prompt = match prompt {
        None if !is_conversation => Some(read_prompt()?),
        prompt => prompt,
    };
    wait_for_model(&session).await?;
    let model = match args.model.take() {
        Some(model) => model,
        None => first_model(&session, &ModelKind::Chat).await?,
    };
    let mut request = args.request(model);
    if is_conversation {
        return talk::Talk::new(args.target.endpoint, policy, session, request).run(prompt).await;
    }
    request.push(Role::User, prompt.unwrap_or_default());
    if args.json {
        let answer = session.complete(&request).await?;
        keep(args.receipt.as_deref(), Some(&answer.receipt))?;
        return show(&answer);
    }
    let receipt = stream(&session, &request, &mut String::new()).await?;
    keep(args.receipt.as_deref(), receipt.as_ref())
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

/// Shows an answer as it comes, which is added to `said`; gives its receipt.
async fn stream(
    session: &AttestedSession,
    request: &ChatRequest,
    said: &mut String,
) -> anyhow::Result<Option<ReceiptBundle>> {
    let mut answer = session.chat(request).await?;
    while let Some(event) = answer.next().await? {
        match event {
            ChatEvent::Text(text) => {
                said.push_str(&text);
                output::piece(&text).context("nobody reads the answer")?;
            }
            ChatEvent::Finished(FinishReason::Length) => {
                output::line("");
                output::note("(the answer was cut at the limit of tokens)");
            }
            ChatEvent::Finished(_) => output::line(""),
            ChatEvent::Usage(_) | _ => {}
        }
    }
    Ok(answer.receipt().cloned())
}

fn show(answer: &ChatAnswer) -> anyhow::Result<()> {
    let result = json!({
        "text": answer.text,
        "finish_reason": answer.finish_reason.as_str(),
        "usage": {
            "prompt_tokens": answer.usage.prompt_tokens,
            "completion_tokens": answer.usage.completion_tokens,
        },
        "receipt": receipt::of(&answer.receipt)?,
    });
    output::json(&result)
}

fn keep(path: Option<&Path>, receipt: Option<&ReceiptBundle>) -> anyhow::Result<()> {
    let (Some(path), Some(receipt)) = (path, receipt) else { return Ok(()) };
    std::fs::write(path, receipt.encode()).with_context(|| format!("cannot write {}", path.display()))
}
