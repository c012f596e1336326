//! An enclave as a virtual machine: QEMU, with the image that is measured.
//!
//! | Module | What |
//! |---|---|
//! | [`qemu`] | the command line of QEMU for each platform |
//! | `processor` | the simulated processor beside a simulated VM |
//! | `port` | what the host tells a VM that runs |

mod port;
mod processor;
pub mod qemu;

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, ChildStdout, Command};

use crate::Error;
use crate::address::Address;
use crate::doctor::{self, Target};

use super::enclave::Tee;
use port::Port;
use processor::{Launched, Processor};
use qemu::{Disk, Machine, Network, Platform};

/// Where an enclave in a VM listens.
const GUEST_PORT: u16 = 8443;
/// Ends programs with their parent.
const SETPRIV: &str = "/usr/bin/setpriv";
/// Where the kernel gives VMs their sockets.
const VHOST_VSOCK: &str = "/dev/vhost-vsock";

/// A VM to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmOptions {
    /// The image directory.
    pub image: PathBuf,
    /// The models, which the VM gets as disks that it can only read.
    pub models: Vec<PathBuf>,
    /// The platform.
    pub tee: Tee,
    /// The QEMU program.
    pub qemu: PathBuf,
    /// The simulated processor's program.
    pub processor: PathBuf,
    /// vCPUs.
    pub vcpus: u32,
    /// Their type, as QEMU names it.
    pub vcpu_type: String,
    /// Memory, MiB.
    pub memory: u64,
    /// PCI addresses of GPUs.
    pub gpus: Vec<String>,
    /// HOST_DATA of an SNP launch, 64 hex digits.
    pub host_data: Option<String>,
    /// ID block and its authentication of an SNP launch, base64 as QEMU wants it.
    pub id_block: Option<(String, String)>,
    /// Context identifier for vsock; `None`: TCP over QEMU's user network.
    pub vsock_cid: Option<u32>,
    /// What the enclave staples.
    pub endorsements: Option<PathBuf>,
    /// Which release it is.
    pub release: Option<PathBuf>,
    /// How long firmware and kernel may take until the enclave says its first word.
    pub boot_timeout: Duration,
    /// Where to write the policy that accepts a simulated VM.
    pub policy_out: Option<PathBuf>,
}

/// A running VM; killed when dropped.
#[derive(Debug)]
pub(super) struct Vm {
    qemu: Child,
    port: Port,
    _processor: Option<Processor>,
    /// Sockets and tables of this run.
    _folder: tempfile::TempDir,
}

impl VmOptions {
    /// Finds out what can be known to fail before anything is started.
    ///
    /// # Errors
    /// A file of the image that cannot be read, or what this machine lacks: the checks of [`doctor::preflight`] that fail.
    pub fn check(&self) -> Result<(), Error> {
        let firmware = self.firmware();
        for path in ["vmlinuz", "initrd", "cmdline", firmware].map(|name| self.image.join(name)) {
            File::open(&path).map_err(|source| Error::ImageUnreadable { path, source })?;
        }
        // What is not there at the start would never be used, and nobody would notice.
        for (option, path) in [("--endorsements", &self.endorsements), ("--release", &self.release)] {
            let Some(path) = path else { continue };
            File::open(path).map_err(|source| Error::InputUnreadable {
                option,
                path: path.clone(),
                source,
            })?;
        }
        if self.vsock_cid.is_some() && !Path::new(VHOST_VSOCK).exists() {
            return Err(Error::NoVsock);
        }
        let wanted = doctor::Options {
            tee: self.tee,
            gpus: self.gpus.clone(),
            qemu: self.qemu.clone(),
            memory: self.memory,
            image: None,
            model: None,
            listen: None,
        };
        doctor::preflight(&doctor::Machine::this(), &wanted)
    }

    /// The platform, chosen by what KVM offers if the operator did not.
    fn target(&self) -> Option<Target> {
        match self.tee {
            Tee::Snp => Some(Target::Snp),
            Tee::Tdx => Some(Target::Tdx),
            Tee::Sim => Some(Target::Sim),
            Tee::Auto => doctor::offered(&doctor::Machine::this()),
        }
    }

