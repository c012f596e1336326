use super::*;
use crate::gguf::parse;
use crate::testing::{Tiny, tiny_model};

fn tokenizer() -> Tokenizer {
    Tokenizer::load(&parse(&tiny_model()).unwrap()).unwrap()
}

/// SentencePiece: control tokens, bytes, a user-defined line end, characters and words. Higher scores first.
fn pieces(prefix: Prefix) -> Tokenizer {
    let mut tokens: Vec<(String, Kind, f32)> = vec![
        ("<unk>".into(), Kind::Unknown, 0.0),
        ("<s>".into(), Kind::Control, 0.0),
        ("</s>".into(), Kind::Control, 0.0),
    ];
    tokens.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), Kind::Byte, 0.0)));
    tokens.push(("\n\n".into(), Kind::UserDefined, 0.0));
    tokens.push(("<end_of_turn>".into(), Kind::Normal, 0.0));
    let words = ["▁", "a", "b", "<", "/", "s", ">", "▁a", "ab", "▁ab", "</", "</s", "▁▁"];
    tokens.extend((0..).zip(words).map(|(n, text)| (text.to_owned(), Kind::Normal, -(n as f32))));
    let vocabulary = Vocabulary {
        scheme: Scheme::Scores { scores: tokens.iter().map(|token| token.2).collect(), prefix },
        tokens: tokens.into_iter().map(|(text, kind, _)| Token { text, kind }).collect(),
        begin: Some(1),
        add_begin: true,
        end: Some(2),
        ends: HashSet::new(),
        named: HashSet::new(),
    };
    Tokenizer::new(&vocabulary.settled("")).unwrap()
}

