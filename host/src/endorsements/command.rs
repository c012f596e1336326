//! `cocoon-host endorsements`: its command line, and what it prints.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum, value_parser};
use cocoon_attestation::UnixTime;
use cocoon_attestation::snp::Product;

use super::{Cache, Client, EndorsementError, Fetcher, Retry, Services, Sources, State, import, rows};
use crate::output::note;

/// Arguments of `endorsements`.
#[derive(Debug, Args)]
pub struct EndorsementsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: EndorsementsCommand,
    /// The cache [default: $XDG_CACHE_HOME/cocoon/endorsements or ~/.cache/cocoon/endorsements].
    #[arg(long, global = true, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// The time, instead of the clock's: 2026-11-24T08:00:00Z.
    #[arg(long, global = true, value_name = "RFC3339")]
    pub at: Option<UnixTime>,
    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What can be done with endorsements.
#[derive(Debug, Subcommand)]
pub enum EndorsementsCommand {
    /// Get what evidence needs, from the cache or the vendors, and write it for `cocoon-enclave --endorsements`.
    Fetch(Box<FetchArgs>),
    /// Put files into the cache: bundles, certificates and lists (DER or PEM), Intel's JSON documents, manifests, OCSP responses.
    Import {
        /// Files, or folders of them.
        #[arg(required = true, value_name = "FILE|DIR")]
        paths: Vec<PathBuf>,
    },
    /// Show what is in the cache and when it ends. Warns on stderr of what is over, or in its last quarter or last week.
    List,
}

/// Arguments of `endorsements fetch`.
#[derive(Debug, Args)]
pub struct FetchArgs {
    /// An SNP report.
    #[arg(long, value_name = "FILE")]
    pub snp_report: Vec<PathBuf>,
    /// The processor, for reports of version 2, which do not name it.
    #[arg(long, value_enum)]
    pub product: Option<ProductName>,
    /// A TDX quote.
    #[arg(long, value_name = "FILE")]
    pub tdx_quote: Vec<PathBuf>,
    /// A GPU's report; its chain with --gpu-chain.
    #[arg(long, value_name = "FILE")]
    pub gpu_report: Vec<PathBuf>,
    /// The chain of the GPU whose report has the same place, PEM.
    #[arg(long, value_name = "FILE")]
    pub gpu_chain: Vec<PathBuf>,
    /// An enclave's response, as `cocoon verify --save` writes it: all of the above at once.
    #[arg(long, value_name = "FILE")]
    pub response: Vec<PathBuf>,
    /// Write everything that the evidence needs to this file.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Ask nobody: take what is in the cache.
    #[arg(long)]
    pub offline: bool,
    /// Seconds that a service has for an answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = value_parser!(u64).range(1..=600))]
    pub timeout: u64,
    /// Requests for one thing before it is given up.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u32).range(1..=20))]
    pub attempts: u32,
    /// Milliseconds before the second request; doubled each time.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = value_parser!(u64).range(0..=60_000))]
    pub retry_delay: u64,
    /// AMD Key Distribution Service [default: AMD's].
    #[arg(long, value_name = "URL")]
    pub amd_kds: Option<String>,
    /// Intel Provisioning Certification Service, or a PCCS [default: Intel's].
    #[arg(long, value_name = "URL")]
    pub intel_pcs: Option<String>,
    /// Where IntelSGXRootCA.der lies [default: Intel's].
    #[arg(long, value_name = "URL")]
    pub intel_certificates: Option<String>,
    /// NVIDIA's RIM service [default: NVIDIA's].
    #[arg(long, value_name = "URL")]
    pub nvidia_rim: Option<String>,
    /// NVIDIA's OCSP responder [default: NVIDIA's].
    #[arg(long, value_name = "URL")]
    pub nvidia_ocsp: Option<String>,
}

/// AMD's products.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum ProductName {
    /// 7003.
    Milan,
    /// 9004, 8004.
    Genoa,
    /// 9005.
    Turin,
}

impl From<ProductName> for Product {
    fn from(name: ProductName) -> Self {
        match name {
            ProductName::Milan => Self::Milan,
            ProductName::Genoa => Self::Genoa,
            ProductName::Turin => Self::Turin,
        }
    }
}

