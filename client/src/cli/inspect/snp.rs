//! `cocoon inspect snp`

use std::path::PathBuf;

use cocoon_attestation::appraisal::inspect;
use cocoon_attestation::snp::Endorsements;

use super::{Common, Expected, files};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct SnpArgs {
    /// ATTESTATION_REPORT, 1184 bytes
    #[arg(long, value_name = "FILE")]
    report: PathBuf,

    /// VCEK or VLEK, PEM or DER; also ASK or ASVK and ARK, which are built in otherwise
    #[arg(long, value_name = "FILE")]
    cert: Vec<PathBuf>,

    /// Revocation list of the ARK, PEM or DER
    #[arg(long, value_name = "FILE")]
    crl: Vec<PathBuf>,

    /// A bundle with them, as `cocoon-host endorsements fetch` writes it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cert", "crl"])]
    endorsements: Option<PathBuf>,

    #[command(flatten)]
    expected: Expected,

    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &SnpArgs) -> anyhow::Result<()> {
    let report = files::read(&args.report)?;
    let given = match &args.endorsements {
        Some(path) => files::bundle(path)?.and_then(|given| Endorsements::from_stapled(&given)),
        None => {
            let (certificates, lists) = (files::read_all(&args.cert)?, files::read_all(&args.crl)?);
            files::certificates(&certificates)
                .and_then(|certificates| Endorsements::new(certificates, files::revocation_lists(&lists)?))
        }
    };
    args.common.conclude(|policy, ctx| match given {
        Ok(given) => inspect::snp(&report, given, policy, args.expected.report_data, ctx),
        Err(error) => inspect::malformed("snp", &error),
    })
}
