//! The hyperparameters of a BERT model in `config.json`. Every key is taken, checked, or known to change nothing; any other is
//! refused by its name, since what it changes would silently not be computed.

use crate::error::Error;
use crate::huggingface::{CONFIG, Keys, MAX_TOKENS, object, unsupported};
use crate::source::bad;
use serde_json::{Value, json};

/// Vectors of the kernels have 16 numbers, and a head is a whole number of them.
const DIM_STEP: usize = crate::cpu::LANES;
/// Scores of attention are made for a whole text at a time: this bounds their memory.
const MAX_CONTEXT: usize = 8192;
/// Bound what a hostile configuration makes us allocate before a tensor of the wrong size is found.
const MAX_LAYERS: usize = 1024;
const MAX_WIDTH: usize = 1 << 16;

/// Keys that change nothing of what is computed, or only how it was trained.
const WITHOUT_EFFECT: &[&str] = &[
    "_attn_implementation_autoset",
    "_name_or_path",
    "architectures",
    "attention_probs_dropout_prob",
    "bos_token_id",
    "classifier_dropout",
    "dtype",
    "eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout_prob",
    "initializer_range",
    "model_type",
    "pad_token_id",
    "tie_word_embeddings",
    "torch_dtype",
    "transformers_version",
    "use_cache",
];
/// Keys that must be false where they are there: what they switch on, we do not have.
const OFF: [&str; 2] = ["add_cross_attention", "is_decoder"];

/// What `config.json` says. Widths are multiples of 16.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Config {
    pub(super) vocabulary: usize,
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    /// Tokens of a text, those before and behind it included.
    pub(super) positions: usize,
    pub(super) token_types: usize,
    pub(super) epsilon: f32,
}

/// Whether `config.json` is that of a BERT model; whether it is one that we compute, [`read`] says.
pub(super) fn is_bert(bytes: &[u8]) -> bool {
    object(CONFIG, bytes).is_ok_and(|keys| keys.get("model_type").and_then(Value::as_str) == Some("bert"))
}

/// Reads `config.json`.
pub(super) fn read(bytes: &[u8]) -> Result<Config, Error> {
    let mut keys = Keys(object(CONFIG, bytes)?);
    kind(&keys)?;
    for (key, wanted) in [("hidden_act", "gelu"), ("position_embedding_type", "absolute")] {
        if keys.take(key).is_some_and(|value| value != wanted) {
            return Err(unsupported(key));
        }
    }
    for key in OFF {
        if keys.flag(key)? == Some(true) {
            return Err(unsupported(key));
        }
    }
    let config = Config {
        vocabulary: at_most(&mut keys, "vocab_size", MAX_TOKENS)?,
        hidden: width(&mut keys, "hidden_size")?,
        intermediate: width(&mut keys, "intermediate_size")?,
        layers: at_most(&mut keys, "num_hidden_layers", MAX_LAYERS)?,
        heads: at_most(&mut keys, "num_attention_heads", MAX_WIDTH)?,
        positions: at_most(&mut keys, "max_position_embeddings", MAX_CONTEXT)?,
        token_types: at_most(&mut keys, "type_vocab_size", MAX_CONTEXT)?,
        epsilon: keys.float("layer_norm_eps")?.unwrap_or(1e-12),
    };
    keys.nothing_but(WITHOUT_EFFECT)?;
    if !config.hidden.is_multiple_of(config.heads * DIM_STEP) {
        let problem = "does not divide hidden_size into heads of a multiple of 16; use another model";
        return Err(bad("num_attention_heads", problem));
    }
    // `[CLS]`, a token, `[SEP]`.
    if config.positions < 3 {
        return Err(bad("max_position_embeddings", "leaves no room for a text; use another model"));
    }
    Ok(config)
}

fn kind(keys: &Keys) -> Result<(), Error> {
    let name = keys.0.get("model_type").and_then(Value::as_str).unwrap_or("without model_type");
    if name != "bert" {
        let name = name.chars().take(100).collect();
        return Err(Error::Unsupported { what: "embedding model type", name, supported: "bert" });
    }
    match keys.0.get("architectures") {
        None | Some(Value::Null) => Ok(()),
        Some(classes) if classes == &json!(["BertModel"]) => Ok(()),
        // One with a head that is no embedding.
        Some(_) => Err(bad("architectures", "is not [\"BertModel\"]; save the model without its head")),
    }
}

