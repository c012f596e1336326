//! A boot of the image's TDX firmware and kernel with a TPM, and what the TPM and its event log have of it.
//!
//! Without TDX the firmware measures into a TPM. What it does there differs from what it does in a TD in which registers there are, and
//! in what [`rtmr`] and its users say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use cocoon_attestation::tdx::replay_rtmr;
use cocoon_measurements::image::directory::TDX_FIRMWARE;
use cocoon_measurements::image::newc::Initramfs;

use crate::programs::{PATIENCE, Program};
use crate::vm::Lab;

/// EV_NO_ACTION: no register is extended.
const NO_ACTION: u32 = 3;
/// SHA-384 in the TCG's registry of algorithms.
const SHA384: u16 = 0x000c;
/// What a firmware has room for is 64 KiB.
const MAX_LOG: usize = 256 << 10;
/// Sizes of digests in the TCG's registry.
const MAX_DIGEST: usize = 64;

/// An extension of a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which.
    pub pcr: u32,
    /// Type of the TCG.
    pub kind: u32,
    /// SHA-384.
    pub digest: [u8; 48],
    /// What the firmware says about it.
    pub data: Vec<u8>,
}

/// What is left of a boot.
#[derive(Clone, Debug)]
pub struct MeasuredBoot {
    /// In the order of the log.
    pub events: Vec<Event>,
    /// Registers of the TPM's SHA-384 bank as user space found them, 0 to 15.
    pub pcrs: BTreeMap<u32, [u8; 48]>,
}

/// A program that comes with its libraries, as an initramfs that runs it.
///
/// Built as all programs of this workspace are, so it is linked with this machine's C library.
pub fn initramfs(program: &Path) -> Vec<u8> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let libraries = String::from_utf8(output.stdout).unwrap();
    let mut initramfs = Initramfs::new();
    // As `NAME => PATH (ADDRESS)`, or `PATH (ADDRESS)` for the loader; the kernel's own has no path.
    for path in libraries.split_ascii_whitespace().filter(|word| word.starts_with('/')) {
        initramfs.file(path.trim_start_matches('/'), 0o555, std::fs::read(path).unwrap());
    }
    initramfs.file("init", 0o555, std::fs::read(program).unwrap());
    initramfs.device("dev/console", 0o600, (5, 1));
    initramfs.encode().unwrap()
}

impl MeasuredBoot {
    /// Boots with `initrd`, a file, instead of the image's; all else is what `cocoon-host run --vm` gives QEMU. `None`, and a line that
    /// says so, where there is no TPM to be had.
    pub fn of(lab: &Lab, initrd: &Path, more: &[&str]) -> Option<Self> {
        let socket = lab.path("tpm");
        let _tpm = tpm(lab, &socket)?;
        let console = lab.path("console");
        let qemu = lab.cheating_qemu("measured", &bash(&lab.image, initrd, &console, &socket));
        let mut vm = lab.boot(&lab.image, &[&["--qemu", qemu.to_str().unwrap()], more].concat());
        vm.0.wait();
        let console = String::from_utf8_lossy(&std::fs::read(&console).unwrap_or_default()).into_owned();
        let line = |start: &str| console.lines().find_map(|line| line.strip_prefix(start));
        assert_eq!(line("failed "), None);
        let log = line("log ").unwrap_or_else(|| panic!("no log: {}\n{console}", vm.0.output()));
        let pcr = |n: u32| {
            let mut out = [0; 48];
            hex::decode_to_slice(line(&format!("pcr {n} ")).unwrap().trim(), &mut out).unwrap();
            (n, out)
        };
        Some(Self { events: events(&hex::decode(log.trim()).unwrap()), pcrs: (0..16).map(pcr).collect() })
    }

    /// What a register is if the log has everything that it was extended with.
    pub fn replay(&self, pcr: u32) -> [u8; 48] {
        let events = self.events.iter().filter(|event| event.pcr == pcr);
        replay_rtmr(&events.map(|event| event.digest).collect::<Vec<_>>())
    }

    /// The events that are of this RTMR in a TD.
    pub fn of_rtmr(&self, n: u8) -> Vec<Event> {
        self.events.iter().filter(|event| rtmr(event.pcr) == Some(n)).cloned().collect()
    }
}

/// The RTMR that has in a TD what a TPM has in a PCR: UEFI 2.10, section 38.4.1. `None` for PCR 0: it is MRTD, which firmware cannot
/// extend.
pub fn rtmr(pcr: u32) -> Option<u8> {
    match pcr {
        0 => None,
        1 | 7 => Some(0),
        2..=6 => Some(1),
        8..=15 => Some(2),
        _ => panic!("PCR {pcr} is none of a boot's"),
    }
}

