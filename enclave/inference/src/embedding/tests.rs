use super::*;
use std::cell::Cell;
use std::path::Path;

pub(super) fn tiny_files() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/embedding/tiny");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    files.map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())).collect()
}

pub(super) fn tiny_file(name: &str) -> Vec<u8> {
    tiny_files().into_iter().find(|(file, _)| file == name).unwrap().1
}

pub(super) fn tiny() -> ModelBytes {
    ModelBytes::from_files(tiny_files())
}

pub(super) fn tiny_tokenizer() -> WordPiece {
    vocabulary::read(&tiny_file(TOKENIZER), 580).unwrap()
}

fn embedder(threads: usize) -> Embedder {
    Embedder::load(tiny(), threads, Turns::default()).unwrap()
}

fn texts(all: &[&str]) -> Vec<SecretString> {
    all.iter().map(|text| (*text).into()).collect()
}

fn bits(embedding: &Embedding) -> Vec<u32> {
    embedding.expose().iter().map(|x| x.to_bits()).collect()
}

#[test]
fn an_embedding_depends_on_its_text_alone() {
    let all: Vec<String> = (0..120).map(|n| "the world token ".repeat(n % 15) + &n.to_string()).collect();
    let all: Vec<SecretString> = all.into_iter().map(Into::into).collect();
    let (one, three) = (embedder(1), embedder(3));
    let packs = Cell::new(0);
    let count = || {
        packs.set(packs.get() + 1);
        true
    };
    let together = three.embed(&all, &count).unwrap();
    let tokens: usize = together.iter().map(Embedding::tokens).sum();
    // Asked for each text, and for each pack: one begins where the next text would not have fit.
    let packs = packs.get() - all.len();
    assert!(packs >= tokens.div_ceil(MAX_ROWS) && packs <= tokens / (MAX_ROWS - 64) + 1);
    assert!(packs > 2);
    for (text, among) in all.iter().zip(&together) {
        let alone = one.embed(std::slice::from_ref(text), &|| true).unwrap();
        assert!(bits(&alone[0]) == bits(among) && alone[0].tokens() == among.tokens());
    }
    assert!(bits(&together[1]) != bits(&together[2]));
    assert!(three.embed(&[], &|| false).unwrap().is_empty());
}

#[test]
fn threads_may_share_a_model() {
    let shared = embedder(2);
    let wanted = bits(&shared.embed(&texts(&["hello world"]), &|| true).unwrap()[0]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let again = shared.embed(&texts(&["hello world", "token"]), &|| true).unwrap();
                    assert!(bits(&again[0]) == wanted);
                }
            });
        }
    });
}

#[test]
fn a_text_that_is_too_long_is_an_error_that_says_which() {
    let embedder = embedder(1);
    let (at, over) = ("the ".repeat(62), "the ".repeat(63));
    assert_eq!(embedder.count(&at), embedder.context_length());
    assert_eq!(embedder.embed(&texts(&["a", &at]), &|| true).unwrap()[1].tokens(), 64);
    let asked = Cell::new(0);
    let error = embedder.embed(&texts(&["a", &at, &over]), &|| {
        asked.set(asked.get() + 1);
        true
    });
    let error = error.err().unwrap();
    assert!(matches!(error, EmbedError::TooLong { index: 2, tokens: 65, context_length: 64 }), "{error}");
    assert_eq!(asked.get(), 3, "once for each text, and nothing was computed");
    let long = "x ".repeat(MAX_PROMPT_BYTES / 2);
    let error = embedder.embed(&texts(&[&long]), &|| true).err().unwrap();
    let EmbedError::TooLong { index: 0, tokens, .. } = error else { panic!("{error}") };
    assert_eq!(tokens, MAX_PROMPT_BYTES / 2 + 2);
    let error = embedder.embed(&texts(&["", &(long + "x")]), &|| true).err().unwrap();
    assert!(matches!(error, EmbedError::TooManyBytes { index: 1, .. }), "{error}");
    let many = vec![SecretString::default(); MAX_EMBED_TEXTS + 1];
    assert!(embedder.embed(&many[1..], &|| true).is_ok());
    let error = embedder.embed(&many, &|| true).err().unwrap();
    assert!(matches!(error, EmbedError::TooManyTexts { texts: 2049, max: 2048 }), "{error}");
}

