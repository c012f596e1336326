//! The operator's program: starts an enclave and relays bytes to it.
#![forbid(unsafe_code)]

use std::{
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use cocoon_attestation::UnixTime;
use cocoon_host::{
    Error, announce_ready,
    cli::{Cli, Command, RelayArgs, RunArgs},
    descriptors, doctor,
    endorsements::{self, EndorsementError},
    metrics::{self, Metrics},
    relay::{Relay, Reservation},
    run::{self, RunOptions},
    stop,
};

fn main() -> ExitCode {
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Our own errors name their causes themselves.
            let (code, line) = match (error.downcast_ref::<Error>(), error.downcast_ref::<EndorsementError>())
            {
                (Some(ours), _) => (ours.exit_code(), ours.to_string()),
                (_, Some(ours)) => (ours.exit_code(), ours.to_string()),
                (None, None) => (2, format!("{error:#}")),
            };
            let _gone = writeln!(std::io::stderr(), "error: {line}");
            ExitCode::from(code)
        }
    }
}

fn execute(cli: Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    let done = runtime.block_on(async {
        match cli.command {
            Command::Relay(args) => relay(args).await,
            Command::Run(args) => run(*args).await,
            Command::Doctor(args) => Ok(doctor::execute(args)?),
            Command::Endorsements(args) => Ok(endorsements::execute(args, cache_folder(), now()).await?),
        }
    });
    // A name that is still being resolved must not delay the exit.
    runtime.shutdown_background();
    done
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// As the XDG base directories say.
#[expect(clippy::disallowed_methods, reason = "where an operator's caches lie is said by the environment")]
fn cache_folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    Some(caches?.join("cocoon/endorsements"))
}

async fn relay(args: RelayArgs) -> anyhow::Result<()> {
    let stop = stop::on_signals()?;
    let metrics = Metrics::of_relay();
    let limits = args.serve.limits();
    let relay = Relay::new(args.upstream, limits, Arc::clone(&metrics))?;
    let reservation = Reservation::new(&args.serve.listen).await?;
    let address = reservation.address();
    descriptors::make_room_for(limits.max_connections);
    let listener = reservation.listen()?;
    serve_metrics(args.serve.metrics, metrics).await?;
    announce_ready(address);
    relay.serve(listener, stop).await;
    Ok(())
}

async fn run(args: RunArgs) -> anyhow::Result<()> {
    let stop = stop::on_signals()?;
    let this = std::env::current_exe().context("cannot tell where this program lies")?;
    let metrics = Metrics::with_enclave();
    let options = RunOptions {
        guest: args.guest(|program| this.with_file_name(program))?,
        limits: args.serve.limits(),
        log_events: args.log_events,
        listen: args.serve.listen,
    };
    descriptors::make_room_for(options.limits.max_connections);
    serve_metrics(args.serve.metrics, Arc::clone(&metrics)).await?;
    Ok(run::run(&options, metrics, stop).await?)
}

/// Serves metrics, if asked to, until the runtime ends.
async fn serve_metrics(address: Option<SocketAddr>, metrics: Arc<Metrics>) -> Result<(), Error> {
    if let Some(address) = address {
        let server = metrics::bind(address).await?;
        let _gone = writeln!(std::io::stderr(), "metrics at http://{}/metrics", server.address());
        tokio::spawn(server.serve(metrics));
    }
    Ok(())
}
