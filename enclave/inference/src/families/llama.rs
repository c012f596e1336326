//! Llama, and what is built like it: SmolLM, Mistral.

use super::{Keys, MAX_CONTEXT, Spec};
use crate::error::Error;
use crate::source::Source;

pub(super) fn spec(source: &Source<'_>) -> Result<Spec, Error> {
    let keys = Keys { source, architecture: "llama" };
    let mut spec = keys.common()?;
    spec.neighbours = true;
    if let Some(window) = keys.optional_count("attention.sliding_window", MAX_CONTEXT)? {
        spec.layers.iter_mut().for_each(|layer| layer.window = Some(window)); // Mistral 7B v0.1
    }
    Ok(spec)
}
