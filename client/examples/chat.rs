//! Asks one question and prints the answer once its receipt was verified.
//!
//! `cargo run --example chat -- HOST:PORT POLICY "What is a rainbow?"`

#![expect(clippy::print_stdout, reason = "an example of a program")]

use anyhow::Context;
use cocoon_client::{ChatRequest, Client, ModelKind, Policy};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, policy, question] = arguments.as_slice() else {
        anyhow::bail!("say: chat HOST:PORT POLICY QUESTION")
    };
    let policy = Policy::from_toml(&std::fs::read_to_string(policy).context("cannot read the policy")?)?;
    // Fails if the enclave is not what the policy accepts; the question was not sent then.
    let client = Client::builder().policy(policy).endpoint(endpoint).connect().await?;
    let model = client.ready().await?.into_iter().find(|model| model.kind == ModelKind::Chat);
    let model = model.context("there is no model for chats")?;

    let mut request = ChatRequest::new(model.id, question);
    request.temperature = Some(0.0);
    request.max_tokens = Some(64);
    let answer = client.complete(&request).await?;
    println!("{}", answer.text);
    println!(
        "({} tokens of the question, {} of the answer, {})",
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
        answer.finish_reason.as_str()
    );
    Ok(())
}
