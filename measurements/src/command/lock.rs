//! `cocoon-measure image lock`.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;
use cocoon_measurements::image::lock;
use cocoon_measurements::image::update::{current, rewritten};

use super::Verdict;

/// The mirror's index is not verified: look at the change before you build from it.
#[derive(Debug, Args)]
pub(crate) struct Lock {
    /// The lock file
    #[arg(value_name = "FILE", default_value = "measurements/inputs.lock")]
    file: PathBuf,
    /// Root of a Debian mirror; several are asked in this order
    #[arg(long, value_name = "URL", required = true)]
    mirror: Vec<String>,
    /// Write the file; else only print what is newer
    #[arg(long)]
    update: bool,
}

impl Lock {
    pub(super) fn run(self) -> anyhow::Result<Verdict> {
        let text = std::fs::read_to_string(&self.file)
            .with_context(|| format!("cannot read the lock file {}", self.file.display()))?;
        let lock = lock::Lock::parse(&text, &self.file)?;
        let now = current(&lock, &self.mirror)?;
        for (old, new) in lock.packages.iter().zip(&now).filter(|(old, new)| old != new) {
            println!("{} {} -> {} {}", old.name, old.version, new.name, new.version);
        }
        let text = rewritten(&text, &lock.packages, &now);
        // Packages are found by how the file writes them.
        let read = lock::Lock::parse(&text, &self.file)?;
        ensure!(
            read.packages == now,
            "{} was edited by hand: each package is name, version, suite, path, size, sha256, one a line",
            self.file.display()
        );
        if self.update {
            std::fs::write(&self.file, text)
                .with_context(|| format!("cannot write {}", self.file.display()))?;
        }
        Ok(Verdict::Good)
    }
}