fn at_most(keys: &mut Keys, key: &str, max: usize) -> Result<usize, Error> {
    match keys.count(key)? as usize {
        count if count <= max => Ok(count),
        _ => Err(bad(key, &format!("is more than {max}; use a smaller model"))),
    }
}

fn width(keys: &mut Keys, key: &str) -> Result<usize, Error> {
    match at_most(keys, key, MAX_WIDTH)? {
        width if width.is_multiple_of(DIM_STEP) => Ok(width),
        _ => Err(bad(key, "is no multiple of 16; use another model")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Value {
        json!({
            "architectures": ["BertModel"], "model_type": "bert", "vocab_size": 99, "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 32, "type_vocab_size": 2,
            "layer_norm_eps": 1e-12, "hidden_act": "gelu", "position_embedding_type": "absolute", "use_cache": true,
            "is_decoder": false, "classifier_dropout": null,
        })
    }

    fn with(key: &str, value: Value) -> Result<Config, Error> {
        let mut config = good();
        config[key] = value;
        read(config.to_string().as_bytes())
    }

    #[test]
    fn a_configuration_is_read() {
        let config = read(good().to_string().as_bytes()).unwrap();
        let wanted = Config {
            vocabulary: 99,
            hidden: 64,
            intermediate: 96,
            layers: 2,
            heads: 4,
            positions: 32,
            token_types: 2,
            epsilon: 1e-12,
        };
        assert_eq!(config, wanted);
        for optional in ["hidden_act", "position_embedding_type", "layer_norm_eps", "architectures"] {
            assert_eq!(with(optional, Value::Null).unwrap(), wanted, "{optional}");
        }
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        for (key, value) in [
            ("hidden_act", json!("gelu_new")),
            ("hidden_act", json!(1)),
            ("position_embedding_type", json!("relative_key")),
            ("is_decoder", json!(true)),
            ("add_cross_attention", json!(true)),
            ("is_decoder", json!(1)),
            ("model_type", json!("roberta")),
            ("architectures", json!(["BertForMaskedLM"])),
            ("architectures", json!("BertModel")),
            ("vocab_size", json!(MAX_TOKENS + 1)),
            ("vocab_size", json!(0)),
            ("vocab_size", Value::Null),
            ("hidden_size", json!(72)),
            ("hidden_size", json!(MAX_WIDTH + 16)),
            ("hidden_size", json!(-64)),
            ("intermediate_size", json!(100)),
            ("intermediate_size", json!(64.5)),
            ("num_hidden_layers", json!(MAX_LAYERS + 1)),
            ("num_hidden_layers", json!(0)),
            ("num_attention_heads", json!(3)),
            ("num_attention_heads", json!(8)),
            ("num_attention_heads", json!(0)),
            ("max_position_embeddings", json!(2)),
            ("max_position_embeddings", json!(MAX_CONTEXT + 1)),
            ("type_vocab_size", json!(0)),
            ("layer_norm_eps", json!(0)),
            ("layer_norm_eps", json!(-1e-12)),
            ("layer_norm_eps", json!("NaN")),
            ("layer_norm_eps", json!(1e-60)),
            ("quantization_config", json!({})),
            ("auto_map", json!({"AutoModel": "x"})),
            ("num_labels", json!(2)),
        ] {
            let error = with(key, value.clone()).unwrap_err().to_string();
            let named = if key == "model_type" { "`roberta`".to_owned() } else { format!("`{key}`") };
            assert!(error.contains(&named), "{key} {value}: {error}");
        }
        assert!(read(br#"{"layer_norm_eps": NaN}"#).unwrap_err().to_string().contains("config.json"));
        assert!(with("max_position_embeddings", json!(MAX_CONTEXT)).is_ok());
        assert!(with("max_position_embeddings", json!(3)).is_ok());
    }

    #[test]
    fn bert_is_told_from_everything_else() {
        assert!(is_bert(good().to_string().as_bytes()) && is_bert(br#"{"model_type":"bert"}"#));
        for other in
            ["", "{", "[]", "null", "{}", r#"{"model_type":1}"#, r#"{"model_type":"llama"}"#, "\u{0}"]
        {
            assert!(!is_bert(other.as_bytes()), "{other}");
        }
        assert!(!is_bert(b"\xff"));
    }
}
