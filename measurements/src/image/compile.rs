//! From source to `/init`: cargo, in an environment that has nothing of the builder's.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cocoon_attestation::Digest;

use super::Error;
use super::toolchain::{TARGET, Toolchain};

/// What is kept of the builder's environment: where programs and caches are. None of it reaches the program.
const KEPT: [&str; 8] =
    ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "TMPDIR", "http_proxy", "https_proxy"];

/// What is compiled.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Root of the source tree.
    pub source: PathBuf,
    /// Where intermediate files lie.
    pub target_dir: PathBuf,
    /// With the simulated platform.
    pub simulated: bool,
    /// With the engine for GPUs, as a program that loads libraries, which NVIDIA's driver is; else one static program.
    pub for_gpus: bool,
    /// The builder's environment, of which little is used.
    pub environment: Vec<(OsString, OsString)>,
}

impl Recipe {
    /// Compiles `cocoon-enclave`.
    ///
    /// # Errors
    /// [`Error::Compile`] or [`Error::Io`].
    pub fn compile(&self, toolchain: &Toolchain) -> Result<Vec<u8>, Error> {
        let mut cargo = Command::new("cargo");
        cargo
            .current_dir(&self.source)
            .args([
                "build",
                "--locked",
                "--release",
                "--package",
                "cocoon-enclave",
                "--bin",
                "cocoon-enclave",
            ])
            .args(["--target", TARGET, "--target-dir"])
            .arg(&self.target_dir)
            .env_clear()
            .envs(self.environment.iter().filter(|(name, _)| KEPT.iter().any(|kept| name == kept)).cloned())
            .envs(self.flags(toolchain))
            .stdin(Stdio::null())
            // Standard output is for results.
            .stdout(Stdio::null());
        if self.simulated {
            cargo.args(["--features", "sim"]);
        }
        if self.for_gpus {
            cargo.args(["--features", "cuda"]);
        }
        let status = cargo.status().map_err(|source| Error::tool("cargo", source))?;
        if !status.success() {
            return Err(Error::Compile { status });
        }
        let path = self.target_dir.join(TARGET).join("release/cocoon-enclave");
        std::fs::read(&path).map_err(|source| Error::Io { what: "read", path, source })
    }

    /// Static, and without a path of this machine: see `docs/image.md`.
    fn flags(&self, toolchain: &Toolchain) -> [(&'static str, OsString); 4] {
        let cargo_home = self.variable("CARGO_HOME").unwrap_or_else(|| {
            Path::new(&self.variable("HOME").unwrap_or_default()).join(".cargo").into_os_string()
        });
        let paths = [
            (self.target_dir.as_os_str(), "/target"),
            (self.source.as_os_str(), "/source"),
            (cargo_home.as_os_str(), "/cargo"),
            (toolchain.sysroot.as_os_str(), "/rust"),
        ];
        let mut rust: Vec<OsString> = Vec::new();
        if !self.for_gpus {
            rust.extend(["-Ctarget-feature=+crt-static", "-Crelocation-model=static"].map(Into::into));
        }
        let mut c = OsString::new();
        // The compilers take the last one that fits: the innermost folder comes last.
        for (from, to) in paths.iter().rev() {
            let mapped = |option: &str| {
                let mut out = OsString::from(option);
                out.push(from);
                out.push("=");
                out.push(to);
                out
            };
            rust.push(mapped("--remap-path-prefix="));
            // Quoted as for a shell, which is how it is then read.
            c.push("'");
            c.push(mapped("-ffile-prefix-map="));
            c.push("' ");
        }
        // Paths may have spaces: this variable is split at unit separators only.
        let rust = rust.join(&OsString::from("\u{1f}"));
        [
            ("CARGO_ENCODED_RUSTFLAGS", rust),
            ("CFLAGS", c),
            ("CC_SHELL_ESCAPED_FLAGS", "1".into()),
            ("LC_ALL", "C.UTF-8".into()),
        ]
    }

    fn variable(&self, name: &str) -> Option<OsString> {
        self.environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }
}

/// The configuration digest of `program` with the `cocoon.*` words of a command line: the program itself knows its defaults.
///
/// # Errors
/// [`Error::Compile`] or [`Error::Tool`] if it does not say.
pub fn config_digest(program: &Path, command_line: &str) -> Result<Digest, Error> {
    let words = command_line.split_ascii_whitespace().filter_map(|word| word.strip_prefix("cocoon."));
    let mut command = Command::new(program);
    command.env_clear().args(["--describe", "--model", "/dev/null"]).stderr(Stdio::inherit());
    for word in words {
        let (key, value) = word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value)));
        command.arg(format!("--{key}")).args(value);
    }
    let output = command.output().map_err(|source| Error::tool("cocoon-enclave", source))?;
    if !output.status.success() {
        return Err(Error::Compile { status: output.status });
    }
    let event: Option<Digest> = serde_json::from_slice::<serde_json::Value>(&output.stdout)
        .ok()
        .and_then(|event| serde_json::from_value(event.get("config")?.clone()).ok());
    event.ok_or_else(|| Error::tool("cocoon-enclave", "it does not say what its configuration is"))
}
