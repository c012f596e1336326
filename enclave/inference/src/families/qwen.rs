//! Qwen 2 (and 2.5), which adds to queries, keys and values; Qwen 3, which normalises queries and keys.

use super::{Keys, Spec};
use crate::error::Error;
use crate::source::Source;

pub(super) fn qwen2(source: &Source<'_>) -> Result<Spec, Error> {
    Keys { source, architecture: "qwen2" }.common()
}

pub(super) fn qwen3(source: &Source<'_>) -> Result<Spec, Error> {
    let mut spec = Keys { source, architecture: "qwen3" }.common()?;
    spec.head_norms = true;
    Ok(spec)
}
