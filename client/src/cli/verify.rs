//! `cocoon verify`

use std::path::{Path, PathBuf};

use anyhow::Context;
use cocoon_client::{AttestedSession, Error, Policy, Report, UnverifiedChannel};

use super::{Target, output, table};

#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    target: Target,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,

    /// Keep the AttestResponse as it was received, accepted or not
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

pub(super) async fn run(args: VerifyArgs) -> anyhow::Result<()> {
    let policy = args.target.policy()?;
    match attempt(&args, policy).await {
        Ok(session) => show(session.result().report(), args.json),
        Err(error) => {
            if let Some(report) = error.report() {
                show(&report, args.json)?;
            }
            Err(error.into())
        }
    }
}

async fn attempt(args: &VerifyArgs, policy: Policy) -> Result<AttestedSession, Error> {
    let channel = UnverifiedChannel::open(&args.target.endpoint).await?;
    if let Some(path) = &args.save {
        save(path, &channel.evidence().response).map_err(|e| Error::Misuse(format!("{e:#}")))?;
    }
    channel.verify(policy).await
}

fn save(path: &Path, response: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, response).with_context(|| format!("cannot write {}", path.display()))
}

pub(super) fn show(report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(report);
    }
    table::lines(report).iter().for_each(|line| output::finding(line));
    output::finding(&table::summary(report));
    if let Some(warning) = table::warning(report) {
        output::note_finding(warning);
    }
    Ok(())
}

/// The failed factors of an enclave that was refused, for commands that show no table otherwise.
pub(super) fn show_failures(error: &Error) {
    if let Some(report) = error.report() {
        let failures = Report { factors: report.failures().cloned().collect(), ..report };
        table::lines(&failures).iter().for_each(|line| output::note_finding(line));
    }
}
