//! `cocoon-enclave`: starts the enclave.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Parser;
use cocoon_attestation::{Digest, UnixTime};
use cocoon_enclave::api::Limits;
use cocoon_enclave::attest::AttestationService;
use cocoon_enclave::bench::BenchSettings;
use cocoon_enclave::events::{Event, EventLog, Failure};
use cocoon_enclave::init;
use cocoon_enclave::model::{ModelError, Models, ReadModel};
use cocoon_enclave::node::{Claims, Node, NodeError};
use cocoon_enclave::platform::nvidia::NvmlError;
use cocoon_enclave::platform::rtmr::RtmrError;
use cocoon_enclave::platform::stapled::EndorsementFileError;
use cocoon_enclave::platform::{
    Attester, DetectError, EndorsementFile, GpuAttester, LaunchedFor, Stapled, start as start_platform,
    start_gpus,
};
use cocoon_enclave::release::{ReleaseFile, ReleaseFileError};
use cocoon_enclave::server::{Listener, serve};
use cocoon_enclave::settings::Settings;
use cocoon_enclave::{Clock, Enclave};
use cocoon_inference::EngineConfig;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

/// Exit codes, see `--help`.
const REFUSED: u8 = 1;
const COULD_NOT_TELL: u8 = 2;

/// For keys and values, if nobody says how many, in the memory of processors.
const MAX_KV_BYTES: u64 = 4 << 30;

/// For telling GPUs that they are not used any more.
const RETIRE_DEADLINE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    if init::is_init() {
        // There is nobody to give an exit code to: when PID 1 ends, the kernel restarts the machine.
        as_init();
        return ExitCode::FAILURE;
    }
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "bench") {
        return bench();
    }
    let settings = Settings::parse();
    let events = event_log();
    let result = if settings.describe {
        describe(&settings, &events)
    } else {
        serve_until_asked(settings, &events, None)
    };
    events.flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(exit_code(&error))
        }
    }
}

#[expect(clippy::disallowed_macros, clippy::print_stderr, reason = "the one line of a failed start")]
fn complain(error: &anyhow::Error) {
    eprintln!("cocoon-enclave: {error:#}");
}

fn bench() -> ExitCode {
    let settings = BenchSettings::parse_from(std::env::args_os().skip(1));
    #[expect(clippy::disallowed_methods, reason = "a measurement for people, not an enclave that serves")]
    match settings.run(&mut std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(COULD_NOT_TELL)
        }
    }
}

/// What an image build needs to know of this program.
fn describe(settings: &Settings, events: &EventLog) -> anyhow::Result<()> {
    events.log(&Event::Configured { config: settings.digest()? });
    Ok(())
}

/// PID 1 of the image: its console belongs to the host, so it says nothing but events.
fn as_init() {
    let events = event_log();
    // Firmware leaves half a line on the console.
    events.new_line();
    if let Ok(machine) = init::boot(&events)
        && let Err(error) = serve_until_asked(machine.settings, &events, Some(machine.stop))
    {
        events.log(&Event::Failed { reason: failure(&error) });
    }
    events.flush();
    init::power::off();
}

/// On standard output, which inside the image is the serial console. Panics go there too, as an event without their text.
fn event_log() -> EventLog {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that hands out standard output, to the event log"
    )]
    let events = EventLog::new(std::io::stdout());
    let panicked = events.clone();
    // The default hook prints the panic's text, which can quote what was being parsed.
    std::panic::set_hook(Box::new(move |_| panicked.log(&Event::Panicked)));
    events
}

/// The enclave, until it is asked to end: by a signal, or by the host of its machine.
fn serve_until_asked(
    settings: Settings,
    events: &EventLog,
    host: Option<watch::Receiver<bool>>,
) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let result = runtime.block_on(run(settings, events.clone(), host));
    // Hardware that does not answer must not keep the process from ending.
    runtime.shutdown_background();
    result
}

/// A model file that is not there could not be told; everything else about models and platforms was refused.
fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<ModelError>() {
        Some(ModelError::Unreadable(cocoon_inference::Error::Unreachable { .. })) => COULD_NOT_TELL,
        Some(_) => REFUSED,
        None if error.is::<DetectError>() || error.is::<RtmrError>() || error.is::<NvmlError>() => REFUSED,
        None if matches!(error.downcast_ref(), Some(NodeError::Gpus(_))) => REFUSED,
        None => COULD_NOT_TELL,
    }
}

