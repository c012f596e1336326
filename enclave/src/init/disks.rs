//! The disks with the models: virtio disks whose serial number is `model-BYTES`, in the order of their names.
//!
//! A disk ends at a whole sector and a file need not, so the host says how long the file is. A wrong length gives another digest.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::events::BootStep;

/// What the serial number of the disk begins with. virtio has room for 20 bytes.
const MODEL: &str = "model-";
const MAX_SERIAL: u64 = 64;

/// Disks are there when their driver is; this is for machines that are very busy.
const DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(100);

/// A disk with a file on it, from its first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) path: PathBuf,
    /// Bytes of the file.
    pub(super) size: u64,
}

/// The disks with models; waits for so many.
pub(super) fn models(root: &Path, at_least: usize) -> Result<Vec<Disk>, BootStep> {
    let start = Instant::now();
    loop {
        let disks = find(root, MODEL);
        if disks.len() >= at_least {
            return Ok(disks);
        }
        if start.elapsed() > DEADLINE {
            return Err(BootStep::ModelDisk);
        }
        std::thread::sleep(RETRY);
    }
}

fn find(root: &Path, role: &str) -> Vec<Disk> {
    let entries = std::fs::read_dir(root.join("sys/block")).into_iter().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    names.sort();
    let disk = |name: std::ffi::OsString| {
        let serial = read(&root.join("sys/block").join(&name).join("serial"), MAX_SERIAL)?;
        let size = serial.trim().strip_prefix(role)?.parse().ok()?;
        Some(Disk { path: root.join("dev").join(name), size })
    };
    names.into_iter().filter_map(disk).collect()
}

/// Bytes that can be had without ending anything (proc_meminfo(5), MemAvailable).
pub(super) fn available_memory(root: &Path) -> Option<u64> {
    let text = read(&root.join("proc/meminfo"), 16 * 1024)?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

fn read(path: &Path, max: u64) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(max).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(root: &Path, name: &str, serial: Option<&str>) {
        let folder = root.join("sys/block").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        if let Some(serial) = serial {
            std::fs::write(folder.join("serial"), serial).unwrap();
        }
    }

    #[test]
    fn models_are_on_the_disks_that_say_so() {
        let root = tempfile::tempdir().unwrap();
        disk(root.path(), "loop0", None);
        disk(root.path(), "vda", Some("model-x"));
        disk(root.path(), "vdb", Some("endless"));
        assert_eq!(find(root.path(), MODEL), []);
        disk(root.path(), "vdd", Some("model-7"));
        disk(root.path(), "vdc", Some("model-98765432101234"));
        let at = |name: &str, size| Disk { path: root.path().join("dev").join(name), size };
        assert_eq!(models(root.path(), 2), Ok(vec![at("vdc", 98_765_432_101_234), at("vdd", 7)]));
    }

    #[test]
    fn memory_is_what_the_kernel_says() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(available_memory(root.path()), None);
        std::fs::create_dir(root.path().join("proc")).unwrap();
        let write = |text: &str| std::fs::write(root.path().join("proc/meminfo"), text).unwrap();
        write("MemTotal:  500 kB\nMemAvailable:     300 kB\n");
        assert_eq!(available_memory(root.path()), Some(300 * 1024));
        for odd in
            ["MemAvailable: x kB\n", "MemAvailable: 3\n", "MemAvailable: 18446744073709551615 kB\n", ""]
        {
            write(odd);
            assert_eq!(available_memory(root.path()), None, "{odd}");
        }
    }
}
