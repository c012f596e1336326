//! What this machine gives up before it reads a byte from outside.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use seccompiler::{SeccompAction, SeccompFilter, TargetArch};

/// Settings of the kernel; each file is there in the image's kernel, or the boot fails.
const SYSCTLS: [(&str, &str); 12] = [
    // Keys on the serial console: the host holds its other end.
    ("kernel/sysrq", "0"),
    ("kernel/kptr_restrict", "2"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/perf_event_paranoid", "3"),
    ("kernel/yama/ptrace_scope", "3"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/kexec_load_disabled", "1"),
    ("user/max_user_namespaces", "0"),
    ("fs/suid_dumpable", "0"),
    // A core would be a copy of prompts and keys.
    ("kernel/core_pattern", ""),
    ("net/ipv4/ip_forward", "0"),
    // The last one: no module can be loaded after this, until the next boot.
    ("kernel/modules_disabled", "1"),
];

/// Sets them.
pub(super) fn sysctls(root: &Path) -> io::Result<()> {
    for (name, value) in SYSCTLS {
        std::fs::write(root.join("proc/sys").join(name), format!("{value}\n"))?;
    }
    Ok(())
}

/// System calls that no part of the enclave needs once it runs. Most of them start, change or inspect other programs, of which there
/// are none.
const GIVEN_UP: [i64; 36] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_swapon,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_personality,
    libc::SYS_open_by_handle_at,
];

/// The kernel is not locked down, or system calls cannot be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotHardened;

/// Gives system calls up, for all threads, and sees that the kernel is locked down as the command line says.
pub(super) fn give_up(root: &Path) -> Result<(), NotHardened> {
    let lockdown = std::fs::read_to_string(root.join("sys/kernel/security/lockdown"));
    if !lockdown.is_ok_and(|text| text.contains("[confidentiality]")) {
        return Err(NotHardened);
    }
    let rules: BTreeMap<i64, Vec<_>> = GIVEN_UP.iter().map(|call| (*call, Vec::new())).collect();
    let not_permitted = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, not_permitted, TargetArch::x86_64)
        .and_then(seccompiler::BpfProgram::try_from)
        .map_err(|_build| NotHardened)
        .and_then(|filter| seccompiler::apply_filter_all_threads(&filter).map_err(|_kernel| NotHardened))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_written_or_the_boot_fails() {
        let root = tempfile::tempdir().unwrap();
        assert!(sysctls(root.path()).is_err());
        for (name, _) in SYSCTLS {
            let path = root.path().join("proc/sys").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        sysctls(root.path()).unwrap();
        let read = |name| std::fs::read_to_string(root.path().join("proc/sys").join(name)).unwrap();
        assert_eq!(read("kernel/sysrq"), "0\n");
        assert_eq!(read("kernel/modules_disabled"), "1\n");
        assert_eq!(SYSCTLS.last().unwrap().0, "kernel/modules_disabled");
    }

    #[test]
    fn a_kernel_that_is_not_locked_down_is_refused() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(give_up(root.path()), Err(NotHardened));
        std::fs::create_dir_all(root.path().join("sys/kernel/security")).unwrap();
        let file = root.path().join("sys/kernel/security/lockdown");
        for state in ["[none] integrity confidentiality\n", "none [integrity] confidentiality\n"] {
            std::fs::write(&file, state).unwrap();
            assert_eq!(give_up(root.path()), Err(NotHardened), "{state}");
        }
    }

    /// In a process of its own: it could not go back.
    #[test]
    fn programs_cannot_be_started_afterwards() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("sys/kernel/security")).unwrap();
        let file = root.path().join("sys/kernel/security/lockdown");
        std::fs::write(file, "none integrity [confidentiality]\n").unwrap();
        assert!(std::process::Command::new("true").status().is_ok());
        give_up(root.path()).unwrap();
        let refused = std::process::Command::new("true").status().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        let other_thread = std::thread::spawn(|| std::process::Command::new("true").status().is_err());
        assert!(other_thread.join().unwrap());
    }
}
