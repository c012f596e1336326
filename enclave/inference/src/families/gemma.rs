//! Gemma 2 and 3: scaled embeddings, norms behind each half of a layer, and layers that see a window only.
//!
//! Files of these have 1 added to the weights of their norms already.

use super::{Keys, LayerSpec, MAX_CONTEXT, Spec};
use crate::backend::Activation;
use crate::error::Error;
use crate::rotary::Rope;
use crate::source::{Source, bad};

/// Layers of the models whose attention is scaled by the width per head instead of the size of a head.
const GEMMA2_27B: usize = 46;
const GEMMA3_27B: usize = 62;

pub(super) fn gemma2(source: &Source<'_>) -> Result<Spec, Error> {
    let keys = Keys { source, architecture: "gemma2" };
    let mut spec = gemma(&keys, GEMMA2_27B)?;
    spec.attention_softcap = Some(keys.positive("attn_logit_softcapping")?.unwrap_or(50.0));
    spec.output_softcap = Some(keys.positive("final_logit_softcapping")?.unwrap_or(30.0));
    let window = keys.optional_count("attention.sliding_window", MAX_CONTEXT)?.unwrap_or(4096);
    for layer in spec.layers.iter_mut().step_by(2) {
        layer.window = Some(window);
    }
    Ok(spec)
}

pub(super) fn gemma3(source: &Source<'_>) -> Result<Spec, Error> {
    let keys = Keys { source, architecture: "gemma3" };
    let mut spec = gemma(&keys, GEMMA3_27B)?;
    spec.head_norms = true;
    spec.output_softcap = keys.positive("final_logit_softcapping")?;
    if keys.float("rope.freq_base")?.is_none() {
        spec.ropes[0].base = 1_000_000.0;
    }
    // Layers that see a window have their own, unscaled angles.
    let base = keys.positive("rope.freq_base_swa")?.unwrap_or(10_000.0);
    spec.ropes.push(Rope { base, dims: spec.ropes[0].dims, divisor: 1.0 });
    let window = keys.optional_count("attention.sliding_window", MAX_CONTEXT)?.unwrap_or(1024);
    if keys.optional_count("attention.sliding_window_pattern", MAX_CONTEXT)?.is_some_and(|every| every != 6) {
        return Err(bad(&keys.key("attention.sliding_window_pattern"), "is not 6"));
    }
    for (index, layer) in spec.layers.iter_mut().enumerate() {
        if !(index + 1).is_multiple_of(6) {
            *layer = LayerSpec { rope: 1, window: Some(window) };
        }
    }
    Ok(spec)
}

fn gemma(keys: &Keys<'_, '_>, by_width: usize) -> Result<Spec, Error> {
    let mut spec = keys.common()?;
    let sizes = spec.sizes;
    if sizes.layers == by_width {
        spec.attention_scale = 1.0 / (sizes.hidden as f32 / sizes.heads as f32).sqrt();
    }
    spec.activation = Activation::GeluTanh;
    spec.embedding_scale = (sizes.hidden as f32).sqrt();
    spec.post_norms = true;
    Ok(spec)
}
