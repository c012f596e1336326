//! Machines that do not exist: trees of files, and one thing of them altered at a time.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use super::*;

const GPU: &str = "0000:41:00.0";
const BRIDGE: &str = "0000:40:01.0";
const QEMU: &str = "QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1~bpo13+1)\nCopyright";
const OBJECTS: &str = "List of user creatable objects:\n  iommufd\n  sev-snp-guest\n  tdx-guest\n";
const MEMINFO: &str = "MemTotal: 1056964608 kB\nMemFree: 1 kB\nMemAvailable: 1040187392 kB\nHugePages_Total: 0\nHugepagesize: 2048 kB\n";

/// A machine of files.
struct Fake {
    folder: TempDir,
    qemu: &'static str,
    objects: &'static str,
    chrony: &'static str,
    free: u64,
    options: Options,
}

impl Fake {
    fn put(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _none = fs::remove_file(&path);
        symlink(target, path).unwrap();
    }

    /// A file, or a folder with all that is in it.
    fn remove(&self, path: &str) {
        let path = self.path(path);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }

    fn replace(&self, path: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(path)).unwrap();
        assert!(text.contains(from), "{path} has no {from}");
        self.put(path, text.replace(from, to));
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn machine(&self) -> Machine {
        let (qemu, objects, chrony, free) = (self.qemu, self.objects, self.chrony, self.free);
        let answers = move |program: &Path, arguments: &[&str]| {
            let answer = match (program.to_str(), arguments) {
                (Some("qemu"), ["--version"]) => qemu,
                (Some("qemu"), ["-object", "help"]) => objects,
                (Some("chronyc"), ["-c", "tracking"]) => chrony,
                _ => panic!("{program:?} {arguments:?} is asked"),
            };
            if answer.is_empty() { Err(std::io::ErrorKind::NotFound.into()) } else { Ok(answer.to_owned()) }
        };
        Machine::new(self.folder.path().to_owned(), answers, move |_| Ok(free))
    }

    fn report(&self) -> Report {
        diagnose(&self.machine(), &self.options).unwrap()
    }

    /// What both vendors' machines have: a GPU for VFIO, an image, a model, a clock.
    fn common(cpuinfo: &str) -> Self {
        let fake = Self {
            folder: tempfile::tempdir().unwrap(),
            qemu: QEMU,
            objects: OBJECTS,
            chrony: "",
            free: 1 << 40,
            options: Options {
                tee: Tee::Auto,
                gpus: vec![GPU.to_owned()],
                qemu: "qemu".into(),
                memory: 262_144,
                image: Some("/srv/image".into()),
                model: Some("/srv/model.gguf".into()),
                listen: None,
            },
        };
        fake.put("proc/cpuinfo", cpuinfo);
        fake.put("proc/cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro quiet\n");
        fake.put("proc/sys/kernel/osrelease", "6.18.3-amd64\n");
        fake.put("proc/meminfo", MEMINFO);
        fake.put(
            "proc/self/limits",
            "Limit Soft\nMax locked memory         unlimited            unlimited            bytes\n",
        );
        fake.put("sys/kernel/mm/transparent_hugepage/shmem_enabled", "always within_size [advise] never\n");
        fake.put("run/systemd/timesync/synchronized", "");
        for device in ["kvm", "iommu", "vhost-vsock", "vfio/devices/vfio0"] {
            fake.put(&format!("dev/{device}"), "");
        }
        for file in ["vmlinuz", "initrd", "cmdline", "snp/OVMF.amdsev.fd", "tdx/OVMF.fd"] {
            fake.put(&format!("srv/image/{file}"), "x");
        }
        fake.put("srv/model.gguf", "weights");
        fake.put(&format!("sys/bus/pci/devices/{GPU}/vendor"), "0x10de\n");
        fake.put(&format!("sys/bus/pci/devices/{GPU}/class"), "0x030200\n");
        fake.put(&format!("sys/bus/pci/devices/{GPU}/vfio-dev/vfio0/dev"), "511:0\n");
        fake.put(&format!("sys/bus/pci/devices/{BRIDGE}/class"), "0x060400\n");
        fake.link(&format!("sys/bus/pci/devices/{GPU}/driver"), "../../drivers/vfio-pci");
        fake.link(&format!("sys/bus/pci/devices/{GPU}/iommu_group"), "../../../kernel/iommu_groups/12");
        for member in [GPU, BRIDGE] {
            fake.put(&format!("sys/kernel/iommu_groups/12/devices/{member}"), "");
        }
        fake
    }

