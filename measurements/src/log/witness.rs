//! Cosigns what a log shows (C2SP tlog-cosignature).

use std::path::Path;

use cocoon_attestation::UnixTime;
use cocoon_attestation::release::{PublicKey, is_key_name};

use super::layout::CHECKPOINT;
use super::reader::write_checkpoint;
use super::seen::Seen;
use super::{Log, LogError, cosignature, layout};
use crate::key::SigningKey;

/// Adds the cosignature of `name` to the checkpoint of the log in `dir`, after checking the whole log: that `log_key` signed it as
/// `origin`, that it has what it says, and that it continues what this witness saw before.
///
/// # Errors
/// When one of these does not hold, or files cannot be read or written.
pub fn cosign(
    dir: &Path,
    (origin, log_key): (&str, &PublicKey),
    (name, key): (&str, &SigningKey),
    seen: &Seen,
    now: UnixTime,
) -> Result<Log, LogError> {
    if !is_key_name(name) {
        let why =
            format!("{name:?}: a name is visible ASCII without spaces and plus signs, as witness.example");
        return Err(LogError::Misuse(why));
    }
    let _held = layout::lock(dir)?;
    let mut log = Log::open(dir)?;
    log.check_signature(origin, log_key)?;
    log.check_tiles()?;
    seen.check(&log)?;
    let public = super::public_key(key).map_err(|error| LogError::Misuse(error.to_string()))?;
    if public == *log_key {
        return Err(LogError::Misuse("a log is no witness of itself: use another key".to_owned()));
    }
    let text = log.checkpoint.text();
    log.note.sign(cosignature(key, &public, name, &text, now));
    // First remembered, then said: after a crash nothing was signed that is forgotten.
    seen.remember(&log)?;
    write_checkpoint(&dir.join(CHECKPOINT), &log.note)?;
    Ok(log)
}
