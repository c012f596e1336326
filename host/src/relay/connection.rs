//! One connection: find an upstream, then copy.

use std::io;

use nix::errno::Errno;
use tokio::{net::TcpStream, time::timeout};
use tokio_vsock::{VsockAddr, VsockStream};

use super::{Relay, copy::copy_both_ways, upstream::Lease};
use crate::{address::Address, metrics::Failure};

/// A connection to an enclave.
enum Upstream {
    Tcp(TcpStream),
    Vsock(VsockStream),
}

impl Relay {
    /// Relays one client to its end.
    pub(super) async fn connection(&self, mut client: TcpStream) -> Result<(), Failure> {
        let (lease, upstream) = self.connect().await?;
        // Tokens are small writes. A socket that refuses the option is broken, which the copy finds out.
        let _broken = client.set_nodelay(true);
        let client = client.split();
        let (traffic, idle) = (lease.traffic(), self.limits.idle_timeout);
        match upstream {
            Upstream::Tcp(mut stream) => copy_both_ways(client, stream.split(), traffic, idle).await,
            Upstream::Vsock(mut stream) => copy_both_ways(client, stream.split(), traffic, idle).await,
        }
    }

    /// Connects to the best upstream, or the next best if that fails. No byte of the client is read before, so none is lost.
    async fn connect(&self) -> Result<(Lease, Upstream), Failure> {
        let mut tried = Vec::new();
        while let Some(lease) = self.upstreams.choose(&tried) {
            match timeout(self.limits.connect_timeout, connect_to(lease.address())).await {
                Ok(Ok(stream)) => {
                    lease.connected();
                    return Ok((lease, stream));
                }
                Ok(Err(error)) if is_our_shortage(&error) => return Err(Failure::LocalShortage),
                Ok(Err(_)) | Err(_) => lease.failed(),
            }
            tried.push(lease.index());
        }
        Err(Failure::NoUpstream)
    }
}

async fn connect_to(address: &Address) -> io::Result<Upstream> {
    match address {
        Address::Tcp(to) => {
            let stream = TcpStream::connect((to.host.as_str(), to.port)).await?;
            stream.set_nodelay(true)?;
            Ok(Upstream::Tcp(stream))
        }
        Address::Vsock { cid, port } => {
            VsockStream::connect(VsockAddr::new(*cid, *port)).await.map(Upstream::Vsock)
        }
    }
}

/// Whether this machine ran out of something: no reason to think less of the upstream.
fn is_our_shortage(error: &io::Error) -> bool {
    let ours = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS, Errno::EADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| ours.contains(&Errno::from_raw(code)))
}