#[test]
fn a_caller_stops_between_packs() {
    let embedder = embedder(1);
    let many = texts(&["the the the the the the"; 200]);
    let packs = Cell::new(0);
    let result = embedder.embed(&many, &|| {
        packs.set(packs.get() + 1);
        packs.get() < 3
    });
    assert!(matches!(result, Err(EmbedError::Stopped)));
    assert_eq!(packs.get(), 3);
}

#[test]
fn nothing_is_left_of_a_text_and_nothing_is_printed() {
    let embedder = embedder(1);
    let embedding = embedder.embed(&texts(&["hello world"]), &|| true).unwrap().remove(0);
    assert!(embedding.expose().iter().any(|x| x.abs() > 0.01));
    let buffers = embedder.buffers.lock().unwrap();
    let rows = buffers.all();
    assert!(rows.iter().all(|rows| !rows.is_empty() && rows.iter().all(|x| *x == 0.0)));
    assert!(!format!("{embedder:?}").contains("0."));
}

fn error(change: impl Fn(&mut Vec<(String, Vec<u8>)>)) -> String {
    let mut files = tiny_files();
    change(&mut files);
    Embedder::load(ModelBytes::from_files(files), 1, Turns::default()).err().unwrap().to_string()
}

/// Replaces text in a file by as many bytes.
fn edit(files: &mut [(String, Vec<u8>)], name: &str, from: &str, to: &str) {
    let (_, bytes) = files.iter_mut().find(|(file, _)| file == name).unwrap();
    let mut found = 0;
    while let Some(at) = bytes.windows(from.len()).position(|part| part == from.as_bytes()) {
        bytes.splice(at..at + from.len(), to.bytes());
        found += 1;
    }
    assert!(found > 0, "{from}");
}

const WEIGHTS: &str = "model.safetensors";

#[test]
fn a_folder_must_be_whole_and_every_tensor_must_be_known() {
    for name in [CONFIG, TOKENIZER, WEIGHTS] {
        let without = error(|files| files.retain(|(file, _)| file != name));
        assert!(without.contains(&format!("{name} of the model")), "{without}");
    }
    for (from, to, says) in [
        (
            "encoder.layer.1.output.dense.bias",
            "encoder.layer.2.output.dense.bias",
            "no tensor `encoder.layer.1.output.dense.bias`",
        ),
        ("pooler.dense.bias", "looper.dense.bias", "tensor `looper.dense.bias`"),
        ("embeddings.position_ids", "embeddings.position_idx", "tensor type `I64`"),
        ("\"BF16\"", "\"BF61\"", "tensor type `BF61`"),
        ("[580,32]", "[290,64]", "`embeddings.word_embeddings.weight` has shape [290, 64]"),
    ] {
        let error = error(|files| edit(files, WEIGHTS, from, to));
        assert!(error.contains(says), "{from}: {error}");
    }
    for (from, to, says) in [
        ("\"vocab_size\": 580", "\"vocab_size\": 581", "`embeddings.word_embeddings.weight` has shape"),
        ("\"vocab_size\": 580", "\"vocab_size\": 579", "not below vocab_size"),
        (
            "\"max_position_embeddings\": 64",
            "\"max_position_embeddings\": 65",
            "position_embeddings.weight` has shape",
        ),
        ("\"type_vocab_size\": 2", "\"type_vocab_size\": 3", "token_type_embeddings.weight` has shape"),
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1", "tensor `encoder.layer.1."),
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "no tensor `encoder.layer.2."),
        ("\"intermediate_size\": 48", "\"intermediate_size\": 64", "intermediate.dense.weight` has shape"),
        ("\"hidden_size\": 32", "\"hidden_size\": 64", "has shape"),
        ("\"gelu\"", "\"relu\"", "`hidden_act`"),
    ] {
        let error = error(|files| edit(files, CONFIG, from, to));
        assert!(error.contains(says), "{from}: {error}");
    }
    let gguf = Embedder::load(ModelBytes::from_vec(b"GGUF".to_vec()), 1, Turns::default())
        .err()
        .unwrap()
        .to_string();
    assert!(gguf.contains("safetensors"), "{gguf}");
}

