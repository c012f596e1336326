//! The upstreams: which one takes the next connection, and which one rests after a failure.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{Error, address::Address};

/// How long an upstream rests after its first failed connect; doubled with every further one.
const FIRST_REST: Duration = Duration::from_millis(250);
/// The longest rest: short enough that an enclave that comes back is soon used again.
const LONGEST_REST: Duration = Duration::from_secs(8);

/// The upstreams of one relay.
#[derive(Debug)]
pub struct Upstreams {
    all: Vec<Arc<Upstream>>,
    /// One entry per upstream; locked for moments, never while waiting.
    states: Mutex<Vec<State>>,
}

#[derive(Debug)]
struct Upstream {
    address: Address,
    traffic: Traffic,
}

/// Bytes that were delivered to one upstream and from it.
#[derive(Debug, Default)]
pub struct Traffic {
    /// From clients to the enclave.
    pub to_enclave: AtomicU64,
    /// From the enclave to clients.
    pub from_enclave: AtomicU64,
}

#[derive(Clone, Debug, Default)]
struct State {
    active: usize,
    /// Failed connects since the last one that succeeded.
    failures: u32,
    failures_total: u64,
    rests_until: Option<Instant>,
    /// Connections given out before this one was last chosen; breaks ties in favour of the one that waits longest.
    last_chosen: u64,
}

/// What metrics show of one upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamStatus {
    /// Its address as given.
    pub address: Address,
    /// Whether the last attempt to connect succeeded, or there was none yet.
    pub healthy: bool,
    /// Connections that it has now, or that are being made.
    pub active: usize,
    /// Failed connects since the start.
    pub connect_failures: u64,
    /// Bytes delivered to it.
    pub to_enclave: u64,
    /// Bytes delivered from it.
    pub from_enclave: u64,
}

impl Upstreams {
    /// # Errors
    ///
    /// When an address is there twice.
    pub(super) fn new(addresses: Vec<Address>) -> Result<Self, Error> {
        let mut all: Vec<Arc<Upstream>> = Vec::with_capacity(addresses.len());
        for address in addresses {
            if all.iter().any(|other| other.address == address) {
                return Err(Error::DuplicateUpstream { address });
            }
            all.push(Arc::new(Upstream { address, traffic: Traffic::default() }));
        }
        let states = Mutex::new(vec![State::default(); all.len()]);
        Ok(Self { all, states })
    }

    /// Leases the upstream with the fewest connections among those that do not rest and are not in `tried`.
    pub(super) fn choose(self: &Arc<Self>, tried: &[usize]) -> Option<Lease> {
        let now = Instant::now();
        let mut states = self.lock();
        let turn = states.iter().map(|s| s.last_chosen).max().unwrap_or_default() + 1;
        let (index, (upstream, state)) = self
            .all
            .iter()
            .zip(states.iter_mut())
            .enumerate()
            .filter(|(index, (_, state))| !tried.contains(index) && !state.rests(now))
            .min_by_key(|(_, (_, state))| (state.active, state.last_chosen))?;
        state.active += 1;
        state.last_chosen = turn;
        Some(Lease { upstreams: Arc::clone(self), upstream: Arc::clone(upstream), index })
    }

    /// The state of every upstream, in the order given.
    #[must_use]
    pub fn status(&self) -> Vec<UpstreamStatus> {
        let states = self.lock();
        let one = |(upstream, state): (&Arc<Upstream>, &State)| UpstreamStatus {
            address: upstream.address.clone(),
            healthy: state.failures == 0,
            active: state.active,
            connect_failures: state.failures_total,
            to_enclave: upstream.traffic.to_enclave.load(Ordering::Relaxed),
            from_enclave: upstream.traffic.from_enclave.load(Ordering::Relaxed),
        };
        self.all.iter().zip(states.iter()).map(one).collect()
    }

    /// A panic elsewhere leaves counters that are at worst off by one; better than a relay that stops.
    fn lock(&self) -> MutexGuard<'_, Vec<State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }

