//! Which sequence has which blocks of the cache. Blocks are counted by their users; a full block can be found again by what is in it
//! and before it, if the client gave a salt.

use ring::digest::{Context, SHA256};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Blocks that nobody used for so long are given up: a client that comes back later has its prompt computed anew.
const KEEP: Duration = Duration::from_secs(600);

/// Digest of a salt and all tokens up to the end of a block.
pub(crate) type Prefix = [u8; 32];

/// The blocks of an engine.
pub(crate) struct Blocks {
    free: Vec<u32>,
    users: Vec<u32>,
    prefixes: Vec<Option<Prefix>>,
    by_prefix: HashMap<Prefix, u32>,
    /// Blocks without users that can be found again, in the order in which they were given back, and since when.
    idle: BTreeMap<u64, (u32, Instant)>,
    /// Their places in that order.
    places: Vec<Option<u64>>,
    next_place: u64,
    /// Not free before they are wiped.
    dirty: Vec<u32>,
}

impl Blocks {
    pub(crate) fn new(count: usize) -> Self {
        let ids = (0..count).filter_map(|id| u32::try_from(id).ok());
        let free: Vec<u32> = ids.rev().collect();
        Self {
            users: vec![0; free.len()],
            prefixes: vec![None; free.len()],
            places: vec![None; free.len()],
            next_place: 0,
            free,
            by_prefix: HashMap::new(),
            idle: BTreeMap::new(),
            dirty: Vec::new(),
        }
    }

    /// Blocks that can be had at once.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Blocks that can be had, perhaps after some were wiped.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.idle.len() + self.dirty.len()
    }

    /// A block that is all zero, for one user. `None`: see [`Self::reclaim`].
    pub(crate) fn take(&mut self) -> Option<u32> {
        let block = self.free.pop()?;
        self.users[block as usize] = 1;
        Some(block)
    }

    /// Gives up `wanted` idle blocks, those first that were given back first.
    pub(crate) fn reclaim(&mut self, wanted: usize) {
        for _ in 0..wanted {
            let Some((_, (block, _))) = self.idle.pop_first() else { return };
            self.forget(block);
        }
    }

    /// Gives up idle blocks that were given back long before `now`.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((block, since)) = self.idle.first_key_value().map(|(_, idle)| *idle) {
            if now.saturating_duration_since(since) < KEEP {
                return;
            }
            self.idle.pop_first();
            self.forget(block);
        }
    }

    /// When `expire` has something to do next.
    pub(crate) fn expires(&self) -> Option<Instant> {
        self.idle.first_key_value().map(|(_, (_, since))| *since + KEEP)
    }

    fn forget(&mut self, block: u32) {
        if let Some(prefix) = self.prefixes[block as usize].take() {
            self.by_prefix.remove(&prefix);
        }
        self.places[block as usize] = None;
        self.dirty.push(block);
    }

    /// One user fewer.
    pub(crate) fn give_back(&mut self, block: u32, now: Instant) {
        let users = &mut self.users[block as usize];
        *users -= 1;
        if *users > 0 {
            return;
        }
        if self.prefixes[block as usize].is_some() {
            self.idle.insert(self.next_place, (block, now));
            self.places[block as usize] = Some(self.next_place);
            self.next_place += 1;
        } else {
            self.dirty.push(block);
        }
    }

    /// Makes a full block findable. Not if another one with the same contents is.
    pub(crate) fn publish(&mut self, block: u32, prefix: Prefix) {
        if self.prefixes[block as usize].is_none() && !self.by_prefix.contains_key(&prefix) {
            self.prefixes[block as usize] = Some(prefix);
            self.by_prefix.insert(prefix, block);
        }
    }

    /// A block with these contents, for one more user.
    pub(crate) fn find(&mut self, prefix: &Prefix) -> Option<u32> {
        let block = *self.by_prefix.get(prefix)?;
        if let Some(place) = self.places[block as usize].take() {
            self.idle.remove(&place);
        }
        self.users[block as usize] += 1;
        Some(block)
    }

    /// Blocks to be wiped.
    pub(crate) fn dirty(&self) -> &[u32] {
        &self.dirty
    }

    /// `dirty` was wiped.
    pub(crate) fn wiped(&mut self) {
        self.free.append(&mut self.dirty);
    }
}

/// The prefix up to the end of a block: of the prefix before it, or of `secret` and `salt` for the first one.
pub(crate) fn first_prefix(secret: &[u8; 32], salt: &[u8; 32]) -> Prefix {
    digest(&[b"cocoon/prefix/first", secret, salt])
}

/// The prefix of a block from the one before and its tokens.
pub(crate) fn next_prefix(before: &Prefix, tokens: &[u32]) -> Prefix {
    let tokens =
        zeroize::Zeroizing::new(tokens.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>());
    digest(&[b"cocoon/prefix/next", before, &tokens])
}

fn digest(parts: &[&[u8]]) -> Prefix {
    let mut hash = Context::new(&SHA256);
    parts.iter().for_each(|part| hash.update(part));
    let mut prefix = [0; 32];
    prefix.copy_from_slice(hash.finish().as_ref());
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(salt: u8, tokens: &[u32]) -> Prefix {
        next_prefix(&first_prefix(&[1; 32], &[salt; 32]), tokens)
    }

    #[test]
    fn blocks_come_back_only_after_they_were_wiped() {
        let now = Instant::now();
        let mut blocks = Blocks::new(2);
        let (a, b) = (blocks.take().unwrap(), blocks.take().unwrap());
        assert!(a != b && blocks.take().is_none());
        blocks.give_back(a, now);
        assert_eq!((blocks.available(), blocks.dirty()), (1, [a].as_slice()));
        assert!(blocks.take().is_none());
        blocks.wiped();
        assert_eq!(blocks.take(), Some(a));
    }

    #[test]
    fn published_blocks_are_shared_found_and_given_up_oldest_first() {
        let now = Instant::now();
        let mut blocks = Blocks::new(3);
        let ids = [0, 1, 2].map(|_| blocks.take().unwrap());
        for (n, id) in (0..).zip(ids) {
            blocks.publish(id, prefix(7, &[n]));
        }
        assert_eq!(blocks.find(&prefix(7, &[1])), Some(ids[1]));
        assert!(blocks.find(&prefix(8, &[1])).is_none(), "another salt");
        for (n, id) in (0..).zip(ids) {
            blocks.give_back(id, now + Duration::from_secs(n));
        }
        assert_eq!(blocks.available(), 2, "one has a user still");
        blocks.reclaim(1);
        assert_eq!(blocks.dirty(), [ids[0]]);
        assert!(blocks.find(&prefix(7, &[0])).is_none());
        assert_eq!(blocks.find(&prefix(7, &[2])), Some(ids[2]));
        assert_eq!(blocks.available(), 1);
    }

    #[test]
    fn idle_blocks_are_given_up_after_a_while() {
        let now = Instant::now();
        let mut blocks = Blocks::new(1);
        let block = blocks.take().unwrap();
        blocks.publish(block, prefix(7, &[1]));
        blocks.give_back(block, now);
        let expires = blocks.expires().unwrap();
        blocks.expire(expires - Duration::from_millis(1));
        assert!(blocks.dirty().is_empty());
        blocks.expire(expires);
        assert_eq!((blocks.dirty(), blocks.expires()), ([block].as_slice(), None));
    }
}
