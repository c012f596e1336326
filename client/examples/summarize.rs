//! Summarises a text of any length: pieces that fit the model's context, the summary of each, then the summaries.
//!
//! `cargo run --example summarize -- HOST:PORT POLICY FILE [TOKENS_OF_A_PIECE]`
//!
//! All of it happens here; the enclave sees one piece at a time, and keeps none.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example of a program")]

use anyhow::Context;
use cocoon_client::{ChatRequest, Client, Error, Message, Model, ModelKind, Policy, Role};
use tokio::task::JoinSet;

/// Most tokens of a summary.
const SUMMARY: u32 = 160;
/// For the instruction and the chat template.
const AROUND: u64 = 128;
/// A token has three bytes or more in most texts; where it has fewer, the enclave says so and the piece is cut in two.
const BYTES_OF_A_TOKEN: u64 = 3;
/// Pieces in work at a time.
const AT_A_TIME: usize = 4;
/// Below this a piece is not cut any more.
const SMALLEST: usize = 64;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, policy, file, limit @ ..] = arguments.as_slice() else {
        anyhow::bail!("say: summarize HOST:PORT POLICY FILE [TOKENS_OF_A_PIECE]")
    };
    let policy = Policy::from_toml(&std::fs::read_to_string(policy).context("cannot read the policy")?)?;
    let mut text = std::fs::read_to_string(file).context("cannot read the text")?;
    anyhow::ensure!(!text.trim().is_empty(), "there is nothing to summarise");
    let client = Client::builder().policy(policy).endpoint(endpoint).connect().await?;
    let model = client.ready().await?.into_iter().find(|model| model.kind == ModelKind::Chat);
    let model = model.context("there is no model for chats")?;
    let limit = limit.first().map(|tokens| tokens.parse()).transpose().context("TOKENS_OF_A_PIECE")?;
    let size = piece_size(&model, limit)?;

    loop {
        let pieces = cut(&text, size);
        let is_last = pieces.len() == 1;
        eprintln!("{} bytes in {} pieces", text.len(), pieces.len());
        let summaries = summarize_all(&client, &model.id, pieces).await?.join("\n\n");
        if is_last || summaries.len() >= text.len() {
            println!("{summaries}");
            return Ok(());
        }
        text = summaries;
    }
}

/// Bytes of a piece, so that it fits the context together with its summary.
fn piece_size(model: &Model, limit: Option<u64>) -> anyhow::Result<usize> {
    let context = model.context_length.context("the enclave does not say how long its context is")?;
    let room = context.checked_sub(AROUND + u64::from(SUMMARY)).filter(|room| *room >= u64::from(SUMMARY));
    let room = room.context("the context of this model is too short for summaries")?;
    let tokens = limit.map_or(room, |limit| limit.min(room)).max(1);
    Ok(usize::try_from(tokens * BYTES_OF_A_TOKEN)?.max(SMALLEST))
}

/// Pieces of at most `size` bytes, cut where a paragraph, a line, a sentence or at least a word ends.
fn cut(text: &str, size: usize) -> Vec<String> {
    let (mut pieces, mut rest) = (Vec::new(), text.trim());
    while rest.len() > size {
        let window = &rest[..boundary(rest, size)];
        let half = boundary(window, window.len() / 2);
        let end = |mark: &str| window[half..].rfind(mark).map(|at| half + at + mark.len());
        let end = ["\n\n", "\n", ". ", " "].into_iter().find_map(end).unwrap_or(window.len());
        let (piece, after) = rest.split_at(end);
        pieces.push(piece.trim().to_owned());
        rest = after.trim_start();
    }
    pieces.push(rest.to_owned());
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// The last place up to `at` between two characters.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The summaries, in the order of the pieces.
async fn summarize_all(client: &Client, model: &str, pieces: Vec<String>) -> anyhow::Result<Vec<String>> {
    let (total, mut tasks) = (pieces.len(), JoinSet::new());
    let mut summaries = vec![String::new(); total];
    let mut pieces = pieces.into_iter().enumerate();
    let mut done = 0;
    while done < total {
        for (place, piece) in pieces.by_ref().take(AT_A_TIME - tasks.len()) {
            let (client, model) = (client.clone(), model.to_owned());
            tasks.spawn(async move { (place, summarize(&client, &model, piece).await) });
        }
        let (place, summary) = tasks.join_next().await.context("no task is left")??;
        summaries[place] = summary?;
        done += 1;
        eprintln!("{done} of {total}");
    }
    Ok(summaries)
}

/// The summary of one piece; of its halves, if it does not fit after all.
async fn summarize(client: &Client, model: &str, piece: String) -> Result<String, Error> {
    let (mut waiting, mut parts) = (vec![piece], Vec::new());
    while let Some(piece) = waiting.pop() {
        let system = "Summarize the text that the user gives you in a few sentences. Write nothing else.";
        let messages = [Message::new(Role::System, system), Message::new(Role::User, piece.as_str())];
        let mut request = ChatRequest::of(model, messages);
        request.max_tokens = Some(SUMMARY);
        request.temperature = Some(0.0);
        match client.complete(&request).await {
            Ok(answer) => parts.push(answer.text.trim().to_owned()),
            Err(Error::Api { code: Some(code), .. })
                if code == "context_length_exceeded" && piece.len() > SMALLEST =>
            {
                // The first half is on top, so parts stay in order.
                waiting.extend(cut(&piece, piece.len() / 2 + 1).into_iter().rev());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(parts.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_between_pieces() {
        let words: Vec<String> =
            (0..2000).map(|n| format!("wörd{n}.{}", if n % 9 == 0 { "\n" } else { "" })).collect();
        for (text, size) in [(words.join(" "), 300), ("ü".repeat(1000), 65), ("a b".to_owned(), 64)] {
            let pieces = cut(&text, size);
            assert!(pieces.iter().all(|piece| piece.len() <= size && !piece.is_empty()));
            let without_space = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(without_space(&pieces.concat()), without_space(&text));
        }
        assert_eq!(cut("One. Two. Three.", 10), ["One. Two.", "Three."]);
    }
}