    fn snp() -> Self {
        let fake = Self::common(
            "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu svm sme sev sev_es sev_snp\n\nprocessor\t: 1\nflags\t\t: other\n",
        );
        for name in ["sev", "sev_es", "sev_snp"] {
            fake.put(&format!("sys/module/kvm_amd/parameters/{name}"), "Y\n");
        }
        fake.put("dev/sev", "");
        fake.put(
            "dev/kmsg",
            "6,1,1,-;ccp 0000:47:00.5: SEV API:1.55 build:1\n6,2,2,-;ccp 0000:47:00.5: SEV-SNP API:1.55 build:39\n6,3,3,-;x\n",
        );
        fake.c_bit(51);
        fake
    }

    fn tdx() -> Self {
        let fake = Self::common(
            "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu vmx sgx tdx_host_platform\n",
        );
        fake.put("sys/module/kvm_intel/parameters/tdx", "Y\n");
        fake.put(
            "dev/kmsg",
            "6,1,1,-;virt/tdx: TDX module version: 1.5.24\n6,2,2,-;virt/tdx: module initialized\n",
        );
        fake.put("dev/sgx_enclave", "");
        fake.put("dev/sgx_provision", "");
        fake.put("proc/812/comm", "qgs\n");
        fake
    }

    /// The device of the kernel's module cpuid: 16 bytes at the offset of a leaf.
    fn c_bit(&self, bit: u32) {
        self.put("dev/cpu/0/cpuid", "");
        let file = fs::File::options().write(true).open(self.path("dev/cpu/0/cpuid")).unwrap();
        let ebx = (5_u32 << 6 | bit).to_le_bytes();
        let registers = [&[0x1f, 0, 0, 0], &ebx[..], &[0; 8]].concat();
        std::os::unix::fs::FileExt::write_all_at(&file, &registers, 0x8000_001f).unwrap();
    }
}

/// Names and states, without those that are as they were.
fn changed(before: &Report, after: &Report) -> BTreeSet<String> {
    let states = |report: &Report| -> BTreeSet<(String, Status)> {
        report.checks.iter().map(|check| (check.name.to_owned(), check.status)).collect()
    };
    let show = |(name, status): (String, Status)| match status {
        Status::Pass => format!("{name} pass"),
        Status::Warn => format!("{name} warn"),
        Status::Fail => format!("{name} fail"),
    };
    states(after).difference(&states(before)).cloned().map(show).collect()
}

