//! `cocoon-measure rebuild`

use std::path::PathBuf;

use clap::Subcommand;
use cocoon_attestation::UnixTime;
use cocoon_attestation::policy::{QuorumDemand, ReleasePolicy};
use cocoon_attestation::release::{PublicKey, Rebuild as Statement, rebuild_message, verify};
use cocoon_measurements::key::SigningKey;
use cocoon_measurements::log::public_key;
use cocoon_measurements::release::{ReleaseError, read_bundle, write_bundle};

use super::common::{SourceArgs, quorum, report, target, time};

/// Which part of the command line.
#[derive(Debug, Subcommand)]
pub(crate) enum Rebuild {
    /// Compare a release with what you built from the same source, and sign that it is the same
    Attest {
        /// The release
        #[arg(value_name = "RELEASE")]
        file: PathBuf,
        /// What you built
        #[command(flatten)]
        sources: SourceArgs,
        /// Ed25519 key, PKCS#8 in PEM: see `cocoon-measure key create`
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Time of the statement, as 2026-11-24T08:00:00Z [default: now]
        #[arg(long, value_name = "RFC3339")]
        at: Option<UnixTime>,
        /// Where to write the release with the statement [default: RELEASE]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Check who says that the release can be rebuilt
    Verify {
        /// The release
        #[arg(value_name = "RELEASE")]
        file: PathBuf,
        /// Public keys of those who rebuild
        #[arg(long, value_name = "HEX", required = true, num_args = 1..)]
        rebuilder: Vec<PublicKey>,
        /// How many of them must say so [default: all]
        #[arg(long, value_name = "N")]
        threshold: Option<usize>,
        /// Time of verification [default: now]
        #[arg(long, value_name = "RFC3339")]
        at: Option<UnixTime>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// When a file cannot be read or written, the rebuild differs, or too few rebuilt it.
pub(crate) fn run(command: Rebuild) -> anyhow::Result<()> {
    match command {
        Rebuild::Attest { file, sources, key, at, out } => {
            let mut bundle = read_bundle(&file)?;
            let differences = sources.sources()?.differences(&bundle.manifest, &sources.configs())?;
            differences.iter().for_each(|line| say!("{line}"));
            if !differences.is_empty() {
                let why = format!("what you built differs from the release in {} places", differences.len());
                return Err(ReleaseError::Refused(why).into());
            }
            let (key, time) = (SigningKey::read(&key)?, time(at));
            let public = public_key(&key)?;
            let signature = <[u8; 64]>::try_from(key.sign(&rebuild_message(bundle.digest(), time)));
            let signature =
                signature.map_err(|_other_length| anyhow::anyhow!("a signature of another length"))?;
            bundle.attest_rebuild(Statement { key: public, time, signature })?;
            write_bundle(target(&file, &out), &bundle)?;
            say!("{public}");
        }
        Rebuild::Verify { file, rebuilder, threshold, at, json } => {
            let quorum = quorum(&rebuilder, threshold)?;
            let bundle = read_bundle(&file)?;
            let rebuilds = QuorumDemand::Required(quorum.clone());
            let policy = ReleasePolicy { rebuilds, ..ReleasePolicy::of_signers(quorum, "not asked for") };
            let factors = verify(&bundle, &policy, time(at));
            let asked: Vec<_> = factors.into_iter().filter(|f| f.name == "release.rebuilds").collect();
            report(&asked, json)?;
        }
    }
    Ok(())
}
