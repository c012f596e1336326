//! Evidence as files, and what has to be fetched for it.

use std::path::PathBuf;

use cocoon_attestation::nvidia::{GpuEvidence, NVIDIA_GPU_MEDIA_TYPE};
use cocoon_attestation::snp::{Product, Report};
use cocoon_attestation::tdx::Quote;
use cocoon_attestation::wire::{AttestResponse, EvidenceSet, SNP_REPORT_MEDIA_TYPE, TDX_QUOTE_MEDIA_TYPE};

use super::wanted::{self, Services, Wanted};
use super::{EndorsementError, read};

/// An AttestResponse has at most 256 KiB, everything else less.
const MAX_FILE: u64 = 512 * 1024;

/// Files to find endorsements for.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// SNP reports.
    pub snp_reports: Vec<PathBuf>,
    /// For reports of version 2, which do not name it.
    pub product: Option<Product>,
    /// TDX quotes.
    pub tdx_quotes: Vec<PathBuf>,
    /// GPU reports, each with the chain of the same place.
    pub gpu_reports: Vec<PathBuf>,
    /// Chains, PEM.
    pub gpu_chains: Vec<PathBuf>,
    /// AttestResponses, as `cocoon verify --save` writes them.
    pub responses: Vec<PathBuf>,
}

/// The evidence in them, parsed.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    snp: Vec<(Report, Product)>,
    tdx: Vec<Quote>,
    pub(super) gpus: Vec<GpuEvidence>,
}

impl Sources {
    pub(super) fn read(&self) -> Result<Evidence, EndorsementError> {
        let mut out = Evidence::default();
        for path in &self.snp_reports {
            out.add_snp(&read(path, MAX_FILE)?, self.product).map_err(|why| malformed(path, why))?;
        }
        for path in &self.tdx_quotes {
            out.tdx.push(Quote::parse(&read(path, MAX_FILE)?).map_err(|e| malformed(path, e.to_string()))?);
        }
        if self.gpu_reports.len() != self.gpu_chains.len() {
            let why = "give --gpu-chain once for each --gpu-report, in the same order";
            return Err(EndorsementError::Usage(why.to_owned()));
        }
        for (path, chain) in self.gpu_reports.iter().zip(&self.gpu_chains) {
            let gpu = GpuEvidence::from_parts(&read(path, MAX_FILE)?, &read(chain, MAX_FILE)?);
            out.gpus.push(gpu.map_err(|e| malformed(path, e.to_string()))?);
        }
        for path in &self.responses {
            out.add_response(&read(path, MAX_FILE)?, self.product).map_err(|why| malformed(path, why))?;
        }
        if out.snp.is_empty() && out.tdx.is_empty() && out.gpus.is_empty() {
            let why = "say what the endorsements are for: --snp-report, --tdx-quote, --gpu-report with --gpu-chain, or --response";
            return Err(EndorsementError::Usage(why.to_owned()));
        }
        Ok(out)
    }
}

fn malformed(path: &std::path::Path, why: String) -> EndorsementError {
    EndorsementError::Malformed { path: path.to_owned(), why }
}

impl Evidence {
    fn add_snp(&mut self, bytes: &[u8], product: Option<Product>) -> Result<(), String> {
        let report = Report::parse(bytes).map_err(|e| e.to_string())?;
        let product = report.product().or(product);
        let product =
            product.ok_or("the report does not name the processor: say --product Milan, Genoa or Turin")?;
        self.snp.push((report, product));
        Ok(())
    }

    fn add_response(&mut self, bytes: &[u8], product: Option<Product>) -> Result<(), String> {
        let response = AttestResponse::decode(bytes).map_err(|e| e.to_string())?;
        for item in EvidenceSet::decode(&response.evidence).map_err(|e| e.to_string())?.0.into_values() {
            match item.media_type.as_str() {
                SNP_REPORT_MEDIA_TYPE => self.add_snp(&item.bytes, product)?,
                TDX_QUOTE_MEDIA_TYPE => self.tdx.push(Quote::parse(&item.bytes).map_err(|e| e.to_string())?),
                NVIDIA_GPU_MEDIA_TYPE => {
                    self.gpus.push(GpuEvidence::decode(&item.bytes).map_err(|e| e.to_string())?);
                }
                _ => return Err("evidence of a type that is not known".to_owned()),
            }
        }
        Ok(())
    }

    /// Everything but what depends on manifests: see [`wanted::of_rim`].
    pub(super) fn wanted(&self, services: &Services) -> Result<Vec<Wanted>, EndorsementError> {
        let mut out = Vec::new();
        for (report, product) in &self.snp {
            out.extend(wanted::of_snp(report, *product, services)?);
        }
        for quote in &self.tdx {
            out.extend(wanted::of_quote(quote, services)?);
        }
        for gpu in &self.gpus {
            out.extend(wanted::of_gpu(gpu, services)?);
        }
        Ok(out)
    }
}
