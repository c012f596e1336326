//! The model file, read once into private memory and hashed while it is read: whoever holds the file cannot change
//! what was hashed after the fact.

use crate::error::Error;
use ring::digest::{Context, SHA256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// The largest model file that is accepted: 64 GiB, more than any model that a CPU answers with in reasonable time.
pub const MAX_MODEL_BYTES: u64 = 64 << 30;

/// Bytes between two calls of `progress`.
const CHUNK: usize = 1 << 20;

/// A whole model file in private memory, with its digest.
#[derive(Debug)]
pub struct ModelBytes {
    bytes: Bytes,
    sha256: [u8; 32],
}

/// The bytes alone, so that `Debug` of `ModelBytes` does not print gigabytes.
struct Bytes(Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl ModelBytes {
    /// A model that is in memory already.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(ring::digest::digest(&SHA256, &bytes).as_ref());
        Self { bytes: Bytes(bytes), sha256 }
    }

    /// SHA-256 of the whole file.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.bytes.0.len()
    }

    /// Whether the file is empty.
    pub fn is_empty(&self) -> bool {
        self.bytes.0.is_empty()
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes.0
    }
}

/// Reads a model file once, from the first byte to the last, calling `progress(bytes read, bytes in all)` on the way.
///
/// Block devices work as well as files. They end at a whole sector: `size` says how many of their bytes are the model.
pub fn read_model(
    path: &Path,
    size: Option<u64>,
    mut progress: impl FnMut(u64, u64),
) -> Result<ModelBytes, Error> {
    let unreachable = |source| Error::Unreachable { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreachable)?;
    let end = file.seek(SeekFrom::End(0)).map_err(unreachable)?;
    file.rewind().map_err(unreachable)?;
    let total = size.unwrap_or(end);
    let mut file = file.take(size.unwrap_or(u64::MAX));
    let mut bytes = reserve(total, MAX_MODEL_BYTES)?;

    let mut hash = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK];
    progress(0, total);
    loop {
        let n = match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreachable(error)),
        };
        let read = (bytes.len() + n) as u64;
        if read > total {
            return Err(Error::Changed { expected: total, read });
        }
        let piece = chunk.get(..n).unwrap_or_default();
        hash.update(piece);
        bytes.extend_from_slice(piece);
        progress(read, total);
    }
    if bytes.len() as u64 != total {
        return Err(Error::Changed { expected: total, read: bytes.len() as u64 });
    }
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(hash.finish().as_ref());
    Ok(ModelBytes { bytes: Bytes(bytes), sha256 })
}

/// An empty buffer for `len` bytes, or an error where an allocation would abort.
fn reserve(len: u64, max: u64) -> Result<Vec<u8>, Error> {
    let too_large = || Error::TooLarge { len, max };
    if len > max {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let wanted = usize::try_from(len).ok().ok_or_else(too_large)?;
    bytes.try_reserve_exact(wanted).ok().ok_or_else(too_large)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hashes_and_reports_progress() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..=250).cycle().take(3 * CHUNK + 17).collect();
        std::fs::write(file.path(), &content).unwrap();
        let mut seen = Vec::new();
        let model = read_model(file.path(), None, |read, total| seen.push((read, total))).unwrap();
        assert_eq!(model.as_slice(), content);
        assert_eq!(model.sha256(), ModelBytes::from_vec(content.clone()).sha256());
        assert_eq!(seen.first(), Some(&(0, content.len() as u64)));
        assert_eq!(seen.last(), Some(&(content.len() as u64, content.len() as u64)));
        assert!(seen.is_sorted());
        assert!(format!("{model:?}").len() < 300);
    }

    #[test]
    fn a_disk_is_read_as_far_as_the_model_goes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"model\0\0\0").unwrap();
        let model = read_model(file.path(), Some(5), |_, total| assert_eq!(total, 5)).unwrap();
        assert_eq!(model.as_slice(), b"model");
        let short = read_model(file.path(), Some(9), |_, _| ()).unwrap_err();
        assert!(matches!(short, Error::Changed { expected: 9, read: 8 }), "{short}");
    }

    #[test]
    fn names_a_missing_file() {
        let error = read_model(Path::new("/nowhere/model.gguf"), None, |_, _| ()).unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }));
        assert!(error.to_string().contains("/nowhere/model.gguf"));
    }

    #[test]
    fn refuses_one_byte_more_than_the_cap() {
        assert!(reserve(16, 16).is_ok());
        assert!(matches!(reserve(17, 16), Err(Error::TooLarge { len: 17, max: 16 })));
    }

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        assert_eq!(ModelBytes::from_vec(Vec::new()).sha256()[..4], [0xe3, 0xb0, 0xc4, 0x42]);
    }
}
