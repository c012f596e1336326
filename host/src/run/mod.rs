//! Starts an enclave beside this process and relays to it: a VM with the image that is measured, or, for development, a process.
//!
//! Either way the host learns from it only the events of its log, and believes nothing but where a process listens. A VM that ends
//! after it has served is started again.

mod enclave;
mod events;
mod guest;
pub mod vm;

use std::{net::SocketAddr, process::ExitStatus, sync::Arc, time::Duration};

use tokio::{
    process::ChildStdout,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use crate::{
    Error,
    address::{Address, HostPort},
    metrics::Metrics,
    output::{self, Progress},
    relay::{Limits, Relay, Reservation},
    stop::{Phase, Stop},
};
pub use enclave::{EnclaveOptions, Tee};
pub use events::MAX_LINE_BYTES;
use events::{Entry, Event, EventLog};
pub use guest::GuestOptions;
use guest::{Guest, Started};

/// How long an enclave that closed its event log before it was ready gets to end by itself.
const SILENT_FOR: Duration = Duration::from_secs(5);

/// How long a VM that ended rests before it is started again; doubled each time that it ends before it is ready.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// What to start, and where to serve it.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The enclave.
    pub guest: GuestOptions,
    /// Where clients connect.
    pub listen: HostPort,
    /// What the relay spends on them.
    pub limits: Limits,
    /// Copy the event log to stderr.
    pub log_events: bool,
}

/// Runs an enclave until `stop` says to drain, or until it ends by itself, which is an error. A VM that has served is started again
/// instead.
///
/// # Errors
///
/// When it cannot be started, or ends.
pub async fn run(options: &RunOptions, metrics: Arc<Metrics>, stop: Stop) -> Result<(), Error> {
    // What can be known to fail is found out before an enclave spends minutes on loading a model.
    options.guest.check()?;
    let reservation = Reservation::new(&options.listen).await?;
    let address = reservation.address();
    let mut stop = stop;
    let started = tokio::select! {
        started = options.guest.start(None) => started?,
        () = stop.reached(Phase::Drain) => return Ok(()),
    };
    let mut host = Host {
        options,
        metrics,
        stop,
        log: EventLog::new(started.log, options.guest.source()),
        upstream: started.upstream,
        reservation: Some(reservation),
        address,
        relay: None,
        serves: false,
        announced: false,
        log_ended: None,
        silent_until: options.guest.boots_by(),
        progress: Progress::on_stderr(),
    };
    let ended = host.supervise(started.guest).await;
    host.abort_relay();
    ended
}

/// The host of one enclave.
struct Host<'a> {
    options: &'a RunOptions,
    metrics: Arc<Metrics>,
    stop: Stop,
    log: EventLog<ChildStdout>,
    /// Where a VM serves; a process says where it does.
    upstream: Option<Address>,
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
    /// When a VM must have said something, until it has.
    silent_until: Option<Instant>,
    progress: Progress,
}

impl Host<'_> {
    /// Follows the enclave until the end, and starts it again as long as that makes sense.
    async fn supervise(&mut self, mut guest: Guest) -> Result<(), Error> {
        let mut rest = FIRST_REST;
        loop {
            let ended = self.watch(&mut guest).await;
            self.progress.finish();
            let Err(mut error) = ended else {
                self.shut_down(&mut guest).await;
                return Ok(());
            };
            guest.kill().await;
            drop(guest);
            if self.serves {
                rest = FIRST_REST;
            }
            self.metrics.enclave_ready(false);
            // One that has never served will not serve the next time.
            if !self.announced || !self.options.guest.can_start_again() {
                return Err(error);
            }
            guest = loop {
                output::note(&format_args!("{error}; starting it again in {} s", rest.as_secs()));
                tokio::select! {
                    () = sleep(rest) => {}
                    () = self.stop.reached(Phase::Drain) => return Ok(()),
                }
                rest = (rest * 2).min(LONGEST_REST);
                let mut stop = self.stop.clone();
                tokio::select! {
                    started = self.options.guest.start(self.upstream.as_ref()) => match started {
                        Ok(started) => break self.begin_again(started),
                        Err(failed) => error = failed,
                    },
                    () = stop.reached(Phase::Drain) => return Ok(()),
                }
            };
        }
    }

    fn begin_again(&mut self, started: Started) -> Guest {
        self.log = EventLog::new(started.log, self.options.guest.source());
        self.serves = false;
        self.log_ended = None;
        self.silent_until = self.options.guest.boots_by();
        started.guest
    }

    /// Follows the enclave. Returns when asked to stop.
    async fn watch(&mut self, enclave: &mut Guest) -> Result<(), Error> {
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
                () = until(self.silent_until) => return Err(Error::VmSilent { dropped: self.metrics.events_dropped() }),
                () = until_silent(self.log_ended), if !self.announced => {
                    return Err(Error::EnclaveSilent { dropped: self.metrics.events_dropped() });
                }
            }
        }
    }

    fn note(&mut self, entry: Entry) -> Result<(), Error> {
        let (event, line) = match entry {
            Entry::Event { event, line } => {
                self.silent_until = None;
                (event, line)
            }
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
    fn start_relay(&mut self, enclave: Option<SocketAddr>) -> Result<(), Error> {
        let Some(upstream) = enclave.map(Address::from).or_else(|| self.upstream.clone()) else {
            return Ok(());
        };
        if let Some(reservation) = self.reservation.take() {
            let relay = Relay::new(vec![upstream], self.options.limits, Arc::clone(&self.metrics))?;
            self.relay = Some(tokio::spawn(relay.serve(reservation.listen()?, self.stop.clone())));
        }
        Ok(())
    }

    fn announce(&mut self) {
        if !self.serves || self.relay.is_none() {
            return;
        }
        self.metrics.enclave_ready(true);
        if !self.announced {
            self.announced = true;
            self.progress.finish();
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
    async fn shut_down(&mut self, enclave: &mut Guest) {
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

/// Returns at this time, if there is one.
async fn until(time: Option<Instant>) {
    match time {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Returns when the event log has been at its end for too long.
async fn until_silent(log_ended: Option<Instant>) {
    match log_ended {
        Some(at) => sleep_until(at + SILENT_FOR).await,
        None => std::future::pending().await,
    }
}
