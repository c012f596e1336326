use super::*;
use crate::embedding::tests::tiny_file;
use serde_json::json;

const SIZE: usize = 580;

fn good() -> Value {
    serde_json::from_slice(&tiny_file("tokenizer.json")).unwrap()
}

fn load(file: &Value) -> Result<WordPiece, Error> {
    read(file.to_string().as_bytes(), SIZE)
}

fn with(pointer: &str, value: Value) -> Result<WordPiece, Error> {
    let mut file = good();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = file.pointer_mut(parent).unwrap();
    match parent.as_array_mut() {
        Some(all) => all[key.parse::<usize>().unwrap()] = value,
        None => parent[key] = value,
    }
    load(&file)
}

#[test]
fn both_post_processors_and_files_without_a_type_are_read() {
    let tokens = |result: Result<WordPiece, Error>| {
        result.map(|tokenizer| tokenizer.encode("the", 9).unwrap_or_default().as_slice().to_vec()).unwrap()
    };
    assert_eq!(tokens(load(&good())), [2, 5, 3]);
    let older = json!({"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]});
    assert_eq!(tokens(with("/post_processor", older)), [2, 5, 3]);
    assert_eq!(tokens(with("/model/type", Value::Null)), [2, 5, 3]);
    assert_eq!(tokens(with("/post_processor/special_tokens", Value::Null)), [2, 5, 3]);
    // What a server that pads and cuts would do is not done.
    assert_eq!(tokens(with("/truncation", json!({"max_length": 1}))), [2, 5, 3]);
    assert_eq!(tokens(with("/padding", json!({"strategy": {"Fixed": 128}}))), [2, 5, 3]);
}

#[test]
fn what_is_not_wordpiece_of_bert_is_refused_by_name() {
    for (pointer, value, says) in [
        ("/model/type", json!("BPE"), "tokenizer model `BPE`"),
        ("/model/unk_token", Value::Null, "tokenizer.json"),
        ("/model/unk_token", json!("<unk>"), "`<unk>` is not in it"),
        ("/model/continuing_subword_prefix", json!(""), "continuing_subword_prefix"),
        ("/model/continuing_subword_prefix", json!("#".repeat(17)), "continuing_subword_prefix"),
        ("/model/max_input_chars_per_word", json!(0), "max_input_chars_per_word"),
        ("/model/max_input_chars_per_word", json!(1001), "max_input_chars_per_word"),
        ("/model/max_input_chars_per_word", json!(-1), "tokenizer.json"),
        ("/model/vocab", json!(["a"]), "tokenizer.json"),
        ("/model/vocab/new", json!(5), "two tokens have the id 5"),
        ("/model/vocab/new", json!(580), "580 is not below vocab_size"),
        ("/model/vocab/new", json!(u64::MAX), "tokenizer.json"),
        ("/model/vocab/[CLS]", json!(579), "two tokens have the id 579"),
        ("/normalizer", Value::Null, "normalizer `none`"),
        ("/normalizer/type", json!("NFKC"), "normalizer `NFKC`"),
        ("/normalizer/lowercase", json!("yes"), "normalizer"),
        ("/normalizer/more", json!(true), "more"),
        ("/pre_tokenizer", Value::Null, "pre-tokenizer `none`"),
        ("/pre_tokenizer/type", json!("Whitespace"), "pre-tokenizer `Whitespace`"),
        ("/post_processor", Value::Null, "post-processor `none`"),
        ("/post_processor/type", json!("RobertaProcessing"), "post-processor `RobertaProcessing`"),
        ("/post_processor/single", json!([]), "post-processor"),
        ("/post_processor/single/1/Sequence/id", json!("B"), "post-processor"),
        ("/post_processor/single/1/Sequence/type_id", json!(1), "post-processor"),
        ("/post_processor/single/0/SpecialToken/id", json!("<s>"), "`<s>` is not in it"),
        ("/post_processor/special_tokens/[CLS]/ids", json!([4]), "another id for `[CLS]`"),
        ("/post_processor/special_tokens/[CLS]/ids", json!([2, 2]), "another id for `[CLS]`"),
        ("/added_tokens/0/special", json!(false), "not special `[PAD]`"),
        ("/added_tokens/0/id", json!(7), "`[PAD]` has an id"),
        ("/added_tokens/0", json!({"id": 580, "content": "[NEW]", "special": true}), "`[NEW]` has an id"),
        ("/added_tokens/0/content", json!("[NEW]"), "`[NEW]` has an id"),
        ("/added_tokens/0/content", json!(1), "tokenizer.json"),
    ] {
        let error = with(pointer, value.clone()).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(says), "{pointer} {value}: {error}");
    }
    for bad in ["", "{}", "[]", "{\"model\":1}", "\u{0}"] {
        assert!(read(bad.as_bytes(), SIZE).is_err());
    }
}

#[test]
fn vocabularies_have_limits() {
    let mut file = good();
    let many: serde_json::Map<_, _> = (0..=MAX_TOKENS).map(|n| (n.to_string(), n.into())).collect();
    file["model"]["vocab"] = Value::Object(many);
    assert!(load(&file).err().unwrap().to_string().contains("1048577 tokens"));
    // A row without a token is no harm: models pad their vocabularies.
    assert!(read(good().to_string().as_bytes(), SIZE + 1).is_ok());
    assert!(read(good().to_string().as_bytes(), SIZE - 1).is_err());
}
