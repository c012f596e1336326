//! `cocoon-measure image`.

use clap::Subcommand;
use cocoon_measurements::image::toolchain::Toolchain;

use super::Verdict;
use super::build::Build;
use super::verify::Verify;

#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Build an image directory from source and locked packages: the same bytes anywhere
    Build(Build),
    /// Print what the toolchain of this machine is, as the lock file has it
    Tools,
    /// Hold an image against its manifest and print what is inside, with digests
    Verify(Verify),
}

impl Image {
    pub(crate) fn run(self) -> anyhow::Result<Verdict> {
        match self {
            Self::Build(build) => build.run(),
            Self::Tools => tools(),
            Self::Verify(verify) => verify.run(),
        }
    }
}

fn tools() -> anyhow::Result<Verdict> {
    for tool in Toolchain::installed()?.tools()? {
        println!("{tool}");
    }
    Ok(Verdict::Good)
}
