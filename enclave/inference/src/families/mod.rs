//! The families of models: one file each, which says what of the general decoder a family uses. To add one, write its file and
//! enter it below.

mod gemma;
mod llama;
mod qwen;

use crate::backend::{Activation, Sizes};
use crate::cpu::MAX_DIM;
use crate::error::Error;
use crate::rotary::Rope;
use crate::source::{Source, bad};

/// Beyond the largest known models (126 layers, 16,384 wide, feed-forward 53,248): what exceeds it is a broken file.
const MAX_LAYERS: usize = 512;
const MAX_WIDTH: usize = 1 << 17;
const MAX_CONTEXT: usize = 1 << 22;

/// Reads the metadata of a family.
type Read = fn(&Source<'_>) -> Result<Spec, Error>;

/// Architectures, as `general.architecture` names them, and what reads their files.
const FAMILIES: [(&str, Read); 5] = [
    ("llama", llama::spec), // SmolLM and Mistral too
    ("qwen2", qwen::qwen2),
    ("qwen3", qwen::qwen3),
    ("gemma2", gemma::gemma2),
    ("gemma3", gemma::gemma3),
];
const SUPPORTED: &str = "llama (SmolLM, Mistral), qwen2, qwen3, gemma2, gemma3";

/// How a decoder-only transformer of any family computes.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) sizes: Sizes,
    /// Positions the model was made for.
    pub(crate) context: usize,
    pub(crate) epsilon: f32,
    pub(crate) activation: Activation,
    /// What embeddings are multiplied with.
    pub(crate) embedding_scale: f32,
    /// What products of queries and keys are multiplied with.
    pub(crate) attention_scale: f32,
    pub(crate) attention_softcap: Option<f32>,
    pub(crate) output_softcap: Option<f32>,
    /// Whether queries and keys are normalised head by head.
    pub(crate) head_norms: bool,
    /// Whether the results of a layer's halves are normalised too.
    pub(crate) post_norms: bool,
    /// Whether rows of query and key weights are laid out for rotating neighbours, as GGUF files of Llama are.
    pub(crate) neighbours: bool,
    /// Tables of angles.
    pub(crate) ropes: Vec<Rope>,
    /// Per layer: which table, and how many positions a row sees.
    pub(crate) layers: Vec<LayerSpec>,
}

/// What differs between the layers of a model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerSpec {
    pub(crate) rope: usize,
    pub(crate) window: Option<usize>,
}

impl Spec {
    /// Reads what the metadata say; `vocabulary` is the tokenizer's.
    pub(crate) fn read(source: &Source<'_>, vocabulary: usize) -> Result<Self, Error> {
        let architecture = source.string("general.architecture")?;
        let family = FAMILIES.iter().find(|(name, _)| *name == architecture);
        let Some((_, read)) = family else {
            let name = architecture.to_owned();
            return Err(Error::Unsupported { what: "architecture", name, supported: SUPPORTED });
        };
        let mut spec = read(source)?;
        spec.sizes.vocabulary = vocabulary;
        Ok(spec)
    }
}

/// Keys of one architecture.
struct Keys<'a, 'b> {
    source: &'a Source<'b>,
    architecture: &'static str,
}

