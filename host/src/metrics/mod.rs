//! Counts of what the host does: connections, bytes, health. Nothing about content, and nothing about who connects.

mod server;
mod text;

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::relay::Upstreams;
pub use server::{Server, bind};

/// Why an accepted connection did not end by both sides closing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Every upstream rests after a failure, or failed to accept just now.
    NoUpstream,
    /// This machine ran out of file descriptors, memory or ports.
    LocalShortage,
    /// Nothing moved for too long.
    Idle,
    /// Either side broke the connection.
    Broken,
    /// The host stopped first.
    Stopped,
}

impl Failure {
    const ALL: [Self; 5] = [Self::NoUpstream, Self::LocalShortage, Self::Idle, Self::Broken, Self::Stopped];

    /// The value of the `reason` label.
    fn label(self) -> &'static str {
        match self {
            Self::NoUpstream => "no_upstream",
            Self::LocalShortage => "local_shortage",
            Self::Idle => "idle",
            Self::Broken => "broken",
            Self::Stopped => "stopped",
        }
    }
}

/// Why a line of the enclave's event log was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Longer than a line may be.
    TooLong,
    /// Not a JSON event.
    NotAnEvent,
}

/// All counts of one host.
#[derive(Debug, Default)]
pub struct Metrics {
    accepted: AtomicU64,
    active: AtomicU64,
    refused: AtomicU64,
    accept_errors: AtomicU64,
    failed: [AtomicU64; Failure::ALL.len()],
    upstreams: OnceLock<Arc<Upstreams>>,
    enclave: Option<EnclaveMetrics>,
}

/// Counts of the enclave that the host itself started.
#[derive(Debug, Default)]
struct EnclaveMetrics {
    ready: AtomicBool,
    too_long: AtomicU64,
    not_an_event: AtomicU64,
}

/// An accepted connection, counted as active until dropped.
#[derive(Debug)]
pub(crate) struct Active(Arc<Metrics>);

impl Metrics {
    /// Counts of a relay.
    #[must_use]
    pub fn of_relay() -> Arc<Self> {
        Arc::default()
    }

    /// Counts of a relay and of the enclave beside it.
    #[must_use]
    pub fn with_enclave() -> Arc<Self> {
        Arc::new(Self { enclave: Some(EnclaveMetrics::default()), ..Self::default() })
    }

    /// The first call wins: a host has one relay.
    pub(crate) fn show_upstreams(&self, upstreams: Arc<Upstreams>) {
        let _shown_already = self.upstreams.set(upstreams);
    }

    pub(crate) fn accepted(self: &Arc<Self>) -> Active {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.active.fetch_add(1, Ordering::Relaxed);
        Active(Arc::clone(self))
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn accept_failed(&self) {
        self.accept_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, failure: Failure) {
        for (reason, count) in Failure::ALL.iter().zip(&self.failed) {
            count.fetch_add(u64::from(*reason == failure), Ordering::Relaxed);
        }
    }

    pub(crate) fn enclave_ready(&self, ready: bool) {
        if let Some(enclave) = &self.enclave {
            enclave.ready.store(ready, Ordering::Relaxed);
        }
    }

    pub(crate) fn event_dropped(&self, why: Dropped) {
        if let Some(enclave) = &self.enclave {
            let count = match why {
                Dropped::TooLong => &enclave.too_long,
                Dropped::NotAnEvent => &enclave.not_an_event,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many lines of the event log were dropped so far.
    pub(crate) fn events_dropped(&self) -> u64 {
        let sum =
            |e: &EnclaveMetrics| e.too_long.load(Ordering::Relaxed) + e.not_an_event.load(Ordering::Relaxed);
        self.enclave.as_ref().map_or(0, sum)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}
