//! `run --vm --tee sim` against shell scripts in the place of QEMU and of the simulated processor.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    process::Command,
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::{Host, connect, own_loopback, patient, refuses, script, until};

/// The events of an enclave in a VM, with the line ends of a console and what a firmware writes there.
const SERVES: &str = r#"printf '\033[2JBdsDxe: starting\r\n{"event":"listening","address":"vsock:3:8443"}\r\n{"event":"ready"}\r\n'"#;
/// A VM that runs until the file of its number appears; the file says how it ends.
const UNTIL_TOLD: &str = r#"until [ -s "$me.end$n" ]; do sleep 0.02; done; exit $(cat "$me.end$n")"#;
const PROCESSOR: &str = r#"printf '%s\n' "$@" >"$me.args"; echo '{"table_address":8457216}'; cat >/dev/null; echo done >"$me.ended""#;

/// A folder with a copy of the host, an image, a model, a `qemu`, and a processor.
struct Place(TempDir);

impl Place {
    /// `vm` is what each VM does; `$n` is its number, from 1.
    fn with_vm(vm: &str) -> Self {
        let place = Self(TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_cocoon-host")).arg(place.file("")).status();
        assert!(copied.unwrap().success());
        std::fs::create_dir_all(place.file("image/snp")).unwrap();
        for name in ["model.gguf", "image/vmlinuz", "image/initrd", "image/snp/OVMF.amdsev.fd"] {
            std::fs::write(place.file(name), "x").unwrap();
        }
        std::fs::write(place.file("image/cmdline"), "console=ttyS0 cocoon.tee=sim").unwrap();
        place.qemu("10.0.2", vm);
        script(&place.file("cocoon-sim-processor"), PROCESSOR);
        place
    }

    fn qemu(&self, version: &str, vm: &str) {
        let text = format!(
            "if [ \"$1\" = --version ]; then echo 'QEMU emulator version {version} (fake)'; exit; fi\n\
             echo run >>\"$me.runs\"; n=$(wc -l <\"$me.runs\")\n\
             printf '%s\\n' \"$@\" >\"$me.new\"; mv \"$me.new\" \"$me.args$n\"\n\
             {vm}"
        );
        script(&self.file("qemu"), &text);
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, more: &[&str]) -> Host {
        let path = |name: &str| self.file(name).to_str().unwrap().to_owned();
        let (image, model, qemu) = (path("image"), path("model.gguf"), path("qemu"));
        let listen = format!("{}:0", own_loopback());
        let least = ["run", "--vm", &image, "--tee", "sim", "--model", &model, "--qemu", &qemu];
        let arguments = [&least[..], &["--listen", &listen], more].concat();
        Host::start(&self.file("cocoon-host"), arguments)
    }

    fn arguments(&self, number: usize) -> String {
        let file = self.file(&format!("qemu.args{number}"));
        until("QEMU to start", || std::fs::read_to_string(&file).ok())
    }

    fn end(&self, number: usize, code: u8) {
        std::fs::write(self.file(&format!("qemu.end{number}")), code.to_string()).unwrap();
    }
}

/// What stands between two texts.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    text.split_once(before).unwrap().1.split_once(after).unwrap().0
}

/// Where QEMU would let connections into the VM.
fn forwarded(arguments: &str) -> SocketAddr {
    between(arguments, "hostfwd=tcp:", "-:8443").parse().unwrap()
}

/// One client of the host reaches what listens in the place of the VM, and comes back.
fn serves(host: SocketAddr, vm: SocketAddr) -> bool {
    let inside = TcpListener::bind(vm).unwrap();
    let mut client = connect(host);
    let mut inside: TcpStream = patient(inside.accept().unwrap().0);
    client.write_all(b"ping").unwrap();
    let mut message = [0; 4];
    inside.read_exact(&mut message).unwrap();
    inside.write_all(&message).unwrap();
    client.read_exact(&mut message).is_ok() && &message == b"ping"
}

#[test]
fn a_vm_is_started_and_served_and_started_again() {
    let place = Place::with_vm(&format!("{SERVES}\n{UNTIL_TOLD}"));
    let mut host = place.run(&["--policy-out", "policy.toml", "--vcpus", "3"]);
    let address = host.ready();
    let first = place.arguments(1);
    for part in ["-smp\n3\n", "loader,addr=0x810c00,force-raw=on", "-append\nconsole=ttyS0 cocoon.tee=sim\n"]
    {
        assert!(first.contains(part), "{part}: {first}");
    }
    let measured = std::fs::read_to_string(place.file("cocoon-sim-processor.args")).unwrap();
    assert!(measured.starts_with("serve\n--image\n") && measured.contains("--policy-out\npolicy.toml\n"));
    assert!(serves(address, forwarded(&first)));

    place.end(1, 1);
    let second = place.arguments(2);
    assert_eq!(forwarded(&first), forwarded(&second), "clients come back to where they were");
    until("the restart on stderr", || host.stderr().contains("starting it again in 1 s").then_some(()));
    assert!(serves(address, forwarded(&second)));
    assert_eq!(host.stdout().lines().count(), 1, "`ready` is said once");

    host.signal(Signal::SIGTERM);
    place.end(2, 0);
    assert_eq!(host.ended().code(), Some(0));
}

