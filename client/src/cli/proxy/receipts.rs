//! Receipts that the proxy keeps.

use std::path::PathBuf;

use cocoon_client::ReceiptBundle;
use http::StatusCode;

use super::errors::Problem;

/// Where the receipt of one answer goes.
#[derive(Clone, Debug)]
pub(super) struct Place {
    dir: PathBuf,
    id: String,
}

impl Place {
    /// In a folder, under a name of its own.
    pub(super) fn new(dir: PathBuf) -> Self {
        let mut id = [0; 16];
        // Without randomness there would be no session.
        let _always = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut id);
        Self { dir, id: hex::encode(id) }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Writes it; a file that is there is whole.
    pub(super) async fn keep(&self, bundle: &ReceiptBundle) -> Result<(), Problem> {
        let (path, bytes) = (self.dir.join(format!("{}.receipt", self.id)), bundle.encode());
        let write = move || {
            let unfinished = path.with_extension("unfinished");
            std::fs::write(&unfinished, bytes)?;
            std::fs::rename(&unfinished, &path)
        };
        let written = tokio::task::spawn_blocking(write)
            .await
            .map_err(|_panicked| std::io::Error::other("it broke off"));
        written.and_then(|written| written).map_err(|error| {
            let message = format!("the receipt cannot be kept: {error}; look at the folder of --receipts");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "receipt_not_kept", message)
        })
    }
}
