//! Entry points for fuzzers: each takes anything and must neither panic nor allocate much more than it was given.

mod bert;

pub use bert::{bert_config, bert_text, bert_tokenizer};

use crate::grammar::{Grammars, Rules};
use crate::model::Model;
use crate::model_file::ModelBytes;
use crate::request::{Message, Role};
use crate::sampler::{TokenMask, TokenSet};
use crate::template::Template;
use crate::tokenizer::{Names, Piece, Tokenizer};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// A model file; if it loads, a conversation on it.
pub fn model(bytes: &[u8]) {
    if let Ok(model) = Model::load(ModelBytes::from_vec(bytes.to_vec())) {
        let _tokens = model.prompt(&conversation());
    }
}

/// An archive of a model folder.
pub fn archive(bytes: &[u8]) {
    let _any = crate::archive::read(&mut &*bytes, bytes.len() as u64, |_| ());
}

/// The weights of a model folder in which everything else is good.
pub fn safetensors(bytes: &[u8]) {
    folder_with("model.safetensors", bytes);
}

/// The `config.json` of a model folder in which everything else is good.
pub fn config(bytes: &[u8]) {
    folder_with("config.json", bytes);
}

/// The `tokenizer.json` of a model folder in which everything else is good.
pub fn tokenizer(bytes: &[u8]) {
    folder_with("tokenizer.json", bytes);
}

/// Text of a client, which every kind of tokenizer must keep as it is and never take for a control token.
pub fn text(text: &str) {
    for tokenizer in TOKENIZERS.iter() {
        let Ok(tokens) = tokenizer.encode(&[Piece::Text(text)]) else { continue };
        let bytes: Vec<u8> = tokens.as_slice().iter().flat_map(|id| tokenizer.bytes(*id)).copied().collect();
        // SentencePiece writes a space and U+2581 the same way.
        let same = |text: &str| text.replace('\u{2581}', " ");
        assert_eq!(same(&String::from_utf8_lossy(&bytes)), same(text), "text has changed");
    }
}

/// A folder with one file replaced; if it loads, a conversation on it.
fn folder_with(name: &str, bytes: &[u8]) {
    let mut files: Vec<_> = GOOD.iter().filter(|(good, _)| good != name).cloned().collect();
    files.push((name.to_owned(), bytes.to_vec()));
    if let Ok(model) = Model::load(ModelBytes::from_files(files)) {
        let _tokens = model.prompt(&conversation());
    }
}

const TEMPLATE: &str =
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}";
const CONFIG: &str = r#"{"architectures":["MistralForCausalLM"],"model_type":"mistral","vocab_size":272,"hidden_size":32,
    "intermediate_size":32,"num_hidden_layers":1,"num_attention_heads":2,"num_key_value_heads":1,"max_position_embeddings":64,
    "rms_norm_eps":1e-5,"tie_word_embeddings":true}"#;

/// A tiny model folder that loads.
static GOOD: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let layer = "model.layers.0.";
    let tensors = [
        ("model.embed_tokens.weight".to_owned(), vec![272, 32]),
        ("model.norm.weight".to_owned(), vec![32]),
        (format!("{layer}input_layernorm.weight"), vec![32]),
        (format!("{layer}post_attention_layernorm.weight"), vec![32]),
        (format!("{layer}self_attn.q_proj.weight"), vec![32, 32]),
        (format!("{layer}self_attn.k_proj.weight"), vec![16, 32]),
        (format!("{layer}self_attn.v_proj.weight"), vec![16, 32]),
        (format!("{layer}self_attn.o_proj.weight"), vec![32, 32]),
        (format!("{layer}mlp.gate_proj.weight"), vec![32, 32]),
        (format!("{layer}mlp.up_proj.weight"), vec![32, 32]),
        (format!("{layer}mlp.down_proj.weight"), vec![32, 32]),
    ];
    let weights = weights(tensors.into());
    let about = json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE});
    let files: [(&str, Vec<u8>); 4] = [
        ("model.safetensors", weights),
        ("config.json", CONFIG.into()),
        ("tokenizer.json", pieces().to_string().into_bytes()),
        ("tokenizer_config.json", about.to_string().into_bytes()),
    ];
    files.map(|(name, bytes)| (name.to_owned(), bytes)).to_vec()
});

/// A file of tensors in BF16, all of the same small numbers.
fn weights(tensors: Vec<(String, Vec<usize>)>) -> Vec<u8> {
    let mut end = 0;
    let entry = |(name, shape): (String, Vec<usize>)| {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        (name, json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}))
    };
    let header = tensors.into_iter().map(entry).collect::<serde_json::Map<_, _>>();
    let header = Value::Object(header).to_string().into_bytes();
    [&(header.len() as u64).to_le_bytes()[..], &header, &vec![0x3c; end]].concat()
}

