//! A log of releases, read by the crates `tlog_tiles` and `signed_note`.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use signed_note::{Note, StandardVerifier, VerifierList};
use tlog_tiles::{
    Checkpoint, Error, Tile, TileHashReader, TileReader, check_record, check_tree, prove_record, prove_tree,
    record_hash, tlog::TreeProof,
};

/// The height of tiles in C2SP tlog-tiles.
const HEIGHT: u8 = 8;

struct Files<'a>(&'a Path);

impl Files<'_> {
    /// The crate writes paths with the height, and another word for entries.
    fn read(&self, tile: &Tile) -> Result<Vec<u8>, Error> {
        let path = tile.path().replace("tile/8/data/", "tile/entries/").replace("tile/8/", "tile/");
        std::fs::read(self.0.join(&path)).map_err(|error| Error::InvalidInput(format!("{path}: {error}")))
    }
}

impl TileReader for Files<'_> {
    fn height(&self) -> u8 {
        HEIGHT
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, Error> {
        tiles.iter().map(|tile| self.read(tile)).collect()
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

/// The checkpoint in a file, signed by `key`.
fn checkpoint(path: &Path, key: &str) -> anyhow::Result<Checkpoint> {
    let note = Note::from_bytes(&std::fs::read(path)?).context("no note")?;
    let verifier = StandardVerifier::new(key).context("no verifier key")?;
    note.verify(&VerifierList::new(vec![Box::new(verifier)])).context("not signed by the log")?;
    let checkpoint = Checkpoint::from_bytes(note.text());
    checkpoint.map_err(|_malformed| anyhow::anyhow!("{}: no checkpoint", path.display()))
}

fn entries(files: &Files<'_>, size: u64) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut out = Vec::new();
    for index in 0..size.div_ceil(256) {
        let width = u32::try_from((size - 256 * index).min(256))?;
        let bytes = files.read(&Tile::new(HEIGHT, 0, index, width, true))?;
        let mut rest = bytes.as_slice();
        while let Some((len, after)) = rest.split_first_chunk() {
            let (entry, after) = after.split_at_checked(u16::from_be_bytes(*len).into()).context("cut")?;
            out.push(entry.to_vec());
            rest = after;
        }
    }
    Ok(out)
}

/// Proves and checks every entry of the log in `dir`, and that it continues the older checkpoints. `key` is a verifier key.
pub(crate) fn check(dir: &Path, key: &str, older: &[PathBuf]) -> anyhow::Result<String> {
    let now = checkpoint(&dir.join("checkpoint"), key)?;
    let (size, root, files) = (now.size(), *now.hash(), Files(dir));
    let reader = TileHashReader::new(size, root, &files);
    let entries = entries(&files, size)?;
    ensure!(entries.len() as u64 == size, "{} entries, expected {size}", entries.len());
    for (index, entry) in (0..).zip(&entries) {
        let proof = prove_record(size, index, &reader)?;
        check_record(&proof, size, root, index, record_hash(entry))?;
    }
    for path in older {
        let before = checkpoint(path, key)?;
        ensure!(before.origin() == now.origin(), "{}: of another log", path.display());
        let proof: TreeProof = prove_tree(size, before.size(), &reader)?;
        check_tree(&proof, size, root, before.size(), *before.hash())?;
    }
    Ok(format!("{}: {size} entries proved, {} older checkpoints continued", now.origin(), older.len()))
}
