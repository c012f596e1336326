//! What the simulated processor measures of a VM: the same files in the same way as a real one, by AMD's own crate.

use std::path::{Path, PathBuf};

use cocoon_attestation::Measurement;
use sev::error::MeasurementError;
use sev::measurement::ovmf::OVMF;
use sev::measurement::sev_hashes::SevHashes;
use sev::measurement::snp::{SnpMeasurementArgs, snp_calc_launch_digest};
use sev::measurement::vcpu_types::CpuType;
use sev::measurement::vmsa::{GuestFeatures, VMMType};

/// No VM of a developer has as many.
const MAX_VCPUS: u32 = 1024;

/// Why a VM cannot be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The image's command line.
    #[error("cannot read {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// A kind of processor that nobody knows.
    #[error("unknown vCPU type {0}; as QEMU names them, for instance EPYC-Genoa")]
    CpuType(String),
    /// As many vCPUs as no VM has.
    #[error("{0} vCPUs, expected 1 to {MAX_VCPUS}")]
    Cpus(u32),
    /// The files are not those of an image.
    #[error("the image in {path} cannot be measured: {source}")]
    Image {
        /// The image directory.
        path: PathBuf,
        /// What is wrong.
        source: MeasurementError,
    },
}

/// A VM as it is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The launch digest.
    pub measurement: Measurement,
    /// The hashes of kernel, initrd and command line, as QEMU gives them to the firmware in a VM that is measured.
    pub table: Vec<u8>,
    /// Where in the VM's memory the firmware looks for them.
    pub table_address: u64,
}

/// Measures the image directory `image` with the SNP firmware.
///
/// # Errors
/// [`LaunchError`].
pub fn measure(image: &Path, vcpus: u32, vcpu_type: &str) -> Result<Launch, LaunchError> {
    if !(1..=MAX_VCPUS).contains(&vcpus) {
        return Err(LaunchError::Cpus(vcpus));
    }
    let vcpu_type =
        CpuType::try_from(vcpu_type).map_err(|_unknown| LaunchError::CpuType(vcpu_type.to_owned()))?;
    let path = image.join("cmdline");
    let command_line = std::fs::read_to_string(&path).map_err(|source| LaunchError::Io { path, source })?;
    let broken = |source| LaunchError::Image { path: image.to_owned(), source };
    let (kernel, initrd) = (image.join("vmlinuz"), image.join("initrd"));
    let firmware = image.join("snp/OVMF.amdsev.fd");
    let hashes = SevHashes::new(kernel.clone(), Some(initrd.clone()), Some(&command_line)).map_err(broken)?;
    let table_address = OVMF::new(firmware.clone())
        .and_then(|firmware| Ok(firmware.sev_hashes_table_gpa()?))
        .map_err(broken)?;
    let digest = snp_calc_launch_digest(SnpMeasurementArgs {
        vcpus,
        vcpu_type,
        ovmf_file: firmware,
        guest_features: GuestFeatures::default(),
        kernel_file: Some(kernel),
        initrd_file: Some(initrd),
        append: Some(&command_line),
        ovmf_hash_str: None,
        vmm_type: Some(VMMType::QEMU),
    });
    let mut measurement = [0; 48];
    let digest = digest.and_then(|digest| Ok(hex::decode_to_slice(digest.get_hex_ld(), &mut measurement)?));
    digest.map_err(broken)?;
    let table = hashes.construct_table().map_err(broken)?.to_vec();
    Ok(Launch { measurement: Measurement(measurement), table, table_address })
}
