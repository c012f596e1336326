//! What is asked of a machine: files below a root folder, and what a few programs answer. Tests give another root and other answers.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::statvfs::statvfs;

/// What is read of a file: /proc/cpuinfo repeats itself for each processor, and everything else is short.
pub const MAX_FILE_BYTES: u64 = 64 * 1024;
/// What is read of the kernel's log, whose buffer is 1 MiB at most by default, and 8 MiB on large machines.
pub const MAX_LOG_BYTES: usize = 8 * 1024 * 1024;
/// What is read of a program's answer; QEMU's list of objects has 2 KiB.
pub const MAX_ANSWER_BYTES: u64 = 64 * 1024;
/// Entries of a folder that are looked at; /proc of a busy machine has thousands.
pub const MAX_ENTRIES: usize = 65_536;
/// How long a program may take to answer; QEMU takes a tenth of a second.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// One record of the kernel's log; the kernel refuses to read into less than a whole one.
const LOG_RECORD: usize = 8192;

type Answers = dyn Fn(&Path, &[&str]) -> io::Result<String> + Send + Sync;
type Free = dyn Fn(&Path) -> io::Result<u64> + Send + Sync;

/// A machine to look at.
pub struct Machine {
    root: PathBuf,
    answers: Box<Answers>,
    free: Box<Free>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Machine {
    /// The machine that this program runs on.
    #[must_use]
    pub fn this() -> Self {
        Self::new("/".into(), ask, free_bytes)
    }

    /// A machine whose files lie below `root`. `answers` gives what a program with these arguments prints, `free` the bytes that
    /// are free where a file lies.
    pub fn new(
        root: PathBuf,
        answers: impl Fn(&Path, &[&str]) -> io::Result<String> + Send + Sync + 'static,
        free: impl Fn(&Path) -> io::Result<u64> + Send + Sync + 'static,
    ) -> Self {
        Self { root, answers: Box::new(answers), free: Box::new(free) }
    }

    /// The first [`MAX_FILE_BYTES`] of a text file.
    pub(super) fn read(&self, path: &str) -> io::Result<String> {
        let mut bytes = Vec::new();
        File::open(self.at(path.as_ref()))?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A text file of one value; `None` when it cannot be read.
    pub(super) fn value(&self, path: &str) -> Option<String> {
        self.read(path).ok().map(|text| text.trim().to_owned())
    }

    /// 16 bytes at a place of a device.
    pub(super) fn registers(&self, path: &str, offset: u64) -> io::Result<[u8; 16]> {
        let mut bytes = [0; 16];
        File::open(self.at(path.as_ref()))?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.at(path.as_ref()).exists()
    }

    /// Names in a folder, sorted; none when there is no such folder.
    pub(super) fn entries(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.at(path.as_ref())).into_iter().flatten().take(MAX_ENTRIES);
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The last part of where a link leads.
    pub(super) fn link(&self, path: &str) -> Option<String> {
        let target = std::fs::read_link(self.at(path.as_ref())).ok()?;
        target.file_name()?.to_str().map(str::to_owned)
    }

    /// Whether this user may use a device.
    pub(super) fn open_device(&self, path: &str) -> io::Result<()> {
        OpenOptions::new().read(true).write(true).open(self.at(path.as_ref())).map(|_device| ())
    }

    /// Bytes of a file that can be read.
    pub(super) fn size(&self, path: &Path) -> io::Result<u64> {
        let mut file = File::open(self.at(path))?;
        // A block device has no length in its metadata.
        io::Seek::seek(&mut file, io::SeekFrom::End(0))
    }

    /// The newest [`MAX_LOG_BYTES`] or less of the kernel's log.
    pub(super) fn kernel_log(&self) -> io::Result<String> {
        let options = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).to_owned();
        let mut log = options.open(self.at("/dev/kmsg".as_ref()))?;
        let (mut text, mut record) = (Vec::new(), vec![0; LOG_RECORD]);
        while text.len() < MAX_LOG_BYTES {
            match log.read(&mut record) {
                Ok(0) => break,
                Ok(length) => text.extend_from_slice(record.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The record was overwritten meanwhile; the next read gives the oldest that is left.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(error) => return Err(error),
            }
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// What a program prints.
    pub(super) fn ask(&self, program: &Path, arguments: &[&str]) -> io::Result<String> {
        (self.answers)(program, arguments)
    }

    /// Bytes that are free in the file system of a file.
    pub(super) fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        (self.free)(&self.at(path))
    }

    fn at(&self, path: &Path) -> PathBuf {
        // A path that an operator gave relative to the working directory stays so.
        path.strip_prefix("/").map_or_else(|_relative| path.to_owned(), |below| self.root.join(below))
    }
}

fn free_bytes(path: &Path) -> io::Result<u64> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let volume = statvfs(folder)?;
    Ok(volume.blocks_available().saturating_mul(volume.fragment_size()))
}

/// Runs a program that answers and ends.
fn ask(program: &Path, arguments: &[&str]) -> io::Result<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let (sender, answer) = mpsc::channel();
    let stdout = child.stdout.take();
    // Reading has no time limit of its own; the thread ends with the pipe.
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.map(|pipe| pipe.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes));
        let _gone = sender.send(read.transpose().map(|_length| bytes));
    });
    let answer = answer.recv_timeout(ANSWER_WITHIN);
    // It has closed its output, said too much, or is too late.
    let _ended = child.kill();
    let _status = child.wait();
    let bytes = answer.map_err(|_late| io::Error::new(io::ErrorKind::TimedOut, "it did not answer"))??;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_asked_within_limits() {
        let shell = |script: &str| ask("/bin/sh".as_ref(), &["-c", script]);
        assert_eq!(shell("echo here; echo hidden >&2").unwrap(), "here\n");
        let endless = shell("yes").unwrap();
        assert_eq!(u64::try_from(endless.len()).unwrap(), MAX_ANSWER_BYTES);
        assert!(ask("/nonexistent/qemu".as_ref(), &[]).is_err());
    }

    #[test]
    fn files_are_read_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::new(folder.path().into(), |_, _| Ok(String::new()), |_| Ok(0));
        let length = usize::try_from(MAX_FILE_BYTES).unwrap();
        for (size, read) in [(length - 1, length - 1), (length, length), (length + 1, length)] {
            std::fs::write(folder.path().join("file"), vec![b'x'; size]).unwrap();
            assert_eq!(machine.read("/file").unwrap().len(), read);
        }
        std::fs::create_dir(folder.path().join("dev")).unwrap();
        std::fs::write(folder.path().join("dev/kmsg"), vec![b'x'; MAX_LOG_BYTES + 2 * LOG_RECORD]).unwrap();
        assert_eq!(machine.kernel_log().unwrap().len(), MAX_LOG_BYTES);
        assert!(machine.read("/missing").is_err());
        assert!(machine.entries("/missing").is_empty());
    }

    #[test]
    fn this_machine_has_free_space_somewhere() {
        assert!(free_bytes("/proc/../tmp/file".as_ref()).unwrap() > 0);
        assert!(free_bytes("file".as_ref()).is_ok());
    }
}
