//! Files into the cache: for hosts without a way to the vendors, and for VLEKs, which only the cloud provider has.

use std::path::{Path, PathBuf};

use cocoon_attestation::Endorsement;

use super::{Cache, EndorsementError, read};

/// A bundle has at most 1 MiB.
const MAX_FILE: u64 = 1024 * 1024;
/// Files in one folder that is imported.
const MAX_FILES: usize = 1024;

/// Reads files, and the files of folders, and keeps what they hold, whatever its age: `list` says what is over.
///
/// # Errors
/// The first file that cannot be read or that is no endorsement; nothing is kept then.
pub fn import(cache: &Cache, paths: &[PathBuf]) -> Result<usize, EndorsementError> {
    let mut found = Vec::new();
    for path in files(paths)? {
        let malformed = |e: cocoon_attestation::Error| EndorsementError::Malformed {
            path: path.clone(),
            why: e.to_string(),
        };
        for item in Endorsement::recognise(&read(&path, MAX_FILE)?).map_err(malformed)? {
            let about = item.about().map_err(malformed)?;
            found.push((item, about));
        }
    }
    for (item, about) in &found {
        cache.keep(item, about, None)?;
    }
    Ok(found.len())
}

fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, EndorsementError> {
    let mut out = Vec::new();
    for path in paths {
        if !path.is_dir() {
            out.push(path.clone());
            continue;
        }
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| EndorsementError::File { path, source }
        };
        for entry in std::fs::read_dir(path).map_err(failed(path))?.take(MAX_FILES) {
            let entry = entry.map_err(failed(path))?.path();
            if entry.is_file() {
                out.push(entry);
            }
        }
    }
    out.sort();
    Ok(out)
}
