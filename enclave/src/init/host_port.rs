//! What the host sends while the enclave runs, through a virtio serial port: endorsements, a release, the wish to stop.
//!
//! All of it is data that clients verify, or what a host can do anyway. Frames are `kind u8 || length u32, big-endian || body`; what
//! is no frame of a known kind ends the reading, and the enclave goes on with what it has.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use tokio::sync::watch;

use crate::events::{Event, EventLog};

/// Name of the port, `name=` of QEMU's virtserialport.
pub const NAME: &str = "cocoon.host";

/// Where endorsements and the release lie once they came.
pub const ENDORSEMENTS: &str = "/run/endorsements";
/// See [`ENDORSEMENTS`].
pub const RELEASE: &str = "/run/release";

/// What a bundle of endorsements may have, and everything else stays below.
pub const MAX_BODY: u32 = 1024 * 1024;

/// What a release may have, and some.
pub const MAX_RELEASE: u32 = 128 * 1024;

/// How long the boot waits for the host to say that it has sent what it has.
const PATIENCE: Duration = Duration::from_secs(10);
/// A port that the host does not hold open reads as its end.
const RETRY: Duration = Duration::from_millis(200);

/// One thing that the host says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// 0: everything that there is at the start has been sent.
    Begin,
    /// 1: a bundle of endorsements.
    Endorsements(Vec<u8>),
    /// 2: let answers end, and switch off.
    Stop,
    /// 3: the release that this enclave is of.
    Release(Vec<u8>),
}

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The port cannot be read, or ended within a frame.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A kind that does not exist.
    #[error("frame of kind {0}, expected 0 to 3")]
    Kind(u8),
    /// A body that is longer than its kind allows.
    #[error(
        "body of {0} bytes, at most {MAX_BODY} are allowed, {MAX_RELEASE} with kind 3, none with kinds 0 and 2"
    )]
    Length(u32),
}

impl Frame {
    /// Reads the next frame.
    ///
    /// # Errors
    /// When `reader` ends or fails, or what it gives is no frame.
    pub fn read(reader: &mut impl Read) -> Result<Self, FrameError> {
        let mut head = [0; 5];
        reader.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let length = u32::from_be_bytes(length);
        let max = match kind {
            1 => MAX_BODY,
            3 => MAX_RELEASE,
            _ => 0,
        };
        if length > max {
            return Err(FrameError::Length(length));
        }
        let mut body = Vec::new();
        reader.take(length.into()).read_to_end(&mut body)?;
        if body.len() as u64 != u64::from(length) {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match kind {
            0 => Ok(Self::Begin),
            1 => Ok(Self::Endorsements(body)),
            2 => Ok(Self::Stop),
            3 => Ok(Self::Release(body)),
            other => Err(FrameError::Kind(other)),
        }
    }
}

/// What came of listening.
#[derive(Debug)]
pub(super) struct Listening {
    /// Becomes true when the host asks for the end.
    pub(super) asked: watch::Receiver<bool>,
    /// Options for what came at the start.
    pub(super) found: Vec<(&'static str, OsString)>,
}

/// The device of the port with that name.
pub(super) fn find(root: &Path, name: &str) -> Option<PathBuf> {
    let ports = std::fs::read_dir(root.join("sys/class/virtio-ports")).ok()?;
    let mut devices: Vec<_> = ports.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    devices.sort();
    devices.into_iter().find_map(|device| {
        let text =
            std::fs::read_to_string(root.join("sys/class/virtio-ports").join(&device).join("name")).ok()?;
        (text.trim() == name).then(|| root.join("dev").join(device))
    })
}

/// Takes what the host has at the start, and listens on.
pub(super) fn listen(root: &Path, events: &EventLog) -> Listening {
    let (stop, asked) = watch::channel(false);
    let (begun, begins) = channel();
    if let Some(port) = find(root, NAME).and_then(|path| File::open(path).ok()) {
        let (events, log) = (events.clone(), events);
        std::thread::spawn(move || follow(Port(port), Path::new("/run"), &stop, &begun, &events));
        if begins.recv_timeout(PATIENCE).is_err() {
            // What comes now is not used before the next boot.
            log.log(&Event::HostPortLate);
        }
    }
    let files = [("--endorsements", ENDORSEMENTS), ("--release", RELEASE)];
    let came = files.into_iter().filter(|(_, file)| Path::new(file).exists());
    Listening { asked, found: came.map(|(option, file)| (option, file.into())).collect() }
}

/// A port that the host does not hold open gives nothing, and may do so later.
struct Port(File);

impl Read for Port {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer)? {
                0 if !buffer.is_empty() => std::thread::sleep(RETRY),
                n => return Ok(n),
            }
        }
    }
}

