//! An endpoint that speaks the channel's server side with a TLS key of its own, and answers attestation as a test tells it to.

use std::sync::Arc;

use cocoon_attestation::wire::FrameKind;
use cocoon_channel::frames::{read_frame, write_frame};
use cocoon_channel::identity::Identity;
use cocoon_channel::session::Session;
use tokio::net::{TcpListener, TcpStream};

/// Listens, and answers each AttestRequest with what `answer` returns for it.
pub async fn start<F, A>(identity: Identity, answer: F) -> String
where
    F: Fn(Vec<u8>) -> A + Send + Sync + 'static,
    A: Future<Output = Vec<u8>> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (identity, answer) = (Arc::new(identity), Arc::new(answer));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (identity, answer) = (Arc::clone(&identity), Arc::clone(&answer));
            tokio::spawn(async move {
                let Ok(session) = Session::accept(tcp, &identity).await else { return };
                let mut stream = session.stream();
                let Ok(request) = read_frame(&mut stream, FrameKind::AttestRequest).await else { return };
                let response = answer(request).await;
                let _gone = write_frame(&mut stream, FrameKind::AttestResponse, &response).await;
                // The client closes.
                let _closed = read_frame(&mut stream, FrameKind::AttestRequest).await;
            });
        }
    });
    address
}

/// Asks the enclave at `address` for evidence, sending `request` as it is: what a man in the middle does.
pub async fn ask(address: &str, request: &[u8]) -> Vec<u8> {
    let session = Session::connect(TcpStream::connect(address).await.unwrap()).await.unwrap();
    let mut stream = session.stream();
    write_frame(&mut stream, FrameKind::AttestRequest, request).await.unwrap();
    read_frame(&mut stream, FrameKind::AttestResponse).await.unwrap()
}
