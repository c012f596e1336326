//! The end of the machine.

use nix::sys::reboot::{RebootMode, reboot};

/// Switches the machine off. There is nothing to write back: nothing was ever written. Returns only if the kernel refuses, and then
/// the end of this process has the kernel restart the machine (`panic=-1`).
pub fn off() {
    let _refused = reboot(RebootMode::RB_POWER_OFF);
}
