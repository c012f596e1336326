//! The hyperparameters in `config.json`, under the names that GGUF files give them (`convert_hf_to_gguf.py` of llama.cpp).
//!
//! Every key is either translated, checked or known to change nothing; any other key is refused by its name, since what
//! it changes would silently not be computed.

use super::keys::{Keys, unsupported};
use crate::error::Error;
use crate::source::bad;
use candle_core::quantized::gguf_file::Value as Meta;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// What a family is called in the two formats, and how it is told from its relatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Gemma2,
    Gemma3,
}

const FAMILIES: [(&str, &str, Family); 6] = [
    ("llama", "LlamaForCausalLM", Family::Llama),
    ("mistral", "MistralForCausalLM", Family::Mistral),
    ("qwen2", "Qwen2ForCausalLM", Family::Qwen2),
    ("qwen3", "Qwen3ForCausalLM", Family::Qwen3),
    ("gemma2", "Gemma2ForCausalLM", Family::Gemma2),
    ("gemma3_text", "Gemma3ForCausalLM", Family::Gemma3),
];

/// Keys that change nothing of what is computed, or only how it was trained.
const WITHOUT_EFFECT: &[&str] = &[
    "_name_or_path",
    "_attn_implementation_autoset",
    "architectures",
    "attention_dropout",
    "bos_token_id",
    "cache_implementation",
    "dtype",
    "eos_token_id",
    "initializer_range",
    "is_llama_config",
    "max_window_layers",
    "model_type",
    "pad_token_id",
    "pretraining_tp",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
    "vocab_size",
];
/// Keys that must be false where they are there: what they switch on, we do not have.
const OFF: [&str; 4] = ["attention_bias", "mlp_bias", "rope_interleaved", "use_bidirectional_attention"];

impl Family {
    /// `general.architecture`.
    fn architecture(self) -> &'static str {
        match self {
            Self::Llama | Self::Mistral => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3",
        }
    }

    pub(super) fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3)
    }

    /// Whether the rows of the query and key matrices are in another order in GGUF files.
    pub(super) fn permutes(self) -> bool {
        matches!(self, Self::Llama | Self::Mistral)
    }
}

/// What `config.json` says.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) family: Family,
    pub(super) metadata: HashMap<String, Meta>,
    /// Whether the output matrix is the embedding.
    pub(super) tied: bool,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) vocabulary: usize,
    /// Factors of the rotary frequencies (Llama 3), as the tensor `rope_freqs.weight`.
    pub(super) rope_factors: Option<Vec<f32>>,
    /// Tokens that end a turn.
    pub(super) ends: Vec<u32>,
}

/// Translates `config.json`.
pub(super) fn read(bytes: &[u8]) -> Result<Config, Error> {
    let map: Map<String, Value> = serde_json::from_slice(bytes).map_err(|error| Error::MalformedFile {
        name: "config.json".to_owned(),
        problem: error.to_string(),
    })?;
    let ends = super::ids(map.get("eos_token_id"));
    let mut keys = Keys(map);
    let family = keys.family()?;
    let mut reading = Reading::new(&mut keys, family)?;
    reading.dimensions()?;
    reading.rope()?;
    reading.attention()?;
    reading.activation()?;
    let tied = reading.keys.flag("tie_word_embeddings")?.unwrap_or(family.is_gemma());
    let Reading { metadata, heads, kv_heads, vocabulary, rope_factors, .. } = reading;
    keys.finish()?;
    Ok(Config { family, metadata, tied, heads, kv_heads, vocabulary, rope_factors, ends })
}

impl Keys {
    fn family(&self) -> Result<Family, Error> {
        let name = self.0.get("model_type").and_then(Value::as_str).unwrap_or("without model_type");
        let Some((_, class, family)) = FAMILIES.into_iter().find(|(known, _, _)| *known == name) else {
            const SUPPORTED: &str = "llama, mistral, qwen2, qwen3, gemma2, gemma3_text";
            let name = name.chars().take(100).collect();
            return Err(Error::Unsupported { what: "model type", name, supported: SUPPORTED });
        };
        match self.0.get("architectures") {
            Some(classes) if classes != &serde_json::json!([class]) => {
                Err(bad("architectures", &format!("is not [\"{class}\"]")))
            }
            _ => Ok(family),
        }
    }

    /// Refuses rotary parameters other than this base.
    fn plain(mut self, base: f32) -> Result<(), Error> {
        let theta = self.float("rope_theta")?.unwrap_or(base);
        let kind = self.take("rope_type");
        if (theta - base).abs() > 0.5 || kind.is_some_and(|kind| kind != "default") {
            return Err(unsupported("rope_parameters.sliding_attention"));
        }
        self.nothing_left("rope_parameters.sliding_attention")
    }

    /// Refuses what was not understood.
    fn finish(mut self) -> Result<(), Error> {
        for key in OFF {
            if self.flag(key)? == Some(true) {
                return Err(unsupported(key));
            }
        }
        if self.float("partial_rotary_factor")?.is_some_and(|part| part < 1.0) {
            return Err(unsupported("partial_rotary_factor"));
        }
        self.nothing_but(WITHOUT_EFFECT)
    }
}

