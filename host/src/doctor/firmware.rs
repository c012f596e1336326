//! The firmware that makes a TEE of a processor: AMD's secure processor, Intel's TDX module and what signs its quotes.

use super::check::{Check, Rule, number, version};
use super::kernel::refused;
use super::{Subject, Target};

/// SEV-SNP firmware ABI of the reports that clients know (AMD 56860, ATTESTATION_REPORT).
const SNP_FLOOR: (u32, u32) = (1, 55);
/// The first TDX module that Linux hosts.
const TDX_FLOOR: (u32, u32) = (1, 5);

const SEV: Rule = Rule {
    name: "snp.device",
    want: "/dev/sev, for this user",
    fix: "load the kernel module ccp; if the device does not appear, switch on SMEE and SEV-SNP support in the BIOS",
};
const SNP_FIRMWARE: Rule = Rule {
    name: "snp.firmware",
    want: "SEV-SNP firmware 1.55 or newer",
    fix: "update the BIOS, or put a newer amd_sev_*.sbin from AMD into /lib/firmware/amd and load ccp again",
};
const SNP_UNKNOWN: &str = "as root, `dmesg | grep SEV-SNP` or `snphost show version` tells";
const TDX_VERSION: Rule = Rule {
    name: "tdx.module",
    want: "TDX module 1.5 or newer",
    fix: "update the BIOS, or put a newer TDX module into the EFI partition as Intel says",
};
const TDX_UNKNOWN: &str = "as root, `dmesg | grep -i 'tdx module'` tells";
const SGX: Rule = Rule {
    name: "tdx.sgx",
    want: "/dev/sgx_enclave and /dev/sgx_provision",
    fix: "switch on SGX in the BIOS: the enclave that signs TDX quotes needs it",
};
const QUOTES: Rule = Rule {
    name: "tdx.quote_service",
    want: "a quote generation service (qgs) at vsock port 4050",
    fix: "install Intel's tdx-qgs, set `port = 4050` in /etc/qgs.conf, load vsock_loopback, and start qgsd; without it the enclave has no evidence",
};

/// Processes of /proc that are looked at for the service.
const MAX_PROCESSES: usize = 65_536;

pub(super) fn checks(subject: &Subject<'_>) -> Vec<Check> {
    match subject.target {
        Target::Snp => vec![device(subject), snp_version(subject)],
        Target::Tdx => vec![tdx_version(subject), sgx(subject), quote_service(subject)],
        Target::Sim | Target::None => Vec::new(),
    }
}

fn device(subject: &Subject<'_>) -> Check {
    match subject.machine.open_device("/dev/sev") {
        Ok(()) => SEV.pass("/dev/sev opens"),
        Err(error) => refused(&SEV, "/dev/sev", &error, "kvm"),
    }
}

/// From the kernel's log (drivers/crypto/ccp/sev-dev.c): asking /dev/sev itself takes an ioctl.
fn snp_version(subject: &Subject<'_>) -> Check {
    let log = match subject.machine.kernel_log() {
        Ok(log) => log,
        Err(error) => return SNP_FIRMWARE.warn(format!("the kernel's log: {error}")).fix(SNP_UNKNOWN),
    };
    let Some(found) = last_after(&log, "SEV-SNP API:") else {
        return SNP_FIRMWARE.warn("not in the kernel's log").fix(SNP_UNKNOWN);
    };
    SNP_FIRMWARE.must(version(found).is_some_and(|version| version >= SNP_FLOOR), found)
}

fn tdx_version(subject: &Subject<'_>) -> Check {
    let judge =
        |found: &str, version: Option<_>| TDX_VERSION.must(version.is_some_and(|v| v >= TDX_FLOOR), found);
    // Of kernels newer than 7.0.
    if let Some(found) = subject.machine.value("/sys/devices/faux/tdx_host/version") {
        return judge(&found, version(&found));
    }
    let log = match subject.machine.kernel_log() {
        Ok(log) => log,
        Err(error) => return TDX_VERSION.warn(format!("the kernel's log: {error}")).fix(TDX_UNKNOWN),
    };
    if let Some(found) = last_after(&log, "TDX module version: ") {
        return judge(found, version(found));
    }
    // Of distributors' kernels: `TDX module: attributes 0x0, .., major_version 1, minor_version 5, ..`.
    let field = |name: &str| number(last_after(&log, name)?).map(|(value, _)| value);
    match (field("major_version "), field("minor_version ")) {
        (Some(major), Some(minor)) => judge(&format!("{major}.{minor}"), Some((major, minor))),
        _ => TDX_VERSION.warn("not in the kernel's log").fix(TDX_UNKNOWN),
    }
}

/// What follows the last `mark` in the log, to the end of its line.
fn last_after<'a>(log: &'a str, mark: &str) -> Option<&'a str> {
    log.rsplit_once(mark)?.1.lines().next()
}

fn sgx(subject: &Subject<'_>) -> Check {
    let devices = ["/dev/sgx_enclave", "/dev/sgx_provision"];
    let lack: Vec<&str> = devices.into_iter().filter(|path| !subject.machine.exists(path)).collect();
    let found = if lack.is_empty() { "both".to_owned() } else { format!("no {}", lack.join(", ")) };
    SGX.should(lack.is_empty(), found)
}

/// No file names who listens on vsock: the service's process is looked for.
fn quote_service(subject: &Subject<'_>) -> Check {
    let processes = subject.machine.entries("/proc");
    let ids = processes.iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit())).take(MAX_PROCESSES);
    let runs = ids
        .filter_map(|id| subject.machine.value(&format!("/proc/{id}/comm")))
        .any(|name| name == "qgs" || name == "qgsd");
    QUOTES.should(runs, if runs { "qgs runs" } else { "no process named qgs" })
}