/// A TPM 2.0 that was never used, which QEMU speaks to through `socket`.
fn tpm(lab: &Lab, socket: &Path) -> Option<Program> {
    if Command::new("swtpm").arg("--version").output().is_err() {
        println!("skipped: no swtpm; `scripts/qemu` sees to it");
        return None;
    }
    let state = lab.path("tpm-state");
    std::fs::create_dir(&state).unwrap();
    let mut command = Command::new("swtpm");
    command.args(["socket", "--tpm2", "--flags", "not-need-init", "--tpmstate"]);
    command.arg(format!("dir={}", state.display()));
    command.arg("--ctrl").arg(format!("type=unixio,path={}", socket.display()));
    let tpm = Program::start(&mut command);
    let start = std::time::Instant::now();
    while !socket.exists() {
        assert!(start.elapsed() < PATIENCE, "swtpm does not listen: {}", tpm.output());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Some(tpm)
}

/// What is changed of the arguments that the host gives to QEMU: the firmware is TDX's, which needs no hashes beside it; the initrd; where
/// the console goes; and there is a TPM.
fn bash(image: &Path, initrd: &Path, console: &Path, tpm: &Path) -> String {
    let firmware: PathBuf = image.join(TDX_FIRMWARE);
    format!(
        r#"for i in "${{!args[@]}}"; do
  case ${{args[i]}} in
  -bios) args[i+1]='{}' ;;
  -initrd) args[i+1]='{}' ;;
  -serial) args[i+1]='file:{}' ;;
  loader,*) unset 'args[i-1]' 'args[i]' ;;
  esac
done
args+=(-chardev 'socket,id=tpm,path={}' -tpmdev emulator,id=tpm0,chardev=tpm -device tpm-crb,tpmdev=tpm0)"#,
        firmware.display(),
        initrd.display(),
        console.display(),
        tpm.display()
    )
}

/// Reads a log in the TCG's crypto-agile format (PC Client Platform Firmware Profile, section 10), of which nothing may be left over.
/// `cocoon_attestation::tdx::EventLog` is for logs of TDs: it knows the registers of a TD alone.
fn events(log: &[u8]) -> Vec<Event> {
    assert!(log.len() <= MAX_LOG, "a log of {} bytes", log.len());
    let mut rest = log;
    assert_eq!((u32_of(&mut rest), u32_of(&mut rest)), (0, NO_ACTION), "begins with an identifier");
    take(&mut rest, 20);
    let sizes = digest_sizes(with_length(&mut rest));
    let mut out = Vec::new();
    while !rest.is_empty() {
        let (pcr, kind) = (u32_of(&mut rest), u32_of(&mut rest));
        let count = u32_of(&mut rest);
        assert_eq!(count as usize, sizes.len(), "one digest for each bank");
        let mut digests = BTreeMap::new();
        for _ in 0..count {
            let algorithm = u16_of(&mut rest);
            digests.insert(algorithm, take(&mut rest, sizes[&algorithm]));
        }
        let digest = digests[&SHA384].try_into().unwrap();
        let data = with_length(&mut rest).to_vec();
        if kind != NO_ACTION {
            out.push(Event { pcr, kind, digest, data });
        }
    }
    out
}

/// From the first event: which banks there are, and the size of their digests.
fn digest_sizes(mut id: &[u8]) -> BTreeMap<u16, usize> {
    assert_eq!(take(&mut id, 16), b"Spec ID Event03\0");
    take(&mut id, 8);
    let sizes: BTreeMap<u16, usize> =
        (0..u32_of(&mut id)).map(|_| (u16_of(&mut id), u16_of(&mut id).into())).collect();
    let vendor = take(&mut id, 1)[0];
    assert_eq!(id.len(), usize::from(vendor));
    assert_eq!(sizes.get(&SHA384), Some(&48), "the bank of SHA-384 is active");
    assert!(sizes.values().all(|size| *size <= MAX_DIGEST));
    sizes
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (head, tail) = rest.split_at_checked(len).expect("the log is truncated");
    *rest = tail;
    head
}

fn with_length<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let len = u32_of(rest);
    take(rest, len as usize)
}

fn u16_of(rest: &mut &[u8]) -> u16 {
    u16::from_le_bytes(take(rest, 2).try_into().unwrap())
}

fn u32_of(rest: &mut &[u8]) -> u32 {
    u32::from_le_bytes(take(rest, 4).try_into().unwrap())
}
