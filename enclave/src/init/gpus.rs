//! Device files of NVIDIA's driver: it leaves making them to a program of its own, which the image does not have.
//!
//! Sources: proc_devices(5); NVIDIA's open kernel modules, nv-frontend and nvidia-uvm: number 255 is the driver itself, 0 and 1 of
//! nvidia-uvm are its memory manager and that one's tools.

use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

/// GPUs that a machine has at most; more files than GPUs do no harm.
const MAX_GPUS: u64 = 16;
/// Number of `/dev/nvidiactl`.
const CONTROL: u64 = 255;

/// Makes a file for each device of a driver that is loaded.
pub(super) fn make_device_files(root: &Path) -> nix::Result<()> {
    let devices = std::fs::read_to_string(root.join("proc/devices")).unwrap_or_default();
    for (name, major, minor) in files(&devices) {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        mknod(&root.join("dev").join(name), SFlag::S_IFCHR, mode, makedev(major, minor))?;
    }
    Ok(())
}

/// Name, major and minor number of each file, from the text of `/proc/devices`.
fn files(devices: &str) -> Vec<(String, u64, u64)> {
    let major = |names: &[&str]| {
        devices.lines().find_map(|line| {
            let (number, name) = line.trim().split_once(' ')?;
            names.contains(&name.trim()).then(|| number.parse().ok()).flatten()
        })
    };
    let mut out = Vec::new();
    if let Some(gpu) = major(&["nvidia", "nvidia-frontend"]) {
        out.push(("nvidiactl".to_owned(), gpu, CONTROL));
        out.extend((0..MAX_GPUS).map(|index| (format!("nvidia{index}"), gpu, index)));
    }
    if let Some(memory) = major(&["nvidia-uvm"]) {
        out.push(("nvidia-uvm".to_owned(), memory, 0));
        out.push(("nvidia-uvm-tools".to_owned(), memory, 1));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_those_of_loaded_drivers() {
        let devices = "Character devices:\n  1 mem\n195 nvidia-frontend\n237 nvidia-uvm\n\nBlock devices:\n259 blkext\n";
        let files = files(devices);
        assert_eq!(files.len(), 1 + 16 + 2);
        assert!(files.contains(&("nvidiactl".to_owned(), 195, 255)));
        assert!(files.contains(&("nvidia15".to_owned(), 195, 15)));
        assert!(files.contains(&("nvidia-uvm-tools".to_owned(), 237, 1)));
        assert_eq!(super::files("Character devices:\n  1 mem\nx nvidia\n"), []);
    }

    #[test]
    fn without_the_driver_nothing_is_made() {
        let root = tempfile::tempdir().unwrap();
        make_device_files(root.path()).unwrap();
        assert!(!root.path().join("dev").exists());
    }
}
