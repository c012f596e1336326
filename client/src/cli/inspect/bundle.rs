//! `cocoon inspect bundle`

use std::path::PathBuf;

use cocoon_attestation::appraisal::inspect;

use super::{Common, files};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct BundleArgs {
    /// The AttestResponse as it was received
    #[arg(value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &BundleArgs) -> anyhow::Result<()> {
    let response = files::read(&args.file)?;
    args.common.conclude(|policy, ctx| inspect::bundle(&response, policy, ctx))
}
