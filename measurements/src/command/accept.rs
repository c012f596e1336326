//! `cocoon-measure predict policy` and `predict host-data`: what a client accepts of an image with a model, and what its host says.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;
use cocoon_attestation::Digest;
use cocoon_attestation::binding::host_data;
use cocoon_measurements::image::directory::{Directory, SNP_FIRMWARE, TDX_FIRMWARE};
use cocoon_measurements::model::manifest;
use cocoon_measurements::policy::Accepted;
use cocoon_measurements::predict::enforcement::enforcing;
use cocoon_measurements::predict::firmware::Firmware;
use cocoon_measurements::predict::snp::{self, Shape, VcpuType};
use cocoon_measurements::predict::tdx;

use super::Verdict;

#[derive(Debug, Args)]
pub(crate) struct HostData {
    /// Directory of the image
    #[arg(long, value_name = "DIR")]
    image: PathBuf,
    /// The model, as for `model digest`; several in the order in which the host has them
    #[arg(long, value_name = "FILE_OR_DIR", required = true)]
    model: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Policy {
    #[command(flatten)]
    of: HostData,
    /// Number of vCPUs
    #[arg(long, value_name = "N")]
    vcpus: u32,
    /// QEMU's name of the processor that the guest sees, such as EPYC-Genoa
    #[arg(long, value_name = "TYPE")]
    vcpu_type: VcpuType,
    /// Root certificate of a simulated platform, PEM: `cocoon-sim-processor root`. The policy then accepts nothing else
    #[arg(long, value_name = "FILE")]
    simulated_root: Option<PathBuf>,
}

impl HostData {
    pub(super) fn run(&self) -> anyhow::Result<Verdict> {
        let config = Directory::new(&self.image).manifest()?.config;
        println!("{}", host_data(config, &self.digests()?));
        Ok(Verdict::Good)
    }

    fn digests(&self) -> anyhow::Result<Vec<Digest>> {
        self.model.iter().map(|model| Ok(manifest(model)?.digest())).collect()
    }
}

impl Policy {
    pub(super) fn run(&self) -> anyhow::Result<Verdict> {
        let image = Directory::new(&self.of.image);
        let (parts, manifest_of_image) = (image.parts()?, image.manifest()?);
        let shape =
            Shape { vcpus: self.vcpus, vcpu_type: self.vcpu_type, guest_features: snp::GUEST_FEATURES };
        let (snp_firmware, tdx_firmware) = (image.file(SNP_FIRMWARE)?, image.file(TDX_FIRMWARE)?);
        let enforcing = enforcing(Firmware::parse(&snp_firmware)?, &[])?;
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        ensure!(
            manifest_of_image.simulated == self.simulated_root.is_some(),
            "{}: {}",
            self.of.image.display(),
            if manifest_of_image.simulated {
                "the simulated platform is in this image: name its root with --simulated-root, for development"
            } else {
                "the simulated platform is not in this image: leave --simulated-root out"
            }
        );
        let root = self.simulated_root.as_ref().map(read).transpose()?;
        let models = self.of.digests()?;
        let accepted = Accepted {
            snp: snp::predict(&enforcing, &parts.boot(), &shape)?.measurement,
            tdx: tdx::predict(&Firmware::parse(&tdx_firmware)?, &parts.boot())?,
            models: &models,
            config: manifest_of_image.config,
            simulated_root: root.as_deref(),
        };
        print!("{}", accepted.to_toml());
        Ok(Verdict::Good)
    }
}