impl Keys<'_, '_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    /// A count between 1 and `max`.
    fn count(&self, name: &str, max: usize) -> Result<usize, Error> {
        let key = self.key(name);
        let n = self.source.number(&key)?;
        if n == 0 || n > max { Err(bad(&key, &format!("{n} is not between 1 and {max}"))) } else { Ok(n) }
    }

    fn optional_count(&self, name: &str, max: usize) -> Result<Option<usize>, Error> {
        if self.source.optional_number(&self.key(name))?.is_none() {
            return Ok(None);
        }
        self.count(name, max).map(Some)
    }

    fn float(&self, name: &str) -> Result<Option<f32>, Error> {
        self.source.optional_float(&self.key(name))
    }

    /// A number that must be above zero.
    fn positive(&self, name: &str) -> Result<Option<f32>, Error> {
        match self.float(name)? {
            Some(x) if x <= 0.0 => Err(bad(&self.key(name), "is not above 0")),
            x => Ok(x),
        }
    }

    /// What all families have in common: a Llama without its peculiarities.
    fn common(&self) -> Result<Spec, Error> {
        let layers = self.count("block_count", MAX_LAYERS)?;
        let hidden = self.multiple_of_16("embedding_length", MAX_WIDTH)?;
        let feed_forward = self.multiple_of_16("feed_forward_length", MAX_WIDTH)?;
        let context = self.count("context_length", MAX_CONTEXT)?;
        let heads = self.count("attention.head_count", hidden)?;
        let kv_heads = self.optional_count("attention.head_count_kv", heads)?.unwrap_or(heads);
        let dim = self.head_size(hidden, heads)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(bad(
                &self.key("attention.head_count"),
                "is not a multiple of the heads of keys and values",
            ));
        }
        let epsilon = "attention.layer_norm_rms_epsilon";
        let epsilon =
            self.positive(epsilon)?.ok_or_else(|| Error::MissingMetadata { key: self.key(epsilon) })?;
        let rope = self.rope(dim)?;
        Ok(Spec {
            sizes: Sizes { vocabulary: 0, hidden, feed_forward, layers, heads, kv_heads, dim },
            context,
            epsilon,
            activation: Activation::Silu,
            embedding_scale: 1.0,
            attention_scale: 1.0 / (dim as f32).sqrt(),
            attention_softcap: None,
            output_softcap: None,
            head_norms: false,
            post_norms: false,
            neighbours: false,
            ropes: vec![rope],
            layers: vec![LayerSpec { rope: 0, window: None }; layers],
        })
    }

    fn multiple_of_16(&self, name: &str, max: usize) -> Result<usize, Error> {
        let n = self.count(name, max)?;
        if n.is_multiple_of(16) { Ok(n) } else { Err(bad(&self.key(name), "is not a multiple of 16")) }
    }

    fn head_size(&self, hidden: usize, heads: usize) -> Result<usize, Error> {
        let dim = match self.optional_count("attention.key_length", MAX_DIM)? {
            Some(dim) => dim,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => return Err(bad(&self.key("attention.head_count"), "does not divide the embedding")),
        };
        if self.optional_count("attention.value_length", MAX_DIM)?.is_some_and(|len| len != dim) {
            return Err(bad(&self.key("attention.value_length"), "differs from the length of keys"));
        }
        if !dim.is_multiple_of(16) || dim > MAX_DIM {
            return Err(bad(
                &self.key("attention.head_count"),
                &format!(
                    "makes heads of {dim} numbers; this engine computes multiples of 16 up to {MAX_DIM}"
                ),
            ));
        }
        Ok(dim)
    }

    fn rope(&self, dim: usize) -> Result<Rope, Error> {
        let dims = self.optional_count("rope.dimension_count", dim)?.unwrap_or(dim);
        if !dims.is_multiple_of(2) {
            return Err(bad(&self.key("rope.dimension_count"), "is odd"));
        }
        let divisor = match self.source.optional_string(&self.key("rope.scaling.type"))? {
            Some("none") => 1.0,
            None | Some("linear") => {
                let factor = self.positive("rope.scaling.factor")?;
                factor.or(self.positive("rope.scale_linear")?).unwrap_or(1.0) // the older name
            }
            Some(name) => {
                let name = name.to_owned();
                return Err(Error::Unsupported { what: "rope scaling", name, supported: "none, linear" });
            }
        };
        Ok(Rope { base: self.positive("rope.freq_base")?.unwrap_or(10_000.0), dims, divisor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf;
    use crate::testing::Tiny;

    fn read(tiny: Tiny) -> Result<Spec, String> {
        let bytes = tiny.build();
        Spec::read(&gguf::parse(&bytes).unwrap(), 300).map_err(|error| error.to_string())
    }

    #[test]
    fn sizes_out_of_range_are_refused_by_name() {
        for (key, value) in [
            ("llama.block_count", 0),
            ("llama.block_count", MAX_LAYERS + 1),
            ("llama.embedding_length", MAX_WIDTH + 16),
            ("llama.embedding_length", 72),
            ("llama.feed_forward_length", 100),
            ("llama.context_length", MAX_CONTEXT + 1),
            ("llama.attention.head_count", 0),
            ("llama.attention.head_count", 8), // heads of 8
            ("llama.attention.head_count", 3),
            ("llama.attention.head_count_kv", 3),
            ("llama.attention.head_count_kv", 5),
            ("llama.attention.key_length", MAX_DIM + 16),
            ("llama.attention.key_length", 24),
            ("llama.attention.value_length", 32),
            ("llama.rope.dimension_count", 3),
            ("llama.rope.dimension_count", 18),
            ("llama.attention.sliding_window", 0),
        ] {
            let error = read(Tiny::default().with_number(key, value)).unwrap_err();
            let named = error.contains(key) || error.contains("head_count") || error.contains("value_length");
            assert!(named, "{key} = {value}: {error}");
        }
        assert!(read(Tiny::default().with_number("llama.block_count", MAX_LAYERS)).is_ok());
        assert!(read(Tiny::default().with_number("llama.context_length", MAX_CONTEXT)).is_ok());
        assert!(read(Tiny::default().with_number("llama.attention.key_length", MAX_DIM)).is_ok());
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused_by_name() {
        for key in
            ["llama.rope.freq_base", "llama.attention.layer_norm_rms_epsilon", "llama.rope.scaling.factor"]
        {
            assert!(read(Tiny::default().with_number(key, 0)).unwrap_err().contains(key), "{key}");
        }
    }

    #[test]
    fn positions_are_divided_as_either_key_says() {
        let divisor = |key: &str| read(Tiny::default().with_float(key, 4.0)).unwrap().ropes[0].divisor;
        assert!((divisor("llama.rope.scaling.factor"), divisor("llama.rope.scale_linear")) == (4.0, 4.0));
        assert!(read(Tiny::default()).unwrap().ropes[0].divisor == 1.0);
    }
}
