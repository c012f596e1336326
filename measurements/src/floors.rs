//! TCB floors as signed data: `cocoon-measure floors`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use cocoon_attestation::policy::TcbFloors;

use crate::key::SigningKey;

/// Where the signature of `file` lies: beside it, 128 hexadecimal digits.
#[must_use]
pub fn signature_file(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// Signs floors; gives where the signature is. What Verifiers would refuse is not signed.
///
/// # Errors
/// A file cannot be read or written, or is not floors that Verifiers of this version accept.
pub fn sign(file: &Path, key: &SigningKey) -> anyhow::Result<PathBuf> {
    let text = read(file)?;
    let signature = hex::encode(key.sign(&TcbFloors::signed_message(&text)));
    TcbFloors::from_signed(&text, &signature, &key.public()).with_context(|| file.display().to_string())?;
    let to = signature_file(file);
    std::fs::write(&to, format!("{signature}\n"))
        .with_context(|| format!("cannot write {}", to.display()))?;
    Ok(to)
}

/// Reads floors with their signature of `signer`, a public key in hexadecimal.
///
/// # Errors
/// A file cannot be read, or a Verifier with this signer would refuse it ([`cocoon_attestation::Error`]).
pub fn verify(file: &Path, signer: &str) -> anyhow::Result<TcbFloors> {
    let (text, signature) = (read(file)?, read(&signature_file(file))?);
    TcbFloors::from_signed(&text, &signature, signer).with_context(|| file.display().to_string())
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}
