//! A conversation of two turns with any of several enclaves, printed as it comes.
//!
//! `cargo run --example stream -- POLICY HOST:PORT..`

#![expect(clippy::print_stdout, reason = "an example of a program")]

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use cocoon_client::{ChatEvent, ChatRequest, Client, ClientBuilder, Message, ModelKind, Policy, Role};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let policy = arguments.next().context("say: stream POLICY HOST:PORT..")?;
    let policy = Policy::from_toml(&std::fs::read_to_string(policy).context("cannot read the policy")?)?;
    let client = arguments.fold(Client::builder().policy(policy), ClientBuilder::endpoint);
    let client = client.timeout(Duration::from_secs(300)).connect().await?;
    for failure in client.verify().await {
        println!("not used: {}: {}", failure.endpoint, failure.message);
    }
    let model = client.ready().await?.into_iter().find(|model| model.kind == ModelKind::Chat);
    let model = model.context("there is no model for chats")?;

    let mut talk = ChatRequest::of(model.id, [Message::new(Role::System, "You answer in one sentence.")]);
    talk.max_tokens = Some(48);
    for question in ["What is a rainbow?", "And what is a double one?"] {
        println!("> {question}");
        talk.push(Role::User, question);
        let answer = tell(&client, &talk).await?;
        talk.push(Role::Assistant, answer);
    }
    Ok(())
}

/// Prints an answer as it comes, and returns it.
async fn tell(client: &Client, talk: &ChatRequest) -> anyhow::Result<String> {
    let mut stream = client.chat(talk).await?;
    let mut whole = String::new();
    // Text may be shown before its receipt was verified: it comes from a verified enclave, and could only be cut.
    while let Some(event) = stream.next().await? {
        match event {
            ChatEvent::Text(text) => {
                print!("{text}");
                std::io::stdout().flush()?;
                whole.push_str(&text);
            }
            ChatEvent::Finished(reason) => println!(" ({})", reason.as_str()),
            ChatEvent::Logprobs(_) | ChatEvent::Usage(_) | _ => {}
        }
    }
    let receipt = stream.receipt().context("an answer without a receipt")?;
    println!("receipt: {} bytes", receipt.encode().len());
    Ok(whole)
}
