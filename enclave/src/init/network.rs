//! One address, for the host alone.
//!
//! Clients come through the host's relay: over vsock, or over a network card of QEMU's that only the host is behind. Either way what
//! arrives is ciphertext for the attested channel, and nothing is asked of the network: no DHCP, no DNS, no route.
//!
//! Sources: netdevice(7); QEMU, "Network emulation", user mode: the guest is 10.0.2.15.
#![expect(unsafe_code, reason = "three ioctls that Rust cannot check; all take one structure of fixed size")]

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);

/// Gives the first network card [`ADDRESS`]; `None` if there is no card.
pub(super) fn set_up(root: &Path) -> io::Result<Option<Ipv4Addr>> {
    let Some(card) = first_card(root)? else { return Ok(None) };
    let socket = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?;
    let mut request = Request::of(&card)?;
    request.set_address(ADDRESS);
    request.send(&socket, libc::SIOCSIFADDR)?;
    request.set_address(NETMASK);
    request.send(&socket, libc::SIOCSIFNETMASK)?;
    request.set_up();
    request.send(&socket, libc::SIOCSIFFLAGS)?;
    Ok(Some(ADDRESS))
}

/// Whether the host gave this machine a vsock device.
pub(super) fn has_vsock(root: &Path) -> bool {
    let Ok(devices) = std::fs::read_dir(root.join("sys/bus/virtio/drivers/vmw_vsock_virtio_transport"))
    else {
        return false;
    };
    devices.filter_map(Result::ok).any(|entry| entry.file_name().as_encoded_bytes().starts_with(b"virtio"))
}

/// The name that comes first, loopback aside.
fn first_card(root: &Path) -> io::Result<Option<String>> {
    let mut cards = Vec::new();
    for entry in std::fs::read_dir(root.join("sys/class/net"))? {
        cards.extend(entry?.file_name().into_string().ok().filter(|name| name != "lo"));
    }
    Ok(cards.into_iter().min())
}

/// `struct ifreq` for one card.
struct Request(libc::ifreq);

impl Request {
    fn of(card: &str) -> io::Result<Self> {
        let union = libc::__c_anonymous_ifr_ifru { ifru_flags: 0 };
        let mut request = libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: union };
        if card.len() >= libc::IFNAMSIZ {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
        for (to, from) in request.ifr_name.iter_mut().zip(card.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        Ok(Self(request))
    }

    /// A `sockaddr_in`: two bytes of port before the address.
    fn set_address(&mut self, address: Ipv4Addr) {
        let mut data = [0; 14];
        for (to, from) in data.iter_mut().skip(2).zip(address.octets()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let family = libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default();
        self.0.ifr_ifru.ifru_addr = libc::sockaddr { sa_family: family, sa_data: data };
    }

    fn set_up(&mut self) {
        self.0.ifr_ifru.ifru_flags =
            libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
    }

    fn send(&mut self, socket: &UdpSocket, what: libc::Ioctl) -> io::Result<()> {
        // SAFETY: these three requests read one `struct ifreq` (netdevice(7)), which `self.0` is, of libc's own layout, and every
        // variant of its union is plain old data. The kernel keeps no pointer. The descriptor is open for as long as `socket` is.
        let done = unsafe { libc::ioctl(socket.as_raw_fd(), what, &raw mut self.0) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_card_is_taken_and_loopback_is_none() {
        let root = tempfile::tempdir().unwrap();
        let net = root.path().join("sys/class/net");
        assert!(set_up(root.path()).is_err());
        std::fs::create_dir_all(net.join("lo")).unwrap();
        assert_eq!(set_up(root.path()).unwrap(), None);
        std::fs::create_dir(net.join("eth1")).unwrap();
        std::fs::create_dir(net.join("eth0")).unwrap();
        assert_eq!(first_card(root.path()).unwrap().unwrap(), "eth0");
    }

    #[test]
    fn vsock_needs_a_device_and_not_only_a_driver() {
        let root = tempfile::tempdir().unwrap();
        assert!(!has_vsock(root.path()));
        let driver = root.path().join("sys/bus/virtio/drivers/vmw_vsock_virtio_transport");
        std::fs::create_dir_all(driver.join("module")).unwrap();
        assert!(!has_vsock(root.path()));
        std::fs::create_dir(driver.join("virtio3")).unwrap();
        assert!(has_vsock(root.path()));
    }

    #[test]
    fn requests_are_as_the_kernel_reads_them() {
        let mut request = Request::of("eth0").unwrap();
        request.set_address(ADDRESS);
        assert_eq!(request.0.ifr_name.map(|c| c.to_ne_bytes()[0])[..5], *b"eth0\0");
        // SAFETY: `set_address` wrote this variant.
        let address = unsafe { request.0.ifr_ifru.ifru_addr };
        assert_eq!(address.sa_family, 2);
        assert_eq!(address.sa_data.map(|c| c.to_ne_bytes()[0])[..7], [0, 0, 10, 0, 2, 15, 0]);
        assert!(Request::of("a-name-of-16-bytes").is_err());
    }
}
