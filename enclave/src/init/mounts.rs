//! The kernel's trees, and a root that nobody can write.

use std::path::Path;

use nix::mount::{MsFlags, mount};

/// Room for endorsements and a release; nothing else is ever written.
const RUN_OPTIONS: &str = "mode=0700,size=4m,nr_inodes=64";

/// What everything else needs.
pub(super) fn early() -> nix::Result<()> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    kernel_tree("proc", "/proc", plain | MsFlags::MS_NODEV, "hidepid=invisible")?;
    kernel_tree("sysfs", "/sys", plain | MsFlags::MS_NODEV, "")?;
    kernel_tree("devtmpfs", "/dev", plain, "mode=0755")?;
    kernel_tree("tmpfs", "/run", plain | MsFlags::MS_NODEV, RUN_OPTIONS)
}

/// What modules bring, and the end of writing to the root. The content of the root is the measured initramfs.
pub(super) fn late() -> nix::Result<()> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    if Path::new("/sys/kernel/config").exists() {
        kernel_tree("configfs", "/sys/kernel/config", plain, "")?;
    }
    kernel_tree("securityfs", "/sys/kernel/security", plain, "")?;
    // Only this way to them: the kernel adds devices all the same, and devices can be written through.
    let devices = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    let devices = devices | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(None::<&str>, "/dev", None::<&str>, devices, None::<&str>)?;
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(None::<&str>, "/", None::<&str>, read_only, None::<&str>)
}

fn kernel_tree(kind: &str, at: &str, flags: MsFlags, options: &str) -> nix::Result<()> {
    mount(Some(kind), at, Some(kind), flags, Some(options))
}
