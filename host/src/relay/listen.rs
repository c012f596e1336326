//! Where clients connect.

use std::{io, net::SocketAddr};

use tokio::net::{TcpListener, TcpSocket, lookup_host};

use crate::{Error, address::HostPort};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 1024;

/// An address that is ours, and that refuses connections until [`Reservation::listen`].
#[derive(Debug)]
pub struct Reservation {
    socket: TcpSocket,
    local: SocketAddr,
    asked: HostPort,
}

impl Reservation {
    /// Takes the address, and with port 0 any free port of the host.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`].
    pub async fn new(asked: &HostPort) -> Result<Self, Error> {
        let failed = |source| listen_error(asked, source);
        let candidates = lookup_host((asked.host.as_str(), asked.port)).await.map_err(failed)?;
        let mut why = io::ErrorKind::AddrNotAvailable.into();
        for candidate in candidates {
            match take(candidate) {
                Ok((socket, local)) => return Ok(Self { socket, local, asked: asked.clone() }),
                Err(error) => why = error,
            }
        }
        Err(failed(why))
    }

    /// The address that it got.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.local
    }

    /// Lets clients connect.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`].
    pub fn listen(self) -> Result<TcpListener, Error> {
        self.socket.listen(BACKLOG).map_err(|source| listen_error(&self.asked, source))
    }
}

fn take(address: SocketAddr) -> io::Result<(TcpSocket, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of an earlier run that the kernel still winds up must not keep the address.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let local = socket.local_addr()?;
    Ok((socket, local))
}

fn listen_error(asked: &HostPort, source: io::Error) -> Error {
    Error::Listen { address: asked.clone(), option: "--listen", source }
}
