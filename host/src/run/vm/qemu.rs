//! The command line of QEMU.
//!
//! Nothing that QEMU gives the VM is trusted there; what must be right for the measurement is: firmware, kernel, initrd, command line,
//! vCPUs. Sources: QEMU, docs/system/i386/amd-memory-encryption.rst and tdx.rst; image directory as in `docs/image.md`.

use std::ffi::OsString;
use std::io::{Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::Error;

/// Bit of a guest physical address that says whether a page is encrypted: CPUID 0x8000001F EBX, the same on Milan, Genoa and Turin.
pub(crate) const C_BIT: u32 = 51;
/// SMT allowed, and the bit that must be one (AMD 56860, GUEST_POLICY).
const SNP_POLICY: u32 = 0x3_0000;
/// The host's end of the quote generation service for TDX: CID 2 is the host.
const QUOTE_SERVICE: &str = r#"{"type":"vsock","cid":"2","port":"4050"}"#;
/// Room for the memory of GPUs below the end of the address space, MiB, as NVIDIA asks of OVMF.
const GPU_MMIO: u32 = 262_144;

/// A file that a VM sees as a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The file.
    pub path: PathBuf,
    /// Bytes; the disk has more, up to a whole sector.
    pub size: u64,
}

/// How clients' bytes get in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// vsock; the VM has no network card.
    Vsock {
        /// Context identifier.
        cid: u32,
    },
    /// TCP over QEMU's user network, which lets nothing out.
    Tcp {
        /// Where QEMU listens.
        host: SocketAddr,
        /// Where the enclave listens.
        guest: u16,
    },
}

/// What protects the VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Platform {
    /// AMD SEV-SNP.
    Snp {
        /// HOST_DATA, 64 hex digits.
        host_data: Option<String>,
        /// ID block and its authentication, base64.
        id_block: Option<(String, String)>,
    },
    /// Intel TDX.
    Tdx,
    /// Nothing: the simulated platform, with the firmware and the hashes of SEV-SNP.
    Simulated {
        /// Hashes of kernel, initrd and command line, in a file.
        table: PathBuf,
        /// Where the firmware looks for them.
        table_address: u64,
        /// Where the simulated processor answers.
        socket: PathBuf,
        /// Whether KVM can run the VM.
        kvm: bool,
    },
}

/// A VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The image directory.
    pub image: PathBuf,
    /// The firmware in it.
    pub firmware: PathBuf,
    /// The kernel's command line, as measured.
    pub command_line: String,
    /// vCPUs.
    pub vcpus: u32,
    /// Their type.
    pub vcpu_type: String,
    /// MiB.
    pub memory: u64,
    /// The models, in the order in which the machine shall find them.
    pub models: Vec<Disk>,
    /// PCI addresses of GPUs.
    pub gpus: Vec<String>,
    /// What protects it.
    pub platform: Platform,
    /// How clients' bytes get in.
    pub network: Network,
    /// Socket of the port through which the host tells things.
    pub port: PathBuf,
}

impl Disk {
    /// Of a file or a block device.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(path: &Path) -> Result<Self, Error> {
        let size = std::fs::File::open(path).and_then(|mut file| file.seek(SeekFrom::End(0)));
        let size = size.map_err(|source| Error::ModelUnreadable { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), size })
    }
}

