//! NVML through the dynamic linker: a library of our own with captured evidence stands in for NVIDIA's.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may end, and says when it checks nothing"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use cocoon_attestation::nvidia::GpuEvidence;
use cocoon_attestation::wire::EpochStatement;
use cocoon_attestation::{Digest, UnixTime};
use cocoon_enclave::node::{Claims, Node, NodeError};
use cocoon_enclave::platform::nvidia::{NVML, Nvml, NvmlError};
use cocoon_enclave::platform::{GpuAttester, GpuError};
use tempfile::TempDir;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake_nvml/nvml.rs");
const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/evidence/nvidia");

/// Compiles the library, once for all tests of this process. `old`: as of a driver that cannot set the ready state.
fn compile(old: bool) -> PathBuf {
    static BUILT: [OnceLock<(TempDir, PathBuf)>; 2] = [OnceLock::new(), OnceLock::new()];
    let built = BUILT[usize::from(old)].get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let library = dir.path().join("nvml.so");
        let mut rustc = Command::new(option_env!("RUSTC").unwrap_or("rustc"));
        rustc.args(["--edition", "2024", "--crate-type", "cdylib", "--check-cfg", "cfg(old)"]);
        rustc.args(if old { &["--cfg", "old"][..] } else { &[] });
        assert!(rustc.arg("-o").arg(&library).arg(SOURCE).status().unwrap().success());
        (dir, library)
    });
    built.1.clone()
}

/// A machine with its driver.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        Self::with(&compile(false))
    }

    fn with(library: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(library, dir.path().join("nvml.so")).unwrap();
        Self(dir)
    }

    /// One with the GPUs of these cases. `None`, and a word about it, without the corpus.
    fn of(cases: &[&str]) -> Option<Self> {
        let machine = Self::new();
        machine.set("count", u32::try_from(cases.len()).unwrap());
        for (index, case) in cases.iter().enumerate() {
            for (from, to) in [("report.bin", "report"), ("chain.pem", "chain")] {
                let Ok(bytes) = std::fs::read(Path::new(CORPUS).join(case).join(from)) else {
                    skipped();
                    return None;
                };
                std::fs::write(machine.path(&format!("{index}.{to}")), bytes).unwrap();
            }
        }
        Some(machine)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn set(&self, name: &str, value: u32) {
        std::fs::write(self.path(name), value.to_string()).unwrap();
    }

    fn unset(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }

    fn ready(&self) -> String {
        std::fs::read_to_string(self.path("ready")).unwrap_or_default()
    }

    fn open(&self, want: u32) -> Result<Nvml, NvmlError> {
        Nvml::open(&self.path("nvml.so"), want)
    }

    fn refused(&self, want: u32) -> String {
        self.open(want).unwrap_err().to_string()
    }

    fn boot(&self, want: u32) -> Result<Node, NodeError> {
        let claims =
            Claims { models: vec![Digest([1; 32])], config: Digest([2; 32]), release: Digest([0; 32]) };
        let gpus: Arc<dyn GpuAttester> = Arc::new(self.open(want).map_err(GpuError::from)?);
        Node::boot_with_gpus(claims, Arc::new(|| UnixTime(1_790_000_000)), Some(gpus))
    }

    fn no_epoch(&self) -> String {
        self.boot(1).unwrap_err().to_string()
    }
}

#[expect(clippy::disallowed_macros, reason = "a test says that it checks nothing")]
fn skipped() {
    println!("skipped: no evidence corpus");
}

const H100: &str = "h100-550.90.07-e2e";
const FOUR: [&str; 4] =
    ["h100-590.12-multigpu-0", "h100-590.12-multigpu-1", "h100-590.12-multigpu-2", "h100-590.12-multigpu-3"];

#[test]
fn captured_gpus_become_the_evidence_of_an_epoch() {
    for cases in [&[H100][..], &FOUR] {
        let Some(machine) = Machine::of(cases) else { return };
        let want = u32::try_from(cases.len()).unwrap();
        let node = machine.boot(want).unwrap();
        let epoch = node.current();
        let (statement, gpus) =
            (EpochStatement::decode(&epoch.statement).unwrap(), epoch.gpus.clone().unwrap());
        assert_eq!((statement.gpu_ids.as_slice(), statement.gpu_mode.as_str()), (gpus.ids(), "on"));
        assert_eq!(statement.gpu_evidence, Some(gpus.digest()));
        let mut sent: Vec<GpuEvidence> =
            gpus.evidence().0.values().map(|item| GpuEvidence::decode(&item.bytes).unwrap()).collect();
        let nonce = cocoon_attestation::binding::gpu_nonce(statement.boot_id, 0, statement.spki, sent[0].x);
        assert_eq!(std::fs::read(machine.path("nonce")).unwrap(), nonce.0, "the nonce reaches the driver");
        // What was captured is what is sent, to the byte.
        let mut captured: Vec<Vec<u8>> =
            (0..cases.len()).map(|n| std::fs::read(machine.path(&format!("{n}.report"))).unwrap()).collect();
        captured.sort_unstable();
        sent.sort_unstable_by_key(|gpu| gpu.report.to_bytes());
        assert_eq!(sent.iter().map(|gpu| gpu.report.to_bytes()).collect::<Vec<_>>(), captured);
        assert_eq!(machine.ready(), "1");
        node.retire();
        assert_eq!(machine.ready(), "0");
    }
}

