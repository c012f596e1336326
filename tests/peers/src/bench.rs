//! CPU time of an appraisal with endorsements in hand, beside the peers'.
//!
//! Ours parses everything, verifies every signature and date and applies the strict policy, in each round. "Cold": no signature was
//! verified before; "warm": those of the vendors' endorsements were, as in a client's second session.

use std::hint::black_box;
use std::path::Path;

use anyhow::Context;
use cocoon_attestation::appraisal::inspect;
use cocoon_attestation::policy::Policy;
use cocoon_attestation::result::Report;
use cocoon_attestation::{Context as Verification, Missing, SignatureCache, UnixTime};

use crate::evidence::{Corpus, GpuCase, SnpCase, TdxCase};
use crate::machine::own_cpu;
use crate::pairs::alternate;
use crate::python::Peer;
use crate::report::{Better, Row};
use crate::{snp, tdx};

/// Odd, so that the median is one of the pairs.
const PAIRS: usize = 21;
/// Appraisals of one sample.
const ROUNDS: u32 = 100;
/// NVIDIA's verifier takes 40 ms.
const SLOW_ROUNDS: u32 = 5;

const GPU_TIME: &str = "2025-06-01T00:00:00Z";
/// When the OCSP responses of the corpus are valid; the GPU's certificates are, too.
const OCSP_TIME: &str = "2025-08-21T12:00:00Z";

/// What is measured, by name, in `python` if there is one.
///
/// # Errors
/// When a peer fails, or a case of the corpus is not what it must be.
pub fn measure(corpus: &Corpus, python: Option<&Path>) -> anyhow::Result<Vec<Row>> {
    let policy = Policy::strict()?;
    let mut rows = of_snp(corpus, &policy)?;
    rows.extend(of_tdx(corpus, &policy, python)?);
    rows.extend(of_gpu(corpus, &policy, python)?);
    Ok(rows)
}

