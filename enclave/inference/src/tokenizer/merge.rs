//! Merging neighbours into tokens, the best pair first: what byte-pair encoding and SentencePiece have in common.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use zeroize::{Zeroize, Zeroizing};

/// A stretch of the text that is one token, or none (yet).
#[derive(Clone, Copy)]
pub(super) struct Symbol {
    /// Where it begins and ends in the text, in bytes.
    pub(super) start: u32,
    pub(super) end: u32,
    /// The token, or [`NO_TOKEN`].
    pub(super) id: u32,
    previous: u32,
    next: u32,
}

/// In place of the id of a stretch that is no token.
pub(super) const NO_TOKEN: u32 = u32::MAX;
const NONE: u32 = u32::MAX;
/// `id` of a symbol that was merged into the one before it.
const MERGED: u32 = u32::MAX - 1;

impl Symbol {
    pub(super) fn new(start: u32, end: u32, id: u32) -> Self {
        Self { start, end, id, previous: NONE, next: NONE }
    }

    fn len(self) -> u32 {
        self.end - self.start
    }
}

impl Zeroize for Symbol {
    fn zeroize(&mut self) {
        for field in [&mut self.start, &mut self.end, &mut self.id, &mut self.previous, &mut self.next] {
            field.zeroize();
        }
    }
}

/// A pair that may be merged. The order of the fields is the order of the work: lowest rank, then leftmost.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    rank: u32,
    left: u32,
    right: u32,
    len: u32,
}

impl Zeroize for Pair {
    fn zeroize(&mut self) {
        for field in [&mut self.rank, &mut self.left, &mut self.right, &mut self.len] {
            field.zeroize();
        }
    }
}

/// Which neighbours merge.
pub(super) trait Rule {
    /// Rank (lowest first) and token of two neighbours that may become one.
    fn merge(&self, left: Symbol, right: Symbol) -> Option<(u32, u32)>;
}

/// Merges until no rule applies. Fewer than 2^31 symbols; those left are in order, merged ones are gone.
pub(super) fn merge(symbols: &mut Zeroizing<Vec<Symbol>>, rule: &impl Rule) {
    let count = u32::try_from(symbols.len()).unwrap_or(NONE);
    for (index, symbol) in (0_u32..).zip(symbols.iter_mut()) {
        symbol.previous = index.checked_sub(1).unwrap_or(NONE);
        symbol.next = if index + 1 < count { index + 1 } else { NONE };
    }
    // Every merge takes a pair out and adds two at most, so this never grows, and growing would leave copies behind.
    let mut queue = BinaryHeap::with_capacity(2 * symbols.len());
    for index in 1..count {
        consider(symbols, rule, &mut queue, index - 1, index);
    }
    while let Some(Reverse(pair)) = queue.pop() {
        let (Some(left), Some(right)) = (at(symbols, pair.left), at(symbols, pair.right)) else { continue };
        if left.id == MERGED || right.id == MERGED || left.len() + right.len() != pair.len {
            continue; // one of the two was merged with another neighbour meanwhile
        }
        let Some((_, id)) = rule.merge(left, right) else { continue };
        if let Some(symbol) = symbols.get_mut(pair.left as usize) {
            (symbol.end, symbol.id, symbol.next) = (right.end, id, right.next);
        }
        if let Some(symbol) = symbols.get_mut(pair.right as usize) {
            symbol.id = MERGED;
        }
        if let Some(symbol) = symbols.get_mut(right.next as usize) {
            symbol.previous = pair.left;
        }
        consider(symbols, rule, &mut queue, left.previous, pair.left);
        consider(symbols, rule, &mut queue, pair.left, right.next);
    }
    let mut spent = queue.into_vec();
    spent.iter_mut().for_each(|Reverse(pair)| pair.zeroize());
    symbols.retain(|symbol| symbol.id != MERGED);
}

fn at(symbols: &[Symbol], index: u32) -> Option<Symbol> {
    symbols.get(index as usize).copied()
}

fn consider(
    symbols: &[Symbol],
    rule: &impl Rule,
    queue: &mut BinaryHeap<Reverse<Pair>>,
    left: u32,
    right: u32,
) {
    let (Some(first), Some(second)) = (at(symbols, left), at(symbols, right)) else { return };
    if let Some((rank, _)) = rule.merge(first, second) {
        queue.push(Reverse(Pair { rank, left, right, len: first.len() + second.len() }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    type Entry = ((u32, u32), (u32, u32));

    struct Table(HashMap<(u32, u32), (u32, u32)>);

    impl Rule for Table {
        fn merge(&self, left: Symbol, right: Symbol) -> Option<(u32, u32)> {
            self.0.get(&(left.id, right.id)).copied()
        }
    }

    fn merged(ids: &[u32], rules: &[Entry]) -> Vec<u32> {
        let symbols = (0..).zip(ids).map(|(at, id)| Symbol::new(at, at + 1, *id)).collect::<Vec<_>>();
        let mut symbols = Zeroizing::new(symbols);
        merge(&mut symbols, &Table(rules.iter().copied().collect()));
        symbols.iter().map(|symbol| symbol.id).collect()
    }

    #[test]
    fn the_lowest_rank_goes_first_and_then_the_leftmost() {
        assert_eq!(merged(&[1, 2, 3], &[((1, 2), (1, 12)), ((2, 3), (0, 23))]), [1, 23]);
        assert_eq!(merged(&[1, 1, 1], &[((1, 1), (0, 11))]), [11, 1]);
        assert_eq!(merged(&[1, 1, 1, 1], &[((1, 1), (0, 11)), ((11, 11), (1, 1111))]), [1111]);
        assert!(merged(&[], &[]).is_empty());
        assert_eq!(merged(&[NO_TOKEN, 1], &[]), [NO_TOKEN, 1]);
    }

    #[test]
    fn long_runs_take_no_time() {
        let rules: Vec<_> = (0..20).map(|level| ((level, level), (level, level + 1))).collect();
        assert_eq!(merged(&vec![0; 1 << 20], &rules), [20]);
    }
}