/// A translation on its way.
struct Reading<'k> {
    keys: &'k mut Keys,
    family: Family,
    metadata: HashMap<String, Meta>,
    layers: u32,
    hidden: u32,
    heads: usize,
    kv_heads: usize,
    head_dim: u32,
    vocabulary: usize,
    rope_factors: Option<Vec<f32>>,
}

impl<'k> Reading<'k> {
    fn new(keys: &'k mut Keys, family: Family) -> Result<Self, Error> {
        let hidden = keys.count("hidden_size")?;
        let heads = keys.count("num_attention_heads")?;
        let head_dim = keys.optional_count("head_dim")?.unwrap_or(hidden / heads);
        let kv_heads = keys.optional_count("num_key_value_heads")?.unwrap_or(heads);
        let vocabulary = keys.count("vocab_size")? as usize;
        if vocabulary > super::tokenizer::MAX_TOKENS {
            return Err(bad("vocab_size", "is too large"));
        }
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(bad("head_dim", "is odd or zero"));
        }
        let mut reading = Self {
            layers: keys.count("num_hidden_layers")?,
            keys,
            family,
            metadata: HashMap::new(),
            hidden,
            heads: heads as usize,
            kv_heads: kv_heads as usize,
            head_dim,
            vocabulary,
            rope_factors: None,
        };
        let architecture = Meta::String(family.architecture().to_owned());
        reading.metadata.insert("general.architecture".to_owned(), architecture);
        for (key, count) in [
            ("block_count", reading.layers),
            ("embedding_length", hidden),
            ("attention.head_count", heads),
            ("attention.head_count_kv", kv_heads),
            ("attention.key_length", head_dim),
            ("attention.value_length", head_dim),
            ("rope.dimension_count", head_dim),
        ] {
            reading.set(key, Meta::U32(count));
        }
        Ok(reading)
    }

    fn set(&mut self, key: &str, value: Meta) {
        self.metadata.insert(format!("{}.{key}", self.family.architecture()), value);
    }

    fn dimensions(&mut self) -> Result<(), Error> {
        let feed_forward = self.keys.count("intermediate_size")?;
        let epsilon = self.keys.float("rms_norm_eps")?.unwrap_or(1e-6);
        self.set("feed_forward_length", Meta::U32(feed_forward));
        self.set("attention.layer_norm_rms_epsilon", Meta::F32(epsilon));
        Ok(())
    }

    /// Rotary embedding: its base and how it is stretched.
    fn rope(&mut self) -> Result<(), Error> {
        // Transformers 5 has both in one object, or in one per kind of layer.
        let mut parameters = self.scaling("rope_parameters")?.unwrap_or_default();
        if let (Family::Gemma3, Some(local)) = (self.family, parameters.object("sliding_attention")?) {
            local.plain(1e4)?;
            let global = parameters.object("full_attention")?.unwrap_or_default();
            std::mem::replace(&mut parameters, global).nothing_left("rope_parameters")?;
        }
        let default = if self.family == Family::Gemma3 { 1e6 } else { 1e4 };
        let older = self.keys.float("rope_theta")?;
        let base = parameters.float("rope_theta")?.or(older).unwrap_or(default);
        self.set("rope.freq_base", Meta::F32(base));
        let mut scaling = match self.scaling("rope_scaling")? {
            Some(scaling) => scaling,
            None => parameters,
        };
        let kind = match scaling.take("rope_type").or(scaling.take("type")) {
            None => "default".to_owned(),
            Some(kind) => kind.as_str().unwrap_or("unnamed").to_owned(),
        };
        scaling.take("type"); // older files have both
        match (kind.as_str(), self.family) {
            ("default", _) => (),
            ("linear", _) => {
                let factor = scaling.float("factor")?.ok_or_else(|| bad("rope_scaling", "has no factor"))?;
                self.set("rope.scaling.type", Meta::String("linear".to_owned()));
                self.set("rope.scaling.factor", Meta::F32(factor));
            }
            ("llama3", Family::Llama) => self.rope_factors = Some(self.llama3(base, &mut scaling)?),
            (other, _) => {
                let name = other.chars().take(100).collect();
                let supported = "default, linear, and llama3 for model type llama";
                return Err(Error::Unsupported { what: "rope scaling", name, supported });
            }
        }
        scaling.nothing_left("rope_scaling")
    }

    fn scaling(&mut self, key: &str) -> Result<Option<Keys>, Error> {
        self.keys.object(key)
    }

    /// Frequencies of Llama 3: long waves are stretched, short ones are not, and between the two is a smooth way. As
    /// `LlamaModel.generate_extra_tensors` of llama.cpp's converter: a factor by which each frequency is divided.
    fn llama3(&self, base: f32, scaling: &mut Keys) -> Result<Vec<f32>, Error> {
        let mut get =
            |key: &str, default: f32| Ok::<_, Error>(f64::from(scaling.float(key)?.unwrap_or(default)));
        let (factor, low, high) =
            (get("factor", 8.0)?, get("low_freq_factor", 1.0)?, get("high_freq_factor", 4.0)?);
        let old = get("original_max_position_embeddings", 8192.0)?;
        if high <= low {
            return Err(bad("rope_scaling", "has a high_freq_factor that is not above low_freq_factor"));
        }
        let dim = f64::from(self.head_dim);
        let one = |pair: u32| {
            let wave = std::f64::consts::TAU * libm::pow(f64::from(base), f64::from(2 * pair) / dim);
            if wave < old / high {
                return 1.0;
            }
            if wave > old / low {
                return factor;
            }
            let smooth = (old / wave - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        };
        #[expect(clippy::cast_possible_truncation, reason = "the tensor has 32-bit floats")]
        Ok((0..self.head_dim / 2).map(|pair| one(pair) as f32).collect())
    }

    /// Sliding windows, softcaps and scales.
    fn attention(&mut self) -> Result<(), Error> {
        let mut context = self.keys.count("max_position_embeddings")?;
        let window = self.keys.optional_count("sliding_window")?;
        let switched_off = self.keys.flag("use_sliding_window")? == Some(false);
        if self.family.is_gemma() {
            let window = window.ok_or_else(|| Error::MissingMetadata { key: "sliding_window".to_owned() })?;
            self.set("attention.sliding_window", Meta::U32(window));
            self.gemma()?;
        } else if self.family == Family::Mistral {
            if let Some(window) = window {
                self.set("attention.sliding_window", Meta::U32(window));
            }
        } else if let Some(window) = window.filter(|_| !switched_off) {
            // GGUF has no window for Qwen's upper layers. Within the first window's length it makes no difference.
            context = context.min(window);
        }
        self.layer_types()?;
        self.set("context_length", Meta::U32(context));
        Ok(())
    }

    fn gemma(&mut self) -> Result<(), Error> {
        for (key, name) in [
            ("attn_logit_softcapping", "attn_logit_softcapping"),
            ("final_logit_softcapping", "final_logit_softcapping"),
        ] {
            match (self.keys.float(key)?, self.family) {
                (Some(cap), Family::Gemma2) => self.set(name, Meta::F32(cap)),
                (None, Family::Gemma2) => return Err(Error::MissingMetadata { key: key.to_owned() }),
                (None, _) => (),
                (Some(_), _) => return Err(unsupported(key)),
            }
        }
        // GGUF files do not say it: engines know it from the number of layers (`llama_model::load_hparams`).
        let scalar = self.keys.optional_count("query_pre_attn_scalar")?.unwrap_or(256);
        let largest = matches!((self.family, self.layers), (Family::Gemma2, 46) | (Family::Gemma3, 62));
        let heads = u32::try_from(self.heads).unwrap_or(u32::MAX);
        let expected = if largest { self.hidden / heads } else { self.head_dim };
        if scalar != expected {
            return Err(unsupported("query_pre_attn_scalar"));
        }
        let local = self.keys.float("rope_local_base_freq")?.unwrap_or(1e4);
        let usual = (local - 1e4).abs() < 1.0;
        let newer = self.keys.optional_count("_sliding_window_pattern")?;
        let pattern = self.keys.optional_count("sliding_window_pattern")?.or(newer);
        let wanted = if self.family == Family::Gemma2 { 2 } else { 6 };
        match (usual, pattern.is_none_or(|pattern| pattern == wanted)) {
            (true, true) => Ok(()),
            (false, _) => Err(unsupported("rope_local_base_freq")),
            (_, false) => Err(unsupported("sliding_window_pattern")),
        }
    }

    /// Newer files name the kind of each layer: it must be what the family does anyway.
    fn layer_types(&mut self) -> Result<(), Error> {
        let Some(types) = self.keys.take("layer_types") else { return Ok(()) };
        let period = match self.family {
            Family::Gemma2 => 2,
            Family::Gemma3 => 6,
            Family::Llama | Family::Mistral | Family::Qwen2 | Family::Qwen3 => 1,
        };
        let expected = (1..=self.layers)
            .map(|layer| if layer.is_multiple_of(period) { "full_attention" } else { "sliding_attention" });
        let types = types.as_array().map(Vec::as_slice).unwrap_or_default();
        if types.iter().map(Value::as_str).eq(expected.map(Some)) {
            Ok(())
        } else {
            Err(unsupported("layer_types"))
        }
    }

    fn activation(&mut self) -> Result<(), Error> {
        let gelu = ["gelu_pytorch_tanh", "gelu"];
        for key in ["hidden_act", "hidden_activation"] {
            let Some(value) = self.keys.take(key) else { continue };
            let name = value.as_str().unwrap_or_default();
            // Gemma's "gelu" is the approximation by tanh, whatever the name says.
            if !(if self.family.is_gemma() { gelu.contains(&name) } else { name == "silu" }) {
                return Err(unsupported(key));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
