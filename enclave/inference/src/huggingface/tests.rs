use super::*;

#[test]
fn only_files_of_the_model_are_part_of_it() {
    for name in [
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "model.safetensors",
        "model-00001-of-00002.safetensors",
    ] {
        assert!(is_part(name), "{name}");
    }
    for name in [
        "README.md",
        "model-1-of-2.safetensors",
        "model-00001-of-0000x.safetensors",
        "model.safetensors.bak",
        "adapter_model.safetensors",
        "pytorch_model.bin",
        "x/config.json",
        "",
    ] {
        assert!(!is_part(name), "{name}");
    }
}

#[test]
fn templates_are_found_where_they_may_be() {
    let about = |text: &str| object("x", text.as_bytes()).unwrap();
    assert_eq!(template(Some(b"file"), &about(r#"{"chat_template":"text"}"#)).unwrap(), "file");
    assert_eq!(template(None, &about(r#"{"chat_template":"text"}"#)).unwrap(), "text");
    let several =
        r#"{"chat_template":[{"name":"tool_use","template":"a"},{"name":"default","template":"b"}]}"#;
    assert_eq!(template(None, &about(several)).unwrap(), "b");
    for bad in ["{}", r#"{"chat_template":[]}"#, r#"{"chat_template":1}"#] {
        assert!(template(None, &about(bad)).unwrap_err().to_string().contains("`chat_template`"));
    }
    assert!(template(Some(b"\xff"), &about("{}")).is_err());
}

#[test]
fn roles_are_texts_or_objects() {
    let about = object("x", br#"{"bos_token":{"content":"<s>"},"eos_token":"</s>","pad_token":null,"unk_token":"<unk>","add_bos_token":true}"#).unwrap();
    let roles = roles(&about).unwrap();
    assert_eq!((roles.begin.as_deref(), roles.end.as_deref()), (Some("<s>"), Some("</s>")));
    assert_eq!((roles.others, roles.add_begin), (vec!["<unk>".to_owned()], Some(true)));
    assert!(super::roles(&object("x", br#"{"bos_token":1}"#).unwrap()).is_err());
    assert_eq!(ids(Some(&serde_json::json!([1, 2]))), [1, 2]);
    assert_eq!(ids(Some(&serde_json::json!(3))), [3]);
}

/// A model of the vectors, in two files with an index.
fn sharded() -> Vec<(String, Vec<u8>)> {
    let folder =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/huggingface/qwen3");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    files.map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())).collect()
}

fn load(files: Vec<(String, Vec<u8>)>) -> Result<(), Error> {
    crate::Model::load(crate::ModelBytes::from_files(files)).map(drop)
}

fn error(change: impl Fn(&mut Vec<(String, Vec<u8>)>)) -> String {
    let mut files = sharded();
    change(&mut files);
    load(files).unwrap_err().to_string()
}

fn edit(files: &mut [(String, Vec<u8>)], name: &str, from: &str, to: &str) {
    let (_, bytes) = files.iter_mut().find(|(file, _)| file == name).unwrap();
    let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
    bytes.splice(at..at + from.len(), to.bytes());
}

#[test]
fn a_folder_must_be_whole_and_agree_with_its_index() {
    load(sharded()).unwrap();
    const FIRST: &str = "model-00001-of-00002.safetensors";
    let without = |name: &'static str| error(move |files| files.retain(|(file, _)| file != name));
    for name in ["config.json", "tokenizer.json"] {
        assert!(without(name).contains(&format!("{name} of the model")));
    }
    assert!(without("chat_template.jinja").contains("`chat_template`"));
    assert!(without(FIRST).contains("is not what the files have"));
    assert!(without(tensors::INDEX).contains("it is missing"));
    let index = tensors::INDEX;
    let norm = "\"model.norm.weight\"";
    assert!(
        error(|files| edit(files, index, norm, "\"model.norm.other\""))
            .contains("is not what the files have")
    );
    assert!(error(|files| edit(files, index, "00001-of", "00003-of")).contains("is not what the files have"));
    assert!(error(|files| edit(files, index, "{", "[")).contains(index));
    // A second file with the same tensors.
    let twice = error(|files| {
        let (_, bytes) = files.iter().find(|(file, _)| file == FIRST).unwrap().clone();
        files.push(("model.safetensors".to_owned(), bytes));
    });
    assert!(twice.contains("another file has the tensor"), "{twice}");
    let no_weights = error(|files| files.retain(|(file, _)| !file.ends_with(".safetensors")));
    assert!(no_weights.contains("model.safetensors of the model"), "{no_weights}");
}

#[test]
fn every_tensor_is_used_and_tying_is_kept() {
    let unknown = error(|files| {
        edit(files, tensors::INDEX, "\"model.norm.weight\"", "\"model.norm.weighs\"");
        for name in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
            let (_, bytes) = files.iter_mut().find(|(file, _)| file == name).unwrap();
            let from = b"\"model.norm.weight\"";
            if let Some(at) = bytes.windows(from.len()).position(|part| part == from) {
                bytes[at..at + from.len()].copy_from_slice(b"\"model.norm.weighs\"");
            }
        }
    });
    assert!(unknown.contains("output_norm.weight") || unknown.contains("model.norm.weighs"), "{unknown}");
    let tied =
        error(|files| edit(files, CONFIG, "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true"));
    assert!(tied.contains("`lm_head.weight`"), "{tied}");
    let heads = error(|files| edit(files, CONFIG, "\"head_dim\": 16", "\"head_dim\": 32"));
    assert!(heads.contains("tensor `blk.0.attn_"), "{heads}");
    let vocabulary = error(|files| edit(files, CONFIG, "\"vocab_size\": 272", "\"vocab_size\": 273"));
    assert!(vocabulary.contains("tensor `"), "{vocabulary}");
}
