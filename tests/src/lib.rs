//! Whole-system tests of Cocoon: over the real binaries where that is possible, in one process where a test must hand an attacker
//! something that no binary gives away.
//!
//! | Module | What |
//! |---|---|
//! | [`programs`] | the binaries, started and stopped |
//! | [`enclave`] | an enclave in this process |
//! | [`factory`] | processors in AMD's shape, and what can be wrong with them |
//! | [`impostor`] | an endpoint that pretends to be an enclave |
//! | [`recorder`] | a relay that keeps every byte |
//! | [`vectors`] | reads `tests/vectors/*.txt` |
//! | [`release`] | releases that are made up |
//! | [`requantised`] | the small real model in other encodings |
//! | [`vm`] | the VM image, booted |
//! | [`measured_boot`] | what a boot of it measures, by a virtual TPM |
//! | [`fuzz`] | every parser of outside bytes, as fuzz targets |

#![allow(clippy::missing_panics_doc, reason = "tests panic")]

pub mod enclave;
pub mod factory;
pub mod fuzz;
pub mod http1;
pub mod impostor;
pub mod measured_boot;
pub mod programs;
pub mod recorder;
pub mod release;
pub mod requantised;
pub mod vectors;
pub mod vm;

use std::path::{Path, PathBuf};

/// Root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository")
}

/// The real model, which `scripts/model fetch` puts there.
pub fn model() -> PathBuf {
    let path = repository().join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
    assert!(path.exists(), "{} is missing: run scripts/model fetch", path.display());
    path
}

/// What `XDG_STATE_HOME` is in tests.
pub fn state_home() -> PathBuf {
    programs::target_dir().join("test-state")
}

/// Folder of the simulated processor that all tests share: making one takes seconds.
pub fn sim_state() -> PathBuf {
    state_home().join("cocoon/sim")
}
