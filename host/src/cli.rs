//! The command line. `--help` is its reference.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, CommandFactory, Parser, Subcommand, error::ErrorKind, value_parser};

use crate::{
    Error,
    address::{Address, HostPort, loopback},
    doctor::DoctorArgs,
    endorsements::EndorsementsArgs,
    relay::Limits,
    run::{EnclaveOptions, GuestOptions, Tee, vm::VmOptions},
};

/// A week: more than anyone waits, and small enough to add to any time.
const MAX_SECONDS: u64 = 7 * 24 * 3600;

/// Start an enclave, relay bytes between clients and enclaves, look what a machine lacks, and fetch what vendors endorse.
///
/// This is the untrusted side: it sees ciphertext only, and clients need not trust it.
#[derive(Debug, Parser)]
#[command(
    name = "cocoon-host",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 could not tell (usage, missing file, unreachable)."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Copy bytes between clients and running enclaves.
    ///
    /// Prints `ready HOST:PORT` on stdout when it listens. SIGTERM or SIGINT lets open connections finish; a second one ends at once.
    Relay(RelayArgs),
    /// Start an enclave and relay to it.
    ///
    /// With --vm, a VM with the image that is measured: SEV-SNP or TDX hardware, or a simulated platform (--tee sim). With --process, a
    /// process of this machine, for development. Prints `ready HOST:PORT` on stdout when the enclave serves. A VM that ends after it
    /// has served is started again. SIGTERM or SIGINT lets open answers finish; a second one ends at once.
    Run(Box<RunArgs>),
    /// What this machine lacks to run enclaves in VMs, and the fix.
    ///
    /// Each check passes, warns or fails. A warning: an enclave runs without it, or it cannot be told from here. Exit code 1 when a
    /// check failed. `--json` prints {"ok", "tee", "checks": [{"name", "status", "found", "want", "fix"}]}.
    Doctor(DoctorArgs),
    /// Certificates, revocation lists, TCB info and manifests of the hardware's vendors: fetched, kept, and stapled by the enclave.
    ///
    /// Clients verify all of it themselves. Answers are only checked to be what was asked for.
    Endorsements(EndorsementsArgs),
}

/// Arguments of `relay`.
#[derive(Debug, Args)]
pub struct RelayArgs {
    /// Where an enclave listens: HOST:PORT or vsock:CID:PORT. With several, the one with the fewest connections takes the next.
    #[arg(long, value_name = "ADDR", required = true, num_args = 1..)]
    pub upstream: Vec<Address>,
    /// What `relay` and `run` share.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Run the enclave as a process of this machine: the cocoon-enclave that lies beside this program.
    #[arg(long, required_unless_present = "vm", conflicts_with = "vm")]
    pub process: bool,
    /// The model: a GGUF file, or a folder of safetensors in a tar archive; a VM sees it as a disk that it can only read. With --process also
    /// a folder. Several: give it several times.
    #[arg(long, value_name = "FILE", required = true)]
    pub model: Vec<PathBuf>,
    /// The platform that the enclave attests with. `sim` is for development: it protects nothing.
    #[arg(long, value_enum, default_value_t = Tee::Auto)]
    pub tee: Tee,
    /// Write a client policy that accepts exactly this enclave. Only with --tee sim.
    #[arg(long, value_name = "FILE")]
    pub policy_out: Option<PathBuf>,
    /// The digest that the model must have; of several models, give all, in the order of --model. In an image, the measured command line
    /// says so (`cocoon.model-digest`).
    #[arg(long, value_name = "HEX", value_parser = hex_digest, conflicts_with = "vm")]
    pub model_digest: Vec<String>,
    /// The name under which the model is offered; of several models, all names, in the order of --model. In an image, the measured command line says so.
    #[arg(long, value_name = "NAME", conflicts_with = "vm")]
    pub model_name: Vec<String>,
    /// Threads of the engine; the enclave chooses when not given.
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..), conflicts_with = "vm")]
    pub threads: Option<u16>,
    /// What a VM is made of.
    #[command(flatten)]
    pub vm: VmArgs,
    /// What the enclave staples: the file that `endorsements fetch --out` wrote. It is read again when it changes.
    #[arg(long, value_name = "FILE")]
    pub endorsements: Option<PathBuf>,
    /// The release that the enclave is of, for its clients: the file that `cocoon-measure release create` wrote, with signatures and log
    /// proof. It is read again when it changes.
    #[arg(long, value_name = "FILE")]
    pub release: Option<PathBuf>,
    /// Copy the enclave's event log to stderr. It holds no content.
    #[arg(long)]
    pub log_events: bool,
    /// What `relay` and `run` share.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Arguments of `run --vm`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Virtual machine")]
