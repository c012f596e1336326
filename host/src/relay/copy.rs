//! Copies two byte streams into each other.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep_until},
};

use super::upstream::Traffic;
use crate::metrics::Failure;

/// All that is ever held of one direction: the next read waits until this is written, and so the sender waits for the receiver.
/// Two TLS records, so that a record seldom needs a second pass.
pub(super) const BUFFER_BYTES: usize = 32 * 1024;

/// Copies until both directions have ended. The end of one becomes the end of writing to the other side, while the opposite
/// direction goes on.
///
/// # Errors
///
/// [`Failure::Idle`] when nothing moves for `idle`, [`Failure::Broken`] when either side breaks. In both cases the caller drops both
/// sides. At TCP level a client cannot tell that from an ordinary end, and need not: the channel inside detects truncation.
pub(super) async fn copy_both_ways<CR, CW, UR, UW>(
    client: (CR, CW),
    upstream: (UR, UW),
    traffic: &Traffic,
    idle: Duration,
) -> Result<(), Failure>
where
    CR: AsyncRead + Unpin,
    CW: AsyncWrite + Unpin,
    UR: AsyncRead + Unpin,
    UW: AsyncWrite + Unpin,
{
    let activity = Activity::new();
    let up = copy_one_way(client.0, upstream.1, &activity, &traffic.to_enclave);
    let down = copy_one_way(upstream.0, client.1, &activity, &traffic.from_enclave);
    let both = async {
        match tokio::try_join!(up, down) {
            Ok((End::Finished, End::Finished)) => Ok(()),
            Ok(_) | Err(_) => Err(Failure::Broken),
        }
    };
    tokio::select! {
        ended = both => ended,
        () = activity.ceased_for(idle) => Err(Failure::Idle),
    }
}

/// How one direction ended when its sender did not break.
enum End {
    /// The sender ended, and the receiver knows.
    Finished,
    /// The receiver takes no more. What it sent before may still be on its way, so the opposite direction goes on: it meets the
    /// end of that soon, or the idle timeout.
    ReceiverGone,
}

/// An error is one of reading: the sender broke, and nobody is left to serve.
async fn copy_one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    activity: &Activity,
    count: &AtomicU64,
) -> io::Result<End> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        activity.touch();
        if read == 0 {
            break;
        }
        let mut rest = buffer.get(..read).unwrap_or_default();
        while !rest.is_empty() {
            let Ok(written @ 1..) = to.write(rest).await else { return Ok(End::ReceiverGone) };
            activity.touch();
            count.fetch_add(written as u64, Ordering::Relaxed);
            rest = rest.get(written..).unwrap_or_default();
        }
    }
    match to.shutdown().await {
        Ok(()) => Ok(End::Finished),
        Err(_) => Ok(End::ReceiverGone),
    }
}

/// When a byte last moved, in either direction.
struct Activity {
    start: Instant,
    /// Milliseconds after `start`.
    last: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0) }
    }

    fn touch(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(elapsed, Ordering::Relaxed);
    }

    async fn ceased_for(&self, limit: Duration) {
        loop {
            let deadline = self.start + Duration::from_millis(self.last.load(Ordering::Relaxed)) + limit;
            if Instant::now() >= deadline {
                return;
            }
            sleep_until(deadline).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, sync::Arc};

    use tokio::{
        io::{DuplexStream, duplex, split},
        task::{JoinHandle, yield_now},
        time::timeout,
    };

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    struct Relayed {
        client: DuplexStream,
        enclave: DuplexStream,
        traffic: Arc<Traffic>,
        done: JoinHandle<Result<(), Failure>>,
    }

    fn relayed(pipe: usize) -> Relayed {
        let (client, client_inside) = duplex(pipe);
        let (enclave, enclave_inside) = duplex(pipe);
        let traffic = Arc::new(Traffic::default());
        let counts = Arc::clone(&traffic);
        let done = tokio::spawn(async move {
            copy_both_ways(split(client_inside), split(enclave_inside), &counts, IDLE).await
        });
        Relayed { client, enclave, traffic, done }
    }

    #[tokio::test(start_paused = true)]
    async fn each_half_closes_on_its_own() {
        let mut r = relayed(1024);
        r.client.write_all(b"question").await.unwrap();
        r.client.shutdown().await.unwrap();
        let mut got = Vec::new();
        r.enclave.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"question");

        r.enclave.write_all(b"answer").await.unwrap();
        r.enclave.shutdown().await.unwrap();
        got.clear();
        r.client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"answer");

        assert_eq!(r.done.await.unwrap(), Ok(()));
        assert_eq!(r.traffic.to_enclave.load(Ordering::Relaxed), 8);
        assert_eq!(r.traffic.from_enclave.load(Ordering::Relaxed), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_and_traffic_in_either_direction_keeps_it() {
        let mut r = relayed(1024);
        let mut byte = [0];
        for _ in 0..5 {
            tokio::time::sleep(IDLE * 3 / 4).await;
            r.client.write_all(b"x").await.unwrap();
            r.enclave.read_exact(&mut byte).await.unwrap();
            tokio::time::sleep(IDLE * 3 / 4).await;
            r.enclave.write_all(b"y").await.unwrap();
            r.client.read_exact(&mut byte).await.unwrap();
        }
        let before = Instant::now();
        assert_eq!(r.done.await.unwrap(), Err(Failure::Idle));
        assert!(before.elapsed() >= IDLE && before.elapsed() < IDLE * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_closed_connection_still_times_out() {
        let mut r = relayed(1024);
        r.client.shutdown().await.unwrap();
        assert_eq!(r.enclave.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(r.done.await.unwrap(), Err(Failure::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_blocks_the_writer() {
        const PIPE: usize = BUFFER_BYTES;
        let mut r = relayed(PIPE);
        let mut sent = 0;
        // Until no task can go on; with the clock paused that is exact.
        while let Ok(written) = timeout(IDLE / 2, r.client.write(&[7; 4096])).await {
            sent += written.unwrap();
        }
        assert_eq!(sent, 2 * PIPE + BUFFER_BYTES, "bytes taken from the sender");

        let mut got = vec![0; sent];
        r.enclave.read_exact(&mut got).await.unwrap();
        assert!(got.iter().all(|b| *b == 7));
        r.client.write_all(b"more").await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_sent_before_a_break_still_arrives() {
        let mut r = relayed(1024);
        r.enclave.write_all(b"refused: too long").await.unwrap();
        drop(r.enclave);
        let mut got = Vec::new();
        {
            let mut read = pin!(r.client.read_to_end(&mut got));
            yield_now().await;
            read.as_mut().await.unwrap();
        }
        assert_eq!(got, b"refused: too long");
        r.client.write_all(b"into the void").await.unwrap();
        assert_eq!(r.done.await.unwrap(), Err(Failure::Broken));
    }
}