type Change = (&'static str, fn(&mut Fake), &'static [&'static str]);

/// Each alteration changes what it says, and nothing else.
fn alter(good: fn() -> Fake, changes: &[Change]) {
    let before = good().report();
    for (what, change, wanted) in changes {
        let mut fake = good();
        change(&mut fake);
        let after = fake.report();
        assert_eq!(changed(&before, &after), wanted.iter().map(|w| (*w).to_owned()).collect(), "{what}");
        assert_eq!(after.ok, !wanted.iter().any(|w| w.ends_with("fail")), "{what}");
        for check in after.checks {
            assert_eq!(check.fix.is_none(), check.status == Status::Pass, "{what}: {check:?}");
        }
    }
}

fn warnings(report: &Report) -> Vec<&'static str> {
    report.checks.iter().filter(|check| check.status != Status::Pass).map(|check| check.name).collect()
}

#[test]
fn a_good_snp_host_is_fit() {
    let report = Fake::snp().report();
    assert_eq!((report.ok, report.tee), (true, Target::Snp));
    assert_eq!(warnings(&report), ["gpu.cc_mode", "gpu.vbios"], "only NVIDIA's tool tells these");
    assert!(report.checks.iter().any(|check| check.found == "1.55 build:39"));
}

#[test]
fn a_good_tdx_host_is_fit() {
    let report = Fake::tdx().report();
    assert_eq!((report.ok, report.tee), (true, Target::Tdx));
    assert_eq!(warnings(&report), ["gpu.cc_mode", "gpu.vbios"]);
}

#[test]
fn each_thing_that_is_special_to_snp() {
    let parameter = "sys/module/kvm_amd/parameters/sev_snp";
    assert!(Fake::snp().path(parameter).exists());
    alter(
        Fake::snp,
        &[
            ("vendor", |f| f.replace("proc/cpuinfo", "AuthenticAMD", "HygonGenuine"), &["cpu.vendor fail"]),
            ("no sev_snp", |f| f.replace("proc/cpuinfo", " sev_snp", ""), &["cpu.flags fail"]),
            ("no sev_es", |f| f.replace("proc/cpuinfo", " sev_es", ""), &["cpu.flags fail"]),
            ("C-bit", |f| f.c_bit(47), &["cpu.c_bit fail"]),
            ("no C-bit", |f| f.c_bit(0), &["cpu.c_bit fail"]),
            ("no cpuid device", |f| f.remove("dev/cpu"), &["cpu.c_bit warn"]),
            ("no svm", |f| f.replace("proc/cpuinfo", " svm", ""), &["kvm.hardware fail"]),
            ("Debian 13", |f| f.put("proc/sys/kernel/osrelease", "6.10.9-amd64"), &["kernel.version warn"]),
            ("no kvm", |f| f.remove("dev/kvm"), &["kvm.device fail"]),
            ("SNP off", |f| f.put("sys/module/kvm_amd/parameters/sev_snp", "N\n"), &["kvm.tee fail"]),
            ("SEV-ES off", |f| f.put("sys/module/kvm_amd/parameters/sev_es", "N\n"), &["kvm.tee fail"]),
            ("no module", |f| f.remove("sys/module/kvm_amd"), &["kvm.tee fail"]),
            ("no sev", |f| f.remove("dev/sev"), &["snp.device fail"]),
            (
                "old firmware",
                |f| f.replace("dev/kmsg", "SNP API:1.55", "SNP API:1.54"),
                &["snp.firmware fail"],
            ),
            ("nothing in the log", |f| f.put("dev/kmsg", "6,1,1,-;hello\n"), &["snp.firmware warn"]),
            ("no log", |f| f.remove("dev/kmsg"), &["snp.firmware warn"]),
            ("QEMU 9.0", |f| f.qemu = "QEMU emulator version 9.0.2\n", &["qemu.version fail"]),
            ("QEMU built without", |f| f.objects = "tdx-guest sev-guest", &["qemu.object fail"]),
            ("no firmware", |f| f.remove("srv/image/snp"), &["image.files fail"]),
            ("no firmware for tdx", |f| f.remove("srv/image/tdx"), &[]),
            ("passing through", |f| f.put("proc/cmdline", "ro iommu=pt quiet"), &["iommu.mode fail"]),
            ("second page tables", |f| f.put("proc/cmdline", "amd_iommu=pgtbl_v2"), &["iommu.mode fail"]),
        ],
    );
}

#[test]
fn each_thing_that_is_special_to_tdx() {
    alter(
        Fake::tdx,
        &[
            ("no flag", |f| f.replace("proc/cpuinfo", " tdx_host_platform", ""), &["cpu.flags fail"]),
            ("no vmx", |f| f.replace("proc/cpuinfo", " vmx", ""), &["kvm.hardware fail"]),
            ("6.15", |f| f.put("proc/sys/kernel/osrelease", "6.15.0"), &["kernel.version warn"]),
            ("TDX off", |f| f.put("sys/module/kvm_intel/parameters/tdx", "N"), &["kvm.tee fail"]),
            ("old module", |f| f.replace("dev/kmsg", "1.5.24", "1.4.1"), &["tdx.module fail"]),
            ("no log", |f| f.remove("dev/kmsg"), &["tdx.module warn"]),
            ("silent log", |f| f.put("dev/kmsg", "x"), &["tdx.module warn"]),
            (
                "Ubuntu's log",
                |f| {
                    f.put(
                        "dev/kmsg",
                        "virt/tdx: TDX module: attributes 0x0, major_version 1, minor_version 5, build",
                    )
                },
                &[],
            ),
            (
                "Ubuntu's log of an old one",
                |f| f.put("dev/kmsg", "TDX module: attributes 0x0, major_version 1, minor_version 0, build"),
                &["tdx.module fail"],
            ),
            ("sysfs tells", |f| f.put("sys/devices/faux/tdx_host/version", "1.4.7\n"), &["tdx.module fail"]),
            ("no SGX", |f| f.remove("dev/sgx_provision"), &["tdx.sgx warn"]),
            ("no service", |f| f.put("proc/812/comm", "bash\n"), &["tdx.quote_service warn"]),
            ("QEMU 10.0", |f| f.qemu = "QEMU emulator version 10.0.2\n", &["qemu.version fail"]),
            ("QEMU built without", |f| f.objects = "sev-snp-guest", &["qemu.object fail"]),
            ("no firmware", |f| f.remove("srv/image/tdx/OVMF.fd"), &["image.files fail"]),
            ("passing through", |f| f.put("proc/cmdline", "iommu=pt"), &[]),
            ("IOMMU off", |f| f.put("proc/cmdline", "intel_iommu=off"), &["iommu.mode fail"]),
        ],
    );
}

#[test]
fn each_thing_that_gpus_need() {
    let gpu: [Change; 10] = [
        ("no GPU", |f| f.remove("sys/bus/pci/devices/0000:41:00.0"), &["gpu.device fail"]),
        (
            "another vendor",
            |f| f.put("sys/bus/pci/devices/0000:41:00.0/vendor", "0x1002"),
            &["gpu.device fail"],
        ),
        (
            "NVIDIA's driver",
            |f| f.link("sys/bus/pci/devices/0000:41:00.0/driver", "../../drivers/nvidia"),
            &["gpu.driver fail"],
        ),
        ("no driver", |f| f.remove("sys/bus/pci/devices/0000:41:00.0/driver"), &["gpu.driver fail"]),
        ("no group", |f| f.remove("sys/bus/pci/devices/0000:41:00.0/iommu_group"), &["gpu.group fail"]),
        ("company", |f| f.put("sys/kernel/iommu_groups/12/devices/0000:41:00.1", ""), &["gpu.group fail"]),
        ("no vfio-dev", |f| f.remove("sys/bus/pci/devices/0000:41:00.0/vfio-dev"), &["gpu.vfio fail"]),
        ("no vfio device", |f| f.remove("dev/vfio/devices/vfio0"), &["gpu.vfio fail"]),
        ("no iommufd", |f| f.remove("dev/iommu"), &["gpu.iommufd fail"]),
        ("locked memory", |f| f.replace("proc/self/limits", "unlimited", "8388608"), &["memory.lock warn"]),
    ];
    for good in [Fake::snp, Fake::tdx] {
        alter(good, &gpu);
        alter(good, &[("no groups", |f| f.remove("sys/kernel/iommu_groups"), &["iommu.groups fail"])]);
    }
}

#[test]
fn each_thing_that_any_machine_needs() {
    let system: [Change; 16] = [
        ("no GPU given", |f| f.options.gpus.clear(), &[]),
        ("no QEMU", |f| (f.qemu, f.objects) = ("", ""), &["qemu.version fail", "qemu.object fail"]),
        ("no version", |f| f.qemu = "usage: qemu", &["qemu.version fail"]),
        ("little memory", |f| f.replace("proc/meminfo", "1056964608", "4194304"), &["memory.available fail"]),
        ("memory in use", |f| f.replace("proc/meminfo", "1040187392", "4194304"), &["memory.available warn"]),
        ("no meminfo", |f| f.remove("proc/meminfo"), &["memory.available fail"]),
        ("reserved", |f| f.replace("proc/meminfo", "Total: 0", "Total: 512"), &["memory.huge_pages warn"]),
        (
            "small pages",
            |f| f.put("sys/kernel/mm/transparent_hugepage/shmem_enabled", "always advise [never]"),
            &["memory.huge_pages warn"],
        ),
        ("no vsock", |f| f.remove("dev/vhost-vsock"), &["vsock.device warn"]),
        ("no clock", |f| f.remove("run/systemd"), &["clock.synchronized warn"]),
        (
            "chrony",
            |f| {
                f.remove("run/systemd");
                f.chrony =
                    "A29FC87B,time.example,3,1763647200.0,0.0,0.0,0.0,1.0,0.0,0.1,0.02,0.001,64.3,Normal\n";
            },
            &[],
        ),
        (
            "chrony that waits",
            |f| {
                f.remove("run/systemd");
                f.chrony = "7F7F0101,,0,0.0,0.0,0.0,0.0,1.0,0.0,0.0,1.0,1.0,0.0,Not synchronised\n";
            },
            &["clock.synchronized warn"],
        ),
        ("no kernel", |f| f.remove("srv/image/vmlinuz"), &["image.files fail"]),
        ("no model", |f| f.remove("srv/model.gguf"), &["model.file fail"]),
        ("full disk", |f| f.free = 6, &["disk.free warn"]),
        ("just enough", |f| f.free = 7, &[]),
    ];
    for good in [Fake::snp, Fake::tdx] {
        alter(good, &system);
    }
}

#[test]
fn a_taken_port_is_found() {
    let mut fake = Fake::snp();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    fake.options.listen = Some(address.into());
    let report = fake.report();
    assert_eq!(
        report.checks.last().map(|check| (check.name, check.status)),
        Some(("listen.port", Status::Fail))
    );
    drop(taken);
    assert!(fake.report().ok);
}

#[test]
fn a_software_kvm_in_a_virtual_machine_is_called_so() {
    let fake = Fake::snp();
    fake.replace("proc/cpuinfo", "svm sme sev sev_es sev_snp", "hypervisor");
    fake.remove("sys/module/kvm_amd");
    let report = fake.report();
    let of = |name| report.checks.iter().find(|check| check.name == name).unwrap();
    assert!(of("kvm.hardware").found.contains("software KVM"), "{:?}", of("kvm.hardware"));
    assert!(of("cpu.flags").fix.as_ref().unwrap().contains("virtual machine"));
    assert_eq!((report.ok, report.tee), (false, Target::Snp), "the vendor says what it could have been");
}

#[test]
fn an_old_kernel_without_patches_fails() {
    let fake = Fake::snp();
    fake.put("proc/sys/kernel/osrelease", "6.1.0-38-amd64");
    fake.put("sys/module/kvm_amd/parameters/sev_snp", "N");
    let failed: Vec<_> =
        fake.report().checks.into_iter().filter(|c| c.status == Status::Fail).map(|c| c.name).collect();
    assert_eq!(failed, ["kernel.version", "kvm.tee"]);
}

#[test]
fn another_processor_has_no_tee() {
    let fake = Fake::snp();
    fake.replace("proc/cpuinfo", "AuthenticAMD", "CentaurHauls");
    fake.remove("sys/module/kvm_amd");
    let report = fake.report();
    assert_eq!((report.ok, report.tee), (false, Target::None));
    assert_eq!(report.checks[0].name, "cpu.vendor");
    fake.remove("proc/cpuinfo");
    let error = diagnose(&fake.machine(), &fake.options).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
}

#[test]
fn a_simulated_vm_needs_a_new_qemu_and_nothing_else() {
    let mut fake = Fake::common("processor: 0\nvendor_id: GenuineIntel\nflags: fpu\n");
    fake.options =
        Options { tee: Tee::Sim, gpus: Vec::new(), image: None, model: None, ..fake.options.clone() };
    fake.remove("dev/kvm");
    fake.put("proc/meminfo", "MemTotal: 1 kB\n");
    preflight(&fake.machine(), &fake.options).unwrap();
    for (qemu, says) in [("QEMU emulator version 9.2.4\n", "9.2.4"), ("", "does not run")] {
        fake.qemu = qemu;
        let error = preflight(&fake.machine(), &fake.options).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(text.contains("qemu.version") && text.contains(says) && text.contains("--qemu"), "{text}");
        assert!(text.contains("cocoon-host doctor --tee sim"), "{text}");
    }
}

#[test]
fn preflight_lists_what_fails_and_no_warning() {
    let fake = Fake::snp();
    preflight(&fake.machine(), &fake.options).unwrap();
    fake.remove("dev/sev");
    fake.remove("dev/vhost-vsock");
    fake.link(&format!("sys/bus/pci/devices/{GPU}/driver"), "../../drivers/nvidia");
    let text = preflight(&fake.machine(), &fake.options).unwrap_err().to_string();
    assert!(
        text.contains("snp.device: no /dev/sev") && text.contains("gpu.driver: 0000:41:00.0: nvidia"),
        "{text}"
    );
    assert!(!text.contains("vsock") && text.lines().count() == 1, "{text}");
}

#[test]
fn every_name_is_listed_and_every_listed_name_occurs() {
    let with_port = |mut fake: Fake| {
        fake.options.listen = Some("127.0.0.1:0".parse().unwrap());
        fake.report().checks
    };
    let made: BTreeSet<&str> =
        [Fake::snp(), Fake::tdx()].into_iter().flat_map(with_port).map(|check| check.name).collect();
    assert_eq!(made, BTreeSet::from(NAMES));
    assert_eq!(NAMES.len(), BTreeSet::from(NAMES).len());
}

#[test]
fn json_has_the_keys_that_others_rely_on() {
    let json = serde_json::to_value(Fake::snp().report()).unwrap();
    assert_eq!((&json["ok"], &json["tee"]), (&true.into(), &"snp".into()));
    let first = json["checks"][0].as_object().unwrap();
    let keys: BTreeSet<&str> = first.keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(["found", "fix", "name", "status", "want"]));
    assert_eq!(first["status"], "pass");
}
