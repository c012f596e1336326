//! What a VM needs of any machine: memory, files, disk, clock, ports.

use std::net::TcpListener;
use std::path::Path;

use super::check::{Check, Rule};
use super::{Status, Subject, Target};

const MIB: u64 = 1024 * 1024;
/// What QEMU takes beside the memory of the VM, MiB.
const OVERHEAD: u64 = 512;

const MEMORY: Rule = Rule {
    name: "memory.available",
    want: "the memory of the VM, and 512 MiB for QEMU",
    fix: "end other programs, give back reserved huge pages, or give the VM less with --memory",
};
const HUGE_PAGES: Rule = Rule {
    name: "memory.huge_pages",
    want: "none reserved, and shared memory in huge pages on demand",
    fix: "`echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled`: the memory that the VM shares with devices is faster then",
};
const LOCK: Rule = Rule {
    name: "memory.lock",
    want: "unlimited",
    fix: "`ulimit -l unlimited`, or LimitMEMLOCK=infinity in the systemd unit: VFIO locks all memory of the VM, which only root may without",
};
const IMAGE: Rule = Rule {
    name: "image.files",
    want: "vmlinuz, initrd, cmdline and the firmware of the platform",
    fix: "give the directory that `cocoon-measure image build` made",
};
const MODEL: Rule = Rule {
    name: "model.file",
    want: "a file that this user can read",
    fix: "give an existing file with --model, and let this user read it",
};
const DISK: Rule = Rule {
    name: "disk.free",
    want: "room for one more model of this size beside it",
    fix: "free space there, or the next model will not fit beside this one",
};
const CLOCK: Rule = Rule {
    name: "clock.synchronized",
    want: "synchronized",
    fix: "start systemd-timesyncd or chronyd; `timedatectl` tells. Endorsements have an end, and the host fetches new ones in time by its clock",
};
const PORT: Rule = Rule {
    name: "listen.port",
    want: "free",
    fix: "end the program that has it, or choose another with --listen",
};
const VSOCK: Rule = Rule {
    name: "vsock.device",
    want: "/dev/vhost-vsock",
    fix: "load the kernel module vhost_vsock; without it the VM is reached over TCP",
};

pub(super) fn checks(subject: &Subject<'_>) -> Vec<Check> {
    let options = subject.options;
    let mut out = vec![memory(subject), huge_pages(subject)];
    if !options.gpus.is_empty() {
        out.push(lock(subject));
    }
    out.push(VSOCK.should(
        subject.machine.exists("/dev/vhost-vsock"),
        if subject.machine.exists("/dev/vhost-vsock") { "there" } else { "missing" },
    ));
    out.push(clock(subject));
    out.extend(options.image.as_deref().map(|folder| image(subject, folder)));
    if let Some(path) = &options.model {
        out.extend(model(subject, path));
    }
    out.extend(options.listen.as_ref().map(|address| {
        let taken = TcpListener::bind((address.host.as_str(), address.port)).err();
        let found = taken.as_ref().map_or_else(|| "free".to_owned(), ToString::to_string);
        PORT.must(taken.is_none(), format!("{address}: {found}"))
    }));
    out
}

/// A line of /proc/meminfo: kB, or a count.
fn meminfo(text: &str, key: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let value = lines.find(|(name, _)| *name == key).map_or("", |(_, value)| value);
    value.split_ascii_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn memory(subject: &Subject<'_>) -> Check {
    let text = subject.machine.read("/proc/meminfo").unwrap_or_default();
    let (total, available) = (meminfo(&text, "MemTotal") / 1024, meminfo(&text, "MemAvailable") / 1024);
    let need = subject.options.memory.saturating_add(OVERHEAD);
    let found = format!("{available} MiB of {total} MiB, for a VM of {} MiB", subject.options.memory);
    // The kernel may still find memory that it does not call available, but none beyond the total. A simulated VM may be swapped.
    if total < need && subject.target != Target::Sim {
        return MEMORY.fail(found);
    }
    MEMORY.should(available >= need, found)
}

fn huge_pages(subject: &Subject<'_>) -> Check {
    let text = subject.machine.read("/proc/meminfo").unwrap_or_default();
    let reserved = meminfo(&text, "HugePages_Total").saturating_mul(meminfo(&text, "Hugepagesize")) / 1024;
    if reserved > 0 {
        let fix = "`sysctl vm.nr_hugepages=0`: the VM cannot use reserved pages";
        return HUGE_PAGES.warn(format!("{reserved} MiB reserved")).fix(fix);
    }
    let mode = subject.machine.value("/sys/kernel/mm/transparent_hugepage/shmem_enabled").unwrap_or_default();
    let chosen =
        mode.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("unknown", |(m, _)| m);
    HUGE_PAGES.should(!matches!(chosen, "never" | "deny" | "unknown"), chosen)
}

fn lock(subject: &Subject<'_>) -> Check {
    let limits = subject.machine.read("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"));
    let found = line.and_then(|line| line.split_ascii_whitespace().next()).unwrap_or("unknown");
    LOCK.should(found == LOCK.want, found)
}

fn clock(subject: &Subject<'_>) -> Check {
    if subject.machine.exists("/run/systemd/timesync/synchronized") {
        return CLOCK.pass("by systemd-timesyncd");
    }
    // One line of values; the last is the leap status.
    let chrony = subject.machine.ask("chronyc".as_ref(), &["-c", "tracking"]).unwrap_or_default();
    let by_chrony = chrony.trim().ends_with(",Normal");
    CLOCK.should(by_chrony, if by_chrony { "by chronyd" } else { "cannot be told" })
}

fn image(subject: &Subject<'_>, folder: &Path) -> Check {
    let firmware = subject.target.firmware();
    let unreadable = ["vmlinuz", "initrd", "cmdline", firmware]
        .into_iter()
        .find_map(|name| subject.machine.size(&folder.join(name)).err().map(|error| (name, error)));
    match unreadable {
        None => IMAGE.pass(format!("all in {}", folder.display())),
        Some((name, error)) => IMAGE.fail(format!("{}: {error}", folder.join(name).display())),
    }
}

fn model(subject: &Subject<'_>, path: &Path) -> Vec<Check> {
    let size = match subject.machine.size(path) {
        Ok(size) => size,
        Err(error) => return vec![MODEL.fail(format!("{}: {error}", path.display()))],
    };
    let disk = match subject.machine.free_bytes(path) {
        Ok(free) => DISK.should(free >= size, format!("{} MiB free, model {} MiB", free / MIB, size / MIB)),
        Err(error) => Check { status: Status::Warn, ..DISK.fail(error.to_string()) },
    };
    vec![MODEL.pass(format!("{} MiB", size / MIB)), disk]
}
