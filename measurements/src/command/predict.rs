//! `cocoon-measure predict`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use cocoon_attestation::Digest;
use cocoon_measurements::image::directory::{Directory, Parts, SNP_FIRMWARE, TDX_FIRMWARE, firmware};
use cocoon_measurements::predict::enforcement::enforcing;
use cocoon_measurements::predict::firmware::Firmware;
use cocoon_measurements::predict::snp::{self, Shape, VcpuType};
use cocoon_measurements::predict::{authenticode, tdx};
use serde_json::{Value, json};

use super::accept::{HostData, Policy};
use super::{Verdict, hexadecimal};

#[derive(Debug, Subcommand)]
pub(crate) enum Predict {
    /// MEASUREMENT of SEV-SNP reports
    Snp {
        #[command(flatten)]
        files: Files,
        /// Number of vCPUs
        #[arg(long, value_name = "N")]
        vcpus: u32,
        /// QEMU's name of the processor that the guest sees, such as EPYC-Genoa
        #[arg(long, value_name = "TYPE")]
        vcpu_type: VcpuType,
        /// SEV_FEATURES of the guest
        #[arg(long, value_name = "HEX", default_value = "0x1", value_parser = hexadecimal)]
        guest_features: u64,
        /// The guest's policy, to print with the measurement what an ID block needs
        #[arg(long, value_name = "HEX", value_parser = hexadecimal)]
        policy: Option<u64>,
        /// SHA-256 of firmware that you booted with wrong hashes of kernel, initrd and command line, and that stopped; may be given
        /// several times
        #[arg(long, value_name = "SHA256")]
        reviewed_ovmf: Vec<Digest>,
    },
    /// HOST_DATA of SEV-SNP reports: what a host gives the launch of an image with a model
    HostData(HostData),
    /// A policy that accepts an image in one shape with one model, and nothing else
    Policy(Policy),
    /// MRTD, RTMR1 and RTMR2 of TDX quotes
    Tdx {
        #[command(flatten)]
        files: Files,
        /// Number of vCPUs; has an influence on RTMR0 alone
        #[arg(long, value_name = "N")]
        vcpus: u32,
        /// Memory in MiB; has an influence on RTMR0 alone
        #[arg(long, value_name = "MIB")]
        memory: u64,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Files {
    /// Directory of the image; it needs no manifest
    #[arg(long, value_name = "DIR")]
    image: PathBuf,
    /// Firmware instead of the image's
    #[arg(long, value_name = "FILE")]
    ovmf: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Files {
    fn read(&self, path: &str) -> anyhow::Result<(Vec<u8>, Parts)> {
        let image = Directory::new(&self.image);
        let ovmf = match &self.ovmf {
            Some(path) => firmware(path)?,
            None => image.file(path)?,
        };
        Ok((ovmf, image.parts()?))
    }
}

impl Predict {
    pub(crate) fn run(self) -> anyhow::Result<Verdict> {
        match self {
            Self::Snp { files, vcpus, vcpu_type, guest_features, policy, reviewed_ovmf } => {
                let shape = Shape { vcpus, vcpu_type, guest_features };
                let value = predict_snp(&files, &shape, policy, &reviewed_ovmf)?;
                print(&value, files.json);
            }
            Self::HostData(host_data) => return host_data.run(),
            Self::Policy(policy) => return policy.run(),
            Self::Tdx { files, vcpus, memory } => print(&predict_tdx(&files, vcpus, memory)?, files.json),
        }
        Ok(Verdict::Good)
    }
}

fn predict_snp(
    files: &Files,
    shape: &Shape,
    policy: Option<u64>,
    reviewed: &[Digest],
) -> anyhow::Result<Value> {
    let (ovmf, parts) = files.read(SNP_FIRMWARE)?;
    let ovmf = enforcing(Firmware::parse(&ovmf)?, reviewed)?;
    let found = snp::predict(&ovmf, &parts.boot(), shape)?;
    let mut out = json!({
        "platform": "snp",
        "measurement": found.measurement,
        "vcpus": shape.vcpus,
        "vcpu_type": shape.vcpu_type.to_string(),
        "vcpu_signature": format!("{:#x}", shape.vcpu_type.signature()),
        "guest_features": format!("{:#x}", shape.guest_features),
        "firmware": { "sha256": found.firmware },
        "kernel": { "sha256": found.hashes.kernel },
        "initrd": { "sha256": found.hashes.initrd },
        "cmdline": { "text": String::from_utf8_lossy(&parts.command_line), "sha256_with_zero": found.hashes.command_line },
    });
    if let (Some(policy), Some(object)) = (policy, out.as_object_mut()) {
        let policy = snp::check_policy(policy)?;
        object.insert(
            "id_block".to_owned(),
            json!({ "ld": found.measurement, "policy": format!("{policy:#x}") }),
        );
    }
    Ok(out)
}

fn predict_tdx(files: &Files, vcpus: u32, memory: u64) -> anyhow::Result<Value> {
    let (ovmf, parts) = files.read(TDX_FIRMWARE)?;
    let found = tdx::predict(&Firmware::parse(&ovmf)?, &parts.boot())?;
    Ok(json!({
        "platform": "tdx",
        "mr_td": found.mr_td,
        "rtmr0": null,
        "rtmr1": found.rtmr1,
        "rtmr2": found.rtmr2,
        "vcpus": vcpus,
        "memory_mib": memory,
        "firmware": { "sha256": Digest::of(&ovmf) },
        "kernel": { "sha256": Digest::of(&parts.kernel), "authenticode_sha384": hex::encode(authenticode::digest(&parts.kernel)?) },
        "initrd": { "sha256": Digest::of(&parts.initrd) },
        "cmdline": { "text": String::from_utf8_lossy(&parts.command_line) },
        "notes": [format!("rtmr0: {}", tdx::RTMR0), tdx::CONFIRMED],
    }))
}

/// JSON, or its leaves one a line.
fn print(value: &Value, json: bool) {
    if json {
        println!("{value:#}");
    } else {
        lines(String::new(), value);
    }
}

fn lines(name: String, value: &Value) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            lines(if name.is_empty() { key.clone() } else { format!("{name}.{key}") }, value);
        }),
        Value::Array(items) => items.iter().for_each(|item| lines("note".to_owned(), item)),
        Value::String(text) => println!("{name:<28} {text}"),
        Value::Null => println!("{name:<28} -"),
        Value::Bool(_) | Value::Number(_) => println!("{name:<28} {value}"),
    }
}
