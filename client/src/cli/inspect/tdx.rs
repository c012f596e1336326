//! `cocoon inspect tdx`

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use cocoon_attestation::appraisal::inspect;
use cocoon_attestation::tdx::Endorsements;
use cocoon_attestation::{Endorsement, EndorsementKind};

use super::files::{self, Given};
use super::{Common, Expected};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TdxArgs {
    /// Quote, version 4 or 5
    #[arg(long, value_name = "FILE")]
    quote: PathBuf,

    /// What Intel endorses: a bundle, or a folder with tcb_info.json, qe_identity.json, tcb_signing_chain.pem, pck.crl.der,
    /// pck_crl_issuer_chain.pem and root_ca.crl.der
    #[arg(long, value_name = "FILE|DIR")]
    endorsements: Option<PathBuf>,

    /// CC event log of the same boot, to compare the RTMRs with: /sys/firmware/acpi/tables/data/CCEL of the guest
    #[arg(long, value_name = "FILE")]
    event_log: Option<PathBuf>,

    #[command(flatten)]
    expected: Expected,

    #[command(flatten)]
    common: Common,
}

/// As Intel's services name what they serve.
const FILES: [(&str, EndorsementKind); 6] = [
    ("tcb_info.json", EndorsementKind::IntelTcbInfo),
    ("qe_identity.json", EndorsementKind::IntelQeIdentity),
    ("tcb_signing_chain.pem", EndorsementKind::IntelTcbSigningChain),
    ("pck.crl.der", EndorsementKind::IntelPckCrl),
    ("pck_crl_issuer_chain.pem", EndorsementKind::IntelPckCrlIssuerChain),
    ("root_ca.crl.der", EndorsementKind::IntelRootCaCrl),
];

pub(super) fn run(args: &TdxArgs) -> anyhow::Result<()> {
    let quote = files::read(&args.quote)?;
    let log = args.event_log.as_deref().map(files::read).transpose()?;
    let given = args.endorsements.as_deref().map_or(Ok(Ok(Vec::new())), read)?;
    args.common.conclude(|policy, ctx| match given.and_then(|given| Endorsements::new(&given)) {
        Ok(given) => inspect::tdx(&quote, log.as_deref(), given, policy, args.expected.report_data, ctx),
        Err(error) => inspect::malformed("tdx", &error),
    })
}

/// The endorsements of a folder, or of a bundle.
fn read(path: &Path) -> anyhow::Result<Given> {
    if !path.is_dir() {
        return files::bundle(path);
    }
    let mut out = Vec::new();
    for (name, kind) in FILES {
        let file = path.join(name);
        if file.exists() {
            out.push(Endorsement { kind, bytes: files::read(&file)? });
        }
    }
    let names = FILES.map(|(name, _)| name).join(", ");
    (!out.is_empty()).then_some(Ok(out)).with_context(|| format!("{} has none of {names}", path.display()))
}