/// Does it. `cache`: where, when the command line does not say; `now`: the clock's time.
///
/// # Errors
/// [`EndorsementError`].
pub async fn execute(
    args: EndorsementsArgs,
    cache: Option<PathBuf>,
    now: UnixTime,
) -> Result<(), EndorsementError> {
    let folder = args
        .cache
        .or(cache)
        .ok_or_else(|| EndorsementError::Usage("no home directory: say --cache DIR".to_owned()))?;
    let cache = Cache::open(folder)?;
    let now = args.at.unwrap_or(now);
    match args.command {
        EndorsementsCommand::Fetch(fetch) => run_fetch(*fetch, cache, now, args.json).await,
        EndorsementsCommand::Import { paths } => {
            let count = import(&cache, &paths)?;
            let text = if args.json {
                serde_json::json!({ "imported": count }).to_string()
            } else {
                format!("{count} imported")
            };
            print(&text);
            Ok(())
        }
        EndorsementsCommand::List => list(&cache, now, args.json),
    }
}

async fn run_fetch(args: FetchArgs, cache: Cache, now: UnixTime, json: bool) -> Result<(), EndorsementError> {
    let sources = Sources {
        snp_reports: args.snp_report,
        product: args.product.map(Product::from),
        tdx_quotes: args.tdx_quote,
        gpu_reports: args.gpu_report,
        gpu_chains: args.gpu_chain,
        responses: args.response,
    };
    let base = |given: Option<String>, vendors: String| {
        given.map_or(vendors, |url| url.trim_end_matches('/').to_owned())
    };
    let own = Services::default();
    let services = Services {
        amd_kds: base(args.amd_kds, own.amd_kds),
        intel_pcs: base(args.intel_pcs, own.intel_pcs),
        intel_certificates: base(args.intel_certificates, own.intel_certificates),
        nvidia_rim: base(args.nvidia_rim, own.nvidia_rim),
        nvidia_ocsp: base(args.nvidia_ocsp, own.nvidia_ocsp),
    };
    let no_tls = |e: rustls::Error| EndorsementError::Usage(format!("no TLS: {e}"));
    let client = (!args.offline).then(|| Client::new(Duration::from_secs(args.timeout))).transpose();
    let client = client.map_err(no_tls)?;
    let retry = Retry { attempts: args.attempts, delay: Duration::from_millis(args.retry_delay) };
    let fetched = Fetcher { cache, services, client, retry, now }.fetch(&sources).await?;
    for warning in &fetched.warnings {
        note(&format_args!("warning: {warning}"));
    }
    if let Some(path) = &args.out {
        fetched.write(path)?;
    }
    let (count, requests) = (fetched.bundle.0.len(), fetched.requests);
    let text = if json {
        serde_json::json!({ "endorsements": count, "requests": requests, "warnings": fetched.warnings })
            .to_string()
    } else {
        format!("{count} endorsements, {requests} requests")
    };
    print(&text);
    Ok(())
}

fn list(cache: &Cache, now: UnixTime, json: bool) -> Result<(), EndorsementError> {
    let (rows, damaged) = rows(cache, now)?;
    for row in &rows {
        let word = match row.state {
            State::Good => continue,
            State::Expiring => "expires",
            State::Expired => "expired",
            State::Early => "is not valid before",
        };
        let when = if row.state == State::Early { &row.not_before } else { &row.not_after };
        let at = if row.state == State::Early { "" } else { "at " };
        note(&format_args!("warning: {} of {} {word} {at}{when}", row.kind, row.subject));
    }
    for file in &damaged {
        note(&format_args!("warning: damaged, will be fetched anew: {file}"));
    }
    if json {
        print(&serde_json::json!({ "endorsements": rows, "damaged": damaged }).to_string());
        return Ok(());
    }
    for row in &rows {
        let state = format!("{:?}", row.state).to_lowercase();
        print(&format!("{:26} {:9} until {}  {}", row.kind, state, row.not_after, row.subject));
    }
    Ok(())
}

fn print(line: &str) {
    let _gone = writeln!(std::io::stdout().lock(), "{line}");
}