/// A SentencePiece tokenizer of bytes, with some words.
fn pieces() -> Value {
    let bytes = (0..=255_u8).map(|byte| format!("<0x{byte:02X}>"));
    let words = ["<unk>", "<s>", "</s>", "\n\n", "▁", "a", "▁a", "s", "</", "</s"].map(str::to_owned);
    let vocab: serde_json::Map<_, _> =
        words.into_iter().chain(bytes).zip((0..).map(|id: u32| id.into())).collect();
    let added = |id: u32, text: &str, special: bool| json!({"id": id, "content": text, "special": special});
    json!({
        "added_tokens": [added(0, "<unk>", true), added(1, "<s>", true), added(2, "</s>", true), added(3, "\n\n", false)],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": true, "vocab": vocab, "merges": ["▁ a", "</ s"]},
    })
}

/// Tokenizers of each kind and of some pre-tokenizers.
static TOKENIZERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let kinds = ["gpt-2", "smollm", "llama-bpe", "qwen35", "tekken", "gpt-4o", "deepseek-v3"];
    let byte_level = kinds.iter().filter_map(|name| Tokenizer::of_bytes(name).ok());
    let folder: Vec<_> = GOOD.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let pieces = crate::huggingface::parse(&folder).and_then(|source| Tokenizer::load(&source));
    byte_level.chain(pieces.ok()).collect()
});

/// A JSON schema; if it compiles, an answer that keeps to it.
pub fn schema(bytes: &[u8]) {
    let Ok(schema) = serde_json::from_slice(bytes) else { return };
    let Some((grammars, vocabulary)) = GRAMMARS.as_ref() else { return };
    let Ok(mut grammar) = grammars.compile(&Rules::Schema(schema)) else { return };
    let mut allowed = TokenSet::new(*vocabulary);
    for step in 0..16 {
        allowed.clear();
        grammar.allowed(&mut allowed);
        let ids: Vec<u32> = (0..1024).filter(|id| allowed.contains(*id)).collect();
        let Some(token) = ids.get(ids.len() * step / 16) else { return };
        grammar.accept(*token);
    }
}

/// Of a vocabulary of single bytes.
static GRAMMARS: LazyLock<Option<(Grammars, usize)>> = LazyLock::new(|| {
    let tokenizer = Tokenizer::of_bytes("gpt-2").ok()?;
    Some((Grammars::new(&tokenizer), tokenizer.vocabulary()))
});

/// A chat template, and conversations that it may refuse.
pub fn template(source: &str) {
    if let Ok(template) = Template::new(source, &Names::default()) {
        let roles: Vec<_> =
            conversation().iter().map(|message| (message.role, !message.content.is_empty())).collect();
        // With no message at all, minijinja may panic (see `Template::run`), which libFuzzer does not let us catch.
        for end in 1..=roles.len() {
            let _parts = template.render(roles.get(..end).unwrap_or_default());
        }
    }
}

fn conversation() -> Vec<Message> {
    let turns = [
        (Role::System, ""),
        (Role::User, "one<|im_end|>"),
        (Role::Assistant, "two"),
        (Role::User, "\u{fdd0}"),
    ];
    turns.iter().map(|(role, text)| Message::new(*role, *text)).collect()
}

#[cfg(test)]
mod tests {
    use crate::model::Model;
    use crate::model_file::ModelBytes;
    use crate::testing::tiny_model;

    #[test]
    fn entry_points_take_good_and_bad_input() {
        super::model(&tiny_model());
        super::model(b"GGUF");
        for (name, bytes) in super::GOOD.iter() {
            for change in [&bytes[..], &bytes[1..], b"{}"] {
                super::folder_with(name, change);
            }
        }
        Model::load(ModelBytes::from_files(super::GOOD.clone())).unwrap();
        assert_eq!(super::TOKENIZERS.len(), 8);
        super::text("</s>\n\n\n a▁<|im_end|> é🐈\u{301}\0 1234'S");
        for schema in ["", "{}", "{\"type\": \"object\"}", "{\"not\": 1}", "{\"pattern\": \"(\"}"] {
            super::schema(schema.as_bytes());
        }
        for source in
            ["", "{{ messages }}", "{% for m in messages %}{{ m.content }}{% endfor %}", "{{ 1 / 0 }}", "{%"]
        {
            super::template(source);
        }
    }
}
