//! What is in the files of a log.

use std::path::{Path, PathBuf};

use cocoon_attestation::Digest;
use cocoon_attestation::binding::merkle_root;

use super::LogError;
use super::layout::{self, Level, Tile, WIDTH, tiles};

/// The longest bundle: 256 entries with two bytes of length each.
const MAX_BUNDLE: u64 = WIDTH * (2 + u16::MAX as u64);

/// A file of the log: where it is, and its bytes.
pub(super) type Content = (PathBuf, Vec<u8>);

/// Bytes of a list of entries: each after its length in two bytes, big-endian.
fn bundle(entries: &[Vec<u8>]) -> Result<Vec<u8>, LogError> {
    let mut out = Vec::new();
    for entry in entries {
        let len = u16::try_from(entry.len());
        let len = len.map_err(|_long| LogError::Misuse("an entry of more than 65535 bytes".to_owned()))?;
        out.extend(len.to_be_bytes());
        out.extend_from_slice(entry);
    }
    Ok(out)
}

fn split(path: &Path, mut bytes: &[u8], count: u64) -> Result<Vec<Vec<u8>>, LogError> {
    let mut out = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk() {
        let cut = || LogError::wrong(path, "an entry that is cut");
        let (entry, rest) = rest.split_at_checked(u16::from_be_bytes(*len).into()).ok_or_else(cut)?;
        out.push(entry.to_vec());
        bytes = rest;
    }
    if !bytes.is_empty() || out.len() as u64 != count {
        return Err(LogError::wrong(
            path,
            format!("{} entries, expected {count} and nothing else", out.len()),
        ));
    }
    Ok(out)
}

/// The first `size` entries of the log in `dir`.
pub(super) fn read_entries(dir: &Path, size: u64) -> Result<Vec<Vec<u8>>, LogError> {
    let mut out = Vec::new();
    for tile in tiles(Level::Entries, 0, size) {
        let path = dir.join(tile.path());
        out.extend(split(&path, &layout::read(&path, MAX_BUNDLE)?, tile.width)?);
    }
    Ok(out)
}

/// Every file that a log of `entries` has and one of its first `before` entries has not.
pub(super) fn files(entries: &[Vec<u8>], leaves: &[Digest], before: u64) -> Result<Vec<Content>, LogError> {
    let mut out = Vec::new();
    for tile in tiles(Level::Entries, before, entries.len() as u64) {
        out.push((tile.path(), bundle(part(entries, tile))?));
    }
    let width = usize::try_from(WIDTH).unwrap_or(usize::MAX);
    let (mut level, mut hashes, mut before) = (0, leaves.to_vec(), before);
    while !hashes.is_empty() {
        for tile in tiles(Level::Hashes(level), before, hashes.len() as u64) {
            let bytes = part(&hashes, tile).iter().flat_map(|hash| hash.0).collect();
            out.push((tile.path(), bytes));
        }
        // Only full tiles have a hash in the level above.
        hashes = hashes.chunks_exact(width).filter_map(merkle_root).collect();
        (level, before) = (level + 1, before / WIDTH);
    }
    Ok(out)
}

fn part<T>(all: &[T], tile: Tile) -> &[T] {
    let from = usize::try_from(tile.index * WIDTH).unwrap_or(usize::MAX);
    let len = usize::try_from(tile.width).unwrap_or(usize::MAX);
    all.get(from..).and_then(|rest| rest.get(..len)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_are_read_as_they_are_written() {
        let entries = vec![Vec::new(), vec![1], vec![2; 65_535]];
        let bytes = bundle(&entries).unwrap();
        assert_eq!(split(Path::new("x"), &bytes, 3).unwrap(), entries);
        for (bytes, count) in
            [(&bytes[..], 2), (&bytes[..], 4), (&bytes[..bytes.len() - 1], 3), (&bytes[..1], 0)]
        {
            assert!(split(Path::new("x"), bytes, count).is_err());
        }
        assert!(bundle(&[vec![0; 65_536]]).unwrap_err().to_string().contains("65535"));
    }

    #[test]
    fn only_what_is_new_is_written() {
        let entries: Vec<_> = (0..600_u16).map(|n| n.to_be_bytes().to_vec()).collect();
        let leaves: Vec<_> = entries.iter().map(|entry| Digest::of(entry)).collect();
        let paths = |size: usize, before| {
            let files = files(&entries[..size], &leaves[..size], before).unwrap();
            files.iter().map(|(path, _)| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(paths(1, 0), ["tile/entries/000.p/1", "tile/0/000.p/1"]);
        assert_eq!(paths(256, 255), ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]);
        assert_eq!(paths(257, 256), ["tile/entries/001.p/1", "tile/0/001.p/1", "tile/1/000.p/1"]);
        assert_eq!(paths(600, 0).len(), 7);
        assert!(paths(0, 0).is_empty());
    }
}
