//! The few file operations on the kernel's trees (configfs, sysfs), with caps on what is read.
//!
//! A trait, so that a test can play the kernel: it does these very operations on a folder of plain files, and beside them what a
//! kernel does when it is written to.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// How the kernel is talked to.
pub(crate) trait Files: Send + Sync + 'static {
    /// Makes one folder that must not be there yet.
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().create(path)
    }

    /// Removes a folder. Configfs takes its attributes along.
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    /// The whole content of a file, but not more than one byte over `max`: the caller sees that there is too much.
    fn read(&self, path: &Path, max: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // Repeats short and interrupted reads.
        File::open(path)?.take(max as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes `bytes` with a single call, to a file that must be there: attributes take a value only as a whole.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(path)?;
        let written = loop {
            match file.write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => break done?,
            }
        };
        if written == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

/// The kernel itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel;

impl Files for Kernel {}
