//! What the host tells a VM that runs: endorsements, when there are new ones, and to let answers end.
//!
//! Frames are `kind u8 || length u32, big-endian || body`: 0 everything of the start is there, 1 endorsements, 2 stop.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const BEGIN: u8 = 0;
const ENDORSEMENTS: u8 = 1;
const STOP: u8 = 2;

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
    /// Connects to `socket` as soon as it is there, and sends what is in `endorsements` whenever that changes.
    pub(super) fn open(socket: PathBuf, endorsements: Option<PathBuf>) -> Self {
        let (stop, asked) = watch::channel(false);
        // It ends with QEMU: then writing fails, or nobody waits any more.
        let task = tokio::spawn(async move {
            let _gone = tell(&socket, endorsements.as_deref(), asked).await;
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

async fn tell(
    socket: &Path,
    endorsements: Option<&Path>,
    mut asked: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut stream = loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    };
    let mut sent = None;
    send_new(&mut stream, endorsements, &mut sent).await?;
    send(&mut stream, BEGIN, &[]).await?;
    loop {
        tokio::select! {
            () = wanted(&mut asked) => {
                send(&mut stream, STOP, &[]).await?;
                // Held open: QEMU ends, and with it this.
                std::future::pending::<()>().await;
            }
            () = tokio::time::sleep(CHECK) => send_new(&mut stream, endorsements, &mut sent).await?,
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
async fn send_new(
    stream: &mut UnixStream,
    path: Option<&Path>,
    sent: &mut Option<SystemTime>,
) -> std::io::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let Ok(metadata) = std::fs::metadata(path) else { return Ok(()) };
    let modified = metadata.modified().ok();
    if (modified.is_some() && modified == *sent) || metadata.len() > MAX_BODY {
        return Ok(());
    }
    let Ok(bytes) = std::fs::read(path) else { return Ok(()) };
    *sent = modified;
    send(stream, ENDORSEMENTS, &bytes).await
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
        let port = Port::open(socket.clone(), Some(file));
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
            let _port = Port::open(socket.clone(), file);
            let (mut guest, _) = listener.accept().await.unwrap();
            let mut start = [9; 5];
            guest.read_exact(&mut start).await.unwrap();
            assert_eq!(start, [BEGIN, 0, 0, 0, 0]);
            std::fs::remove_file(socket).unwrap();
        }
    }
}
