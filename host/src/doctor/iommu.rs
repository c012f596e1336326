//! The IOMMU: SEV-SNP and every GPU need it, translating.

use super::check::{Check, Rule};
use super::{Subject, Target};

const GROUPS: Rule = Rule {
    name: "iommu.groups",
    want: "groups in /sys/kernel/iommu_groups",
    fix: "switch the IOMMU (AMD-Vi, VT-d) on in the BIOS; with Intel, also set intel_iommu=on on the kernel's command line",
};
const MODE: Rule = Rule {
    name: "iommu.mode",
    want: "nothing on the kernel's command line that switches translation off",
    fix: "remove it from the kernel's command line and boot again; if the kernel's own default is to pass through, add iommu.passthrough=0",
};

/// With each of these, Linux has SEV-SNP off (drivers/iommu/amd/init.c), or VFIO cannot isolate a device.
const OFF: [&str; 8] = [
    "iommu=pt",
    "iommu.passthrough=1",
    "iommu.passthrough=y",
    "iommu.passthrough=on",
    "iommu=off",
    "amd_iommu=off",
    "amd_iommu=pgtbl_v2",
    "intel_iommu=off",
];
/// GPUs are isolated in passing-through mode too.
const PASSTHROUGH: [&str; 4] =
    ["iommu=pt", "iommu.passthrough=1", "iommu.passthrough=y", "iommu.passthrough=on"];

pub(super) fn checks(subject: &Subject<'_>) -> Vec<Check> {
    let needed = match subject.target {
        Target::Snp => true,
        Target::Tdx | Target::Sim | Target::None => !subject.options.gpus.is_empty(),
    };
    if needed { vec![groups(subject), mode(subject)] } else { Vec::new() }
}

fn groups(subject: &Subject<'_>) -> Check {
    let count = subject.machine.entries("/sys/kernel/iommu_groups").len();
    GROUPS.must(count > 0, format!("{count} groups"))
}

fn mode(subject: &Subject<'_>) -> Check {
    let line = subject.machine.value("/proc/cmdline").unwrap_or_default().to_ascii_lowercase();
    let allowed = |word: &&str| subject.target != Target::Snp && PASSTHROUGH.contains(word);
    let found: Vec<&str> =
        line.split_ascii_whitespace().filter(|word| OFF.contains(word) && !allowed(word)).collect();
    MODE.must(found.is_empty(), if found.is_empty() { "nothing".to_owned() } else { found.join(" ") })
}
