//! What the commands about releases share.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use cocoon_attestation::policy::Quorum;
use cocoon_attestation::release::PublicKey;
use cocoon_attestation::result::{Factor, Status};
use cocoon_attestation::{Digest, UnixTime};
use cocoon_measurements::release::{ReleaseError, Sources, sound};

/// The time that was given, or now.
pub(super) fn time(at: Option<UnixTime>) -> UnixTime {
    #[expect(clippy::disallowed_methods, reason = "where the commands read the clock; --at replaces it")]
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    at.unwrap_or_else(|| UnixTime(now()))
}

/// As many as the threshold says of these keys, by their digits; without a threshold all of them.
pub(super) fn quorum(keys: &[PublicKey], threshold: Option<usize>) -> anyhow::Result<Quorum> {
    let by_digits = |key: &PublicKey| {
        let digits = key.to_string();
        (digits.clone(), *key)
    };
    let keys: BTreeMap<_, _> = keys.iter().map(by_digits).collect();
    Quorum::new(threshold.unwrap_or(keys.len()), keys).map_err(|why| anyhow!("{why}"))
}

/// Prints factors and fails if one of them does.
pub(super) fn report(factors: &[Factor], json: bool) -> anyhow::Result<()> {
    if json {
        say!("{:#}", serde_json::json!({ "factors": factors }));
    } else {
        factors.iter().for_each(print);
    }
    let failed: Vec<_> = factors.iter().filter(|f| f.status == Status::Fail).map(|f| f.name).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let refused = format!("the release is not accepted: {}", failed.join(", "));
    Err(ReleaseError::Refused(refused).into())
}

fn print(factor: &Factor) {
    let status = match factor.status {
        Status::Pass => "pass",
        Status::Fail => "FAIL",
        Status::Unchecked => "unchecked",
    };
    say!("{status:<9} {:<18} {}", factor.name, factor.got.as_deref().unwrap_or_default());
    let more = |label: &str, text: &Option<String>| {
        if let Some(text) = text {
            say!("{:<28} {label}{text}", "");
        }
    };
    more("wanted: ", &factor.want.clone().filter(|_| factor.status == Status::Fail));
    more("", &factor.help.clone().filter(|_| factor.status != Status::Pass));
}

/// What a release is made of, for commands that make it again.
#[derive(Debug, clap::Args)]
pub(crate) struct SourceArgs {
    /// Folder of the image, as `cocoon-measure image build` writes it
    #[arg(long, value_name = "DIR")]
    image: std::path::PathBuf,
    /// Lock file of the image's inputs
    #[arg(long, value_name = "FILE")]
    lock: std::path::PathBuf,
    /// Cargo.lock, for the list of components
    #[arg(long, value_name = "FILE")]
    cargo_lock: Option<std::path::PathBuf>,
    /// Reference values: what `cocoon-measure predict snp` and `predict tdx` print with --json, one file for each shape
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    reference: Vec<std::path::PathBuf>,
    /// Digests of configurations that it vouches for beside the one in the image's manifest (`config` in the enclave's event
    /// `configured`); whoever rebuilds repeats each that he confirms
    #[arg(long, value_name = "HEX", num_args = 1..)]
    config: Vec<Digest>,
    /// Take an image that is for development only: simulated, not made with the locked tools, other than its manifest or without
    /// one
    #[arg(long)]
    insecure_development: bool,
}

impl SourceArgs {
    pub(super) fn configs(&self) -> Vec<Digest> {
        self.config.clone()
    }

    /// What was named, after a check that the image is one to release.
    pub(super) fn sources(&self) -> Result<Sources, ReleaseError> {
        if self.insecure_development {
            eprintln!("warning: --insecure-development: the image is not checked; never release it");
        } else {
            sound::check(&self.image)?;
        }
        Ok(Sources {
            image: self.image.clone(),
            lock: self.lock.clone(),
            cargo_lock: self.cargo_lock.clone(),
            references: self.reference.clone(),
        })
    }
}

/// Where a changed bundle goes.
pub(super) fn target<'a>(file: &'a Path, out: &'a Option<std::path::PathBuf>) -> &'a Path {
    out.as_deref().unwrap_or(file)
}
