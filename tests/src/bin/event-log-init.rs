//! `/init` of a VM for a test: prints what the firmware noted of the boot and what the TPM has of it, and switches the VM off.
//!
//! Lines `pcr N HEX` and `log HEX`, or `failed WHY`. Sources: Linux, `Documentation/security/tpm/tpm_event_log.rst` and
//! `Documentation/ABI/stable/sysfs-class-tpm`.

use std::fs::{create_dir_all, read, read_to_string};
use std::io::{Error, Write};

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

const LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";
const BANK: &str = "/sys/class/tpm/tpm0/pcr-sha384";
/// Those that firmware and kernel extend before user space; a static root of trust has no more.
const PCRS: std::ops::Range<u8> = 0..16;

fn main() {
    if std::process::id() != 1 {
        eprintln!(
            "event-log-init: this switches the machine off; it is the first program of a VM for a test"
        );
        std::process::exit(2);
    }
    // On a line of its own, wherever the firmware left the cursor.
    let text = show().unwrap_or_else(|error| format!("failed {error}\n"));
    let mut out = std::io::stdout().lock();
    let written = out.write_all(format!("\n{text}").as_bytes()).and_then(|()| out.flush());
    // The end of the first program is a panic of the kernel, which ends the VM too.
    let _refused = written.map(|()| reboot(RebootMode::RB_POWER_OFF));
}

fn show() -> Result<String, Error> {
    create_dir_all("/sys")?;
    for (kind, place) in [("sysfs", "/sys"), ("securityfs", "/sys/kernel/security")] {
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)?;
    }
    let mut text = String::new();
    for pcr in PCRS {
        text += &format!("pcr {pcr} {}\n", read_to_string(format!("{BANK}/{pcr}"))?.trim());
    }
    Ok(text + &format!("log {}\n", hex::encode(read(LOG)?)))
}
