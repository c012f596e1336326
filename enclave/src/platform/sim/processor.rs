//! The simulated processor of a VM: outside the VM, as a real one is outside the guest's reach.
//!
//! It answers at a Unix socket, to which QEMU connects a port of the guest. A request is REPORT_DATA, 64 bytes; the answer is
//! `length u32, big-endian || report || length u32 || bundle of endorsements`.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixListener;

use cocoon_attestation::EndorsementBundle;

use super::SimAttester;

/// What a guest sends.
pub(super) const REQUEST_LEN: usize = 64;

impl SimAttester {
    /// Answers one guest after the other, for as long as the process lives.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn serve(&self, socket: &UnixListener) -> io::Result<()> {
        loop {
            let (mut guest, _) = socket.accept()?;
            // A guest that ends, even within a request, makes room for the next one.
            while self.answer(&mut guest).is_ok() {}
        }
    }

    fn answer(&self, guest: &mut (impl Read + Write)) -> io::Result<()> {
        let mut report_data = [0; REQUEST_LEN];
        guest.read_exact(&mut report_data)?;
        let report = self.sign(report_data).map_err(io::Error::other)?;
        let bundle = EndorsementBundle(self.endorsements.clone()).encode();
        for part in [report, bundle] {
            let length = u32::try_from(part.len()).map_err(io::Error::other)?;
            guest.write_all(&length.to_be_bytes())?;
            guest.write_all(&part)?;
        }
        guest.flush()
    }
}
