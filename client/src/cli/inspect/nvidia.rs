//! `cocoon inspect nvidia`

use std::path::PathBuf;

use cocoon_attestation::appraisal::inspect;
use cocoon_attestation::nvidia::{Endorsements, GpuEvidence};

use super::{Common, files};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct NvidiaArgs {
    /// SPDM request and measurement report of one GPU
    #[arg(long, value_name = "FILE")]
    report: PathBuf,

    /// Device certificate chain, leaf first, PEM
    #[arg(long, value_name = "FILE")]
    chain: PathBuf,

    /// Reference integrity manifest (.swidtag) of its driver or VBIOS
    #[arg(long, value_name = "FILE")]
    rim: Vec<PathBuf>,

    /// OCSP response for a certificate of the device or of a manifest's signer, DER
    #[arg(long, value_name = "FILE")]
    ocsp: Vec<PathBuf>,

    /// A bundle with them, as `cocoon-host endorsements fetch` writes it; manifests for other GPUs in it are passed over
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rim", "ocsp"])]
    endorsements: Option<PathBuf>,

    /// What the report must have been asked for with (32 bytes)
    #[arg(long, value_name = "HEX", value_parser = nonce)]
    nonce: Option<[u8; 32]>,

    #[command(flatten)]
    common: Common,
}

fn nonce(text: &str) -> Result<[u8; 32], String> {
    let mut out = [0; 32];
    hex::decode_to_slice(text, &mut out)
        .map_err(|e| format!("expected 64 hex digits, got {}: {e}", text.len()))?;
    Ok(out)
}

pub(super) fn run(args: &NvidiaArgs) -> anyhow::Result<()> {
    let (report, chain) = (files::read(&args.report)?, files::read(&args.chain)?);
    let given = match &args.endorsements {
        Some(path) => files::bundle(path)?.and_then(|given| Endorsements::from_stapled(&given)),
        None => {
            let (rims, responses) = (files::read_all(&args.rim)?, files::read_all(&args.ocsp)?);
            let rims: Vec<&[u8]> = rims.iter().map(Vec::as_slice).collect();
            let responses: Vec<&[u8]> = responses.iter().map(Vec::as_slice).collect();
            Endorsements::for_one(&rims, &responses)
        }
    };
    let read = GpuEvidence::from_parts(&report, &chain).and_then(|gpu| Ok((gpu, given?)));
    args.common.conclude(|policy, ctx| match read {
        Ok((gpu, given)) => inspect::nvidia(&gpu, &given, policy, args.nonce, ctx),
        Err(error) => inspect::malformed("nvidia", &error),
    })
}
