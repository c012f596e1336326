//! Files with evidence and endorsements. Their content is hostile; that they are there is the user's affair.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use cocoon_attestation::x509::{Certificate, RevocationList};
use cocoon_attestation::{Endorsement, EndorsementBundle};

/// Everything that exists is far smaller; what is larger is refused by the parsers without being read whole.
const MAX_LEN: u64 = 4 * 1024 * 1024;

/// A certificate chain of any vendor.
const MAX_CERTIFICATES: usize = 8;

pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_LEN).read_to_end(&mut out))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(out)
}

/// Endorsements that were read, or why they are malformed: which is a result, and no failure of the program.
pub(super) type Given = Result<Vec<Endorsement>, cocoon_attestation::Error>;

/// What `cocoon-host endorsements fetch` wrote.
pub(super) fn bundle(path: &Path) -> anyhow::Result<Given> {
    Ok(EndorsementBundle::decode(&read(path)?).map(|bundle| bundle.0))
}

/// Bytes of each file, in order.
pub(super) fn read_all(paths: &[PathBuf]) -> anyhow::Result<Vec<Vec<u8>>> {
    paths.iter().map(|path| read(path)).collect()
}

pub(super) fn certificates(files: &[Vec<u8>]) -> Result<Vec<Certificate>, cocoon_attestation::Error> {
    let lists = files.iter().map(|bytes| Certificate::list_from_pem_or_der(bytes, MAX_CERTIFICATES));
    Ok(lists.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

pub(super) fn revocation_lists(files: &[Vec<u8>]) -> Result<Vec<RevocationList>, cocoon_attestation::Error> {
    files.iter().map(|bytes| RevocationList::from_pem_or_der(bytes)).collect()
}
