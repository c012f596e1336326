//! Platforms without hardware: the test plays the kernel, the host and the driver. What lies between is the production path.

mod certificates;
mod detect;
mod kernel;
mod node;
mod qgs;
mod rtmr;
mod snp;
mod stapled;
mod tdx;
mod tsm;

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::events::EventLog;

/// A file of the evidence corpus; `None`, and a word about it, without the corpus.
fn corpus(name: &str) -> Option<Vec<u8>> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/evidence")).join(name);
    let bytes = std::fs::read(path).ok();
    if bytes.is_none() {
        skipped();
    }
    bytes
}

#[expect(clippy::disallowed_macros, reason = "a test says that it checks nothing")]
fn skipped() {
    println!("skipped: no evidence corpus");
}

/// An event log that is kept.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A log, and what to call for the lines in it.
fn log() -> (EventLog, impl Fn() -> String) {
    let kept = Kept::default();
    let log = EventLog::new(kept.clone());
    let written = log.clone();
    (log, move || {
        written.flush();
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    })
}
