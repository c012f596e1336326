//! `cocoon-measure release`

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use cocoon_attestation::UnixTime;
use cocoon_attestation::policy::{Policy, ReleasePolicy};
use cocoon_attestation::release::{PublicKey, ReleaseBundle, ReleaseSignature, signed_message, verify};
use cocoon_measurements::key::SigningKey;
use cocoon_measurements::log::public_key;
use cocoon_measurements::release::{Identity, ReleaseError, read_bundle, write_bundle};
use serde_json::json;

use super::common::{SourceArgs, quorum, report, target, time};

/// Which part of the command line.
#[derive(Debug, Subcommand)]
pub(crate) enum Release {
    /// Write the manifest of a release, for which nobody vouches yet, and print its digest
    Create {
        /// What it is made of
        #[command(flatten)]
        sources: SourceArgs,
        /// Version of the release
        #[arg(long)]
        version: String,
        /// Revision of the source, for example a git commit
        #[arg(long, value_name = "REV")]
        source: String,
        /// Time of creation, as 2026-11-24T08:00:00Z [default: now]
        #[arg(long, value_name = "RFC3339")]
        at: Option<UnixTime>,
        /// Where to write it
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Sign a release, and print the public key that policies name
    Sign {
        /// The release
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Ed25519 key, PKCS#8 in PEM: see `cocoon-measure key create`
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Where to write it [default: FILE]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Put signatures, rebuilds and log proofs of several copies of a release into the first
    Merge {
        /// The release
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Copies that others signed
        #[arg(value_name = "OTHER", required = true)]
        others: Vec<PathBuf>,
    },
    /// Check who vouches for a release: everything that a client with this policy checks of it
    Verify(VerifyArgs),
    /// Print what is in a release
    Show {
        /// The release
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Arguments of `release verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The release
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A client's policy with a section [release]
    #[arg(long, value_name = "FILE", required_unless_present = "signer", conflicts_with_all = ["signer", "threshold"])]
    policy: Option<PathBuf>,
    /// Public keys of signers, and nothing else is looked at
    #[arg(long, value_name = "HEX", num_args = 1..)]
    signer: Vec<PublicKey>,
    /// How many of them must have signed [default: all]
    #[arg(long, value_name = "N")]
    threshold: Option<usize>,
    /// Time of verification [default: now]
    #[arg(long, value_name = "RFC3339")]
    at: Option<UnixTime>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// When a file cannot be read or written, or the release is refused.
pub(crate) fn run(command: Release) -> anyhow::Result<()> {
    match command {
        Release::Create { sources, version, source, at, out } => {
            let identity = Identity { version, source, created: time(at), configs: sources.configs() };
            let bundle = ReleaseBundle::new(sources.sources()?.manifest(identity)?);
            write_bundle(&out, &bundle)?;
            say!("{}", bundle.digest());
        }
        Release::Sign { file, key, out } => sign(&file, &key, target(&file, &out))?,
        Release::Merge { file, others } => {
            let mut bundle = read_bundle(&file)?;
            for other in others {
                let named = |error: cocoon_attestation::Error| {
                    ReleaseError::Refused(format!("{}: {error}", other.display()))
                };
                bundle.merge(read_bundle(&other)?).map_err(named)?;
            }
            write_bundle(&file, &bundle)?;
        }
        Release::Verify(args) => {
            let bundle = read_bundle(&args.file)?;
            report(&verify(&bundle, &args.policy()?, time(args.at)), args.json)?;
        }
        Release::Show { file, json } => show(&read_bundle(&file)?, json),
    }
    Ok(())
}

fn sign(file: &Path, key: &Path, out: &Path) -> anyhow::Result<()> {
    let (mut bundle, key) = (read_bundle(file)?, SigningKey::read(key)?);
    let public = public_key(&key)?;
    let signature = <[u8; 64]>::try_from(key.sign(&signed_message(bundle.digest())));
    let signature = signature.map_err(|_other_length| anyhow::anyhow!("a signature of another length"))?;
    bundle.sign(ReleaseSignature { key: public, signature })?;
    write_bundle(out, &bundle)?;
    say!("{public}");
    Ok(())
}

impl VerifyArgs {
    fn policy(&self) -> anyhow::Result<ReleasePolicy> {
        let Some(path) = &self.policy else {
            let signers = quorum(&self.signer, self.threshold)?;
            return Ok(ReleasePolicy::of_signers(signers, "only signers were given"));
        };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the policy {}", path.display()))?;
        // A policy that cannot be read says nothing about the release.
        let policy = Policy::from_toml(&text).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
        let section = policy.release.with_context(|| {
            format!("{} has no section [release]; `cocoon policy init --release` writes one", path.display())
        })?;
        Ok(section)
    }
}

fn show(bundle: &ReleaseBundle, json: bool) {
    let manifest = &bundle.manifest;
    if json {
        let log = bundle.log.as_ref().map(|proof| {
            let checkpoint = proof.checkpoint();
            json!({ "origin": checkpoint.origin, "index": proof.index, "size": checkpoint.size,
                    "root": checkpoint.root, "checkpoint": proof.note.to_string() })
        });
        let rebuild =
            |one: &cocoon_attestation::release::Rebuild| json!({ "key": one.key, "time": one.time });
        let value = json!({
            "digest": bundle.digest(),
            "manifest": manifest,
            "signatures": bundle.signatures().iter().map(|one| one.key).collect::<Vec<_>>(),
            "log": log,
            "rebuilds": bundle.rebuilds().iter().map(rebuild).collect::<Vec<_>>(),
        });
        say!("{value:#}");
        return;
    }
    say!("release    {}", manifest.version);
    say!("digest     {}", bundle.digest());
    say!("source     {}", manifest.source);
    say!("created    {}", manifest.created);
    say!("inputs     {}", manifest.inputs);
    for (path, part) in &manifest.parts {
        say!("file       {path}: {} bytes, {}", part.size, part.sha256);
    }
    for one in &manifest.snp {
        say!("SNP        {} x {}: {}", one.vcpus, one.vcpu_type, one.measurement);
    }
    for one in &manifest.tdx {
        say!("TDX        {} with {} shapes", one.mr_td, one.shapes.len());
    }
    manifest.configs.iter().for_each(|config| say!("config     {config}"));
    say!("components {}", manifest.components.len());
    bundle.signatures().iter().for_each(|one| say!("signature  {} (not checked)", one.key));
    if let Some(proof) = &bundle.log {
        let checkpoint = proof.checkpoint();
        say!("log        {}: entry {} of {} (not checked)", checkpoint.origin, proof.index, checkpoint.size);
    }
    bundle.rebuilds().iter().for_each(|one| say!("rebuild    {} at {} (not checked)", one.key, one.time));
}
