//! `cocoon inspect`: evidence from files, offline.

mod bundle;
mod files;
mod nvidia;
mod snp;
mod tdx;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use cocoon_attestation::result::Rejection;
use cocoon_attestation::{Context, Missing, SignatureCache, UnixTime};
use cocoon_client::{Error, Policy, Report};

use super::verify::show;

#[derive(Debug, Subcommand)]
pub(super) enum InspectCommand {
    /// A saved AttestResponse (`cocoon verify --save FILE`)
    Bundle(bundle::BundleArgs),
    /// An AMD SEV-SNP attestation report
    Snp(snp::SnpArgs),
    /// The measurement report of an NVIDIA GPU
    Nvidia(nvidia::NvidiaArgs),
    /// An Intel TDX quote
    Tdx(tdx::TdxArgs),
}

#[derive(Debug, Args)]
struct Common {
    /// Policy, TOML [default: the built-in strict policy; release, machine and report data are then unchecked]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,

    /// Time of verification, for example 2026-11-24T08:00:00Z [default: now]
    #[arg(long, value_name = "RFC3339")]
    at: Option<UnixTime>,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What REPORT_DATA must be.
#[derive(Debug, Args)]
struct Expected {
    /// What the enclave asked to be signed must be this (64 bytes)
    #[arg(long, value_name = "HEX", value_parser = report_data)]
    report_data: Option<[u8; 64]>,
}

fn report_data(text: &str) -> Result<[u8; 64], String> {
    let mut out = [0; 64];
    hex::decode_to_slice(text, &mut out)
        .map_err(|e| format!("expected 128 hex digits, got {}: {e}", text.len()))?;
    Ok(out)
}

pub(super) fn run(command: InspectCommand) -> anyhow::Result<()> {
    match command {
        InspectCommand::Bundle(args) => bundle::run(&args),
        InspectCommand::Snp(args) => snp::run(&args),
        InspectCommand::Nvidia(args) => nvidia::run(&args),
        InspectCommand::Tdx(args) => tdx::run(&args),
    }
}

impl Common {
    /// Appraises, shows, and says by the error whether it was accepted.
    fn conclude(&self, appraise: impl FnOnce(&Policy, Context<'_>) -> Report) -> anyhow::Result<()> {
        let policy = match &self.policy {
            Some(path) => super::read_policy(path)?,
            None => Policy::strict().context("the built-in policy")?,
        };
        let signatures = SignatureCache::new();
        let now = self.at.unwrap_or_else(cocoon_client::now);
        let report = appraise(&policy, Context { now, missing: Missing::Unchecked, signatures: &signatures });
        show(&report, self.json)?;
        if report.accepted {
            return Ok(());
        }
        Err(Error::Rejected(Rejection { report: Box::new(report) }).into())
    }
}
