//! Cases of the evidence corpus.

use std::path::{Path, PathBuf};

use anyhow::Context;
use cocoon_attestation::nvidia::{self, GpuEvidence};
use cocoon_attestation::snp;
use cocoon_attestation::x509::{Certificate, RevocationList};
use cocoon_attestation::{Endorsement, EndorsementKind, UnixTime};
use serde_json::Value;

/// A folder with a `manifest.json`.
pub struct Corpus {
    root: PathBuf,
}

/// An SNP report with certificates.
pub struct SnpCase {
    pub id: String,
    pub now: UnixTime,
    pub report: Vec<u8>,
    /// VCEK or VLEK.
    pub key: Vec<u8>,
    /// ASK or ASVK.
    pub issuer: Vec<u8>,
    pub ark: Vec<u8>,
}

impl SnpCase {
    /// For our Verifier.
    pub fn endorsements(&self, lists: &[Vec<u8>]) -> anyhow::Result<snp::Endorsements> {
        let certificates = [&self.key, &self.issuer].map(|der| Certificate::from_pem_or_der(der));
        let lists = lists.iter().map(|list| RevocationList::from_pem_or_der(list));
        let certificates = certificates.into_iter().collect::<Result<_, _>>()?;
        Ok(snp::Endorsements::new(certificates, lists.collect::<Result<_, _>>()?)?)
    }
}

/// A quote with Intel's documents at a time.
pub struct TdxCase {
    pub id: String,
    pub now: UnixTime,
    pub quote: Vec<u8>,
    pub given: Vec<Endorsement>,
}

impl TdxCase {
    pub fn document(&self, wanted: EndorsementKind) -> anyhow::Result<&[u8]> {
        let found = self.given.iter().find(|item| item.kind == wanted);
        Ok(&found.context("a document is missing")?.bytes)
    }
}

/// A GPU with everything about it.
pub struct GpuCase {
    pub report: Vec<u8>,
    pub chain: Vec<u8>,
    pub rims: Vec<Vec<u8>>,
    pub ocsp: Vec<Vec<u8>>,
}

impl GpuCase {
    pub fn parse(&self) -> anyhow::Result<(GpuEvidence, nvidia::Endorsements)> {
        let rims: Vec<&[u8]> = self.rims.iter().map(Vec::as_slice).collect();
        let ocsp: Vec<&[u8]> = self.ocsp.iter().map(Vec::as_slice).collect();
        Ok((
            GpuEvidence::from_parts(&self.report, &self.chain)?,
            nvidia::Endorsements::for_one(&rims, &ocsp)?,
        ))
    }
}

/// Kinds with the names of their files in a set.
const SET: [(EndorsementKind, &str); 6] = [
    (EndorsementKind::IntelTcbInfo, "tcb_info.json"),
    (EndorsementKind::IntelQeIdentity, "qe_identity.json"),
    (EndorsementKind::IntelTcbSigningChain, "tcb_signing_chain.pem"),
    (EndorsementKind::IntelPckCrl, "pck.crl.der"),
    (EndorsementKind::IntelPckCrlIssuerChain, "pck_crl_issuer_chain.pem"),
    (EndorsementKind::IntelRootCaCrl, "root_ca.crl.der"),
];

impl Corpus {
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        anyhow::ensure!(root.join("snp/manifest.json").exists(), "{} has no evidence", root.display());
        Ok(Self { root: root.to_owned() })
    }

    pub fn read(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let path = self.root.join(path);
        std::fs::read(&path).with_context(|| path.display().to_string())
    }

    fn cases(&self, family: &str) -> anyhow::Result<Vec<Value>> {
        let manifest: Value = serde_json::from_slice(&self.read(&format!("{family}/manifest.json"))?)?;
        Ok(manifest["cases"].as_array().context("no cases")?.clone())
    }

    /// Those that come with certificates.
    pub fn snp(&self) -> anyhow::Result<Vec<SnpCase>> {
        let cases = self.cases("snp")?;
        cases
            .iter()
            .filter(|case| case["files"]["issuer"].is_string())
            .map(|case| self.snp_case(case))
            .collect()
    }

    fn snp_case(&self, case: &Value) -> anyhow::Result<SnpCase> {
        let files = &case["files"];
        let key = if files["vcek"].is_string() { "vcek" } else { "vlek" };
        let file = |name: &str| self.read(&format!("snp/{}", text(&files[name])?));
        Ok(SnpCase {
            id: text(&case["id"])?.to_owned(),
            now: text(&case["verify_at"])?.parse().map_err(anyhow::Error::msg)?,
            report: file("report")?,
            key: file(key)?,
            issuer: file("issuer")?,
            ark: file("ark")?,
        })
    }

    /// One for each set of documents that a quote is to be held against.
    pub fn tdx(&self) -> anyhow::Result<Vec<TdxCase>> {
        let mut out = Vec::new();
        for case in self.cases("tdx")? {
            for evaluation in case["evaluations"].as_array().context("no evaluations")? {
                if evaluation["collateral"].is_string() {
                    out.push(self.tdx_case(&case, evaluation)?);
                }
            }
        }
        Ok(out)
    }

    fn tdx_case(&self, case: &Value, evaluation: &Value) -> anyhow::Result<TdxCase> {
        let set = format!("tdx/collateral/{}", text(&evaluation["collateral"])?);
        let one = |(kind, file)| Ok(Endorsement { kind, bytes: self.read(&format!("{set}/{file}"))? });
        Ok(TdxCase {
            id: format!("{} at {}", text(&case["id"])?, text(&evaluation["verify_at"])?),
            now: text(&evaluation["verify_at"])?.parse().map_err(anyhow::Error::msg)?,
            quote: self.read(&format!("tdx/{}", text(&case["files"]["quote"])?))?,
            given: SET.into_iter().map(one).collect::<anyhow::Result<_>>()?,
        })
    }

    /// Where the H100 is of which everything is there.
    pub fn gpu_folder(&self) -> PathBuf {
        self.root.join("nvidia/h100-550.90.07-e2e")
    }

    /// That H100.
    pub fn gpu(&self) -> anyhow::Result<GpuCase> {
        let file = |name: &str| self.read(&format!("nvidia/h100-550.90.07-e2e/{name}"));
        let asked = [
            "gpu_certificate_l2",
            "gpu_certificate_l3",
            "gpu_driver_rim_l3",
            "gpu_driver_rim_l4",
            "gpu_rim_l2",
            "gpu_vbios_l4",
        ];
        let ocsp = asked.iter().map(|of| self.read(&format!("nvidia/ocsp/h100-550.90.07-{of}.ocsp.der")));
        Ok(GpuCase {
            report: file("report.bin")?,
            chain: file("chain.pem")?,
            rims: vec![
                file("NV_GPU_DRIVER_GH100_550.90.07.swidtag")?,
                file("NV_GPU_VBIOS_1010_0200_882_96009F0001.swidtag")?,
            ],
            ocsp: ocsp.collect::<anyhow::Result<_>>()?,
        })
    }
}

fn text(value: &Value) -> anyhow::Result<&str> {
    value.as_str().context("a text is missing in a manifest")
}