fn follow(
    mut port: impl Read,
    folder: &Path,
    stop: &watch::Sender<bool>,
    begun: &Sender<()>,
    events: &EventLog,
) {
    loop {
        match Frame::read(&mut port) {
            // Nobody waits any more if it comes late.
            Ok(Frame::Begin) => drop(begun.send(())),
            Ok(Frame::Stop) => drop(stop.send_replace(true)),
            Ok(Frame::Endorsements(bytes)) => {
                if replace(&folder.join("endorsements"), &bytes).is_err() {
                    events.log(&Event::EndorsementsUnusable);
                }
            }
            Ok(Frame::Release(bytes)) => {
                if replace(&folder.join("release"), &bytes).is_err() {
                    events.log(&Event::ReleaseUnusable);
                }
            }
            Err(_) => return events.log(&Event::HostPortClosed),
        }
    }
}

/// Whoever reads sees all of it, old or new.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, bytes)?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![kind];
        out.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    fn read(bytes: &[u8]) -> Result<Frame, FrameError> {
        Frame::read(&mut &*bytes)
    }

    #[test]
    fn frames_of_each_kind() {
        assert_eq!(read(&frame(0, b"")).unwrap(), Frame::Begin);
        assert_eq!(read(&frame(1, b"abc")).unwrap(), Frame::Endorsements(b"abc".to_vec()));
        assert_eq!(read(&frame(2, b"")).unwrap(), Frame::Stop);
        assert_eq!(read(&frame(3, b"abc")).unwrap(), Frame::Release(b"abc".to_vec()));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let refused = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert!(refused(&frame(4, b"")).contains("kind 4"));
        assert!(refused(&frame(0, b"x")).contains("body of 1 bytes"));
        assert!(refused(&frame(2, b"x")).contains("body of 1 bytes"));
        let largest = vec![7; MAX_BODY as usize];
        assert!(read(&frame(1, &largest)).is_ok());
        assert!(refused(&frame(1, &[&largest[..], &[7]].concat())).contains("at most 1048576"));
        let largest = vec![7; MAX_RELEASE as usize];
        assert!(read(&frame(3, &largest)).is_ok());
        assert!(refused(&frame(3, &[&largest[..], &[7]].concat())).contains("131072 with kind 3"));
        let whole = frame(1, b"abc");
        for len in 0..whole.len() {
            assert!(matches!(read(&whole[..len]), Err(FrameError::Io(_))), "{len}");
        }
    }

    #[test]
    fn follows_the_host_until_it_makes_no_sense() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("endorsements");
        let bytes = [
            frame(1, b"one"),
            frame(0, b""),
            frame(1, b"two"),
            frame(3, b"release"),
            frame(2, b""),
            frame(9, b""),
            frame(1, b"no"),
        ];
        let (stop, asked) = watch::channel(false);
        let (begun, begins) = channel();
        let written = tempfile::NamedTempFile::new().unwrap();
        let events = EventLog::new(written.reopen().unwrap());
        follow(&mut &*bytes.concat(), folder.path(), &stop, &begun, &events);
        events.flush();
        assert_eq!(std::fs::read(&file).unwrap(), b"two");
        assert_eq!(std::fs::read(folder.path().join("release")).unwrap(), b"release");
        assert!(*asked.borrow() && begins.try_recv().is_ok());
        assert!(std::fs::read_to_string(written.path()).unwrap().contains("host_port_closed"));
    }

    #[test]
    fn a_port_is_found_by_its_name() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(find(root.path(), NAME), None);
        for (device, name) in [("vport0p1", "other\n"), ("vport0p2", "cocoon.host\n")] {
            let folder = root.path().join("sys/class/virtio-ports").join(device);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("name"), name).unwrap();
        }
        assert_eq!(find(root.path(), NAME), Some(root.path().join("dev/vport0p2")));
        assert_eq!(find(root.path(), "third"), None);
    }
}
