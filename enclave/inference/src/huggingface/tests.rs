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
