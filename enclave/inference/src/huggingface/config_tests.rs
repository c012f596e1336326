use super::*;
use serde_json::json;

fn config(model_type: &str) -> Value {
    let (_, class, family) = FAMILIES.into_iter().find(|(name, _, _)| *name == model_type).unwrap();
    let mut config = json!({
        "architectures": [class], "model_type": model_type, "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "torch_dtype": "bfloat16", "quantization_config": null,
    });
    if family.is_gemma() {
        config["sliding_window"] = json!(512);
        config["head_dim"] = json!(16);
        config["query_pre_attn_scalar"] = json!(16);
        config["hidden_activation"] = json!("gelu_pytorch_tanh");
    }
    if family == Family::Gemma2 {
        config["attn_logit_softcapping"] = json!(50.0);
        config["final_logit_softcapping"] = json!(30.0);
    }
    config
}

fn with(model_type: &str, key: &str, value: Value) -> Result<Config, Error> {
    let mut config = config(model_type);
    config[key] = value;
    read(config.to_string().as_bytes())
}

fn error(model_type: &str, key: &str, value: Value) -> String {
    with(model_type, key, value).unwrap_err().to_string()
}

fn number(config: &Config, key: &str) -> u64 {
    config.metadata[key].to_u64().unwrap()
}

#[test]
fn every_family_is_translated() {
    for (model_type, _, family) in FAMILIES {
        let read = read(config(model_type).to_string().as_bytes()).unwrap();
        let arch = family.architecture();
        assert_eq!(read.metadata["general.architecture"].to_string().unwrap(), arch);
        for (key, value) in [
            ("block_count", 2),
            ("context_length", 8192),
            ("embedding_length", 64),
            ("feed_forward_length", 96),
            ("attention.head_count", 4),
            ("attention.head_count_kv", 2),
            ("attention.key_length", 16),
            ("attention.value_length", 16),
            ("rope.dimension_count", 16),
        ] {
            assert_eq!(number(&read, &format!("{arch}.{key}")), value, "{arch}.{key}");
        }
        assert_eq!(read.tied, family.is_gemma());
        assert_eq!(
            read.metadata.contains_key(&format!("{arch}.attention.sliding_window")),
            family.is_gemma()
        );
        assert_eq!(read.metadata.contains_key("gemma2.attn_logit_softcapping"), family == Family::Gemma2);
    }
}

#[test]
fn a_window_is_kept_or_bounds_the_context() {
    let mistral = with("mistral", "sliding_window", json!(4096)).unwrap();
    assert_eq!(number(&mistral, "llama.attention.sliding_window"), 4096);
    let without = with("mistral", "sliding_window", Value::Null).unwrap();
    assert!(!without.metadata.contains_key("llama.attention.sliding_window"));
    let context = |switch: Value| {
        let mut qwen = config("qwen2");
        (qwen["sliding_window"], qwen["use_sliding_window"]) = (json!(4096), switch);
        number(&read(qwen.to_string().as_bytes()).unwrap(), "qwen2.context_length")
    };
    assert_eq!((context(json!(false)), context(json!(true))), (8192, 4096));
}

#[test]
fn what_is_unknown_is_refused_by_name() {
    for (key, value, says) in [
        ("model_type", json!("mamba"), "model type `mamba`"),
        ("architectures", json!(["LlamaForSequenceClassification"]), "`architectures`"),
        ("quantization_config", json!({"bits": 4}), "`quantization_config`"),
        ("num_experts", json!(8), "`num_experts`"),
        ("attention_bias", json!(true), "`attention_bias`"),
        ("auto_map", json!({}), "`auto_map`"),
        ("hidden_act", json!("relu"), "`hidden_act`"),
        ("layer_types", json!(["sliding_attention", "full_attention"]), "`layer_types`"),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0}), "rope scaling `yarn`"),
        ("rope_scaling", json!({"type": "linear", "factor": 4.0, "beta": 1}), "`beta`"),
        ("rope_scaling", json!("yarn"), "`rope_scaling`"),
        ("hidden_size", json!(0), "`hidden_size`"),
        ("hidden_size", json!(-1), "`hidden_size`"),
        ("hidden_size", Value::Null, "`hidden_size`"),
        ("hidden_size", json!(1_u64 << 31), "`hidden_size`"),
        ("num_attention_heads", json!(64), "`head_dim`"),
        ("vocab_size", json!(super::super::tokenizer::MAX_TOKENS + 1), "`vocab_size`"),
        ("rms_norm_eps", json!(1e-300), "`rms_norm_eps`"),
    ] {
        let error = error("llama", key, value);
        assert!(error.contains(says), "{key}: {error}");
    }
    assert!(error("mistral", "rope_scaling", json!({"rope_type": "llama3"})).contains("`llama3`"));
    assert!(error("gemma2", "attn_logit_softcapping", Value::Null).contains("`attn_logit_softcapping`"));
    assert!(error("gemma3_text", "attn_logit_softcapping", json!(1.0)).contains("`attn_logit_softcapping`"));
    assert!(error("gemma3_text", "sliding_window_pattern", json!(4)).contains("`sliding_window_pattern`"));
    assert!(error("gemma3_text", "query_pre_attn_scalar", json!(17)).contains("`query_pre_attn_scalar`"));
    assert!(error("gemma3_text", "sliding_window", Value::Null).contains("`sliding_window`"));
    assert!(read(b"[]").is_err() && read(b"").is_err());
}

/// Values of the converter's formula for a head of 16, computed in Python.
#[test]
fn the_frequencies_of_llama3_are_the_converters() {
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
    let factors = with("llama", "rope_scaling", scaling).unwrap().rope_factors.unwrap();
    let wanted = [1.0, 1.0, 1.0, 1.0, 2.694_529_7, 8.0, 8.0, 8.0];
    for (got, wanted) in factors.iter().zip(wanted) {
        assert!((got - wanted).abs() < 1e-5, "{factors:?}");
    }
    let linear = with("llama", "rope_scaling", json!({"type": "linear", "factor": 2.0})).unwrap();
    assert_eq!(linear.metadata["llama.rope.scaling.type"].to_string().unwrap(), "linear");
    let newer = with("llama", "rope_parameters", json!({"rope_type": "default", "rope_theta": 7.0})).unwrap();
    assert_eq!(newer.metadata["llama.rope.freq_base"].to_f32().unwrap(), 7.0);
}
