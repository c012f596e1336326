//! `cocoon-measure image build`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use cocoon_measurements::image::build::Order;
use cocoon_measurements::image::compile::Recipe;
use cocoon_measurements::image::cuda::Driver;
use cocoon_measurements::image::lock::Lock;
use cocoon_measurements::image::store::Store;

use super::Verdict;

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// Where to write the image; must not exist yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Root of the source tree
    #[arg(long, value_name = "DIR", default_value = ".")]
    source: PathBuf,
    /// Packages and tools [default: measurements/inputs.lock in the source tree]
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// Folders with packages, asked in this order, before any mirror
    #[arg(long, value_name = "DIR")]
    store: Vec<PathBuf>,
    /// Roots of Debian mirrors or snapshot archives, asked in this order for what no folder has
    #[arg(long, value_name = "URL")]
    mirror: Vec<String>,
    /// Where intermediate files lie, and packages that were fetched [default: target/image in the source tree]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// With the simulated platform: for development, never released
    #[arg(long)]
    simulated: bool,
    /// An image for NVIDIA GPUs: the folder with NVIDIA's files, a kernel with its modules, and a `driver.lock` (`docs/image.md`)
    #[arg(long, value_name = "DIR", requires = "gpus", conflicts_with = "simulated")]
    driver: Option<PathBuf>,
    /// How many GPUs the machine has; measured
    #[arg(long, value_name = "N", requires = "driver", value_parser = clap::value_parser!(u32).range(1..=16))]
    gpus: Option<u32>,
    /// Take the toolchain that is there even if it is not the locked one: for development, nobody can reproduce it
    #[arg(long)]
    any_toolchain: bool,
}

impl Build {
    pub(super) fn run(self) -> anyhow::Result<Verdict> {
        let source = absolute(&self.source)?;
        let work = self.work.unwrap_or_else(|| source.join("target/image"));
        std::fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
        let work = absolute(&work)?;
        let lock_file = self.lock.unwrap_or_else(|| source.join("measurements/inputs.lock"));
        let text = std::fs::read_to_string(&lock_file)
            .with_context(|| format!("cannot read the lock file {}", lock_file.display()))?;
        let lock = Lock::parse(&text, &lock_file)?;
        let store = Store::new(self.store).with_mirrors(self.mirror, work.join("packages"));
        let environment = std::env::vars_os().collect();
        let driver = self.driver.as_deref().map(Driver::open).transpose()?;
        let for_gpus = driver.is_some();
        let recipe = Recipe { source, target_dir: work, simulated: self.simulated, for_gpus, environment };
        let gpus = driver.as_ref().zip(self.gpus);
        let order =
            Order { lock: &lock, store: &store, recipe: &recipe, gpus, any_toolchain: self.any_toolchain };
        let image = order.build()?;
        image.write(&self.out)?;
        for (path, part) in &image.manifest.parts {
            println!("{}  {path}", part.sha256);
        }
        Ok(Verdict::Good)
    }
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize().with_context(|| format!("cannot find {}", path.display()))
}
