//! The enclave that a command talks to, once it was verified.

use std::time::Duration;

use anyhow::{Context, bail};
use cocoon_client::{AttestedSession, ModelKind, Policy, connect};

use super::output::{self, Progress};
use super::{table, verify};

/// How often to ask whether the model is loaded.
const POLL: Duration = Duration::from_millis(300);

/// A session with the enclave; says what was verified.
pub(super) async fn verified(endpoint: &str, policy: Policy) -> anyhow::Result<AttestedSession> {
    let session = connect(endpoint, policy).await.inspect_err(verify::show_failures)?;
    let result = session.result();
    output::note_finding(&table::summary(result.report()));
    table::warning(result.report()).into_iter().for_each(output::note_finding);
    Ok(session)
}

/// The first that is for that.
pub(super) async fn first_model(session: &AttestedSession, kind: &ModelKind) -> anyhow::Result<String> {
    let first = session.models().await?.into_iter().find(|model| model.kind == *kind);
    let what = if *kind == ModelKind::Chat { "chats" } else { "embeddings" };
    Ok(first.with_context(|| format!("the enclave serves no model for {what}"))?.id)
}

pub(super) async fn wait_for_model(session: &AttestedSession) -> anyhow::Result<()> {
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