/// What is told of an error where its text must not be.
fn failure(error: &anyhow::Error) -> Failure {
    if error.is::<ModelError>() {
        Failure::Model
    } else if error.is::<DetectError>() || error.is::<RtmrError>() {
        Failure::Platform
    } else if error.is::<NvmlError>() || matches!(error.downcast_ref(), Some(NodeError::Gpus(_))) {
        Failure::Gpus
    } else if error.is::<EndorsementFileError>() {
        Failure::Endorsements
    } else if error.is::<ReleaseFileError>() {
        Failure::Release
    } else {
        Failure::Other
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
fn clock() -> Clock {
    Arc::new(|| UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())))
}

async fn run(
    settings: Settings,
    events: EventLog,
    host: Option<watch::Receiver<bool>>,
) -> anyhow::Result<()> {
    settings.check()?;
    let clock = clock();
    let platform = start_platform(&settings, &clock, &events)?;
    let gpus = start_gpus(&settings)?;
    let endorsements = endorsement_file(&settings, &events)?;
    let release = release_file(&settings, &events)?;
    let stop = stop_signal(settings.until_stdin_closes, host)?;
    let config = settings.digest()?;
    events.log(&Event::Configured { config });
    let models = Models::default();
    let Some((read, stated)) = stated_models(&settings, &models, stop.clone(), &events).await? else {
        return Ok(());
    };
    let digest = release.as_ref().map_or(Digest([0; 32]), |release| release.digest());
    let claims = Claims { models: stated, config, release: digest };
    platform.announce(&settings, &claims)?;
    platform.measure(&claims, &events)?;
    let attester = Arc::new(LaunchedFor::new(platform.attester(), &claims, events.clone()));
    let node = boot(claims, clock, gpus).await?;
    if node.has_gpus() {
        events.log(&Event::GpusReady { gpus: settings.gpus.into() });
    }
    let attester = stapled(attester, endorsements, &node, &events);
    let attestation = AttestationService::start(attester, node.clone(), events.clone()).with_release(release);
    let enclave = Arc::new(Enclave { node: node.clone(), attestation, models, events });
    let served = serve_models(settings, enclave, read, stop).await;
    // A driver that hangs does not keep the process from ending.
    let retiring = tokio::task::spawn_blocking(move || node.retire());
    let _ended = tokio::time::timeout(RETIRE_DEADLINE, retiring).await;
    served
}

/// The digests to state, and the models if they were read for that. Configured digests are stated before a file is read: nothing else
/// will be served. Otherwise read first, then state. `None` if `stop` comes first.
async fn stated_models(
    settings: &Settings,
    models: &Models,
    mut stop: watch::Receiver<bool>,
    events: &EventLog,
) -> anyhow::Result<Option<(Option<Vec<ReadModel>>, Vec<Digest>)>> {
    let wanted = settings.models()?;
    let digests: Vec<_> = wanted.iter().filter_map(|model| model.digest).collect();
    if digests.len() == wanted.len() {
        return Ok(Some((None, digests)));
    }
    let reading = on_a_thread({
        let (models, events) = (models.clone(), events.clone());
        move || models.read(&wanted, &events)
    });
    let read = tokio::select! {
        read = reading => read.context("reading the model broke off")??,
        _ = stop.wait_for(|stop| *stop) => return Ok(None),
    };
    let digests = read.iter().map(|model| model.digest).collect();
    Ok(Some((Some(read), digests)))
}

/// The first epoch; GPUs take seconds for their evidence.
async fn boot(claims: Claims, clock: Clock, gpus: Option<Arc<dyn GpuAttester>>) -> anyhow::Result<Arc<Node>> {
    let booting = tokio::task::spawn_blocking(move || Node::boot_with_gpus(claims, clock, gpus));
    Ok(Arc::new(booting.await.context("the first epoch broke off")??))
}

fn endorsement_file(settings: &Settings, events: &EventLog) -> anyhow::Result<Option<Arc<EndorsementFile>>> {
    let open = |path: &PathBuf| EndorsementFile::open(path, events).map(Arc::new);
    Ok(settings.endorsements.as_ref().map(open).transpose()?)
}

/// The file of the release if there is one, which is looked after from now on.
fn release_file(settings: &Settings, events: &EventLog) -> anyhow::Result<Option<Arc<ReleaseFile>>> {
    let Some(path) = &settings.release else { return Ok(None) };
    let file = Arc::new(ReleaseFile::open(path, events)?);
    tokio::spawn(file.clone().keep_fresh(events.clone()));
    Ok(Some(file))
}

