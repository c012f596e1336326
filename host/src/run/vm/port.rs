//! What the host tells a VM that runs: endorsements and its release, when there are new ones, and to let answers end.
//!
//! Frames are `kind u8 || length u32, big-endian || body`: 0 everything of the start is there, 1 endorsements, 2 stop,
//! 3 release.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const BEGIN: u8 = 0;
const ENDORSEMENTS: u8 = 1;
const STOP: u8 = 2;
const RELEASE: u8 = 3;

/// What the enclave takes at most.
const MAX_BODY: u64 = 1024 * 1024;
/// How often to look whether there are new endorsements.
const CHECK: Duration = Duration::from_secs(20);
/// QEMU makes the socket a moment after it starts.
const RETRY: Duration = Duration::from_millis(50);

/// The host's end of the port. Dropping it closes the port.
#[derive(Debug)]
pub(super) struct Port {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Port {
    /// Connects to `socket` as soon as it is there, and sends what is in the files whenever that changes.
    pub(super) fn open(socket: PathBuf, endorsements: Option<PathBuf>, release: Option<PathBuf>) -> Self {
        let (stop, asked) = watch::channel(false);
        // It ends with QEMU: then writing fails, or nobody waits any more.
        let task = tokio::spawn(async move {
            let files = [(ENDORSEMENTS, endorsements), (RELEASE, release)];
            let files =
                files.into_iter().filter_map(|(kind, path)| Some(File { kind, path: path?, sent: None }));
            let _gone = tell(&socket, files.collect(), asked).await;
        });
        Self { stop, task }
    }

    /// Asks the enclave to let answers end and to switch the VM off.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A file that is sent when it is another than the last time.
#[derive(Debug)]
struct File {
    kind: u8,
    path: PathBuf,
    sent: Option<SystemTime>,
}

async fn tell(socket: &Path, mut files: Vec<File>, mut asked: watch::Receiver<bool>) -> std::io::Result<()> {
    let mut stream = loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    };
    send_new(&mut stream, &mut files).await?;
    send(&mut stream, BEGIN, &[]).await?;
    loop {
        tokio::select! {
            () = wanted(&mut asked) => {
                send(&mut stream, STOP, &[]).await?;
                // Held open: QEMU ends, and with it this.
                std::future::pending::<()>().await;
            }
            () = tokio::time::sleep(CHECK) => send_new(&mut stream, &mut files).await?,
        }
    }
}

/// Returns when somebody wants the end.
async fn wanted(asked: &mut watch::Receiver<bool>) {
    let gone = asked.wait_for(|stop| *stop).await.is_err();
    if gone {
        // Nobody is left who could want it.
        std::future::pending::<()>().await;
    }
}

/// A file that is not there, or too long, is not sent: the enclave keeps what it has.
async fn send_new(stream: &mut UnixStream, files: &mut [File]) -> std::io::Result<()> {
    for file in files {
        let Ok(metadata) = std::fs::metadata(&file.path) else { continue };
        let modified = metadata.modified().ok();
        if (modified.is_some() && modified == file.sent) || metadata.len() > MAX_BODY {
            continue;
        }
        let Ok(bytes) = std::fs::read(&file.path) else { continue };
        file.sent = modified;
        send(stream, file.kind, &bytes).await?;
    }
    Ok(())
}

async fn send(stream: &mut UnixStream, kind: u8, body: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(body.len()).map_err(std::io::Error::other)?;
    let mut frame = vec![kind];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(body);
    stream.write_all(&frame).await
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn tells_what_there_is_then_the_stop() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, file) = (folder.path().join("port"), folder.path().join("bundle"));
        std::fs::write(&file, b"bundle").unwrap();
        let port = Port::open(socket.clone(), Some(file), None);
        // The socket comes later than the port.
        tokio::time::sleep(RETRY).await;
        let (mut guest, _) = UnixListener::bind(&socket).unwrap().accept().await.unwrap();
        let mut start = [0; 5 + 6 + 5];
        guest.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"\x01\0\0\0\x06bundle\0\0\0\0\0");
        port.stop();
        let mut stop = [0; 5];
        guest.read_exact(&mut stop).await.unwrap();
        assert_eq!(stop, [STOP, 0, 0, 0, 0]);
        drop(port);
        assert_eq!(guest.read(&mut stop).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn what_is_not_there_or_too_long_is_not_sent() {
        let folder = tempfile::tempdir().unwrap();
        let large = folder.path().join("large");
        std::fs::File::create(&large).unwrap().set_len(MAX_BODY + 1).unwrap();
        for file in [None, Some(folder.path().join("missing")), Some(large)] {
            let socket = folder.path().join("port");
            let listener = UnixListener::bind(&socket).unwrap();
            let _port = Port::open(socket.clone(), None, file);
            let (mut guest, _) = listener.accept().await.unwrap();
            let mut start = [9; 5];
            guest.read_exact(&mut start).await.unwrap();
            assert_eq!(start, [BEGIN, 0, 0, 0, 0]);
            std::fs::remove_file(socket).unwrap();
        }
    }
}
