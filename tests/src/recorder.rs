//! A relay that keeps every byte: what a curious host sees.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Everything that passed, both ways.
pub struct Recorder {
    /// Where it listens.
    pub address: SocketAddr,
    bytes: Arc<Mutex<Vec<u8>>>,
    sent: Arc<AtomicUsize>,
    stalled: Arc<AtomicBool>,
}

impl Recorder {
    /// Starts one in front of `upstream`.
    pub async fn start(upstream: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bytes: Arc<Mutex<Vec<u8>>> = Arc::default();
        let stalled: Arc<AtomicBool> = Arc::default();
        let sent: Arc<AtomicUsize> = Arc::default();
        let (kept, stop, counted) = (Arc::clone(&bytes), Arc::clone(&stalled), Arc::clone(&sent));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let enclave = TcpStream::connect(&upstream).await.unwrap();
                let ((client_read, client_write), (enclave_read, enclave_write)) =
                    (client.into_split(), enclave.into_split());
                let (kept, stop, sent) = (Arc::clone(&kept), Arc::clone(&stop), Arc::clone(&counted));
                tokio::spawn(copy(
                    client_read,
                    enclave_write,
                    Arc::clone(&kept),
                    Arc::clone(&stop),
                    Some(sent),
                ));
                tokio::spawn(copy(enclave_read, client_write, kept, stop, None));
            }
        });
        Self { address, bytes, sent, stalled }
    }

    /// From now on nothing passes, and no connection is closed either.
    pub fn stall(&self) {
        self.stalled.store(true, Ordering::Relaxed);
    }

    /// How many bytes the client sent so far.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// What passed so far.
    pub fn recorded(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    kept: Arc<Mutex<Vec<u8>>>,
    stalled: Arc<AtomicBool>,
    sent: Option<Arc<AtomicUsize>>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        kept.lock().unwrap().extend_from_slice(&buffer[..n]);
        if let Some(sent) = &sent {
            sent.fetch_add(n, Ordering::Relaxed);
        }
        if stalled.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}
