//! Components: the crates of `Cargo.lock` and the packages of `inputs.lock`.

use std::collections::BTreeSet;
use std::path::Path;

use cocoon_attestation::Digest;
use cocoon_attestation::release::Component;
use serde::Deserialize;

use super::ReleaseError;
use crate::image::lock::Lock;

#[derive(Deserialize)]
struct CargoLock {
    #[serde(rename = "package")]
    packages: Vec<Crate>,
}

/// A crate; those without a checksum are the project's own.
#[derive(Deserialize)]
struct Crate {
    name: String,
    version: String,
    checksum: Option<Digest>,
}

/// The crates of a `Cargo.lock`, kind `crate`.
///
/// # Errors
/// When it is no such file.
pub fn crates(path: &Path, bytes: &[u8]) -> Result<BTreeSet<Component>, ReleaseError> {
    let lock: CargoLock = toml::from_str(text(path, bytes)?)
        .map_err(|error| ReleaseError::wrong(path, format!("no Cargo.lock: {}", error.message())))?;
    let component = |one: Crate| Component {
        kind: "crate".to_owned(),
        name: one.name,
        version: one.version,
        sha256: one.checksum,
    };
    Ok(lock.packages.into_iter().map(component).collect())
}

/// The packages of an `inputs.lock`, kind `deb`.
///
/// # Errors
/// When it is no such file.
pub fn packages(path: &Path, bytes: &[u8]) -> Result<BTreeSet<Component>, ReleaseError> {
    let lock = Lock::parse(text(path, bytes)?, path);
    let lock = lock.map_err(|error| ReleaseError::Refused(error.to_string()))?;
    let component = |one: crate::image::lock::Package| Component {
        kind: "deb".to_owned(),
        name: one.name,
        version: one.version,
        sha256: Some(one.sha256),
    };
    Ok(lock.packages.into_iter().map(component).collect())
}

fn text<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a str, ReleaseError> {
    std::str::from_utf8(bytes).map_err(|_bytes| ReleaseError::wrong(path, "not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_projects_own_lock_files() {
        let path = Path::new("x.lock");
        let crates_of_ours = crates(path, include_bytes!("../../../Cargo.lock")).unwrap();
        let own = crates_of_ours.iter().find(|one| one.name == "cocoon-enclave").unwrap();
        assert_eq!(own.sha256, None);
        assert!(crates_of_ours.iter().any(|one| one.name == "ring" && one.sha256.is_some()));
        let debs = packages(path, include_bytes!("../../inputs.lock")).unwrap();
        assert!(debs.iter().any(|one| one.name == "ovmf-amdsev" && one.sha256.is_some()));
        let refused = |error: ReleaseError| error.to_string();
        assert!(refused(crates(path, b"x = 1").unwrap_err()).contains("x.lock: no Cargo.lock"));
        assert!(refused(packages(path, b"x = 1").unwrap_err()).starts_with("x.lock: "));
        assert!(refused(crates(path, &[0xff]).unwrap_err()).contains("not UTF-8"));
    }
}