pub struct VmArgs {
    /// Run the enclave in a VM with this image: what `cocoon-measure image build` made.
    #[arg(long, value_name = "IMAGE_DIR")]
    pub vm: Option<PathBuf>,
    /// vCPUs. Measured: a release has reference values for each number that it offers.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = value_parser!(u32).range(1..=1024), conflicts_with = "process")]
    pub vcpus: u32,
    /// Type of the vCPUs, as QEMU names it. Measured with SEV-SNP.
    #[arg(long, value_name = "TYPE", default_value = "EPYC-Genoa", conflicts_with = "process")]
    pub vcpu_type: String,
    /// Memory in MiB: room for the model, and for what it computes.
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = value_parser!(u64).range(256..=16_777_216), conflicts_with = "process")]
    pub memory: u64,
    /// PCI address of a GPU to hand to the VM by VFIO, such as 0000:41:00.0. May be given several times.
    #[arg(long, value_name = "PCI", value_parser = pci_address, conflicts_with = "process")]
    pub gpu: Vec<String>,
    /// HOST_DATA of an SEV-SNP launch: `cocoon-measure predict host-data`.
    #[arg(long, value_name = "HEX", value_parser = host_data, conflicts_with = "process")]
    pub host_data: Option<String>,
    /// Files with the ID block and its authentication for an SEV-SNP launch, base64 in one line each.
    #[arg(long, value_names = ["BLOCK", "AUTH"], num_args = 2, conflicts_with = "process")]
    pub id_block: Vec<PathBuf>,
    /// Reach the VM over vsock with this context identifier; over QEMU's user network when not given.
    #[arg(long, value_name = "CID", value_parser = value_parser!(u32).range(3..=0xffff_fffe), conflicts_with = "process")]
    pub vsock_cid: Option<u32>,
    /// How long firmware and kernel may take until the enclave says its first word. Firmware hangs when it is given another kernel, initrd
    /// or command line than was measured.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = value_parser!(u64).range(1..=MAX_SECONDS), conflicts_with = "process")]
    pub boot_timeout: u64,
    /// The QEMU program.
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64", conflicts_with = "process")]
    pub qemu: PathBuf,
}

/// Arguments of everything that serves clients.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where clients connect; port 0 takes any free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8443")]
    pub listen: HostPort,
    /// Serve Prometheus metrics at this loopback address, path /metrics. Off when not given.
    #[arg(long, value_name = "ADDR", value_parser = loopback)]
    pub metrics: Option<SocketAddr>,
    /// Connections at the same time; one more is closed at once.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,
    /// Close a connection over which nothing moved for this long.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = value_parser!(u64).range(1..=MAX_SECONDS))]
    pub idle_timeout: u64,
    /// How long one enclave may take to accept a connection.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = value_parser!(u64).range(1..=MAX_SECONDS))]
    pub connect_timeout: u64,
    /// How long open connections may go on after SIGTERM or SIGINT.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = value_parser!(u64).range(0..=MAX_SECONDS))]
    pub drain_timeout: u64,
}

