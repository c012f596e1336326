//! GPUs for VFIO: bound to it, alone in their groups, reachable through iommufd as QEMU is told to.

use super::Subject;
use super::check::{Check, Rule};
use super::kernel::refused;

/// NVIDIA's PCI vendor number.
const NVIDIA: &str = "0x10de";
/// PCI base class and subclass of bridges between buses: VFIO lets them be in a group.
const BRIDGE: &str = "0x0604";

const DEVICE: Rule = Rule {
    name: "gpu.device",
    want: "a PCI device of NVIDIA (10de)",
    fix: "give the address that `lspci -D -d 10de:` prints",
};
const DRIVER: Rule = Rule {
    name: "gpu.driver",
    want: "vfio-pci",
    fix: "load vfio-pci, then `driverctl set-override ADDRESS vfio-pci`",
};
const GROUP: Rule = Rule {
    name: "gpu.group",
    want: "nothing else in its IOMMU group",
    fix: "bind the others to vfio-pci as well and give them with --gpu, or switch ACS on in the BIOS",
};
const VFIO: Rule = Rule {
    name: "gpu.vfio",
    want: "/dev/vfio/devices/vfioN, for this user",
    fix: "bind the GPU to vfio-pci, with a kernel that has VFIO_DEVICE_CDEV",
};
const IOMMUFD: Rule = Rule {
    name: "gpu.iommufd",
    want: "/dev/iommu, for this user",
    fix: "load the kernel module iommufd; the kernel needs it (Linux 6.6 or newer)",
};
const MODE: Rule = Rule {
    name: "gpu.cc_mode",
    want: "confidential computing on, devtools off",
    fix: "`nvidia_gpu_tools.py --gpu-bdf=ADDRESS --query-cc-mode` (NVIDIA/gpu-admin-tools) tells, and --set-cc-mode=on --reset-after-cc-mode-switch sets it; the enclave refuses a GPU in another mode",
};
const VBIOS: Rule = Rule {
    name: "gpu.vbios",
    want: "a VBIOS for which NVIDIA publishes a manifest (Hopper: 96.00.74 or newer)",
    fix: "`nvidia-smi -q` tells while NVIDIA's driver holds the GPU; clients hold it against NVIDIA's manifests",
};

pub(super) fn checks(subject: &Subject<'_>) -> Vec<Check> {
    let gpus = &subject.options.gpus;
    let mut out: Vec<Check> = gpus.iter().flat_map(|address| one(subject, address)).collect();
    if !gpus.is_empty() {
        out.push(match subject.machine.open_device("/dev/iommu") {
            Ok(()) => IOMMUFD.pass("/dev/iommu opens"),
            Err(error) => refused(&IOMMUFD, "/dev/iommu", &error, "kvm"),
        });
    }
    out
}

fn one(subject: &Subject<'_>, address: &str) -> Vec<Check> {
    let machine = subject.machine;
    let folder = format!("/sys/bus/pci/devices/{address}");
    let Some(vendor) = machine.value(&format!("{folder}/vendor")) else {
        return vec![DEVICE.fail(format!("{address}: no such device"))];
    };
    let driver = machine.link(&format!("{folder}/driver")).unwrap_or_else(|| "no driver".to_owned());
    let bind = DRIVER.fix.replace("ADDRESS", address);
    vec![
        DEVICE.must(vendor == NVIDIA, format!("{address}: vendor {vendor}")),
        DRIVER.must(driver == DRIVER.want, format!("{address}: {driver}")).fix(bind),
        group(subject, address, &folder),
        device(subject, address, &folder),
        MODE.warn(format!("{address}: cannot be told without NVIDIA's tool"))
            .fix(MODE.fix.replace("ADDRESS", address)),
        VBIOS.warn(format!("{address}: cannot be told without NVIDIA's tool")),
    ]
}

fn group(subject: &Subject<'_>, address: &str, folder: &str) -> Check {
    let Some(number) = subject.machine.link(&format!("{folder}/iommu_group")) else {
        return GROUP.fail(format!("{address}: no IOMMU group")).fix("switch the IOMMU on in the BIOS");
    };
    let members = subject.machine.entries(&format!("/sys/kernel/iommu_groups/{number}/devices"));
    let is_bridge = |member: &str| {
        let class = subject.machine.value(&format!("/sys/bus/pci/devices/{member}/class"));
        class.is_some_and(|class| class.starts_with(BRIDGE))
    };
    let given = |member: &String| subject.options.gpus.contains(member);
    let others: Vec<String> =
        members.into_iter().filter(|member| !given(member) && !is_bridge(member)).collect();
    let with = if others.is_empty() { String::new() } else { format!(" with {}", others.join(", ")) };
    GROUP.must(others.is_empty(), format!("{address}: group {number}{with}"))
}

fn device(subject: &Subject<'_>, address: &str, folder: &str) -> Check {
    let names = subject.machine.entries(&format!("{folder}/vfio-dev"));
    let Some(name) = names.first() else { return VFIO.fail(format!("{address}: none")) };
    let path = format!("/dev/vfio/devices/{name}");
    match subject.machine.open_device(&path) {
        Ok(()) => VFIO.pass(format!("{address}: {path} opens")),
        Err(error) => refused(&VFIO, &path, &error, "kvm"),
    }
}
