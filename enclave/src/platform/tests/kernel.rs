//! A kernel with configfs-tsm and RTMRs, on plain files.
//!
//! Every operation is first done for real, by the code of production; then this does what a kernel does beside it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::platform::files::{Files, Kernel};
use crate::platform::rtmr::RTMR3;
use crate::platform::tsm::{REPORT_DIR, Tsm};

/// What the kernel answers, and what goes wrong.
#[derive(Clone)]
pub(super) struct Behaviour {
    /// Content of `provider`.
    pub(super) provider: String,
    /// Whether there is `privlevel`.
    pub(super) privlevel: bool,
    pub(super) outblob: Vec<u8>,
    pub(super) auxblob: Option<Vec<u8>>,
    /// Somebody else writes into so many of our requests.
    pub(super) intruders: u32,
    /// Somebody else writes between `outblob` and the end.
    pub(super) late_intruders: u32,
    /// So many reads of `outblob` fail with this number of the system.
    pub(super) failures: (u32, i32),
    /// What mkdir fails with.
    pub(super) mkdir: Option<i32>,
    /// What writing fails with, by the end of the path.
    pub(super) write: Option<(&'static str, i32)>,
    /// Content of `generation` after a write, if it is not the number.
    pub(super) generation: Option<String>,
    /// Registers take what is written and do something else with it.
    pub(super) wrong_registers: bool,
}

pub(super) struct FakeKernel {
    root: TempDir,
    behaviour: Mutex<Behaviour>,
    /// Name and content of what was written.
    written: Mutex<Vec<(String, Vec<u8>)>>,
}

impl FakeKernel {
    /// `provider` of `sev_guest` or another, and what it signs.
    pub(super) fn new(provider: &str, outblob: &[u8], auxblob: Option<&[u8]>) -> Arc<Self> {
        let kernel = Self::bare();
        std::fs::create_dir_all(kernel.root().join(REPORT_DIR)).unwrap();
        kernel.change(|b| {
            b.provider = format!("{provider}\n");
            b.privlevel = provider == "sev_guest";
            b.outblob = outblob.to_vec();
            b.auxblob = auxblob.map(<[u8]>::to_vec);
        });
        kernel
    }

    /// One without configfs-tsm.
    pub(super) fn bare() -> Arc<Self> {
        let behaviour = Behaviour {
            provider: String::new(),
            privlevel: false,
            outblob: Vec::new(),
            auxblob: None,
            intruders: 0,
            late_intruders: 0,
            failures: (0, 0),
            mkdir: None,
            write: None,
            generation: None,
            wrong_registers: false,
        };
        let root = tempfile::tempdir().unwrap();
        Arc::new(Self { root, behaviour: Mutex::new(behaviour), written: Mutex::default() })
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().unwrap());
    }

    pub(super) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(super) fn files(self: &Arc<Self>) -> Arc<dyn Files> {
        Arc::new(Arc::clone(self))
    }

    pub(super) fn tsm(self: &Arc<Self>) -> Tsm {
        Tsm::new(self.files(), self.root())
    }

    /// What was written so far.
    pub(super) fn written(&self) -> Vec<(String, Vec<u8>)> {
        self.written.lock().unwrap().clone()
    }

    /// Requests that were not removed.
    pub(super) fn left_behind(&self) -> usize {
        std::fs::read_dir(self.root().join(REPORT_DIR)).unwrap().count()
    }

    /// Gives the machine an RTMR3 that says `value`.
    pub(super) fn set_rtmr3(&self, value: &[u8]) {
        let path = self.root().join(RTMR3);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, value).unwrap();
    }

    pub(super) fn rtmr3(&self) -> Vec<u8> {
        std::fs::read(self.root().join(RTMR3)).unwrap()
    }

    fn advance(&self, entry: &Path, by: u64) {
        let path = entry.join("generation");
        let now: u64 = std::fs::read_to_string(&path).unwrap().trim().parse().unwrap_or(0);
        let text = self.behaviour.lock().unwrap().generation.clone();
        std::fs::write(path, text.unwrap_or_else(|| format!("{}\n", now + by))).unwrap();
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn entry(path: &Path) -> PathBuf {
    path.parent().unwrap().to_owned()
}

impl Files for Arc<FakeKernel> {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let behaviour = self.behaviour.lock().unwrap().clone();
        if let Some(errno) = behaviour.mkdir {
            return Err(io::Error::from_raw_os_error(errno));
        }
        Kernel.create_dir(path)?;
        let mut attributes =
            vec![("provider", behaviour.provider.as_str()), ("generation", "0\n"), ("inblob", "")];
        attributes.extend(behaviour.privlevel.then_some(("privlevel", "")));
        for (name, content) in attributes {
            std::fs::write(path.join(name), content).unwrap();
        }
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        // Only configfs removes folders with attributes in them.
        std::fs::remove_dir_all(path)
    }

    fn read(&self, path: &Path, max: usize) -> io::Result<Vec<u8>> {
        if name(path) == "outblob" {
            let mut behaviour = self.behaviour.lock().unwrap();
            if behaviour.failures.0 > 0 {
                behaviour.failures.0 -= 1;
                return Err(io::Error::from_raw_os_error(behaviour.failures.1));
            }
        }
        let read = Kernel.read(path, max);
        if name(path) == "outblob" && std::mem::take(&mut self.behaviour.lock().unwrap().late_intruders) > 0 {
            self.advance(&entry(path), 1);
        }
        read
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let behaviour = self.behaviour.lock().unwrap().clone();
        if let Some((_, errno)) = behaviour.write.filter(|(end, _)| name(path) == *end) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let before = std::fs::read(path).unwrap_or_default();
        Kernel.write(path, bytes)?;
        self.written.lock().unwrap().push((name(path), bytes.to_vec()));
        match name(path).as_str() {
            "inblob" => {
                std::fs::write(entry(path).join("outblob"), &behaviour.outblob).unwrap();
                if let Some(aux) = &behaviour.auxblob {
                    std::fs::write(entry(path).join("auxblob"), aux).unwrap();
                }
                let intruder = u64::from(behaviour.intruders > 0);
                self.behaviour.lock().unwrap().intruders = behaviour.intruders.saturating_sub(1);
                self.advance(&entry(path), 1 + intruder);
            }
            "privlevel" => self.advance(&entry(path), 1),
            "rtmr3:sha384" => {
                let next = if behaviour.wrong_registers { vec![7; 48] } else { extend(&before, bytes) };
                std::fs::write(path, next).unwrap();
            }
            _ => {}
        }
        Ok(())
    }
}

/// What the TDX module does: `SHA-384(register || data)`.
fn extend(register: &[u8], data: &[u8]) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA384, &[register, data].concat()).as_ref().to_vec()
}