/// CPU microseconds of one round.
fn timed(rounds: u32, mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<[f64; 1]> {
    let start = own_cpu()?;
    for _ in 0..rounds {
        work()?;
    }
    Ok([(own_cpu()? - start) * 1e6 / f64::from(rounds)])
}

fn row(
    what: &str,
    baseline: &str,
    theirs: impl FnMut() -> anyhow::Result<[f64; 1]>,
    ours: impl FnMut() -> anyhow::Result<[f64; 1]>,
) -> anyhow::Result<Row> {
    let [pairs] = alternate(PAIRS, theirs, ours)?;
    let note = String::new();
    Ok(Row {
        what: what.to_owned(),
        baseline: baseline.to_owned(),
        better: Better::Lower,
        unit: "us",
        pairs,
        note,
    })
}

/// The same work twice: with a cache of its own each time, and with one that knows everything.
struct Ours<F> {
    work: F,
    warm: SignatureCache,
}

impl<F: Fn(&SignatureCache) -> anyhow::Result<bool>> Ours<F> {
    fn new(work: F) -> anyhow::Result<Self> {
        let warm = SignatureCache::new();
        anyhow::ensure!(work(&warm)?, "the evidence is not authentic");
        Ok(Self { work, warm })
    }

    fn cold(&self, rounds: u32) -> anyhow::Result<[f64; 1]> {
        timed(rounds, || (self.work)(&SignatureCache::new()).map(|authentic| assert!(black_box(authentic))))
    }

    fn warm(&self, rounds: u32) -> anyhow::Result<[f64; 1]> {
        timed(rounds, || (self.work)(&self.warm).map(|authentic| assert!(black_box(authentic))))
    }
}

fn of_snp(corpus: &Corpus, policy: &Policy) -> anyhow::Result<Vec<Row>> {
    let case = snp_case(corpus)?;
    let ours = Ours::new(|known| snp::ours(&case, &[], policy, known))?;
    let sev = || timed(ROUNDS, || snp::theirs(&case));
    Ok(vec![
        row("SNP, cold", "sev", sev, || ours.cold(ROUNDS))?,
        row("SNP, warm", "sev", sev, || ours.warm(ROUNDS))?,
        row("SNP, warm", "SNP, cold", || ours.cold(ROUNDS), || ours.warm(ROUNDS))?,
    ])
}

fn snp_case(corpus: &Corpus) -> anyhow::Result<SnpCase> {
    corpus.snp()?.into_iter().find(|case| case.id == "genoa-v5-vcek").context("genoa-v5-vcek is missing")
}

fn of_tdx(corpus: &Corpus, policy: &Policy, python: Option<&Path>) -> anyhow::Result<Vec<Row>> {
    let wanted = |case: &TdxCase| case.id.starts_with("v5-90c06f at 2026-02-25");
    let case = corpus.tdx()?.into_iter().find(wanted).context("v5-90c06f is missing")?;
    let ours = Ours::new(|known| Ok(tdx::ours(&case, policy, known)?.accepted))?;
    let collateral = tdx::collateral(&case)?;
    let qvl = || timed(ROUNDS, || Ok(drop(black_box(tdx::theirs(&case, &collateral)?))));
    let mut rows = vec![
        row("TDX, cold", "dcap-qvl", qvl, || ours.cold(ROUNDS))?,
        row("TDX, warm", "dcap-qvl", qvl, || ours.warm(ROUNDS))?,
    ];
    if let Some(python) = python {
        let folder = std::env::temp_dir().join(format!("cocoon-peers-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let (documents, quote) = (folder.join("collateral.json"), folder.join("quote"));
        std::fs::write(&documents, serde_json::to_vec(&collateral)?)?;
        std::fs::write(&quote, &case.quote)?;
        let now = case.now.0.to_string();
        let arguments = ["tdx".as_ref(), documents.as_os_str(), quote.as_os_str(), now.as_ref()];
        let mut peer = Peer::start(python, &arguments)?;
        rows.push(row("TDX, cold", "dcap-qvl, Python", || Ok([peer.time(ROUNDS)?]), || ours.cold(ROUNDS))?);
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(rows)
}

fn gpu(case: &GpuCase, policy: &Policy, now: UnixTime, known: &SignatureCache) -> anyhow::Result<Report> {
    let (gpu, given) = case.parse()?;
    let ctx = Verification { now, missing: Missing::Unchecked, signatures: known };
    Ok(inspect::nvidia(&gpu, &given, policy, None, ctx))
}

fn of_gpu(corpus: &Corpus, policy: &Policy, python: Option<&Path>) -> anyhow::Result<Vec<Row>> {
    let time = |text: &str| text.parse::<UnixTime>().map_err(anyhow::Error::msg);
    let (with, snp_case) = (corpus.gpu()?, snp_case(corpus)?);
    let without = GpuCase { ocsp: Vec::new(), ..corpus.gpu()? };
    let (now, later) = (time(GPU_TIME)?, time(OCSP_TIME)?);
    let ours = Ours::new(|known| Ok(gpu(&without, policy, now, known)?.accepted))?;
    let mut rows = Vec::new();
    if let Some(python) = python {
        let folder = corpus.gpu_folder();
        let files = [
            "report.bin",
            "chain.pem",
            "NV_GPU_DRIVER_GH100_550.90.07.swidtag",
            "NV_GPU_VBIOS_1010_0200_882_96009F0001.swidtag",
        ];
        let files = files.map(|name| folder.join(name));
        let mut arguments = vec!["nvidia".as_ref()];
        arguments.extend(files.iter().map(|path| path.as_os_str()));
        arguments.push(GPU_TIME.as_ref());
        let mut peer = Peer::start(python, &arguments)?;
        let theirs = "NVIDIA's local verifier, Python";
        rows.push(row(
            "H100 without OCSP, cold",
            theirs,
            || Ok([peer.time(SLOW_ROUNDS)?]),
            || ours.cold(ROUNDS),
        )?);
    }
    rows.push(row(
        "H100 without OCSP, warm",
        "H100 without OCSP, cold",
        || ours.cold(ROUNDS),
        || ours.warm(ROUNDS),
    )?);
    let whole = Ours::new(|known| {
        let authentic = gpu(&with, policy, later, known)?.authentic;
        Ok(authentic && snp::ours(&snp_case, &[], policy, known)?)
    })?;
    let name = "SNP and H100 with 6 OCSP responses";
    rows.push(row(
        &format!("{name}, warm"),
        &format!("{name}, cold"),
        || whole.cold(ROUNDS / 5),
        || whole.warm(ROUNDS),
    )?);
    Ok(rows)
}
