//! The programs and archives that make `/init`: the Rust toolchain, and the C compiler and static C library for the little C and
//! assembly in it. They are not in a package store: they are found where they are installed, and held against the lock file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use cocoon_attestation::Digest;
use ring::digest::{Context, SHA256};

use super::Error;
use super::lock::{Lock, LockedTool};
use super::manifest::Tool;

/// Rust target of every image.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What the C compiler says where it is, and what of it has an influence on the program.
const C_PROGRAMS: [&str; 3] = ["cc1", "as", "collect2"];
const C_ARCHIVES: [&str; 11] = [
    "crt1.o",
    "crti.o",
    "crtbeginT.o",
    "crtend.o",
    "crtn.o",
    "libc.a",
    "libpthread.a",
    "libdl.a",
    "librt.a",
    "libgcc.a",
    "libgcc_eh.a",
];

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// The C compiler's driver.
    pub cc: PathBuf,
    /// Root of the Rust toolchain.
    pub sysroot: PathBuf,
    rust: String,
    c: String,
}

impl Toolchain {
    /// What is installed: `rustc` and `cc` of the search path.
    ///
    /// # Errors
    /// [`Error::Tool`] if one is missing.
    pub fn installed() -> Result<Self, Error> {
        let sysroot = PathBuf::from(output("rustc", &["--print", "sysroot"])?);
        let rust = output("rustc", &["--version"])?;
        let cc = PathBuf::from("cc");
        let c = output("cc", &["--version"])?.lines().next().unwrap_or_default().to_owned();
        Ok(Self { cc, sysroot, rust, c })
    }

    /// Everything, with its digest.
    ///
    /// # Errors
    /// [`Error::Tool`] or [`Error::Io`] if something is missing or cannot be read.
    pub fn tools(&self) -> Result<Vec<LockedTool>, Error> {
        let tool = |name: &str, package: &str, sha256| LockedTool {
            name: name.to_owned(),
            package: package.to_owned(),
            sha256,
        };
        let mut out = vec![
            tool("rustc", &self.rust, of_folder(&self.sysroot.join("bin"), &["rustc"])?),
            tool("cargo", &self.rust, of_folder(&self.sysroot.join("bin"), &["cargo"])?),
            tool(
                "rustc-libraries",
                &self.rust,
                of_folder(&self.sysroot.join("lib"), &["librustc_driver", "libLLVM"])?,
            ),
            tool("rust-std", &self.rust, of_folder(&self.target().join("lib"), &["lib"])?),
            tool("rust-lld", &self.rust, of_folder(&self.target().join("bin"), &["rust-lld"])?),
        ];
        for name in C_PROGRAMS {
            let path = self.program(name)?;
            out.push(tool(name, &self.package_of(&path), of_file(&path)?));
        }
        for name in C_ARCHIVES {
            let path = PathBuf::from(output("cc", &[&format!("-print-file-name={name}")])?);
            out.push(tool(name, &self.package_of(&path), of_file(&path)?));
        }
        Ok(out)
    }

    /// The Debian package that `path` is of, with its version; elsewhere, what the C compiler says of itself.
    fn package_of(&self, path: &Path) -> String {
        let known = || {
            let path = path.canonicalize().ok()?;
            let owner = output("dpkg-query", &["-S", path.to_str()?]).ok()?;
            let package = owner.split(": ").next()?;
            output("dpkg-query", &["-W", "-f", "${Package} ${Version}", package]).ok()
        };
        known().unwrap_or_else(|| self.c.clone())
    }

    fn target(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib").join(TARGET)
    }

    /// The driver gives a bare name for what it takes from the search path.
    fn program(&self, name: &str) -> Result<PathBuf, Error> {
        let path = PathBuf::from(output("cc", &[&format!("-print-prog-name={name}")])?);
        if path.is_absolute() {
            return Ok(path);
        }
        ["/usr/bin", "/usr/local/bin", "/bin"]
            .iter()
            .map(|folder| Path::new(folder).join(&path))
            .find(|path| path.exists())
            .ok_or_else(|| Error::tool(name, "the C compiler has no such program"))
    }
}

