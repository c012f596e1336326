//! Starts an enclave process beside this one and relays to it.
//!
//! The process serves development and the simulated platform; a released enclave is a virtual machine. Either way the host learns
//! from it only the events of its log, and believes nothing but where it listens.

mod enclave;
mod events;

use std::{fs::File, net::SocketAddr, path::PathBuf, process::ExitStatus, sync::Arc, time::Duration};

use tokio::{
    process::ChildStdout,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    Error,
    address::HostPort,
    metrics::Metrics,
    output::{self, Progress},
    relay::{Limits, Relay, Reservation},
    stop::{Phase, Stop},
};
use enclave::Enclave;
pub use enclave::{EnclaveOptions, Tee};
pub use events::MAX_LINE_BYTES;
use events::{Entry, Event, EventLog};

/// How long an enclave that closed its event log before it was ready gets to end by itself.
const SILENT_FOR: Duration = Duration::from_secs(5);

/// What to start, and where to serve it.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The enclave program.
    pub program: PathBuf,
    /// What it is told.
    pub enclave: EnclaveOptions,
    /// Where clients connect.
    pub listen: HostPort,
    /// What the relay spends on them.
    pub limits: Limits,
    /// Copy the event log to stderr.
    pub log_events: bool,
}

/// Runs an enclave until `stop` says to drain, or until it ends by itself, which is an error.
///
/// # Errors
///
/// When it cannot be started, or ends.
pub async fn run(options: &RunOptions, metrics: Arc<Metrics>, stop: Stop) -> Result<(), Error> {
    // What can be known to fail is found out before an enclave spends minutes on loading a model.
    let model = &options.enclave.model;
    File::open(model).map_err(|source| Error::ModelUnreadable { path: model.clone(), source })?;
    let reservation = Reservation::new(&options.listen).await?;
    let address = reservation.address();
    let (mut enclave, log) = Enclave::start(&options.program, &options.enclave)?;

    let mut host = Host {
        options,
        metrics,
        stop,
        log: EventLog::new(log),
        reservation: Some(reservation),
        address,
        relay: None,
        serves: false,
        announced: false,
        log_ended: None,
        progress: Progress::on_stderr(),
    };
    let ended = host.watch(&mut enclave).await;
    host.progress.finish();
    match ended {
        Ok(()) => {
            host.shut_down(&mut enclave).await;
            Ok(())
        }
        Err(error) => {
            host.abort_relay();
            enclave.kill().await;
            Err(error)
        }
    }
}

/// The host of one enclave.
struct Host<'a> {
    options: &'a RunOptions,
    metrics: Arc<Metrics>,
    stop: Stop,
    log: EventLog<ChildStdout>,
    /// Taken from the start, so that a conflict shows early; opened when there is something to relay to.
    reservation: Option<Reservation>,
    address: SocketAddr,
    relay: Option<JoinHandle<()>>,
    /// The enclave said that it is ready.
    serves: bool,
    /// So did we.
    announced: bool,
    /// When the event log ended, if it has.
    log_ended: Option<Instant>,
    progress: Progress,
}

impl Host<'_> {
    /// Follows the enclave. Returns when asked to stop.
    async fn watch(&mut self, enclave: &mut Enclave) -> Result<(), Error> {
        loop {
            // In this order: a last event before the end of the process is read before the end is noticed.
            tokio::select! {
                biased;
                () = self.stop.reached(Phase::Drain) => return Ok(()),
                entry = self.log.next(), if self.log_ended.is_none() => match entry {
                    Some(entry) => self.note(entry)?,
                    None => self.log_ended = Some(Instant::now()),
                },
                status = enclave.ended() => return Err(self.ended(status.map_err(Error::EnclaveWait)?)),
                () = until_silent(self.log_ended), if !self.announced => {
                    return Err(Error::EnclaveSilent { dropped: self.metrics.events_dropped() });
                }
            }
        }
    }

    fn note(&mut self, entry: Entry) -> Result<(), Error> {
        let (event, line) = match entry {
            Entry::Event { event, line } => (event, line),
            Entry::Dropped(why) => {
                self.metrics.event_dropped(why);
                return Ok(());
            }
        };
        if self.options.log_events {
            self.progress.finish();
            output::note(&line);
        }
        match event {
            Event::ModelLoading { read, total } => self.progress.model_loading(read, total),
            Event::Listening { address } => self.start_relay(address)?,
            Event::Ready => self.serves = true,
            Event::Other => {}
        }
        self.announce();
        Ok(())
    }

    /// A second `listening` changes nothing: the enclave may not redirect its clients.
    fn start_relay(&mut self, enclave: SocketAddr) -> Result<(), Error> {
        if let Some(reservation) = self.reservation.take() {
            let relay = Relay::new(vec![enclave.into()], self.options.limits, Arc::clone(&self.metrics))?;
            self.relay = Some(tokio::spawn(relay.serve(reservation.listen()?, self.stop.clone())));
        }
        Ok(())
    }

    fn announce(&mut self) {
        if self.serves && self.relay.is_some() && !self.announced {
            self.announced = true;
            self.progress.finish();
            self.metrics.enclave_ready();
            output::announce_ready(self.address);
        }
    }

    fn ended(&self, status: ExitStatus) -> Error {
        let dropped = self.metrics.events_dropped();
        if self.announced {
            Error::EnclaveEnded { status, dropped }
        } else {
            Error::EnclaveEndedEarly { status, dropped }
        }
    }

    /// Asks the enclave to end, lets connections drain, and kills what is left at the deadline or at a second request.
    async fn shut_down(&mut self, enclave: &mut Enclave) {
        self.reservation = None;
        enclave.terminate();
        let deadline = Instant::now() + self.options.limits.drain_timeout;
        let mut stop = self.stop.clone();
        let relay = self.relay.take();
        let drained = async {
            // The log is read on, lest the enclave block on writing to it.
            tokio::select! {
                _ = enclave.ended() => {}
                () = self.read_log() => {}
            }
            if let Some(relay) = relay {
                let _ended = relay.await;
            }
        };
        tokio::select! {
            _ = timeout_at(deadline, drained) => {}
            () = stop.reached(Phase::Close) => {}
        }
        enclave.kill().await;
    }

    /// Reads the event log to its end, and never returns.
    async fn read_log(&mut self) {
        while let Some(entry) = self.log.next().await {
            // Too late to start anything; only the copy on stderr and the counts matter.
            match entry {
                Entry::Event { line, .. } if self.options.log_events => output::note(&line),
                Entry::Event { .. } => {}
                Entry::Dropped(why) => self.metrics.event_dropped(why),
            }
        }
        std::future::pending().await
    }

    fn abort_relay(&mut self) {
        if let Some(relay) = self.relay.take() {
            relay.abort();
        }
    }
}

/// Returns when the event log has been at its end for too long.
async fn until_silent(log_ended: Option<Instant>) {
    match log_ended {
        Some(at) => sleep_until(at + SILENT_FOR).await,
        None => std::future::pending().await,
    }
}
