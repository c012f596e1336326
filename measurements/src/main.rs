//! `cocoon-measure`: reference values.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line prints its result and its one line of error"
)]

mod command;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cocoon_measurements::floors;
use cocoon_measurements::key::SigningKey;
use cocoon_measurements::model::{self, manifest};
use command::{Verdict, is_rejection};

/// Reference values for auditors and release signers.
#[derive(Debug, Parser)]
#[command(
    name = "cocoon-measure",
    version,
    about,
    after_help = "Exit codes: 0 done, 1 rejected, 2 could not tell (usage, missing file)."
)]
enum Cli {
    /// The VM image
    #[command(subcommand)]
    Image(command::image::Image),
    /// What a processor will measure of an image
    #[command(subcommand)]
    Predict(command::predict::Predict),
    /// Which input differs between a measurement and an image
    Explain(command::explain::Explain),
    /// ID blocks: which image an author lets SEV-SNP firmware launch
    #[command(subcommand)]
    IdBlock(command::id_block::IdBlock),
    /// Models
    #[command(subcommand)]
    Model(Model),
    /// Floors of security versions, as signed data for policies
    #[command(subcommand)]
    Floors(Floors),
    /// Releases: manifests with reference values, and who vouches for them
    #[command(subcommand)]
    Release(command::release::Release),
    /// Statements of independent parties that built the same
    #[command(subcommand)]
    Rebuild(command::rebuild::Rebuild),
    /// The transparency log of releases (C2SP tlog-tiles), as files that any web server can serve
    #[command(subcommand)]
    Log(command::log::Log),
    /// Keys of signers
    #[command(subcommand)]
    Key(Key),
}

#[derive(Debug, Subcommand)]
enum Model {
    /// Print the digest of a model's manifest, as enclaves state it and policies name it
    Digest {
        /// GGUF file, or a folder with exactly one
        #[arg(value_name = "FILE_OR_DIR")]
        path: PathBuf,
        /// Print the manifest too, as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum Floors {
    /// Sign a floors file: writes FILE.sig and prints the public key that policies name
    Sign {
        /// The floors, TOML
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Ed25519 key, PKCS#8 in PEM: see `cocoon-measure key create`
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Check FILE.sig and print what the floors are
    Verify {
        /// The floors, TOML
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The signer's public key
        #[arg(long, value_name = "HEX")]
        signer: String,
    },
}

#[derive(Debug, Subcommand)]
enum Key {
    /// Make a new Ed25519 key and print its public key
    Create {
        /// Where to write it; never replaces a file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse() {
        Cli::Image(image) => image.run(),
        Cli::Predict(predict) => predict.run(),
        Cli::Explain(explain) => explain.run(),
        Cli::IdBlock(id_block) => id_block.run(),
        Cli::Model(Model::Digest { path, json }) => digest(&path, json).map(good),
        Cli::Floors(Floors::Sign { file, key }) => sign(&file, &key).map(good),
        Cli::Floors(Floors::Verify { file, signer }) => verify(&file, &signer).map(good),
        Cli::Release(command) => command::release::run(command).map(good),
        Cli::Rebuild(command) => command::rebuild::run(command).map(good),
        Cli::Log(command) => command::log::run(command).map(good),
        Cli::Key(Key::Create { file }) => create_key(&file).map(good),
    };
    match done {
        Ok(verdict) => verdict.into(),
        Err(error) => {
            eprintln!("cocoon-measure: {error:#}");
            let not_a_model = matches!(error.downcast_ref(), Some(model::Error::NotAModel { .. }));
            ExitCode::from(if not_a_model || is_rejection(&error) { 1 } else { 2 })
        }
    }
}

fn good((): ()) -> Verdict {
    Verdict::Good
}

fn digest(path: &Path, json: bool) -> anyhow::Result<()> {
    let manifest = manifest(path)?;
    if json {
        let file = |f: &cocoon_attestation::wire::ModelFile| serde_json::json!({ "name": f.name, "size": f.size, "sha256": f.sha256 });
        let files: Vec<_> = manifest.files().iter().map(file).collect();
        println!("{:#}", serde_json::json!({ "digest": manifest.digest(), "files": files }));
    } else {
        println!("{}", manifest.digest());
    }
    Ok(())
}

fn create_key(file: &Path) -> anyhow::Result<()> {
    println!("{}", SigningKey::create(file)?.public());
    Ok(())
}

fn sign(file: &Path, key: &Path) -> anyhow::Result<()> {
    let key = SigningKey::read(key)?;
    let to = floors::sign(file, &key)?;
    eprintln!("wrote {}", to.display());
    println!("{}", key.public());
    Ok(())
}

fn verify(file: &Path, signer: &str) -> anyhow::Result<()> {
    let floors = floors::verify(file, signer)?;
    let (version, issued) = floors.version();
    println!("version {version}, issued {issued}");
    floors.lines().iter().for_each(|line| println!("{line}"));
    Ok(())
}