#[test]
fn a_library_that_is_not_there_or_too_old() {
    let error = Nvml::open(Path::new("/nowhere/libnvidia-ml.so.1"), 1).unwrap_err().to_string();
    assert!(error.contains("cannot be loaded") && error.contains("--gpus"), "{error}");
    let error = Machine::with(&compile(true)).refused(1);
    assert!(error.contains("nvmlSystemSetConfComputeGpusReadyState") && error.contains("update"), "{error}");
    let garbage = Machine::new();
    std::fs::write(garbage.path("nvml.so"), b"no library").unwrap();
    assert!(garbage.refused(1).contains("cannot be loaded"));
}

#[test]
fn machines_that_are_not_as_configured() {
    let machine = Machine::new();
    assert!(machine.open(1).is_ok());
    for count in [0, 2, u32::MAX] {
        machine.set("count", count);
        assert_eq!(machine.open(1).unwrap_err(), NvmlError::Count { got: count, want: 1 });
    }
    machine.unset("count");
    for (name, value, want) in [
        ("feature", 0, "confidential computing is off"),
        ("devtools", 1, "devtools mode"),
        ("environment", 1, "not in a production"),
    ] {
        machine.set(name, value);
        assert!(machine.refused(1).contains(want), "{name}");
        machine.unset(name);
    }
    assert_eq!(machine.ready(), "", "nothing was made ready");
}

#[test]
fn every_call_can_fail() {
    for function in ["nvmlInit_v2", "nvmlDeviceGetCount_v2", "nvmlSystemGetConfComputeState"] {
        let machine = Machine::new();
        machine.set(function, 9);
        let error = machine.refused(1);
        assert!(error.contains(function) && error.contains("driver not loaded"), "{error}");
        machine.set(function, 12345);
        assert!(machine.refused(1).contains("code 12345"));
    }
    let Some(machine) = Machine::of(&[H100]) else { return };
    for function in [
        "nvmlDeviceGetHandleByIndex_v2",
        "nvmlDeviceGetConfComputeGpuAttestationReport",
        "nvmlDeviceGetConfComputeGpuCertificate",
        "nvmlSystemGetConfComputeGpusReadyState",
        "nvmlSystemSetConfComputeGpusReadyState",
    ] {
        machine.set(function, 15);
        let error = machine.no_epoch();
        assert!(error.contains(function) && error.contains("GPU is lost"), "{error}");
        machine.unset(function);
    }
    machine.set("stuck", 1);
    assert!(machine.no_epoch().contains("did not set the ready state"));
    machine.unset("stuck");
    assert!(machine.boot(1).is_ok());
}

#[test]
fn sizes_beyond_the_arrays_are_not_believed() {
    let Some(machine) = Machine::of(&[H100]) else { return };
    for (name, max) in [("report_len", 8192), ("chain_len", 5120)] {
        for claimed in [max + 1, 1 << 20, u32::MAX] {
            machine.set(name, claimed);
            let error = machine.no_epoch();
            assert!(error.contains(&format!("has {claimed} bytes, of at most {max}")), "{error}");
        }
        machine.set(name, 0);
        assert!(machine.no_epoch().contains("empty"));
        // All of the room: what lies behind the report is no report, and white space behind a chain.
        machine.set(name, max);
        assert_ne!(machine.ready(), "1");
        let booted = machine.boot(1);
        assert_eq!(booted.is_ok(), name == "chain_len", "{name}");
        booted.iter().for_each(Node::retire);
        machine.unset(name);
    }
}

#[test]
fn gpus_that_lose_their_mode_get_no_new_epoch() {
    let Some(machine) = Machine::of(&[H100]) else { return };
    let node = machine.boot(1).unwrap();
    let first = node.current().statement.clone();
    machine.set("devtools", 1);
    assert_eq!(node.rotate(), Err(NodeError::Gpus(NvmlError::DevTools.into())));
    assert_eq!((node.current().statement.clone(), machine.ready().as_str()), (first.clone(), "0"));
    machine.unset("devtools");
    assert_eq!(node.rotate(), Ok(1));
    assert_ne!(node.current().statement, first);
    assert_eq!(machine.ready(), "1");
}

/// The driver of this very machine, if it has one: whatever it says is an answer, and nothing is changed.
#[test]
#[expect(clippy::disallowed_macros, reason = "shows what was found")]
fn the_library_of_this_machine() {
    for want in 0..=2 {
        match Nvml::open(Path::new(NVML), want) {
            Ok(_) => println!("{want}: confidential GPUs"),
            Err(e) => println!("{want}: {e}"),
        }
    }
}
