//! Addresses as people write them: `HOST:PORT` and `vsock:CID:PORT`.

use std::{fmt, net::SocketAddr, str::FromStr};

/// A vsock context id that means "any" and so cannot be connected to (`VMADDR_CID_ANY`); as a port, `VMADDR_PORT_ANY`.
const VSOCK_ANY: u32 = u32::MAX;

/// Where an enclave listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP address.
    Tcp(HostPort),
    /// A port of a virtual machine on this host.
    Vsock {
        /// The context id of the machine.
        cid: u32,
        /// Its port.
        port: u32,
    },
}

/// A host name or IP address, and a TCP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The port; 0 lets the system choose when listening.
    pub port: u16,
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Not `HOST:PORT`, or a host or port that cannot be.
    #[error("expected HOST:PORT, such as 127.0.0.1:8443 or [::1]:8443")]
    HostPort,
    /// Starts with `vsock:` and is not `vsock:CID:PORT`.
    #[error("expected vsock:CID:PORT with two numbers below 4294967295, such as vsock:3:8443")]
    Vsock,
    /// An upstream of port 0.
    #[error("port 0 cannot be connected to")]
    PortZero,
    /// Metrics on an address that others can reach.
    #[error("metrics are served on a loopback address only, such as 127.0.0.1:9464")]
    NotLoopback,
}

impl FromStr for HostPort {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::HostPort)?;
        let port = decimal(port).and_then(|n| u16::try_from(n).ok()).ok_or(AddressError::HostPort)?;
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let valid = match bracketed {
            Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
            // The alphabet also keeps an address safe to print and to use as a metric label.
            None => {
                !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
            }
        };
        if !valid {
            return Err(AddressError::HostPort);
        }
        Ok(Self { host: bracketed.unwrap_or(host).to_owned(), port })
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(rest) = text.strip_prefix("vsock:") {
            let (cid, port) = rest.split_once(':').ok_or(AddressError::Vsock)?;
            let number = |text| decimal(text).filter(|n| *n != VSOCK_ANY).ok_or(AddressError::Vsock);
            return Ok(Self::Vsock { cid: number(cid)?, port: number(port)? });
        }
        let address: HostPort = text.parse()?;
        if address.port == 0 {
            return Err(AddressError::PortZero);
        }
        Ok(Self::Tcp(address))
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address.into())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
        }
    }
}

/// A socket address that only this machine can reach: an IP address of the loopback range, or `localhost`.
///
/// # Errors
///
/// When the text is no address, or one that others can reach.
pub fn loopback(text: &str) -> Result<SocketAddr, AddressError> {
    let HostPort { host, port } = text.parse()?;
    let host = if host == "localhost" { "127.0.0.1" } else { &host };
    let ip: std::net::IpAddr = host.parse().map_err(|_not_an_ip| AddressError::NotLoopback)?;
    if !ip.to_canonical().is_loopback() {
        return Err(AddressError::NotLoopback);
    }
    Ok(SocketAddr::new(ip, port))
}

/// A number of digits only: `str::parse` would take a leading `+` too.
fn decimal(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_as_they_were_read() {
        for text in [
            "127.0.0.1:8443",
            "[::1]:1",
            "gpu-7.example:65535",
            "vsock:3:5000",
            "vsock:4294967294:4294967294",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("0.0.0.0:0".parse::<HostPort>().unwrap().to_string(), "0.0.0.0:0");
    }

    #[test]
    fn an_ipv6_host_loses_its_brackets() {
        assert_eq!(
            "[::1]:80".parse(),
            Ok(Address::Tcp(HostPort { host: "::1".into(), port: 80 })),
            "the resolver wants the bare address"
        );
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["", ":", "host", "host:", ":80", "host:65536", "host:+1", "::1:80", "[::1:80", "[name]:80"]
        {
            assert_eq!(text.parse::<Address>(), Err(AddressError::HostPort), "{text:?}");
        }
        for text in ["a b:1", "a\"b:1", "a\nb:1", "a\\b:1", "http://a:1"] {
            assert_eq!(text.parse::<Address>(), Err(AddressError::HostPort), "{text:?} would break a label");
        }
        assert_eq!("host:0".parse::<Address>(), Err(AddressError::PortZero));
        for text in ["vsock:", "vsock:3", "vsock:3:", "vsock::1", "vsock:4294967295:1", "vsock:3:4294967295"]
        {
            assert_eq!(text.parse::<Address>(), Err(AddressError::Vsock), "{text:?}");
        }
    }

    #[test]
    fn metrics_stay_on_the_machine() {
        for text in ["127.0.0.1:0", "127.8.9.1:1", "[::1]:9464", "localhost:9464", "[::ffff:127.0.0.1]:1"] {
            assert!(loopback(text).is_ok(), "{text}");
        }
        for text in ["0.0.0.0:1", "[::]:1", "192.168.0.1:1", "example.org:1", "127.0.0.1.example:1"] {
            assert_eq!(loopback(text), Err(AddressError::NotLoopback), "{text}");
        }
    }
}