impl Cli {
    /// Reads and checks a command line, the program's name first.
    ///
    /// # Errors
    ///
    /// Wrong usage, and also `--help` and `--version`: see [`clap::Error::exit`].
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let cli = Self::try_parse_from(arguments)?;
        if let Command::Run(run) = &cli.command
            && run.policy_out.is_some()
            && run.tee != Tee::Sim
        {
            let why = "--policy-out needs --tee sim: on real hardware a policy comes from a signed release";
            return Err(Self::command().error(ErrorKind::ArgumentConflict, why));
        }
        Ok(cli)
    }
}

impl RunArgs {
    /// What is started. `beside` gives the path of a program of ours.
    ///
    /// # Errors
    ///
    /// When a file that belongs to the command line cannot be read.
    pub fn guest(&self, beside: impl Fn(&str) -> PathBuf) -> Result<GuestOptions, Error> {
        let Some(image) = &self.vm.vm else {
            return Ok(GuestOptions::Process { program: beside("cocoon-enclave"), enclave: self.enclave() });
        };
        let line = |path: &PathBuf| {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|source| Error::ImageUnreadable { path: path.clone(), source })?;
            Ok(text.trim().to_owned())
        };
        let id_block = match self.vm.id_block.as_slice() {
            [block, auth] => Some((line(block)?, line(auth)?)),
            _ => None,
        };
        Ok(GuestOptions::Vm(VmOptions {
            image: image.clone(),
            models: self.model.clone(),
            tee: self.tee,
            qemu: self.vm.qemu.clone(),
            processor: beside("cocoon-sim-processor"),
            vcpus: self.vm.vcpus,
            vcpu_type: self.vm.vcpu_type.clone(),
            memory: self.vm.memory,
            gpus: self.vm.gpu.clone(),
            host_data: self.vm.host_data.clone(),
            id_block,
            vsock_cid: self.vm.vsock_cid,
            endorsements: self.endorsements.clone(),
            release: self.release.clone(),
            boot_timeout: Duration::from_secs(self.vm.boot_timeout),
            policy_out: self.policy_out.clone(),
        }))
    }

    /// What the enclave is told.
    fn enclave(&self) -> EnclaveOptions {
        EnclaveOptions {
            models: self.model.clone(),
            tee: self.tee,
            model_digests: self.model_digest.clone(),
            model_names: self.model_name.clone(),
            threads: self.threads,
            // The enclave's own limits; the relay closes what is beyond.
            max_connections: self.serve.max_connections.min(65_536),
            drain_timeout: self.serve.drain_timeout.min(3600),
            policy_out: self.policy_out.clone(),
            endorsements: self.endorsements.clone(),
            release: self.release.clone(),
        }
    }
}

impl ServeArgs {
    /// What the relay spends on its clients.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            max_connections: usize::try_from(self.max_connections).unwrap_or(usize::MAX),
            idle_timeout: Duration::from_secs(self.idle_timeout),
            connect_timeout: Duration::from_secs(self.connect_timeout),
            drain_timeout: Duration::from_secs(self.drain_timeout),
        }
    }
}

fn host_data(text: &str) -> Result<String, &'static str> {
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(text.to_owned())
    } else {
        Err("expected 64 hex digits, such as `cocoon-measure predict host-data` prints")
    }
}

/// `DOMAIN:BUS:DEVICE.FUNCTION`, in hex.
pub(crate) fn pci_address(text: &str) -> Result<String, &'static str> {
    let parts: Vec<&str> = text.split([':', '.']).collect();
    let hex = |part: &str, len: usize| part.len() == len && part.bytes().all(|b| b.is_ascii_hexdigit());
    match parts.as_slice() {
        [domain, bus, device, function]
            if hex(domain, 4) && hex(bus, 2) && hex(device, 2) && hex(function, 1) && text.len() == 12 =>
        {
            Ok(text.to_ascii_lowercase())
        }
        _ => Err("expected a PCI address such as 0000:41:00.0 (see `lspci -D`)"),
    }
}

