//! The host's kernel and its KVM.

use std::io;

use super::check::{Check, Rule, version};
use super::{Subject, Target};

const SNP_KERNEL: Rule = Rule {
    name: "kernel.version",
    want: "6.11 or newer",
    fix: "install a kernel of at least this version: older ones cannot host SEV-SNP without patches",
};
const TDX_KERNEL: Rule = Rule {
    name: "kernel.version",
    want: "6.16 or newer",
    fix: "install a kernel of at least this version: older ones cannot host TDX without patches",
};
const DEVICE: Rule = Rule {
    name: "kvm.device",
    want: "/dev/kvm, for this user",
    fix: "load kvm_amd or kvm_intel, and switch virtualization on in the BIOS",
};
const HARDWARE: Rule = Rule {
    name: "kvm.hardware",
    want: "svm or vmx among the processor's flags",
    fix: "use a machine that is not a virtual machine itself, with virtualization switched on in the BIOS",
};
const SNP_MODULE: Rule = Rule {
    name: "kvm.tee",
    want: "sev, sev_es and sev_snp of kvm_amd are Y",
    fix: "set kvm_amd.sev=1 kvm_amd.sev_es=1 kvm_amd.sev_snp=1 on the kernel's command line; if that is not enough, `dmesg | grep -i -e sev -e rmp` says why",
};
const TDX_MODULE: Rule = Rule {
    name: "kvm.tee",
    want: "tdx of kvm_intel is Y",
    fix: "set kvm_intel.tdx=1 nohibernate on the kernel's command line; if that is not enough, `dmesg | grep -i tdx` says why",
};

const AMD: &str = "/sys/module/kvm_amd/parameters";
const INTEL: &str = "/sys/module/kvm_intel/parameters";

pub(super) fn checks(subject: &Subject<'_>) -> Vec<Check> {
    let mut out = Vec::new();
    match subject.target {
        Target::Snp => out.push(kernel(subject, &SNP_KERNEL, (6, 11))),
        Target::Tdx => out.push(kernel(subject, &TDX_KERNEL, (6, 16))),
        Target::Sim | Target::None => {}
    }
    let (device, hardware) = (device(subject), hardware(subject));
    if subject.target == Target::Sim {
        // Without KVM a simulated VM is only slower.
        let softer = |check: Check| Check { status: check.status.min(super::Status::Warn), ..check };
        return vec![softer(device), softer(hardware)];
    }
    out.extend([device, hardware]);
    match subject.target {
        Target::Snp => out.push(module(subject, &SNP_MODULE, AMD, &["sev", "sev_es", "sev_snp"])),
        Target::Tdx => out.push(module(subject, &TDX_MODULE, INTEL, &["tdx"])),
        Target::Sim | Target::None => {}
    }
    out
}

/// What KVM says that it offers; `None`: neither.
pub(super) fn offered(machine: &super::Machine) -> Option<Target> {
    let is_on = |path: &str| machine.value(path).is_some_and(|value| is_yes(&value));
    if is_on("/sys/module/kvm_amd/parameters/sev_snp") {
        return Some(Target::Snp);
    }
    is_on("/sys/module/kvm_intel/parameters/tdx").then_some(Target::Tdx)
}

fn is_yes(value: &str) -> bool {
    matches!(value, "Y" | "1")
}

fn kernel(subject: &Subject<'_>, rule: &Rule, floor: (u32, u32)) -> Check {
    let found = subject.machine.value("/proc/sys/kernel/osrelease").unwrap_or_default();
    if version(&found).is_some_and(|version| version >= floor) {
        return rule.pass(found);
    }
    // Distributions bring it to older kernels; then the module says so.
    if offered(subject.machine) == Some(subject.target) {
        return rule.warn(format!("{found}, patched by its distributor"));
    }
    rule.fail(found)
}

fn device(subject: &Subject<'_>) -> Check {
    match subject.machine.open_device("/dev/kvm") {
        Ok(()) => DEVICE.pass("/dev/kvm opens"),
        Err(error) => refused(&DEVICE, "/dev/kvm", &error, "kvm"),
    }
}

/// A device that cannot be opened: the fix depends on why.
pub(super) fn refused(rule: &Rule, path: &str, error: &io::Error, group: &str) -> Check {
    if error.kind() == io::ErrorKind::NotFound {
        return rule.fail(format!("no {path}"));
    }
    if error.kind() == io::ErrorKind::PermissionDenied {
        let fix = format!(
            "run as a member of the group {group}, to which host/systemd/70-cocoon-host.rules gives {path}"
        );
        return rule.fail(format!("{path}: this user may not open it")).fix(fix);
    }
    rule.fail(format!("{path}: {error}"))
}

fn hardware(subject: &Subject<'_>) -> Check {
    let found = match (subject.cpu.virtualizes(), subject.machine.exists("/dev/kvm")) {
        (true, _) => return HARDWARE.pass(if subject.cpu.has("svm") { "svm" } else { "vmx" }),
        (false, true) => {
            "neither: /dev/kvm is a software KVM, which protects nothing and runs no ordinary kernel"
        }
        (false, false) => "neither",
    };
    HARDWARE.fail(found)
}

fn module(subject: &Subject<'_>, rule: &Rule, folder: &str, parameters: &[&str]) -> Check {
    let values = parameters.iter().map(|name| (*name, subject.machine.value(&format!("{folder}/{name}"))));
    let values: Vec<_> = values.collect();
    if values.iter().all(|(_, value)| value.is_none()) {
        return rule.fail(format!("no {folder}: the module is not loaded, or knows nothing of it"));
    }
    let all = values.iter().all(|(_, value)| value.as_deref().is_some_and(is_yes));
    let shown = values.iter().map(|(name, value)| format!("{name}={}", value.as_deref().unwrap_or("-")));
    rule.must(all, shown.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_device_does_not_open_decides_the_fix() {
        let refused = |kind: io::ErrorKind| refused(&DEVICE, "/dev/kvm", &kind.into(), "kvm");
        assert!(refused(io::ErrorKind::PermissionDenied).fix.unwrap().contains("group kvm"));
        assert_eq!(refused(io::ErrorKind::NotFound).fix.as_deref(), Some(DEVICE.fix));
        assert!(refused(io::ErrorKind::ResourceBusy).found.contains("busy"));
    }
}