    /// Attempts that were under way when the rest began do not lengthen it: they are the same failure.
    fn fail(&mut self, now: Instant) {
        self.failures_total += 1;
        if self.rests(now) {
            return;
        }
        let rest = FIRST_REST.saturating_mul(1 << self.failures.min(16)).min(LONGEST_REST);
        self.failures = self.failures.saturating_add(1);
        self.rests_until = Some(now + rest);
    }
}

/// One connection's claim on an upstream; counts as active until dropped.
#[derive(Debug)]
pub(super) struct Lease {
    upstreams: Arc<Upstreams>,
    upstream: Arc<Upstream>,
    index: usize,
}

impl Lease {
    pub(super) fn index(&self) -> usize {
        self.index
    }

    pub(super) fn address(&self) -> &Address {
        &self.upstream.address
    }

    pub(super) fn traffic(&self) -> &Traffic {
        &self.upstream.traffic
    }

    /// The upstream accepted: it is healthy.
    pub(super) fn connected(&self) {
        self.update(|state| (state.failures, state.rests_until) = (0, None));
    }

    /// The upstream did not accept: it rests.
    pub(super) fn failed(&self) {
        let now = Instant::now();
        self.update(|state| state.fail(now));
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        if let Some(state) = self.upstreams.lock().get_mut(self.index) {
            change(state);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.update(|state| state.active = state.active.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn upstreams(n: u32) -> Arc<Upstreams> {
        Arc::new(Upstreams::new((1..=n).map(|port| Address::Vsock { cid: 3, port }).collect()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn the_least_loaded_takes_the_next() {
        let upstreams = upstreams(3);
        let mut leases: Vec<_> = (0..6).map(|_| upstreams.choose(&[]).unwrap()).collect();
        assert_eq!(leases.iter().map(Lease::index).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
        let freed = leases.remove(1).index();
        assert_eq!(upstreams.choose(&[]).unwrap().index(), freed);
        assert_eq!(upstreams.status().iter().map(|s| s.active).collect::<Vec<_>>(), [2, 1, 2]);
        drop(leases);
        assert!(upstreams.status().iter().all(|s| s.active == 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_one_rests_longer_each_time_and_recovers() {
        let upstreams = upstreams(1);
        for rest in [250, 500, 1000, 2000, 4000, 8000, 8000, 8000] {
            upstreams.choose(&[]).unwrap().failed();
            advance(Duration::from_millis(rest - 1)).await;
            assert!(upstreams.choose(&[]).is_none(), "rests for {rest} ms");
            advance(Duration::from_millis(1)).await;
        }
        assert!(!upstreams.status()[0].healthy, "the rest is over, and still nobody has connected");
        upstreams.choose(&[]).unwrap().connected();
        assert!(upstreams.status()[0].healthy);
        upstreams.choose(&[]).unwrap().failed();
        advance(FIRST_REST).await;
        assert!(upstreams.choose(&[]).is_some(), "a success starts the count anew");
        assert_eq!(upstreams.status()[0].connect_failures, 9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_failures_is_one_failure() {
        let upstreams = upstreams(1);
        let burst: Vec<_> = (0..100).map(|_| upstreams.choose(&[]).unwrap()).collect();
        burst.iter().for_each(Lease::failed);
        advance(FIRST_REST).await;
        assert!(upstreams.choose(&[]).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_tried_or_rests_is_passed_over() {
        let upstreams = upstreams(3);
        upstreams.choose(&[]).unwrap().failed();
        assert_eq!(upstreams.choose(&[1]).unwrap().index(), 2);
        assert!(upstreams.choose(&[1, 2]).is_none());
    }

    #[test]
    fn an_upstream_cannot_be_there_twice() {
        let address: Address = "127.0.0.1:1".parse().unwrap();
        let twice = Upstreams::new(vec![address.clone(), address.clone()]);
        assert!(matches!(twice, Err(Error::DuplicateUpstream { address: a }) if a == address));
    }
}
