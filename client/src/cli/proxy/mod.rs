//! `cocoon proxy`: the OpenAI API on this machine, verified enclaves behind it.

mod errors;
mod http;
mod receipts;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::http::Request;
use anyhow::{Context, bail};
use cocoon_client::{Client, ClientBuilder};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use self::http::Proxy;
use super::{endpoint, output, policy_at};

/// Somebody has to be able to read it aloud, nobody to guess it.
const SHORTEST_TOKEN: usize = 16;

#[derive(Debug, clap::Args)]
pub(super) struct ProxyArgs {
    /// An enclave, or a relay in front of it; several for more of them
    #[arg(long = "upstream", value_name = "HOST:PORT", required = true, value_parser = endpoint)]
    upstreams: Vec<String>,

    /// Policy, TOML [default: $XDG_CONFIG_HOME/cocoon/policy.toml or ~/.config/cocoon/policy.toml]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,

    /// Where programs find the API; port 0 picks one. Other than loopback only with --token-file
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8787")]
    listen: SocketAddr,

    /// File with a token that programs must send, as the API key of OpenAI clients
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Folder for the receipts of answers; the header cocoon-receipt-id names the file
    #[arg(long, value_name = "DIR")]
    receipts: Option<PathBuf>,

    /// Let sizes and times of requests and answers be seen: they tell the host much of a conversation
    #[arg(long)]
    no_padding: bool,

    /// Print as JSON where programs find the API, once they do
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: ProxyArgs) -> anyhow::Result<()> {
    let policy = policy_at(args.policy.as_deref())?;
    let token = args.token_file.as_deref().map(read_token).transpose()?;
    if token.is_none() && !args.listen.ip().is_loopback() {
        bail!(
            "--listen {} is not loopback: say --token-file FILE, so that not everybody can ask",
            args.listen
        );
    }
    if let Some(dir) = &args.receipts {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", args.listen))?;
    let client = Client::builder().policy(policy).padding(!args.no_padding);
    let client = args.upstreams.into_iter().fold(client, ClientBuilder::endpoint).build()?;
    tokio::spawn(note_failures(client.clone()));
    // Until one is verified, or all are refused: one that is slow to say so is not waited for. None is the programs' problem.
    let _none = client.list_models().await;
    let base_url = format!("http://{}/v1", listener.local_addr().context("no address")?);
    if args.json {
        output::line(&serde_json::json!({ "base_url": base_url }).to_string());
    } else {
        output::line(&format!("ready {base_url}"));
    }
    let proxy = Arc::new(Proxy { client, token, receipts: args.receipts });
    tokio::select! {
        () = serve(listener, proxy) => Ok(()),
        stopped = tokio::signal::ctrl_c() => stopped.context("cannot wait for Ctrl-C"),
    }
}

/// Says which enclaves cannot be used.
async fn note_failures(client: Client) {
    for failure in client.verify().await {
        output::note(&format!("{}: {}", failure.endpoint, output::harmless(&failure.message)));
    }
}

async fn serve(listener: TcpListener, proxy: Arc<Proxy>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await; // too many files are open
            continue;
        };
        let _slower = stream.set_nodelay(true);
        let proxy = Arc::clone(&proxy);
        let service = service_fn(move |request: Request<Incoming>| Arc::clone(&proxy).handle(request));
        tokio::spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new());
            // How it ended is the program's business.
            let _ended = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn read_token(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let token = Zeroizing::new(text.trim().to_owned());
    if token.len() < SHORTEST_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("{}: a token has at least {SHORTEST_TOKEN} visible ASCII characters", path.display());
    }
    Ok(token)
}
