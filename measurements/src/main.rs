//! `cocoon-measure`: reference values.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line prints its result and its one line of error"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cocoon_measurements::model::{Error, manifest};

/// Reference values for auditors and release signers.
#[derive(Debug, Parser)]
#[command(
    name = "cocoon-measure",
    version,
    about,
    after_help = "Exit codes: 0 done, 1 rejected, 2 could not tell (usage, missing file)."
)]
enum Cli {
    /// Models
    #[command(subcommand)]
    Model(Model),
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

fn main() -> ExitCode {
    let Cli::Model(Model::Digest { path, json }) = Cli::parse();
    match manifest(&path) {
        Ok(manifest) if json => {
            let file = |f: &cocoon_attestation::wire::ModelFile| serde_json::json!({ "name": f.name, "size": f.size, "sha256": f.sha256 });
            let files: Vec<_> = manifest.files().iter().map(file).collect();
            println!("{:#}", serde_json::json!({ "digest": manifest.digest(), "files": files }));
            ExitCode::SUCCESS
        }
        Ok(manifest) => {
            println!("{}", manifest.digest());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cocoon-measure: {error}");
            ExitCode::from(if matches!(error, Error::NotAModel { .. }) { 1 } else { 2 })
        }
    }
}
