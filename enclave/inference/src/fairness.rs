//! Whose turn it is: of the clients that have requests, the one that was served least.
//!
//! A client that comes back starts beside the least served of those that are there: it can neither save up turns nor lose any by
//! being away.

use crate::request::ClientId;
use std::collections::{HashMap, HashSet};

/// Tokens computed for each client that has requests. Requests without a client count as those of one.
#[derive(Default)]
pub(crate) struct Served(HashMap<Option<ClientId>, u64>);

impl Served {
    /// Makes clients known.
    pub(crate) fn greet(&mut self, clients: impl Iterator<Item = Option<ClientId>>) {
        let least = self.0.values().min().copied().unwrap_or(0);
        clients.for_each(|client| {
            self.0.entry(client).or_insert(least);
        });
    }

    pub(crate) fn add(&mut self, client: Option<ClientId>, tokens: usize) {
        *self.0.entry(client).or_insert(0) += tokens as u64;
    }

    /// Forgets the clients that are not among these.
    pub(crate) fn retain(&mut self, clients: impl Iterator<Item = Option<ClientId>>) {
        let clients: HashSet<_> = clients.collect();
        self.0.retain(|client, _| clients.contains(client));
    }

    /// The first request of the client that was served least.
    pub(crate) fn least(&self, requests: impl Iterator<Item = Option<ClientId>>) -> Option<usize> {
        let served = |client| self.0.get(&client).copied().unwrap_or(0);
        requests.enumerate().min_by_key(|(index, client)| (served(*client), *index)).map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Option<ClientId> = Some(ClientId([1; 32]));
    const B: Option<ClientId> = Some(ClientId([2; 32]));

    #[test]
    fn the_least_served_client_is_next_and_within_a_client_the_first() {
        let mut served = Served::default();
        served.greet([A].into_iter());
        served.greet([B].into_iter());
        assert_eq!(served.least([A, A, B].into_iter()), Some(0));
        served.add(A, 100);
        assert_eq!(served.least([A, A, B, B].into_iter()), Some(2));
        served.add(B, 101);
        assert_eq!(served.least([B, A].into_iter()), Some(1));
        assert_eq!(served.least(std::iter::empty()), None);
    }

    #[test]
    fn who_was_away_gets_no_more_and_no_less_than_the_others() {
        let mut served = Served::default();
        served.greet([A].into_iter());
        served.add(A, 1000);
        served.retain([A].into_iter());
        served.greet([B].into_iter());
        served.add(B, 1);
        assert_eq!(served.least([B, A].into_iter()), Some(1), "not 999 tokens ahead");
        served.retain([B].into_iter());
        served.greet([A].into_iter());
        assert_eq!(served.least([A, B].into_iter()), Some(0), "not 1000 behind");
    }
}