fn hex_digest(text: &str) -> Result<String, &'static str> {
    let hex = !text.is_empty() && text.len().is_multiple_of(2) && text.bytes().all(|b| b.is_ascii_hexdigit());
    if hex {
        Ok(text.to_owned())
    } else {
        Err("expected a digest in hex, such as `cocoon-measure model digest` prints")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Cli, clap::Error> {
        Cli::read(line.split(' ').map(Into::into))
    }

    fn refused(line: &str) -> ErrorKind {
        let error = read(line).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
        error.kind()
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_defaults_of_the_command_line_are_those_of_the_library() {
        let Command::Relay(relay) = read("cocoon-host relay --upstream a:1").unwrap().command else {
            panic!("relay was asked for")
        };
        assert_eq!(relay.serve.limits(), Limits::default());
        assert_eq!(relay.serve.metrics, None);
    }

    #[test]
    fn upstreams_come_in_one_option_or_several() {
        for line in
            ["relay --upstream a:1 vsock:3:2 --listen x:0", "relay --upstream a:1 --upstream vsock:3:2"]
        {
            let Command::Relay(relay) = read(&format!("cocoon-host {line}")).unwrap().command else {
                panic!("relay was asked for")
            };
            assert_eq!(relay.upstream, ["a:1".parse().unwrap(), "vsock:3:2".parse().unwrap()]);
        }
    }

    #[test]
    fn wrong_usage_is_refused() {
        use ErrorKind::{ArgumentConflict, MissingRequiredArgument, ValueValidation};
        let line = |rest: &str| refused(&format!("cocoon-host {rest}"));
        assert_eq!(line("relay"), MissingRequiredArgument);
        assert_eq!(line("relay --upstream a:0"), ValueValidation);
        assert_eq!(line("relay --upstream a:1 --metrics 0.0.0.0:1"), ValueValidation);
        assert_eq!(line("relay --upstream a:1 --listen vsock:1:2"), ValueValidation);
        assert_eq!(line("relay --upstream a:1 --max-connections 0"), ValueValidation);
        assert_eq!(line("relay --upstream a:1 --idle-timeout 0"), ValueValidation);
        assert_eq!(line("run --model m"), MissingRequiredArgument);
        assert_eq!(line("run --process"), MissingRequiredArgument);
        assert_eq!(line("run --process --model m --policy-out p"), ArgumentConflict);
        assert_eq!(line("run --process --model m --tee snp --policy-out p"), ArgumentConflict);
        assert_eq!(line("run --process --model m --model-digest xyz"), ValueValidation);
        assert!(
            read("cocoon-host run --process --model m --model n --model-digest ab --model-digest cd").is_ok()
        );
        assert!(read("cocoon-host run --process --model m --tee sim --policy-out p").is_ok());
        assert_eq!(line("run --process --vm d --model m"), ArgumentConflict);
        assert_eq!(line("run --process --model m --vcpus 2"), ArgumentConflict);
        assert_eq!(line("run --vm d --model m --model-digest ab"), ArgumentConflict);
        assert_eq!(line("run --vm d --model m --vcpus 0"), ValueValidation);
        assert_eq!(line("run --vm d --model m --memory 1"), ValueValidation);
        assert_eq!(line("run --vm d --model m --vsock-cid 2"), ValueValidation);
        assert_eq!(line("run --vm d --model m --host-data 00"), ValueValidation);
        for bad in ["41:00.0", "0000:41:00", "0000:41:00.0,x=1", "0000.41:00:0.", "000g:41:00.0"] {
            assert_eq!(line(&format!("run --vm d --model m --gpu {bad}")), ValueValidation, "{bad}");
        }
        assert!(read("cocoon-host run --vm d --model m --tee sim --policy-out p --gpu 0000:41:00.0").is_ok());
    }
}
