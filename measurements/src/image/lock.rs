//! `inputs.lock`: every package that an image is made of, and every tool that makes its program.

use std::path::Path;

use cocoon_attestation::Digest;
use serde::Deserialize;

use super::Error;

/// Some dozens of packages are a few KiB.
const MAX_LEN: usize = 256 * 1024;
/// No package that an image needs is as large.
const MAX_PACKAGE: u64 = 1 << 30;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u64,
    /// In the order of the file.
    #[serde(rename = "package")]
    pub packages: Vec<Package>,
    /// Programs and archives of the toolchain.
    #[serde(rename = "tool", default)]
    pub tools: Vec<LockedTool>,
    /// SHA-256 of the whole text.
    #[serde(skip, default = "no_digest")]
    pub digest: Digest,
}

fn no_digest() -> Digest {
    Digest([0; 32])
}

/// One program or archive of the toolchain.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedTool {
    /// What it is: `rustc`, `cc1`, `libc.a`.
    pub name: String,
    /// Where it comes from, with the version, as it says itself.
    pub package: String,
    /// SHA-256 of the file, or of a list of files as [`super::toolchain`] makes it.
    pub sha256: Digest,
}

impl std::fmt::Display for LockedTool {
    /// As the lock file has it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, package, sha256 } = self;
        writeln!(f, "[[tool]]\nname = {name:?}\npackage = {package:?}\nsha256 = \"{sha256}\"")
    }
}

/// One package.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version, as Debian writes it.
    pub version: String,
    /// The suite of Debian whose index has it.
    pub suite: String,
    /// Where it lies below a mirror's root.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the file.
    pub sha256: Digest,
}

impl std::fmt::Display for Package {
    /// As the lock file has it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, version, suite, path, size, sha256 } = self;
        writeln!(f, "[[package]]\nname = {name:?}\nversion = {version:?}\nsuite = {suite:?}")?;
        writeln!(f, "path = {path:?}\nsize = {size}\nsha256 = \"{sha256}\"")
    }
}

impl Package {
    /// Name of the file.
    #[must_use]
    pub fn file(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    fn check(&self) -> Result<(), String> {
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        if !self.path.split('/').all(plain) || self.path.contains('\\') {
            return Err(format!("package {}: path {:?} is not a plain path", self.name, self.path));
        }
        if self.size > MAX_PACKAGE {
            return Err(format!(
                "package {}: {} bytes, at most {MAX_PACKAGE} are allowed",
                self.name, self.size
            ));
        }
        Ok(())
    }
}

impl Lock {
    /// Reads the packages of a `driver.lock` ([`super::cuda`]), which has more keys.
    ///
    /// # Errors
    /// As [`Lock::parse`].
    pub(crate) fn of_driver(text: &str, path: &Path) -> Result<Self, Error> {
        let wrong = |why: String| Error::Lock { path: path.to_owned(), why };
        let mut table: toml::Table =
            toml::from_str(text).map_err(|e| wrong(e.message().replace('\n', ", ")))?;
        for key in ["driver", "file"] {
            table.remove(key);
        }
        let rest = toml::Value::Table(table)
            .try_into::<Self>()
            .map_err(|e| wrong(e.message().replace('\n', ", ")))?;
        rest.checked(text, path)
    }

    /// Reads a lock file's text; `path` is for errors.
    ///
    /// # Errors
    /// [`Error::Lock`] for what is no lock file of this version, or names a package twice.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let wrong = |why: String| Error::Lock { path: path.to_owned(), why };
        if text.len() > MAX_LEN {
            return Err(wrong(format!("{} bytes, at most {MAX_LEN} are allowed", text.len())));
        }
        let lock: Self = toml::from_str(text).map_err(|e| wrong(e.message().replace('\n', ", ")))?;
        lock.checked(text, path)
    }

    fn checked(self, text: &str, path: &Path) -> Result<Self, Error> {
        let wrong = |why: String| Error::Lock { path: path.to_owned(), why };
        let mut lock = self;
        if lock.version != 1 {
            return Err(wrong(format!("version {} is unknown, expected 1", lock.version)));
        }
        lock.digest = Digest::of(text.as_bytes());
        for (index, package) in lock.packages.iter().enumerate() {
            package.check().map_err(wrong)?;
            if lock.packages.iter().skip(index + 1).any(|other| other.name == package.name) {
                return Err(wrong(format!("package {} is there twice", package.name)));
            }
        }
        Ok(lock)
    }

    #[cfg(test)]
    pub(crate) fn empty() -> Self {
        Self { version: 1, packages: Vec::new(), tools: Vec::new(), digest: no_digest() }
    }

    /// The package whose name starts with `prefix`, or is it: a kernel's name has its version in it.
    ///
    /// # Errors
    /// [`Error::Package`] if there is none, or more than one.
    pub fn package(&self, prefix: &str) -> Result<&Package, Error> {
        let mut found = self.packages.iter().filter(|package| package.name.starts_with(prefix));
        match (found.next(), found.next()) {
            (Some(package), None) => Ok(package),
            (None, _) => Err(Error::package(prefix, "the lock file has no such package")),
            (Some(_), Some(_)) => match self.packages.iter().find(|package| package.name == prefix) {
                Some(exact) => Ok(exact),
                None => Err(Error::package(prefix, "the lock file has several such packages")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = include_str!("../../inputs.lock");

    fn refused(text: &str) -> String {
        Lock::parse(text, Path::new("inputs.lock")).unwrap_err().to_string()
    }

    #[test]
    fn the_projects_own_is_complete() {
        let lock = Lock::parse(LOCK, Path::new("inputs.lock")).unwrap();
        assert_eq!(lock.package("linux-image-").unwrap().version, "6.12.117-1");
        assert_eq!(lock.package("ovmf").unwrap().name, "ovmf", "not ovmf-amdsev");
        assert_eq!(lock.package("ovmf-amdsev").unwrap().file(), "ovmf-amdsev_2026.08+ds-2_all.deb");
        assert!(lock.package("grub").unwrap_err().to_string().contains("no such package"));
        assert!(lock.package("o").unwrap_err().to_string().contains("several"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(refused(&LOCK.replace("version = 1\n", "version = 2\n")).contains("version 2 is unknown"));
        assert!(refused(&LOCK.replace("size =", "length =")).contains("length"));
        assert!(refused(&LOCK.replace("name = \"ovmf-amdsev\"", "name = \"ovmf\"")).contains("twice"));
        assert!(refused(&LOCK.replace("pool/main/l/", "pool/../l/")).contains("not a plain path"));
        assert!(refused(&LOCK.replace("\"pool/main/l/", "\"/main/l/")).contains("not a plain path"));
        assert!(refused(&LOCK.replace("size = 716868", "size = 1073741825")).contains("at most 1073741824"));
        assert!(refused(&LOCK.replace("sha256 = \"4113", "sha256 = \"411")).contains("hex digits"));
        assert!(refused(&" ".repeat(MAX_LEN + 1)).contains("at most 262144"));
        assert!(refused("version = 1").starts_with("inputs.lock: "));
    }
}
