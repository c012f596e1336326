//! Entry points of embedding models.

use super::weights;
use crate::embedding::Embedder;
use crate::model_file::ModelBytes;
use crate::secret::SecretString;
use crate::turns::Turns;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// The `config.json` of an embedding model in which everything else is good.
pub fn bert_config(bytes: &[u8]) {
    folder_with("config.json", bytes);
}

/// The `tokenizer.json` of an embedding model in which everything else is good.
pub fn bert_tokenizer(bytes: &[u8]) {
    folder_with("tokenizer.json", bytes);
}

/// Text of a client, of which nothing may become a token with a meaning.
pub fn bert_text(text: &str) {
    let Some(embedder) = EMBEDDER.as_ref() else { return };
    let count = embedder.count(text);
    assert!(count >= 2 && count <= 4 * text.len() + 2, "more tokens than letters");
    let tokens = embedder.dangerous_tokens(text);
    let within = tokens.as_slice().strip_prefix(&[2]).and_then(|rest| rest.strip_suffix(&[3]));
    let within = within.unwrap_or_default();
    assert_eq!(within.len() + 2, count, "other ends");
    assert!(within.iter().all(|id| matches!(id, 1 | 5..)), "text became a special token");
    let embedded = embedder.embed(&[SecretString::from(text)], &|| true);
    assert_eq!(
        embedded.is_ok(),
        count <= embedder.context_length(),
        "embedded what is too long, or not what fits"
    );
}

/// A folder with one file replaced; if it loads, a text is embedded.
fn folder_with(name: &str, bytes: &[u8]) {
    let mut files: Vec<_> = GOOD.iter().filter(|(good, _)| good != name).cloned().collect();
    files.push((name.to_owned(), bytes.to_vec()));
    let files = ModelBytes::from_files(files);
    let known = Embedder::is_embedder(&files);
    if let Ok(embedder) = Embedder::load(files, 1, Turns::default()) {
        assert!(known, "loaded what is no embedder");
        let _any = embedder.embed(&["[CLS] abc déf".into()], &|| true);
    }
}

const CONFIG: &str = r#"{"architectures":["BertModel"],"model_type":"bert","vocab_size":20,"hidden_size":16,"intermediate_size":16,
    "num_hidden_layers":1,"num_attention_heads":1,"max_position_embeddings":32,"type_vocab_size":1,"layer_norm_eps":1e-12}"#;

/// A tiny model folder that loads.
pub(super) static GOOD: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let mut tensors = vec![
        ("embeddings.word_embeddings.weight".to_owned(), vec![20, 16]),
        ("embeddings.position_embeddings.weight".to_owned(), vec![32, 16]),
        ("embeddings.token_type_embeddings.weight".to_owned(), vec![1, 16]),
    ];
    let dense =
        ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"];
    for name in dense.into_iter().chain(["intermediate.dense", "output.dense"]) {
        tensors.push((format!("encoder.layer.0.{name}.weight"), vec![16, 16]));
        tensors.push((format!("encoder.layer.0.{name}.bias"), vec![16]));
    }
    for name in ["embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output"] {
        tensors.push((format!("{name}.LayerNorm.weight"), vec![16]));
        tensors.push((format!("{name}.LayerNorm.bias"), vec![16]));
    }
    let files = [
        ("model.safetensors", weights(tensors)),
        ("config.json", CONFIG.into()),
        ("tokenizer.json", tokenizer().to_string().into_bytes()),
    ];
    files.map(|(name, bytes)| (name.to_owned(), bytes)).to_vec()
});

/// Some letters and pieces.
fn tokenizer() -> Value {
    let texts = [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a", "b", "##b", "ab", "##bc", "de", "##f", "[",
        "]", "cls", "é",
    ];
    let vocab: serde_json::Map<_, _> =
        texts.iter().zip(0_u32..).map(|(text, id)| ((*text).to_owned(), id.into())).collect();
    let added = texts.iter().zip(0_u32..).take(5);
    let added: Vec<_> = added.map(|(text, id)| json!({"id": id, "content": text, "special": true})).collect();
    json!({
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "cls": ["[CLS]", 2], "sep": ["[SEP]", 3]},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab},
    })
}

static EMBEDDER: LazyLock<Option<Embedder>> =
    LazyLock::new(|| Embedder::load(ModelBytes::from_files(GOOD.clone()), 1, Turns::default()).ok());

#[cfg(test)]
mod tests {
    #[test]
    fn entry_points_of_embedding_models_take_good_and_bad_input() {
        for (_, bytes) in super::GOOD.iter() {
            for change in [&bytes[..], &bytes[1..], b"{}"] {
                super::bert_config(change);
                super::bert_tokenizer(change);
            }
        }
        assert!(super::EMBEDDER.is_some());
        for text in ["", "[CLS] abc déf [MASK]", "\u{0}\u{301}🐈", "\u{130}\u{1d160}", &"a ".repeat(40)] {
            super::bert_text(text);
        }
    }
}
