//! The two ioctls that make reports, for kernels without configfs-tsm.
//!
//! The only calls of the enclave into the kernel that Rust cannot check. What comes back are bytes in arrays of fixed length.
//!
//! Sources: Linux, include/uapi/linux/sev-guest.h and include/uapi/linux/tdx-guest.h.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// TDREPORT_STRUCT, what the TDX module gives to its own machine (Intel TDX Module ABI).
pub(super) const TD_REPORT_LEN: usize = 1024;

/// `struct snp_report_resp`: AMD's MSG_REPORT_RSP with room behind it.
const SNP_RESPONSE_LEN: usize = 4000;

/// What the kernel takes for certificates at most, and a whole number of pages, as it demands.
const SNP_CERTIFICATES_LEN: u32 = 16 * 1024;

/// Version of the messages to AMD's firmware.
const SNP_MESSAGE_VERSION: u8 = 1;

/// The host's complaint in the upper half of `exitinfo2`: it has more certificates than fit (AMD GHCB, "SNP Guest Request").
const SNP_HOST_INVALID_LEN: u64 = 1 << 32;

#[repr(C)]
struct TdxReportRequest {
    report_data: [u8; 64],
    td_report: [u8; TD_REPORT_LEN],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct SnpReportRequest {
    user_data: [u8; 64],
    vmpl: u32,
    reserved: [u8; 28],
}

#[repr(C)]
struct SnpExtReportRequest {
    data: SnpReportRequest,
    certs_address: u64,
    certs_len: u32,
}

#[repr(C)]
struct SnpGuestRequest {
    msg_version: u8,
    req_data: u64,
    resp_data: u64,
    exitinfo2: u64,
}

const TDX_CMD_GET_REPORT0: libc::Ioctl = libc::_IOWR::<TdxReportRequest>(b'T' as u32, 1);
const SNP_GET_REPORT: libc::Ioctl = libc::_IOWR::<SnpGuestRequest>(b'S' as u32, 0);
const SNP_GET_EXT_REPORT: libc::Ioctl = libc::_IOWR::<SnpGuestRequest>(b'S' as u32, 2);

/// The TDREPORT over `data` from `/dev/tdx_guest`.
pub(super) fn td_report(device: &File, data: &[u8; 64]) -> io::Result<Box<[u8; TD_REPORT_LEN]>> {
    let mut request = TdxReportRequest { report_data: *data, td_report: [0; TD_REPORT_LEN] };
    call(device, TDX_CMD_GET_REPORT0, &mut request)?;
    Ok(Box::new(request.td_report))
}

/// What `/dev/sev-guest` answers: MSG_REPORT_RSP, and the host's certificate table, zero if it gave none.
pub(super) struct SnpResponse {
    pub(super) response: Vec<u8>,
    pub(super) certificates: Vec<u8>,
}

/// The report over `data` at privilege level 0 from `/dev/sev-guest`, with the host's certificates if they fit.
pub(super) fn snp_report(device: &File, data: &[u8; 64]) -> io::Result<SnpResponse> {
    let request = SnpReportRequest { user_data: *data, vmpl: 0, reserved: [0; 28] };
    let mut response = vec![0_u8; SNP_RESPONSE_LEN];
    let mut certificates = vec![0_u8; SNP_CERTIFICATES_LEN as usize];
    let mut extended = SnpExtReportRequest {
        data: request,
        certs_address: certificates.as_mut_ptr().expose_provenance() as u64,
        certs_len: SNP_CERTIFICATES_LEN,
    };
    let mut guest = SnpGuestRequest {
        msg_version: SNP_MESSAGE_VERSION,
        req_data: (&raw mut extended).expose_provenance() as u64,
        resp_data: response.as_mut_ptr().expose_provenance() as u64,
        exitinfo2: 0,
    };
    let called = call(device, SNP_GET_EXT_REPORT, &mut guest);
    // Depending on the kernel's version, too many certificates are an error or only noted.
    if guest.exitinfo2 == SNP_HOST_INVALID_LEN {
        certificates.fill(0);
        let mut plain = request;
        guest =
            SnpGuestRequest { req_data: (&raw mut plain).expose_provenance() as u64, exitinfo2: 0, ..guest };
        call(device, SNP_GET_REPORT, &mut guest)?;
    } else {
        called?;
    }
    if guest.exitinfo2 != 0 {
        return Err(io::Error::other("the firmware or the host refused"));
    }
    Ok(SnpResponse { response, certificates })
}

#[expect(unsafe_code, reason = "an ioctl is a call into the kernel with a pointer")]
fn call<T>(device: &File, request: libc::Ioctl, argument: &mut T) -> io::Result<()> {
    // SAFETY: `request` was made by `_IOWR::<T>` for the type of `argument` (there are three calls, all in this file), so the
    // kernel reads and writes that many bytes of it. The addresses in a `SnpGuestRequest` are those of buffers that live in the
    // caller's frame and are as long as the kernel's header says: `snp_report_resp` or a request struct, and `certs_len` bytes of
    // certificates. `device` is open for as long as the borrow.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), request, std::ptr::from_mut(argument)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_and_sizes_are_those_of_the_kernel() {
        assert_eq!(TDX_CMD_GET_REPORT0, 0xc440_5401);
        assert_eq!(SNP_GET_REPORT, 0xc020_5300);
        assert_eq!(SNP_GET_EXT_REPORT, 0xc020_5302);
        assert_eq!(size_of::<SnpReportRequest>(), 96);
        assert_eq!(size_of::<SnpExtReportRequest>(), 112);
        assert_eq!(std::mem::offset_of!(SnpExtReportRequest, certs_len), 104);
        assert_eq!(std::mem::offset_of!(SnpGuestRequest, exitinfo2), 24);
    }

    #[test]
    fn another_file_than_the_device_is_an_error() {
        let file = File::open("/dev/null").unwrap();
        assert!(td_report(&file, &[0; 64]).is_err());
        assert!(snp_report(&file, &[0; 64]).is_err());
    }
}