#[test]
fn the_processor_ends_when_the_host_is_killed() {
    let place = Place::with_vm(&format!("{SERVES}\n{UNTIL_TOLD}"));
    let mut host = place.run(&[]);
    host.ready();
    host.signal(Signal::SIGKILL);
    assert_eq!(host.ended().code(), None);
    until("the processor to end", || place.file("cocoon-sim-processor.ended").exists().then_some(()));
    place.end(1, 0);
}

#[test]
fn a_vm_that_never_served_is_not_started_again() {
    for (vm, says) in [
        ("exit 1", "before it was ready (exit status: 1)"),
        (
            r#"printf '{"event":"listening","address":"x"}\r\n'; exit 0"#,
            "before it was ready (exit status: 0)",
        ),
    ] {
        let place = Place::with_vm(vm);
        let mut host = place.run(&[]);
        assert_eq!(host.ended_saying(says), 1, "{vm}");
        assert_eq!(host.stdout(), "");
        assert_eq!(std::fs::read_to_string(place.file("qemu.runs")).unwrap(), "run\n");
    }
}

#[test]
fn a_vm_that_says_nothing_is_ended() {
    let place = Place::with_vm(r"printf 'BdsDxe: starting\r\n'; exec sleep 60");
    let mut host = place.run(&["--boot-timeout", "1"]);
    assert_eq!(host.ended_saying("the VM says nothing"), 1);
    assert!(host.stderr().contains("1 unreadable lines"), "{}", host.stderr());
}

#[test]
fn files_for_the_enclave_must_be_there_at_the_start() {
    for option in ["--endorsements", "--release"] {
        let place = Place::with_vm(SERVES);
        let mut host = place.run(&[option, place.file("missing").to_str().unwrap()]);
        assert_eq!(host.ended_saying(&format!("give an existing file with {option}")), 2);
        assert!(!place.file("qemu.runs").exists());
    }
}

#[test]
fn the_vm_is_asked_to_stop_through_its_port() {
    let place = Place::with_vm(&format!("{SERVES}\n{UNTIL_TOLD}"));
    std::fs::write(place.file("bundle"), "signed").unwrap();
    std::fs::write(place.file("release"), "said").unwrap();
    let (bundle, release) = (place.file("bundle"), place.file("release"));
    let mut host =
        place.run(&["--endorsements", bundle.to_str().unwrap(), "--release", release.to_str().unwrap()]);
    let address = host.ready();
    let arguments = place.arguments(1);
    let socket = between(&arguments, "socket,id=host,server=on,wait=off,path=", "\n");
    let (mut guest, _): (UnixStream, _) = UnixListener::bind(socket).unwrap().accept().unwrap();
    guest.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let mut start = [0; 5 + 6 + 5 + 4 + 5];
    guest.read_exact(&mut start).unwrap();
    let want = b"\x01\0\0\0\x06signed\x03\0\0\0\x04said\0\0\0\0\0";
    assert_eq!(&start, want, "endorsements, the release, then that this was all");
    host.signal(Signal::SIGTERM);
    let mut stop = [0; 5];
    guest.read_exact(&mut stop).unwrap();
    assert_eq!(stop, [2, 0, 0, 0, 0]);
    until("the port to close", || refuses(address).then_some(()));
    place.end(1, 0);
    assert_eq!(host.ended().code(), Some(0));
    assert_eq!(host.stderr(), "");
}

#[test]
fn a_vm_that_ignores_the_request_is_killed() {
    let place = Place::with_vm(&format!("{SERVES}\nexec sleep 600"));
    let mut host = place.run(&["--drain-timeout", "1"]);
    host.ready();
    host.signal(Signal::SIGTERM);
    assert_eq!(host.ended().code(), Some(0));
}

#[test]
fn what_is_missing_is_named_before_anything_starts() {
    let place = Place::with_vm("exit 3");
    place.qemu("9.2.4", "exit 3");
    let old = place.run(&[]).ended_saying("wanted: QEMU 10.0 or newer");
    assert_eq!(old, 2);
    let mut missing = place.run(&["--gpu", "ffff:00:00.0"]);
    assert_eq!(missing.ended_saying("gpu.device: ffff:00:00.0: no such device"), 2);
    assert!(missing.stderr().contains("cocoon-host doctor --tee sim"), "{}", missing.stderr());
    assert_eq!(missing.stderr().lines().count(), 1);
    std::fs::remove_file(place.file("qemu")).unwrap();
    assert_eq!(place.run(&[]).ended_saying("qemu.version: "), 2);
    std::fs::remove_file(place.file("image/initrd")).unwrap();
    assert_eq!(place.run(&[]).ended_saying("initrd of the image"), 2);
    assert!(!place.file("qemu.runs").exists() && !place.file("cocoon-sim-processor.args").exists());
}

#[test]
fn a_processor_that_does_not_measure_starts_no_vm() {
    let place = Place::with_vm("exit 3");
    script(&place.file("cocoon-sim-processor"), "echo nonsense");
    assert_eq!(place.run(&[]).ended_saying("did not measure the image"), 2);
    assert!(!place.file("qemu.runs").exists());
}