    fn firmware(&self) -> &'static str {
        self.target().unwrap_or(Target::None).firmware()
    }
}

impl Vm {
    /// Starts QEMU. Gives its console, and where the enclave will listen: where it did `before`, if it is started again.
    pub(super) async fn start(
        options: &VmOptions,
        before: Option<&Address>,
    ) -> Result<(Self, ChildStdout, Address), Error> {
        let folder = tempfile::Builder::new().prefix("cocoon-vm").tempdir().map_err(Error::Temporary)?;
        let command_line = read_command_line(&options.image.join("cmdline"))?;
        let (platform, processor) = match options.target().ok_or(Error::NoTee)? {
            Target::Sim => {
                let (processor, launched) = Processor::start(options, folder.path()).await?;
                let Launched { table, table_address, socket, .. } = launched;
                (Platform::Simulated { table, table_address, socket, kvm: qemu::has_kvm() }, Some(processor))
            }
            Target::Snp => (
                Platform::Snp { host_data: options.host_data.clone(), id_block: options.id_block.clone() },
                None,
            ),
            Target::Tdx => (Platform::Tdx, None),
            Target::None => return Err(Error::NoTee),
        };
        let (network, address) = network(options.vsock_cid, before)?;
        let port_socket = folder.path().join("host");
        let machine = Machine {
            image: options.image.clone(),
            firmware: options.image.join(options.firmware()),
            command_line,
            vcpus: options.vcpus,
            vcpu_type: options.vcpu_type.clone(),
            memory: options.memory,
            models: options.models.iter().map(|model| Disk::of(model)).collect::<Result<_, _>>()?,
            gpus: options.gpus.clone(),
            platform,
            network,
            port: port_socket.clone(),
        };
        let failed = |source| Error::QemuStart { path: options.qemu.clone(), source };
        let mut qemu = ends_with_this(&options.qemu)
            .args(machine.arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let console = qemu.stdout.take().ok_or_else(|| failed(std::io::ErrorKind::BrokenPipe.into()))?;
        let port = Port::open(port_socket, options.endorsements.clone(), options.release.clone());
        Ok((Self { qemu, port, _processor: processor, _folder: folder }, console, address))
    }

    /// Returns when QEMU has ended. Cancel safe.
    pub(super) async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.qemu.wait().await
    }

    /// Asks the enclave to let answers end and to switch the VM off.
    pub(super) fn terminate(&self) {
        self.port.stop();
    }

    /// Ends the VM, if it has not ended.
    pub(super) async fn kill(&mut self) {
        // The only error is that it has ended already.
        let _ended = self.qemu.kill().await;
    }
}

/// `program`, which the kernel ends when this process does, however that ends: a VM that nobody relays to is of no use. By setpriv of
/// util-linux, which every distribution has; without it, a host that is killed leaves its VM behind.
fn ends_with_this(program: &Path) -> Command {
    if !Path::new(SETPRIV).exists() {
        return Command::new(program);
    }
    let mut command = Command::new(SETPRIV);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// How clients' bytes get into the VM.
fn network(vsock_cid: Option<u32>, before: Option<&Address>) -> Result<(Network, Address), Error> {
    if let Some(cid) = vsock_cid {
        return Ok((Network::Vsock { cid }, Address::Vsock { cid, port: GUEST_PORT.into() }));
    }
    let port = match before {
        Some(Address::Tcp(address)) => address.port,
        Some(Address::Vsock { .. }) | None => 0,
    };
    // QEMU takes it again a moment later; if somebody else was faster, QEMU says so and ends.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|socket| socket.local_addr());
    let host = free.map_err(Error::Temporary)?;
    Ok((Network::Tcp { host, guest: GUEST_PORT }, host.into()))
}

/// The text as it is measured: QEMU adds the NUL behind it.
fn read_command_line(path: &Path) -> Result<String, Error> {
    let unreadable = |source| Error::ImageUnreadable { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    if text.contains(['\0', '\n']) {
        let why = "it has a line break or a NUL, which the kernel's command line cannot have";
        return Err(unreadable(std::io::Error::new(std::io::ErrorKind::InvalidData, why)));
    }
    Ok(text)
}
