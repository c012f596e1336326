//! `cocoon-measure explain`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use cocoon_measurements::explain::evidence::{MAX_EVIDENCE, Measured, Registers};
use cocoon_measurements::explain::material::Material;
use cocoon_measurements::explain::snp::{self, Expected};
use cocoon_measurements::explain::{Difference, Explanation, tdx};
use cocoon_measurements::image::directory::{Directory, SNP_FIRMWARE, TDX_FIRMWARE, read};
use cocoon_measurements::predict::snp::VcpuType;
use serde_json::{Map, Value, json};

use super::{Verdict, hexadecimal};

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 the same or explained, 1 not explained, 2 could not tell (usage, missing file)."
)]
pub(crate) struct Explain {
    /// What was measured: 96 hexadecimal digits of SNP, mrtd=HEX,rtmr1=HEX,rtmr2=HEX of TDX (or some of them), or a file with an SNP
    /// report, a TDX quote or what `cocoon verify --save` kept
    #[arg(value_name = "GOT")]
    got: String,
    /// What was expected: the directory of an image, or a measurement as in GOT
    #[arg(value_name = "WANT")]
    want: String,
    /// The image, if WANT is a measurement
    #[arg(long, value_name = "DIR")]
    image: Option<PathBuf>,
    /// Another image, or a directory with some of an image's files, that may have been booted; may be given several times
    #[arg(long, value_name = "DIR")]
    candidate: Vec<PathBuf>,
    /// Firmware that may have been booted; may be given several times
    #[arg(long, value_name = "FILE")]
    ovmf: Vec<PathBuf>,
    /// Expected number of vCPUs; if it is not given, any is found and none is a difference
    #[arg(long, value_name = "N")]
    vcpus: Option<u32>,
    /// Expected type of vCPUs, such as EPYC-Genoa
    #[arg(long, value_name = "TYPE")]
    vcpu_type: Option<VcpuType>,
    /// Expected SEV_FEATURES
    #[arg(long, value_name = "HEX", value_parser = hexadecimal)]
    guest_features: Option<u64>,
    /// A word that may have been put into the command line; may be given several times
    #[arg(long, value_name = "WORD")]
    word: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(crate) fn run(&self) -> anyhow::Result<Verdict> {
        let explanation = explain(self)?;
        if self.json {
            println!("{:#}", as_json(&explanation));
        } else {
            print(&explanation);
        }
        Ok(if explanation.explained { Verdict::Good } else { Verdict::Bad })
    }
}

fn explain(args: &Explain) -> anyhow::Result<Explanation> {
    let got = measured("GOT", &args.got)?;
    let (image, want) = if Path::new(&args.want).is_dir() {
        (Some(PathBuf::from(&args.want)), None)
    } else {
        (args.image.clone(), Some(measured("WANT", &args.want)?))
    };
    if let Some(same) = want.filter(|want| *want == got) {
        return Ok(same_measurement(&same));
    }
    let Some(image) = image else {
        bail!("the measurements differ; to find out why, give the image with --image DIR");
    };
    let path = if matches!(got, Measured::Snp(_)) { SNP_FIRMWARE } else { TDX_FIRMWARE };
    let material = Material::read(&Directory::new(&image), path, &args.candidate, &args.ovmf)?;
    let expected = Expected {
        vcpus: args.vcpus,
        vcpu_type: args.vcpu_type,
        guest_features: args.guest_features,
        words: args.word.clone(),
    };
    match (got, want) {
        (Measured::Snp(got), None) => Ok(snp::explain(&got, &material, &expected)?),
        (Measured::Snp(got), Some(Measured::Snp(want))) => {
            Ok(snp::explain_both(&got, &want, &material, &expected)?)
        }
        (Measured::Tdx(got), None) => Ok(tdx::explain(&got, &material, &args.word)?),
        (Measured::Tdx(got), Some(Measured::Tdx(want))) => {
            Ok(tdx::explain(&Registers::differing(&got, &want), &material, &args.word)?)
        }
        (Measured::Snp(_), Some(Measured::Tdx(_))) | (Measured::Tdx(_), Some(Measured::Snp(_))) => {
            bail!("GOT and WANT are of different platforms: one is SEV-SNP, the other TDX")
        }
    }
}

fn measured(name: &str, text: &str) -> anyhow::Result<Measured> {
    if let Some(measured) = Measured::from_text(text)? {
        return Ok(measured);
    }
    let path = Path::new(text);
    let what =
        "96 hexadecimal digits, registers as mrtd=HEX, or a file with a report, a quote or a saved response";
    let bytes = read(path, MAX_EVIDENCE).with_context(|| format!("{name} {text:?}: expected {what}"))?;
    Measured::from_evidence(&bytes)
        .with_context(|| format!("{name} {text:?} is not evidence: expected {what}"))
}

fn same_measurement(measured: &Measured) -> Explanation {
    Explanation {
        platform: if matches!(measured, Measured::Snp(_)) { "snp" } else { "tdx" },
        explained: true,
        differences: Vec::new(),
        found: Vec::new(),
        unexplained: Vec::new(),
        tried: 0,
    }
}

fn as_json(explanation: &Explanation) -> Value {
    let found: Map<_, _> = explanation.found.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    json!({
        "platform": explanation.platform,
        "explained": explanation.explained,
        "same": explanation.explained && explanation.differences.is_empty(),
        "differences": explanation.differences,
        "found": found,
        "unexplained": explanation.unexplained,
        "tried": explanation.tried,
    })
}

fn print(explanation: &Explanation) {
    for Difference { input, got, want } in &explanation.differences {
        let name = json!(input);
        println!("DIFFERS {}\n    got  {got}\n    want {want}", name.as_str().unwrap_or_default());
    }
    for (name, value) in &explanation.found {
        println!("{name:<16} {value}");
    }
    if explanation.explained && explanation.differences.is_empty() {
        println!("the same: all inputs are as expected");
    }
    for what in &explanation.unexplained {
        println!("NOT EXPLAINED {what}");
    }
    if !explanation.explained {
        println!(
            "{} measurements were tried. Other images that may have run: --candidate DIR; other firmware: --ovmf FILE; words of the \
             command line: --word WORD",
            explanation.tried
        );
    }
}
