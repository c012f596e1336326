//! What is in this machine, told by itself: for the test that says so. Only with the cargo feature `sim`: a released enclave does not
//! describe itself to its host.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Kernel trees: not files that somebody put there.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];

/// A look around, before the first client.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Inside {
    /// Command names of processes that are not the kernel's threads.
    processes: Vec<String>,
    /// Sockets that listen: `tcp`, `udp`, `tcp6`, `udp6`, `raw`, `packet` and their lines.
    sockets: Vec<String>,
    /// Files outside the kernel's trees.
    files: Vec<String>,
    /// Of these, with a set-user-id or set-group-id bit.
    setuid: Vec<String>,
    /// Mounted file systems: place, kind, and `ro` or `rw`.
    mounts: Vec<String>,
    /// Folders, kernel's trees aside, in which a file could be made.
    writable: Vec<String>,
    /// Kernel modules.
    modules: Vec<String>,
    /// Whether another program could be started.
    can_exec: bool,
    /// Whether a module could be loaded.
    can_load_modules: bool,
}

/// Looks.
#[must_use]
pub fn look() -> Inside {
    let (mut files, mut folders) = (Vec::new(), vec![PathBuf::from("/")]);
    let mut walk = vec![PathBuf::from("/")];
    while let Some(folder) = walk.pop() {
        for path in entries(&folder) {
            let is_kernel = KERNEL.iter().any(|tree| path == Path::new(tree));
            match path.symlink_metadata() {
                Ok(data) if data.is_dir() && !is_kernel => {
                    folders.push(path.clone());
                    walk.push(path);
                }
                Ok(data) if !data.is_dir() => files.push((path, data.permissions().mode())),
                _ => {}
            }
        }
    }
    folders.push(PathBuf::from("/dev"));
    let name = |path: &Path| path.display().to_string();
    let mut all: Vec<_> = files.iter().map(|(path, _)| name(path)).collect();
    all.sort();
    Inside {
        processes: processes(),
        sockets: sockets(),
        setuid: files.iter().filter(|(_, mode)| mode & 0o6000 != 0).map(|(path, _)| name(path)).collect(),
        files: all,
        mounts: mounts(),
        writable: folders.iter().filter(|folder| is_writable(folder)).map(|folder| name(folder)).collect(),
        modules: first_words("/proc/modules"),
        can_exec: std::process::Command::new("/init").arg("--version").status().is_ok(),
        can_load_modules: std::fs::read_to_string("/proc/sys/kernel/modules_disabled")
            .is_ok_and(|t| t.trim() != "1"),
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// Kernel threads have no executable.
fn processes() -> Vec<String> {
    let is_process = |path: &PathBuf| {
        path.file_name().is_some_and(|n| n.as_encoded_bytes().iter().all(u8::is_ascii_digit))
    };
    let found = entries(Path::new("/proc")).into_iter().filter(is_process);
    let with_program = found.filter(|path| std::fs::read_link(path.join("exe")).is_ok());
    let mut names: Vec<_> = with_program
        .filter_map(|path| Some(std::fs::read_to_string(path.join("comm")).ok()?.trim().to_owned()))
        .collect();
    names.sort();
    names
}

fn sockets() -> Vec<String> {
    let mut out = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet", "unix"] {
        let text = std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        out.extend(text.lines().skip(1).map(|line| format!("{table} {}", line.trim())));
    }
    out
}

fn mounts() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let line = |line: &str| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        Some(format!("{place} {kind} {}", words.next()?.split(',').next()?))
    };
    text.lines().filter_map(line).collect()
}

fn first_words(path: &str) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let words: BTreeSet<_> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    words.into_iter().map(str::to_owned).collect()
}

fn is_writable(folder: &Path) -> bool {
    let probe = folder.join(".probe");
    let made = std::fs::write(&probe, b"x").is_ok();
    if made {
        // It was just made.
        let _gone = std::fs::remove_file(&probe);
    }
    made
}
