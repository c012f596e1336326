//! `cocoon-measure image`.

use clap::Subcommand;

use super::Verdict;
use super::verify::Verify;

#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Hold an image against its manifest and print what is inside, with digests
    Verify(Verify),
}

impl Image {
    pub(crate) fn run(self) -> anyhow::Result<Verdict> {
        match self {
            Self::Verify(verify) => verify.run(),
        }
    }
}