/// Whether this machine's KVM runs ordinary kernels: the device alone does not say so, some are emulated.
#[must_use]
pub fn has_kvm() -> bool {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let virtualizes = cpu.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    virtualizes && std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

impl Machine {
    /// Arguments for `qemu-system-x86_64`.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let mut out = Arguments::default();
        out.words(
            "-nodefaults -no-user-config -display none -monitor none -serial stdio -no-reboot -name cocoon",
        );
        out.words("-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
        // Before what is behind them: QEMU takes devices in their order.
        out.words("-device virtio-serial-pci,id=ports -device virtio-rng-pci");
        self.platform(&mut out);
        out.add("-smp", self.vcpus.to_string());
        out.add("-m", format!("{}M", self.memory));
        out.file("-bios", "", &self.firmware, "");
        out.file("-kernel", "", &self.image.join("vmlinuz"), "");
        out.file("-initrd", "", &self.image.join("initrd"), "");
        out.add("-append", self.command_line.clone());
        self.network(&mut out);
        for (n, model) in self.models.iter().enumerate() {
            let drive = format!("if=none,id=model{n},format=raw,readonly=on,file=");
            out.file("-drive", &drive, &model.path, "");
            out.add("-device", format!("virtio-blk-pci,drive=model{n},serial=model-{}", model.size));
        }
        out.file("-chardev", "socket,id=host,server=on,wait=off,path=", &self.port, "");
        out.words("-device virtserialport,bus=ports.0,chardev=host,name=cocoon.host");
        self.gpus(&mut out);
        out.0
    }

    fn platform(&self, out: &mut Arguments) {
        let memory = format!("memory-backend-memfd,id=ram0,size={}M,share=true,prealloc=false", self.memory);
        match &self.platform {
            Platform::Snp { host_data, id_block } => {
                out.words(
                    "-accel kvm -machine q35,confidential-guest-support=tee0,memory-backend=ram0,vmport=off",
                );
                out.add("-cpu", self.vcpu_type.clone());
                out.add("-object", memory);
                let mut object = format!(
                    "sev-snp-guest,id=tee0,cbitpos={C_BIT},reduced-phys-bits=1,policy={SNP_POLICY:#x},kernel-hashes=on"
                );
                if let Some(bytes) = host_data.as_deref().and_then(unhex) {
                    object.push_str(&format!(",host-data={}", STANDARD.encode(bytes)));
                }
                if let Some((block, auth)) = id_block {
                    object.push_str(&format!(",id-block={block},id-auth={auth},author-key-enabled=on"));
                }
                out.add("-object", object);
            }
            Platform::Tdx => {
                out.words("-accel kvm -cpu host");
                out.words("-machine q35,kernel-irqchip=split,confidential-guest-support=tee0,memory-backend=ram0,vmport=off");
                out.add("-object", memory);
                let socket = format!(r#""quote-generation-socket":{QUOTE_SERVICE}"#);
                out.add("-object", format!(r#"{{"qom-type":"tdx-guest","id":"tee0",{socket}}}"#));
            }
            Platform::Simulated { table, table_address, socket, kvm } => {
                out.words("-machine q35,vmport=off -cpu max");
                out.add("-accel", if *kvm { "kvm" } else { "tcg,thread=multi" });
                out.file("-device", &format!("loader,addr={table_address:#x},force-raw=on,file="), table, "");
                out.file("-chardev", "socket,id=processor,path=", socket, "");
                out.words("-device virtserialport,bus=ports.0,chardev=processor,name=cocoon.processor");
            }
        }
    }

    fn network(&self, out: &mut Arguments) {
        match &self.network {
            Network::Vsock { cid } => out.add("-device", format!("vhost-vsock-pci,guest-cid={cid}")),
            Network::Tcp { host, guest } => {
                out.add("-netdev", format!("user,id=net0,restrict=on,hostfwd=tcp:{host}-:{guest}"));
                // Without a boot ROM: nothing is booted from a network.
                out.words("-device virtio-net-pci,netdev=net0,romfile=");
            }
        }
    }

    fn gpus(&self, out: &mut Arguments) {
        if self.gpus.is_empty() {
            return;
        }
        out.words("-object iommufd,id=iommufd0");
        out.add("-fw_cfg", format!("name=opt/ovmf/X-PciMmio64Mb,string={GPU_MMIO}"));
        for (index, address) in self.gpus.iter().enumerate() {
            out.add("-device", format!("pcie-root-port,id=gpu-port{index},chassis={}", index + 1));
            out.add("-device", format!("vfio-pci,host={address},bus=gpu-port{index},iommufd=iommufd0"));
        }
    }
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn words(&mut self, words: &str) {
        self.0.extend(words.split(' ').map(OsString::from));
    }

    fn add(&mut self, option: &str, value: impl Into<OsString>) {
        self.0.extend([option.into(), value.into()]);
    }

    /// QEMU splits values at commas; a doubled comma is one.
    fn file(&mut self, option: &str, before: &str, path: &Path, behind: &str) {
        let mut value = OsString::from(before);
        let plain = ["-bios", "-kernel", "-initrd"].contains(&option);
        match path.to_str() {
            Some(text) if !plain => value.push(text.replace(',', ",,")),
            _ => value.push(path),
        }
        value.push(behind);
        self.add(option, value);
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    digits?.chunks(2).map(|pair| u8::try_from(pair.first()? * 16 + pair.get(1)?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(platform: Platform, network: Network) -> Machine {
        Machine {
            image: "img".into(),
            firmware: "img/fw".into(),
            command_line: "quiet cocoon.tee=sim".into(),
            vcpus: 4,
            vcpu_type: "EPYC-Genoa".into(),
            memory: 2048,
            models: vec![
                Disk { path: "a,b.gguf".into(), size: 77 },
                Disk { path: "c.gguf".into(), size: 78 },
            ],
            gpus: Vec::new(),
            platform,
            network,
            port: "/run/port".into(),
        }
    }

    fn line(machine: &Machine) -> String {
        machine.arguments().join(" ".as_ref()).into_string().unwrap()
    }

    const TCP: Network = Network::Tcp {
        host: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9),
        guest: 8443,
    };

    #[test]
    fn what_is_measured_is_given_as_it_is() {
        let line = line(&machine(Platform::Tdx, TCP));
        for part in [
            "-smp 4 ",
            "-m 2048M ",
            "-bios img/fw -kernel img/vmlinuz -initrd img/initrd -append quiet cocoon.tee=sim ",
            "-drive if=none,id=model0,format=raw,readonly=on,file=a,,b.gguf ",
            "drive=model0,serial=model-77",
            "drive=model1,serial=model-78",
            "hostfwd=tcp:127.0.0.1:9-:8443",
            "restrict=on",
            "name=cocoon.host",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        for never in ["-monitor stdio", "-qmp", "-gdb", "-s ", "debug"] {
            assert!(!line.contains(never), "{never}");
        }
    }

    #[test]
    fn snp_measures_the_kernel_and_names_what_the_launch_is_for() {
        let plain =
            line(&machine(Platform::Snp { host_data: None, id_block: None }, Network::Vsock { cid: 7 }));
        assert!(plain.contains(
            "sev-snp-guest,id=tee0,cbitpos=51,reduced-phys-bits=1,policy=0x30000,kernel-hashes=on -smp"
        ));
        assert!(plain.contains("-cpu EPYC-Genoa") && plain.contains("vhost-vsock-pci,guest-cid=7"));
        assert!(!plain.contains("-netdev"), "a VM with vsock has no network card");
        let full = Platform::Snp {
            host_data: Some("00ff".repeat(16)),
            id_block: Some(("QkxPQ0s=".into(), "QVVUSA==".into())),
        };
        let full = line(&machine(full, TCP));
        assert!(full.contains(",host-data=AP8A/wD/AP8A/wD/AP8A/wD/AP8A/wD/AP8A/wD/AP8=,id-block=QkxPQ0s=,id-auth=QVVUSA==,author-key-enabled=on"));
    }

    #[test]
    fn tdx_gets_quotes_from_the_hosts_service() {
        let line = line(&machine(Platform::Tdx, TCP));
        assert!(line.contains(r#"{"qom-type":"tdx-guest","id":"tee0","quote-generation-socket":{"type":"vsock","cid":"2","port":"4050"}}"#));
        assert!(line.contains("-accel kvm -cpu host") && line.contains("kernel-irqchip=split"));
    }

    #[test]
    fn a_simulated_vm_has_the_hashes_and_the_processor() {
        let simulated = |kvm| Platform::Simulated {
            table: "t,1".into(),
            table_address: 0x81_0c00,
            socket: "s".into(),
            kvm,
        };
        let tcg = line(&machine(simulated(false), TCP));
        assert!(tcg.contains("loader,addr=0x810c00,force-raw=on,file=t,,1") && tcg.contains("-accel tcg"));
        assert!(tcg.contains("name=cocoon.processor") && !tcg.contains("confidential-guest-support"));
        assert!(line(&machine(simulated(true), TCP)).contains("-accel kvm"));
    }

    #[test]
    fn gpus_come_by_vfio_each_behind_its_own_port() {
        let gpus = vec!["0000:41:00.0".to_owned(), "0000:61:00.0".to_owned()];
        let line = line(&Machine { gpus, ..machine(Platform::Tdx, TCP) });
        assert!(line.contains("vfio-pci,host=0000:61:00.0,bus=gpu-port1,iommufd=iommufd0"));
        assert!(line.contains("X-PciMmio64Mb,string=262144"));
    }

    #[test]
    fn hex_is_read_in_pairs() {
        assert_eq!(unhex("00fF10"), Some(vec![0, 255, 16]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("0g"), None);
    }
}
