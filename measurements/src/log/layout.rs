//! Which file is where (C2SP tlog-tiles), and how files are written.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::LogError;

/// Hashes in a full tile, and entries in a full bundle.
pub const WIDTH: u64 = 256;

/// The signed state of the log.
pub const CHECKPOINT: &str = "checkpoint";

/// Held by whoever writes. Web servers need not serve it.
pub const LOCK: &str = ".lock";

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Hashes of this level.
    Hashes(u32),
    /// The entries themselves.
    Entries,
}

/// A file of a log: the one at `index`, with `width` of 256 places filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// What it holds.
    pub level: Level,
    /// Its number within the level.
    pub index: u64,
    /// 1 to 256.
    pub width: u64,
}

impl Tile {
    /// Below the log's folder: `tile/<L>/<N>` or `tile/<L>/<N>.p/<W>`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let level = match self.level {
            Level::Hashes(level) => level.to_string(),
            Level::Entries => "entries".to_owned(),
        };
        let full = format!("tile/{level}/{}", number(self.index));
        if self.width == WIDTH { full.into() } else { format!("{full}.p/{}", self.width).into() }
    }
}

/// The tiles of `level` that hold `size` places, from the one that holds place `from` on.
pub fn tiles(level: Level, from: u64, size: u64) -> impl Iterator<Item = Tile> {
    let first = from / WIDTH;
    (first..size.div_ceil(WIDTH)).map(move |index| Tile {
        level,
        index,
        width: WIDTH.min(size - index * WIDTH),
    })
}

/// In groups of three digits, all but the last with an `x` before it: 1234067 is `x001/x234/067`.
fn number(index: u64) -> String {
    let mut out = format!("{:03}", index % 1000);
    let mut rest = index / 1000;
    while rest > 0 {
        out = format!("x{:03}/{out}", rest % 1000);
        rest /= 1000;
    }
    out
}

/// Reads a file of at most `max` bytes.
pub(crate) fn read(path: &Path, max: u64) -> Result<Vec<u8>, LogError> {
    let mut bytes = Vec::new();
    let file = File::open(path).and_then(|file| file.take(max + 1).read_to_end(&mut bytes));
    file.map_err(|error| LogError::io("read", path, error))?;
    if bytes.len() as u64 > max {
        return Err(LogError::wrong(path, format!("more than {max} bytes")));
    }
    Ok(bytes)
}

/// Writes a file whole or not at all: after a crash it is the old one or the new one.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), LogError> {
    write_whole(path, bytes).map_err(|source| LogError::io("write", path, source))
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let new = folder.join(name);
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // The rename itself.
    File::open(folder)?.sync_all()
}

/// Takes the lock of the log in `dir` until the file is dropped; the system lets go of it when the process ends.
pub(super) fn lock(dir: &Path) -> Result<File, LogError> {
    let path = dir.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|source| LogError::io("write", &path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(LogError::Busy { path }),
        Err(fs::TryLockError::Error(source)) => Err(LogError::io("lock", &path, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let path = |level, index, width| Tile { level, index, width }.path().display().to_string();
        assert_eq!(path(Level::Hashes(0), 1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(path(Level::Hashes(63), 0, 1), "tile/63/000.p/1");
        assert_eq!(path(Level::Entries, 999, 255), "tile/entries/999.p/255");
        assert_eq!(path(Level::Entries, 1000, 256), "tile/entries/x001/000");
        // C2SP tlog-tiles, "Partial Tiles": a tree of 70,000 entries.
        let widths = |size| tiles(Level::Hashes(0), 0, size).map(|tile| tile.width).collect::<Vec<_>>();
        assert_eq!((widths(70_000).len(), widths(70_000)[273]), (274, 112));
        assert_eq!((widths(273).len(), widths(273)[1]), (2, 17));
        assert_eq!((widths(256), widths(0)), (vec![256], vec![]));
        assert_eq!(tiles(Level::Entries, 256, 300).map(|tile| tile.index).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn one_process_writes() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        assert!(matches!(lock(dir.path()), Err(LogError::Busy { .. })));
        drop(held);
        lock(dir.path()).unwrap();
        assert!(matches!(lock(Path::new("/nowhere")), Err(LogError::Io { .. })));
    }

    #[test]
    fn files_are_replaced_whole_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c");
        write(&path, b"1").unwrap();
        write(&path, b"22").unwrap();
        assert_eq!(read(&path, 2).unwrap(), b"22");
        assert!(read(&path, 1).unwrap_err().to_string().contains("more than 1 bytes"));
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1);
    }
}