/// As in models that were saved with a head.
#[test]
fn tensors_may_have_the_prefix_of_the_model() {
    let mut files = tiny_files();
    let before: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    for (from, to) in [
        ("\"embeddings.", "\"bert.embeddings."),
        ("\"encoder.", "\"bert.encoder."),
        ("\"pooler.", "\"bert.pooler."),
    ] {
        edit(&mut files, WEIGHTS, from, to);
    }
    let grown = (files.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() - before) as u64;
    let (_, bytes) = files.iter_mut().find(|(file, _)| file == WEIGHTS).unwrap();
    let [length, ..] = bytes.as_chunks_mut::<8>().0 else { panic!("a header") };
    *length = (u64::from_le_bytes(*length) + grown).to_le_bytes();
    let prefixed = Embedder::load(ModelBytes::from_files(files), 1, Turns::default()).unwrap();
    let text = texts(&["hello world"]);
    let ours = |embedder: &Embedder| bits(&embedder.embed(&text, &|| true).unwrap()[0]);
    assert!(ours(&prefixed) == ours(&embedder(1)));
}

#[test]
fn weights_that_are_no_numbers_are_noticed() {
    let mut files = tiny_files();
    let (_, bytes) = files.iter_mut().find(|(file, _)| file == WEIGHTS).unwrap();
    // Behind the header and the ids of positions. All bits set are no number in any type.
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap());
    let start = 8 + usize::try_from(header).unwrap() + 64 * 8;
    bytes[start..].fill(0xff);
    let broken = Embedder::load(ModelBytes::from_files(files), 1, Turns::default()).unwrap();
    let result = broken.embed(&texts(&["the"]), &|| true);
    let error = result.err().unwrap();
    assert!(matches!(error, EmbedError::Failed(Error::Compute(_))), "{error}");
}

#[test]
fn models_for_text_are_told_from_models_for_embeddings() {
    assert!(Embedder::is_embedder(&tiny()));
    assert!(!Embedder::is_embedder(&ModelBytes::from_vec(tiny_file(CONFIG))));
    assert!(!Embedder::is_embedder(&ModelBytes::from_files(Vec::new())));
    for config in ["", "{", "[]", "\u{0}", "{\"model_type\":[]}", "{\"model_type\":\"llama\"}"] {
        let files = vec![(CONFIG.to_owned(), config.as_bytes().to_vec())];
        assert!(!Embedder::is_embedder(&ModelBytes::from_files(files)), "{config}");
    }
    let refused = crate::Model::load(tiny()).err().unwrap().to_string();
    assert!(refused.contains("`bert`"), "{refused}");
}

#[test]
fn packs_hold_at_most_so_many_rows_but_one_text_at_least() {
    let lens = |lens: &[usize]| {
        let texts: Vec<Tokens> = lens.iter().map(|len| Tokens::dangerous_from_ids(&vec![1; *len])).collect();
        pack(&texts)
    };
    assert_eq!(lens(&[MAX_ROWS + 1, 2]), 1);
    assert_eq!(lens(&[MAX_ROWS - 2, 2, 2]), 2);
    assert_eq!(lens(&[2; 300]), MAX_ROWS / 2);
}