/// What is installed, held against what is locked.
///
/// # Errors
/// [`Error::Toolchain`] with all differences, unless `any` allows them.
pub fn compare(installed: Vec<LockedTool>, lock: &Lock, any: bool) -> Result<Vec<Tool>, Error> {
    let mut differences = Vec::new();
    let mut out = Vec::new();
    for tool in installed {
        let want = lock.tools.iter().find(|locked| locked.name == tool.name);
        let locked = want.is_some_and(|want| want.sha256 == tool.sha256);
        if !locked {
            let want = want
                .map_or_else(|| "nothing".to_owned(), |want| format!("{} ({})", want.sha256, want.package));
            differences
                .push(format!("{} is {} ({}), locked is {want}", tool.name, tool.sha256, tool.package));
        }
        out.push(Tool { name: tool.name, package: tool.package, sha256: tool.sha256, locked });
    }
    if differences.is_empty() || any { Ok(out) } else { Err(Error::Toolchain { differences }) }
}

fn output(program: &str, arguments: &[&str]) -> Result<String, Error> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|source| Error::tool(program, source))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || text.is_empty() {
        return Err(Error::tool(program, format!("`{program} {}` gives nothing", arguments.join(" "))));
    }
    Ok(text)
}

fn of_file(path: &Path) -> Result<Digest, Error> {
    let at = |source| Error::Io { what: "read", path: path.to_owned(), source };
    let mut hash = Hash(Context::new(&SHA256));
    std::io::copy(&mut File::open(path).map_err(at)?, &mut hash).map_err(at)?;
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(hash.0.finish().as_ref());
    Ok(Digest(sha256))
}

/// Of the files in `folder` whose names start with one of `prefixes`: SHA-256 over `DIGEST  NAME` lines, sorted by name. Links are
/// followed; folders are not entered.
fn of_folder(folder: &Path, prefixes: &[&str]) -> Result<Digest, Error> {
    let at = |source| Error::Io { what: "read", path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(at)? {
        let entry = entry.map_err(at)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_file() && prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Err(Error::tool(
            prefixes.first().copied().unwrap_or_default(),
            format!("not in {}", folder.display()),
        ));
    }
    names.sort();
    let mut lines = String::new();
    for name in names {
        lines.push_str(&format!("{}  {name}\n", of_file(&folder.join(&name))?));
    }
    Ok(Digest::of(lines.as_bytes()))
}

struct Hash(Context);

impl std::io::Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str, digest: u8) -> LockedTool {
        LockedTool { name: name.to_owned(), package: "p 1".to_owned(), sha256: Digest([digest; 32]) }
    }

    #[test]
    fn differences_are_all_named_or_allowed_and_noted() {
        let lock = |tools| {
            let mut lock = Lock::empty();
            lock.tools = tools;
            lock
        };
        let installed = || vec![tool("rustc", 1), tool("cc1", 2), tool("new", 3)];
        let same = compare(installed(), &lock(installed()), false).unwrap();
        assert!(same.iter().all(|tool| tool.locked));
        let other = lock(vec![tool("rustc", 1), tool("cc1", 9)]);
        let refused = compare(installed(), &other, false).unwrap_err().to_string();
        assert!(refused.contains("cc1 is 0202") && refused.contains("locked is 0909"), "{refused}");
        assert!(refused.contains("new is 0303") && refused.contains("locked is nothing"), "{refused}");
        let noted = compare(installed(), &other, true).unwrap();
        assert_eq!(noted.iter().map(|tool| tool.locked).collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn folders_have_a_digest_of_names_and_contents() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        assert!(of_folder(folder.path(), &["lib"]).unwrap_err().to_string().contains("lib: not in"));
        write("liba", "1");
        write("libb", "2");
        write("other", "3");
        let digest = of_folder(folder.path(), &["lib"]).unwrap();
        let lines = format!("{}  liba\n{}  libb\n", Digest::of(b"1"), Digest::of(b"2"));
        assert_eq!(digest, Digest::of(lines.as_bytes()));
    }

    #[test]
    fn what_is_installed_here_is_found() {
        let tools = Toolchain::installed().unwrap().tools().unwrap();
        assert!(tools.iter().any(|tool| tool.name == "rustc" && tool.package.starts_with("rustc 1.")));
        assert_eq!(tools.len(), 5 + C_PROGRAMS.len() + C_ARCHIVES.len());
    }
}
