//! Copies bytes between many clients and enclaves.
//!
//! The relay routes connections, not requests: it reads nothing into the bytes, so it needs no cryptography and cannot leak what it
//! cannot see. What a client can make it hold is bounded: connections by [`Limits::max_connections`], memory by two fixed buffers
//! per connection, time by [`Limits::idle_timeout`].

mod connection;
mod copy;
mod listen;
mod upstream;

use std::{io, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    Error,
    address::Address,
    metrics::{Failure, Metrics},
    stop::{Phase, Stop},
};
pub use listen::Reservation;
pub use upstream::{Traffic, UpstreamStatus, Upstreams};

/// How long accepting rests after an error that will not go away by itself, such as having no file descriptor left.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What the relay spends on its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at the same time; one more is closed at once.
    pub max_connections: usize,
    /// A connection over which nothing moved in either direction for this long is closed.
    pub idle_timeout: Duration,
    /// How long to wait for one upstream to accept a connection.
    pub connect_timeout: Duration,
    /// How long connections may go on after a request to stop.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            idle_timeout: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// A relay between one listener and some upstreams.
#[derive(Debug)]
pub struct Relay {
    upstreams: Arc<Upstreams>,
    limits: Limits,
    metrics: Arc<Metrics>,
}

impl Relay {
    /// A relay to `upstreams`, whose traffic and health show in `metrics` from now on.
    ///
    /// # Errors
    ///
    /// When an upstream is named twice.
    pub fn new(upstreams: Vec<Address>, limits: Limits, metrics: Arc<Metrics>) -> Result<Self, Error> {
        let upstreams = Arc::new(Upstreams::new(upstreams)?);
        metrics.show_upstreams(Arc::clone(&upstreams));
        Ok(Self { upstreams, limits, metrics })
    }

    /// Serves until `stop` says to drain, then lets connections finish for at most [`Limits::drain_timeout`].
    pub async fn serve(self, listener: TcpListener, mut stop: Stop) {
        let relay = Arc::new(self);
        let slots = Arc::new(Semaphore::new(relay.limits.max_connections));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.reached(Phase::Drain) => break,
                // Finished tasks are taken out, or the set would grow for ever.
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((client, _)) => relay.admit(client, &slots, &mut connections),
                    Err(error) => relay.accept_failed(&error).await,
                },
            }
        }
        drop(listener);
        relay.drain(connections, stop).await;
    }

    fn admit(self: &Arc<Self>, client: TcpStream, slots: &Arc<Semaphore>, connections: &mut JoinSet<()>) {
        let Ok(slot) = Arc::clone(slots).try_acquire_owned() else {
            self.metrics.refused();
            return;
        };
        let relay = Arc::clone(self);
        let active = self.metrics.accepted();
        connections.spawn(async move {
            if let Err(failure) = relay.connection(client).await {
                relay.metrics.failed(failure);
            }
            drop((active, slot));
        });
    }

    /// An error of one connection that went away says nothing about the next; any other is given time to pass.
    async fn accept_failed(&self, error: &io::Error) {
        self.metrics.accept_failed();
        let of_one_connection = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset];
        if !of_one_connection.contains(&error.kind()) {
            sleep(ACCEPT_REST).await;
        }
    }

    async fn drain(&self, mut connections: JoinSet<()>, mut stop: Stop) {
        let all_done = async { while connections.join_next().await.is_some() {} };
        tokio::select! {
            _ = timeout(self.limits.drain_timeout, all_done) => {}
            () = stop.reached(Phase::Close) => {}
        }
        for _ in 0..connections.len() {
            self.metrics.failed(Failure::Stopped);
        }
        connections.shutdown().await;
    }
}
