//! `cocoon-measure log`

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use cocoon_attestation::UnixTime;
use cocoon_attestation::release::{NoteKind, PublicKey, ReleaseBundle, log_entry, verifier_key};
use cocoon_measurements::key::SigningKey;
use cocoon_measurements::log::reader::read_checkpoint;
use cocoon_measurements::log::seen::Seen;
use cocoon_measurements::log::witness::cosign;
use cocoon_measurements::log::{Log as Reader, Writer, public_key};
use cocoon_measurements::release::{ReleaseError, read_bundle, write_bundle};

use super::common::{target, time};

/// Which part of the command line.
#[derive(Debug, Subcommand)]
pub(crate) enum Log {
    /// Make a new, empty log, and print the public key that policies name
    Init {
        /// Folder of the log
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Name of the log and of its key, usually its address without https://
        #[arg(long, value_name = "NAME")]
        origin: String,
        /// How it is signed
        #[command(flatten)]
        signer: SignerArgs,
    },
    /// Add releases, and print the number of each
    Append {
        /// Folder of the log
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Releases; the log keeps a copy of each in release/, for those who watch it
        #[arg(value_name = "RELEASE", required = true)]
        releases: Vec<PathBuf>,
        /// How it is signed
        #[command(flatten)]
        signer: SignerArgs,
    },
    /// Sign the log again as it is: proofs expire
    Refresh {
        /// Folder of the log
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// How it is signed
        #[command(flatten)]
        signer: SignerArgs,
    },
    /// Write the proof that a release is in the log into the release
    Prove {
        /// Folder of the log
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// The release
        #[arg(value_name = "RELEASE")]
        release: PathBuf,
        /// Where to write it [default: RELEASE]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Check a whole log: signature, every tile, every entry, and that it continues older checkpoints
    Verify {
        /// Folder of the log
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Name of the log
        #[arg(long, value_name = "NAME")]
        origin: String,
        /// The log's public key
        #[arg(long, value_name = "HEX")]
        key: PublicKey,
        /// Checkpoints that were kept from before
        #[arg(long, value_name = "FILE", num_args = 1..)]
        older: Vec<PathBuf>,
    },
    /// As a witness: check a whole log, and that it continues what was cosigned before, then cosign it
    Cosign {
        /// Folder of the log
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Name of the witness's key
        #[arg(long, value_name = "NAME")]
        name: String,
        /// Name of the log
        #[arg(long, value_name = "NAME")]
        origin: String,
        /// The log's public key
        #[arg(long, value_name = "HEX")]
        log_key: PublicKey,
        /// How it is signed
        #[command(flatten)]
        signer: SignerArgs,
    },
}

/// Who signs, and when.
#[derive(Debug, clap::Args)]
pub(crate) struct SignerArgs {
    /// Ed25519 key, PKCS#8 in PEM: see `cocoon-measure key create`
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The last checkpoint that this key signed; one that does not continue it is not signed [default: KEY.seen]
    #[arg(long, value_name = "FILE")]
    seen: Option<PathBuf>,
    /// Time of the signature, as 2026-11-24T08:00:00Z [default: now]
    #[arg(long, value_name = "RFC3339")]
    at: Option<UnixTime>,
}

impl SignerArgs {
    fn read(&self) -> anyhow::Result<(SigningKey, Seen, UnixTime)> {
        let seen = self.seen.clone().map_or_else(|| Seen::beside(&self.key), Seen::at);
        Ok((SigningKey::read(&self.key)?, seen, time(self.at)))
    }
}

/// Runs the command.
///
/// # Errors
/// When a file cannot be read or written, or the log is refused.
pub(crate) fn run(command: Log) -> anyhow::Result<()> {
    match command {
        Log::Init { dir, origin, signer } => {
            let (key, seen, now) = signer.read()?;
            let public = public_key(&key)?;
            Writer::create(&dir, &origin, key, seen, now)?;
            let verifier = verifier_key(&origin, NoteKind::Ed25519, &public);
            eprintln!("verifier key for other C2SP tools: {verifier}");
            say!("{public}");
        }
        Log::Append { dir, releases, signer } => append(&dir, &releases, &signer)?,
        Log::Refresh { dir, signer } => {
            let (key, seen, now) = signer.read()?;
            Writer::open(&dir, key, seen)?.publish(now)?;
        }
        Log::Prove { dir, release, out } => {
            let (log, mut bundle) = (Reader::open(&dir)?, read_bundle(&release)?);
            let proof = log.prove(&log_entry(&bundle.manifest))?;
            say!("{}", proof.index);
            bundle.log = Some(proof);
            write_bundle(target(&release, &out), &bundle)?;
        }
        Log::Verify { dir, origin, key, older } => {
            let log = Reader::open(&dir)?;
            log.check_signature(&origin, &key)?;
            log.check_tiles()?;
            for path in older {
                log.check_extends(&read_checkpoint(&path)?.1)?;
            }
            let checkpoint = log.checkpoint();
            say!("{} entries, root {}", checkpoint.size, checkpoint.root);
        }
        Log::Cosign { dir, name, origin, log_key, signer } => {
            let (key, seen, now) = signer.read()?;
            let log = cosign(&dir, (&origin, &log_key), (&name, &key), &seen, now)?;
            say!("{} entries, root {}", log.checkpoint().size, log.checkpoint().root);
        }
    }
    Ok(())
}

fn append(dir: &Path, releases: &[PathBuf], signer: &SignerArgs) -> anyhow::Result<()> {
    let (key, seen, now) = signer.read()?;
    let mut writer = Writer::open(dir, key, seen)?;
    let mut entries = Vec::new();
    for path in releases {
        let bundle = read_bundle(path)?;
        // Before the log names it: whoever watches the log finds what it names.
        entries.push(log_entry(&bundle.manifest));
        keep(&dir.join(format!("release/{}.cbor", bundle.digest())), bundle)?;
    }
    writer.append(&entries, now)?;
    for entry in entries {
        say!("{}", writer.log().index_of(&entry).unwrap_or_default());
    }
    Ok(())
}

/// Writes a copy of a release for those who watch the log. What a copy from before has stays.
fn keep(path: &Path, mut bundle: ReleaseBundle) -> anyhow::Result<()> {
    if path.try_exists().with_context(|| format!("cannot read {}", path.display()))? {
        let named = |error| ReleaseError::Refused(format!("{}: {error}", path.display()));
        bundle.merge(read_bundle(path)?).map_err(named)?;
    }
    Ok(write_bundle(path, &bundle)?)
}
