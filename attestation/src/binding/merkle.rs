//! The Merkle tree of RFC 9162 section 2.1, over leaf hashes: one hardware report serves many clients.

use crate::{Digest, crypto};

/// Largest batch: a report is then shared by 4096 clients, with paths of 12 nodes.
pub const MAX_TREE_SIZE: u64 = 4096;

fn node(left: Digest, right: Digest) -> Digest {
    Digest(crypto::sha256(&[&[1], &left.0, &right.0]))
}

/// Root over `leaves`; `None` when there are none.
#[must_use]
pub fn merkle_root(leaves: &[Digest]) -> Option<Digest> {
    match leaves {
        [] => None,
        [leaf] => Some(*leaf),
        _ => {
            let (left, right) = split(leaves);
            merkle_root(left).zip(merkle_root(right)).map(|(left, right)| node(left, right))
        }
    }
}

/// Sibling hashes of leaf `index`, from the leaf to the root; `None` when there is no such leaf.
#[must_use]
pub fn merkle_path(leaves: &[Digest], index: usize) -> Option<Vec<Digest>> {
    if leaves.len() <= 1 {
        return (index < leaves.len()).then(Vec::new);
    }
    let (left, right) = split(leaves);
    let (path, sibling) = match index.checked_sub(left.len()) {
        None => (merkle_path(left, index), merkle_root(right)),
        Some(index) => (merkle_path(right, index), merkle_root(left)),
    };
    let (mut path, sibling) = path.zip(sibling)?;
    path.push(sibling);
    Some(path)
}

/// Splits two leaves or more at the largest power of two below their number.
fn split(leaves: &[Digest]) -> (&[Digest], &[Digest]) {
    leaves.split_at(leaves.len().div_ceil(2).next_power_of_two())
}

/// The root that `leaf` at `index` of `size` leaves and `path` lead to (RFC 9162 section 2.1.3.2); `None` when the path does not
/// have the length that this place in this tree demands.
#[must_use]
pub fn root_from_path(leaf: Digest, index: u64, size: u64, path: &[Digest]) -> Option<Digest> {
    let (mut place, mut last) = (index, size.checked_sub(1)?);
    if place > last {
        return None;
    }
    let mut root = leaf;
    for sibling in path {
        if last == 0 {
            return None;
        }
        if place & 1 == 1 || place == last {
            root = node(*sibling, root);
            while place & 1 == 0 && place != 0 {
                (place, last) = (place >> 1, last >> 1);
            }
        } else {
            root = node(root, *sibling);
        }
        (place, last) = (place >> 1, last >> 1);
    }
    (last == 0).then_some(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(n: u8) -> Vec<Digest> {
        (0..n).map(|i| Digest::of(&[i])).collect()
    }

    #[test]
    fn there_is_no_leaf_outside_of_a_tree() {
        assert_eq!((merkle_root(&[]), merkle_path(&[], 0)), (None, None));
        let leaves = leaves(5);
        assert_eq!((merkle_path(&leaves, 5), merkle_path(&leaves[..1], 1)), (None, None));
        let path = merkle_path(&leaves, 4).unwrap();
        for (index, size) in [(0, 0), (5, 5), (u64::MAX, 5), (4, 4)] {
            assert_eq!(root_from_path(leaves[4], index, size, &path), None, "{index} of {size}");
        }
    }

    #[test]
    fn every_leaf_of_every_small_tree_leads_to_the_root() {
        for n in 1..=70 {
            let leaves = leaves(n);
            let root = merkle_root(&leaves);
            for (i, leaf) in leaves.iter().enumerate() {
                let path = merkle_path(&leaves, i).unwrap();
                assert_eq!(
                    root_from_path(*leaf, u64::try_from(i).unwrap(), n.into(), &path),
                    root,
                    "leaf {i} of {n}"
                );
            }
            assert_eq!(merkle_path(&leaves, leaves.len()), None);
        }
        assert_eq!(merkle_root(&[]), None);
        assert_eq!(merkle_path(&[], 0), None);
    }

    #[test]
    fn other_places_sizes_and_paths_lead_elsewhere() {
        let leaves = leaves(7);
        let root = merkle_root(&leaves);
        let path = merkle_path(&leaves, 2).unwrap();
        assert_ne!(root_from_path(leaves[2], 3, 7, &path), root);
        assert_ne!(root_from_path(leaves[3], 2, 7, &path), root);
        assert_eq!(root_from_path(leaves[2], 2, 7, &path[..2]), None);
        assert_eq!(root_from_path(leaves[2], 7, 7, &path), None);
        assert_eq!(root_from_path(leaves[2], 0, 0, &[]), None);
        let mut long = path.clone();
        long.push(leaves[0]);
        assert_eq!(root_from_path(leaves[2], 2, 7, &long), None);
    }
}
