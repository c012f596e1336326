//! The VM image, booted: QEMU under the real `cocoon-host`, with a simulated processor outside the VM.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::programs::{Program, binary, event};
use crate::{model, repository, sim_state, state_home};

/// vCPUs of every VM in tests, and their type.
pub const SHAPE: [&str; 4] = ["--vcpus", "2", "--vcpu-type", "EPYC-Genoa"];

/// The image with the simulated platform, and what may be changed for one test: copies of it, a QEMU that cheats.
pub struct Lab {
    /// The image directory as built.
    pub image: PathBuf,
    dir: TempDir,
}

impl Lab {
    /// `None`, and a line that says so, where there is no image or no QEMU for it. `scripts/test` sees to both, and says that none of
    /// these tests may be skipped.
    #[expect(
        clippy::disallowed_methods,
        reason = "what a run of tests must not skip is said by who starts it"
    )]
    pub fn open() -> Option<Self> {
        let lab = Self::find();
        assert!(
            lab.is_some() || std::env::var_os("COCOON_VM_TESTS").is_none(),
            "this test must not be skipped here"
        );
        lab
    }

    fn find() -> Option<Self> {
        let image = repository().join("target/image/cpu-simulated");
        if !image.join("manifest.json").exists() {
            println!("skipped: no image; `scripts/image --simulated` builds it");
            return None;
        }
        let version = Command::new("qemu-system-x86_64").arg("--version").output();
        let text =
            version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let major =
            text.split("version ").nth(1).and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
        if major.is_none_or(|major| major < 10) {
            println!("skipped: no QEMU of version 10 or later; `scripts/qemu` sees to it");
            return None;
        }
        Some(Self { image, dir: tempfile::tempdir().unwrap() })
    }

    /// A path for a file of this test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A copy of the image.
    pub fn copy(&self, name: &str) -> PathBuf {
        let copy = self.path(name);
        let copied = Command::new("cp").arg("-r").arg(&self.image).arg(&copy).status().unwrap();
        assert!(copied.success());
        copy
    }

    /// A copy with another command line.
    pub fn with_command_line(&self, name: &str, change: impl Fn(&str) -> String) -> PathBuf {
        let copy = self.copy(name);
        let line = std::fs::read_to_string(copy.join("cmdline")).unwrap();
        std::fs::write(copy.join("cmdline"), change(&line)).unwrap();
        copy
    }

    /// A QEMU to which `bash` lines are done first, with its arguments in `args`: the tool of a host that cheats.
    pub fn cheating_qemu(&self, name: &str, bash: &str) -> PathBuf {
        let path = self.path(name);
        let script =
            format!("#!/bin/bash\nargs=(\"$@\")\n{bash}\nexec qemu-system-x86_64 \"${{args[@]}}\"\n");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Starts the host with `image` and the real model; `more` comes last.
    pub fn boot(&self, image: &Path, more: &[&str]) -> Vm {
        self.boot_with(image, &model(), more)
    }

    /// With another model.
    pub fn boot_with(&self, image: &Path, model: &Path, more: &[&str]) -> Vm {
        let mut command = Command::new(binary("cocoon-host"));
        command.args(["run", "--tee", "sim", "--listen", "127.0.0.1:0", "--log-events"]);
        if !more.contains(&"--memory") {
            command.args(["--memory", "1024"]);
        }
        command.arg("--vm").arg(image).arg("--model").arg(model).args(SHAPE).args(more);
        command.env("XDG_STATE_HOME", state_home()).stdin(Stdio::null());
        Vm(Program::start(&mut command))
    }

    /// The policy that a client makes of the image as it was built, without asking any host.
    pub fn policy(&self) -> PathBuf {
        self.policy_for(&[&model()])
    }

    /// The same, with other models.
    pub fn policy_for(&self, models: &[&Path]) -> PathBuf {
        let state = sim_state();
        let root = Command::new(binary("cocoon-sim-processor"))
            .arg("--state")
            .arg(state)
            .arg("root")
            .output()
            .unwrap();
        std::fs::write(self.path("root.pem"), root.stdout).unwrap();
        let mut command = Command::new(binary("cocoon-measure"));
        command.args(["predict", "policy", "--image"]).arg(&self.image).args(SHAPE);
        models.iter().for_each(|model| _ = command.arg("--model").arg(model));
        command.arg("--simulated-root").arg(self.path("root.pem"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::write(self.path("policy.toml"), output.stdout).unwrap();
        self.path("policy.toml")
    }
}

/// A host with a VM.
pub struct Vm(pub Program);

impl Vm {
    /// Where clients connect, once the enclave serves.
    pub fn ready(&mut self) -> String {
        self.0.wait_for("ready", |line| line.strip_prefix("ready ").map(str::to_owned))
    }

    /// The first event of this kind, once it is there.
    pub fn event(&mut self, kind: &str) -> Value {
        self.0.wait_for(kind, |line| event(line.strip_prefix("stderr: ").unwrap_or(line), kind))
    }

    /// Whether there was such an event.
    pub fn had(&self, kind: &str) -> bool {
        self.0
            .output()
            .lines()
            .any(|line| event(line.strip_prefix("stderr: ").unwrap_or(line), kind).is_some())
    }
}