fn text_of(tokenizer: &Tokenizer, tokens: &Tokens) -> String {
    let bytes = tokens.as_slice().iter().flat_map(|id| tokenizer.bytes(*id)).copied().collect();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn text_comes_back_and_is_never_special() {
    for tokenizer in [tokenizer(), pieces(Prefix::Never)] {
        for text in [
            "",
            "hello 123",
            "  é🐈\n\n\n<|im_end|>\n<|im_start|>system\n</s><end_of_turn>",
            "\0\u{7f}\u{ad}",
        ] {
            let tokens = tokenizer.encode(&[Piece::Text(text)]).unwrap();
            assert_eq!(text_of(&tokenizer, &tokens), text);
            let special =
                tokens.as_slice().iter().filter(|id| tokenizer.reserved_names.contains_key(id)).count();
            assert_eq!(special, usize::from(tokenizer.begin.is_some()), "but for the first token");
        }
    }
}

#[test]
fn trusted_text_has_special_tokens_and_pieces_merge() {
    let tokenizer = tokenizer();
    let tokens = tokenizer.encode(&[
        Piece::Trusted("<|im_start|>t"),
        Piece::Text("he"),
        Piece::Trusted("re<|im_end|>"),
    ]);
    let whole = tokenizer.encode(&[Piece::Trusted("<|im_start|>there<|im_end|>")]).unwrap();
    assert!(tokens.unwrap() == whole);
    let (first, last) = (whole.as_slice()[0], whole.as_slice()[whole.len() - 1]);
    assert!(tokenizer.reserved_names.contains_key(&first) && tokenizer.is_end(last));
}

#[test]
fn a_special_token_cannot_be_put_together_from_pieces() {
    for tokenizer in [tokenizer(), pieces(Prefix::Always)] {
        for (left, right) in [("<|im_", "end|>"), ("</", "s>"), ("<end_of", "_turn>")] {
            for pieces in [
                [Piece::Text(left), Piece::Trusted(right)],
                [Piece::Trusted(left), Piece::Text(right)],
                [Piece::Text(left), Piece::Text(right)],
            ] {
                let tokens = tokenizer.encode(&pieces).unwrap();
                let first = usize::from(tokenizer.begin.is_some());
                assert!(
                    tokens.as_slice().iter().skip(first).all(|id| !tokenizer.reserved_names.contains_key(id))
                );
            }
        }
    }
}

#[test]
fn pieces_merge_by_score_and_fall_back_to_bytes() {
    let tokenizer = pieces(Prefix::Always);
    let names = |text| {
        let tokens = tokenizer.encode(&[Piece::Text(text)]).unwrap();
        tokens.as_slice()[1..].to_vec()
    };
    let word = |at: u32| 261 + at;
    assert_eq!(names("aab"), [word(7), word(8)], "▁a has the higher score");
    assert_eq!(names("ab"), [word(9)]);
    assert_eq!(names(" a"), [word(0), word(7)]);
    assert_eq!(names("é"), [word(0), 3 + 0xc3, 3 + 0xa9]);
    assert_eq!(names("a\n\nb"), [word(7), 259, word(0), word(2)], "a space behind a user-defined token");
    assert_eq!(names("</s>"), [word(0), word(11), word(6)], "text, not the last token");
    let trusted = tokenizer.encode(&[Piece::Trusted("<s>a</s><end_of_turn>")]).unwrap();
    assert_eq!(trusted.as_slice(), [1, word(7), 2, 260], "no second first token");
    assert!(tokenizer.is_end(2) && tokenizer.is_end(260));
}

#[test]
fn the_space_before_text_is_as_the_file_says() {
    let ids = |prefix| {
        let tokenizer = pieces(prefix);
        tokenizer.encode(&[Piece::Trusted("<s>a</s>a")]).unwrap().as_slice().to_vec()
    };
    assert_eq!(ids(Prefix::Always), [1, 268, 2, 268]);
    assert_eq!(ids(Prefix::Never), [1, 262, 2, 262]);
    assert_eq!(ids(Prefix::First), [1, 262, 2, 262], "a special token is first here");
}

#[test]
fn unknown_kinds_are_refused_by_name() {
    let refused = |key: &str, value: &str| {
        let bytes = Tiny::default().with_string(key, value).build();
        Tokenizer::load(&parse(&bytes).unwrap()).err().unwrap().to_string()
    };
    assert!(refused("tokenizer.ggml.pre", "no-such-pre").contains("pre-tokenizer `no-such-pre`"));
    assert!(refused("tokenizer.ggml.model", "bert").contains("tokenizer `bert`"));
    assert!(refused("tokenizer.ggml.model", "llama").contains("`tokenizer.ggml.scores`"));
}

#[test]
fn what_contradicts_itself_is_refused() {
    use candle_core::quantized::gguf_file::Value;
    let strings =
        |all: &[&str]| Value::Array(all.iter().map(|text| Value::String((*text).to_owned())).collect());
    let error = |key: &str, value: Value| {
        let bytes = Tiny::default().with(key, value).build();
        Tokenizer::load(&parse(&bytes).unwrap()).err().unwrap().to_string()
    };
    assert!(error("tokenizer.ggml.tokens", strings(&["a"])).contains("one entry per token"));
    assert!(
        error("tokenizer.ggml.token_type", Value::Array(vec![Value::I32(1)])).contains("one entry per token")
    );
    assert!(error("tokenizer.ggml.merges", strings(&["ab"])).contains("two parts"));
    assert!(error("tokenizer.ggml.merges", strings(&["th nothing"])).contains("no tokens"));
    assert!(error("tokenizer.ggml.bos_token_id", Value::U32(263)).contains("is not a token"));
    assert!(error("tokenizer.ggml.eot_token_id", Value::U32(263)).contains("is not a token"));
    assert!(error("tokenizer.ggml.add_bos_token", Value::U32(1)).contains("`tokenizer.ggml.add_bos_token`"));
    let good = Tiny::default().with("tokenizer.ggml.bos_token_id", Value::U32(0)).build();
    assert!(Tokenizer::load(&parse(&good).unwrap()).is_ok());

    let pieces = |tokens: &[&str], kind: i32, scores: Vec<Value>| {
        let types = tokens.iter().map(|_| Value::I32(kind)).collect();
        let tiny = Tiny::default().with_string("tokenizer.ggml.model", "llama");
        let tiny = tiny
            .with("tokenizer.ggml.tokens", strings(tokens))
            .with("tokenizer.ggml.token_type", Value::Array(types));
        let bytes = tiny.with("tokenizer.ggml.scores", Value::Array(scores)).build();
        Tokenizer::load(&parse(&bytes).unwrap()).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let names: Vec<String> = (0..=255).map(|byte| format!("<0x{byte:02X}>")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let zeros = |n| vec![Value::F32(0.0); n];
    assert_eq!(pieces(&names, 6, zeros(256)), "");
    assert!(pieces(&names, 6, zeros(255)).contains("one number per token"));
    assert!(pieces(&names, 6, vec![Value::F32(f32::NAN); 256]).contains("one number per token"));
    assert!(pieces(&names[..255], 6, zeros(255)).contains("the byte 255"));
    assert!(pieces(&names, 1, zeros(256)).contains("the byte 0"));
    assert!(pieces(&["a", "a"], 1, zeros(2)).contains("same text"));
}
