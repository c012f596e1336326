//! `cocoon-measure id-block`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use cocoon_attestation::Measurement;
use cocoon_measurements::id_block::{self, P384Key};

use super::{Verdict, hexadecimal};

#[derive(Debug, Subcommand)]
pub(crate) enum IdBlock {
    /// Make a new P-384 key and print its digest, as reports carry it
    Key {
        /// Where to write it; never replaces a file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Write an ID block and its authentication for a launch digest: what `cocoon-host run --id-block` takes
    Create(Create),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Launch digest: `cocoon-measure predict snp`
    #[arg(value_name = "MEASUREMENT")]
    measurement: Measurement,
    /// The ID key, which signs the block
    #[arg(long, value_name = "FILE")]
    id_key: PathBuf,
    /// The author key, which signs the ID key
    #[arg(long, value_name = "FILE")]
    author_key: PathBuf,
    /// The guest's policy, as it will be launched
    #[arg(long, value_name = "HEX", default_value = "0x30000", value_parser = hexadecimal)]
    policy: u64,
    /// FAMILY_ID of reports, 32 hex digits
    #[arg(long, value_name = "HEX", default_value = "00000000000000000000000000000000", value_parser = id)]
    family_id: [u8; 16],
    /// IMAGE_ID of reports, 32 hex digits
    #[arg(long, value_name = "HEX", default_value = "00000000000000000000000000000000", value_parser = id)]
    image_id: [u8; 16],
    /// GUEST_SVN of reports
    #[arg(long, value_name = "N", default_value_t = 0)]
    guest_svn: u32,
    /// Writes PREFIX.block and PREFIX.auth, base64
    #[arg(long, value_name = "PREFIX")]
    out: PathBuf,
}

impl IdBlock {
    pub(crate) fn run(self) -> anyhow::Result<Verdict> {
        match self {
            Self::Key { file } => println!("{}", P384Key::create(&file)?.digest()),
            Self::Create(create) => create.run()?,
        }
        Ok(Verdict::Good)
    }
}

impl Create {
    fn run(self) -> anyhow::Result<()> {
        let block = id_block::IdBlock {
            measurement: self.measurement,
            family_id: self.family_id,
            image_id: self.image_id,
            guest_svn: self.guest_svn,
            policy: self.policy,
        };
        let (id, author) = (P384Key::read(&self.id_key)?, P384Key::read(&self.author_key)?);
        write(&self.out, "block", &block.encode())?;
        write(&self.out, "auth", &block.authenticate(&id, &author)?)?;
        println!("id_key_digest     {}", id.digest());
        println!("author_key_digest {}", author.digest());
        Ok(())
    }
}

fn write(prefix: &Path, what: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let mut path = prefix.as_os_str().to_owned();
    path.push(format!(".{what}"));
    std::fs::write(&path, format!("{}\n", STANDARD.encode(bytes)))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn id(text: &str) -> Result<[u8; 16], String> {
    let mut out = [0; 16];
    hex::decode_to_slice(text, &mut out).map_err(|e| format!("{e}, expected 32 hex digits"))?;
    Ok(out)
}