/// `attester`, with the endorsements of the file if there is one, which is looked after from now on.
fn stapled(
    attester: Arc<dyn Attester>,
    file: Option<Arc<EndorsementFile>>,
    node: &Arc<Node>,
    events: &EventLog,
) -> Arc<dyn Attester> {
    let Some(file) = file else { return attester };
    tokio::spawn(file.clone().keep_fresh(node.clone(), events.clone()));
    Arc::new(Stapled::new(attester, file))
}

/// Serves, first without models and then with them, until `stop`.
async fn serve_models(
    settings: Settings,
    enclave: Arc<Enclave>,
    read: Option<Vec<ReadModel>>,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let (models, events, node) = (enclave.models.clone(), enclave.events.clone(), enclave.node.clone());
    let listener = Listener::bind(&settings.listen).await.context("cannot listen; is the address in use?")?;
    events.log(&Event::Listening { address: listener.address()? });
    #[cfg(feature = "sim")]
    if settings.sim_look_inside {
        events.log(&Event::Inside(init::look()));
    }
    tokio::spawn(enclave.node.clone().keep_rotating(events.clone()));
    let limits = Limits {
        max_connections: settings.max_connections,
        request_deadline: Duration::from_secs(settings.request_deadline.into()),
    };
    let drain = Duration::from_secs(settings.drain_timeout.into());
    let serving = serve(enclave, listener, limits, stop, drain);
    let loading = on_a_thread(move || load(&settings, &models, &node, read, &events));
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        () = serving.as_mut() => return Ok(()),
        loaded = loading => loaded.context("loading the model broke off")??,
    }
    serving.await;
    Ok(())
}

/// Runs `work` on a thread of its own, which does not keep the process from ending: a large model takes minutes to read.
fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (done, result) = oneshot::channel();
    std::thread::spawn(move || done.send(work()));
    result
}

/// Becomes true on SIGTERM, SIGINT, when `host` asks for it or, if wished, at the end of standard input.
fn stop_signal(
    until_stdin_closes: bool,
    host: Option<watch::Receiver<bool>>,
) -> anyhow::Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    if until_stdin_closes {
        let sender = sender.clone();
        // A thread of its own: a blocked read of standard input must not keep the process from ending.
        std::thread::spawn(move || {
            let _ended = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            sender.send_replace(true);
        });
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = asked(host) => {}
        }
        sender.send_replace(true);
    });
    Ok(receiver)
}

/// Returns when the host of this machine wants it to end.
async fn asked(host: Option<watch::Receiver<bool>>) {
    if let Some(mut host) = host
        && host.wait_for(|asked| *asked).await.is_ok()
    {
        return;
    }
    // There is no host, or its port is closed: it asks for nothing any more.
    std::future::pending().await
}

fn load(
    settings: &Settings,
    models: &Models,
    node: &Node,
    read: Option<Vec<ReadModel>>,
    events: &EventLog,
) -> anyhow::Result<()> {
    // Threads of the engines are started by this one.
    if settings.yield_processors || init::is_init() {
        cocoon_inference::yield_processors().context("cannot yield processors")?;
    }
    let read = match read {
        Some(read) => read,
        None => models.read(&settings.models()?, events)?,
    };
    // The GPU that computes now is the one that attested.
    let check = || node.confirm_gpus().map_err(anyhow::Error::from);
    models.load(read, settings.computes_on_gpu(), &engine_config(settings), events, check)?;
    events.log(&Event::Ready);
    Ok(())
}

fn engine_config(settings: &Settings) -> EngineConfig {
    let mut engine = EngineConfig::default();
    if let Some(threads) = settings.threads {
        engine.threads = threads.into();
    }
    engine.max_running = settings.max_running.into();
    engine.max_waiting = settings.max_waiting.into();
    engine.step_tokens = usize::try_from(settings.step_tokens).unwrap_or(engine.step_tokens);
    engine.speculate = !settings.no_speculation;
    let wanted = settings.kv_memory.map(|mebibytes| u64::from(mebibytes) << 20);
    let quarter = || {
        let on_processors = !settings.computes_on_gpu();
        on_processors.then(init::available_memory).flatten().map(|bytes| (bytes / 4).min(MAX_KV_BYTES))
    };
    engine.kv_bytes = wanted.or_else(quarter).and_then(|bytes| usize::try_from(bytes).ok());
    engine
}
