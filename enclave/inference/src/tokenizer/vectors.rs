//! Our tokens against those of other people's tokenizers, on 10,000 lines of everything (`tests/vectors/tokenizer`).
//! Vocabularies that are not in the repository are skipped where they are not at hand.

use super::*;
use crate::model_file::read_model;
use std::io::Write;
use std::path::{Path, PathBuf};

const LINES: usize = 10_000;
const PER_DIGEST: usize = 100;
const JOINERS: [&str; 8] = ["", "", " ", " ", " ", "", "\n", "'"];
/// Vocabularies that `make.py` puts into `target/tokenizers`, and how many of the 100 digests are of the same tokens.
const PEERS: [(&str, usize); 10] = [
    ("mistral-v1", 100),
    ("mistral-v3", 100),
    ("tekken", 100),
    ("llama2", 100),
    ("llama3", 100),
    ("qwen3", 100),
    ("gemma3", 100),
    ("gemma3-gguf", 100),
    ("deepseek-v3", 100),
    ("gpt-oss", 100),
];

/// SplitMix64, as in `corpus.py`.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).unwrap()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn vectors(file: &str) -> String {
    std::fs::read_to_string(root().join("tests/vectors/tokenizer").join(file)).unwrap()
}

fn corpus() -> Vec<String> {
    corpus_with(Vec::new())
}

/// Lines of the fragments of `fragments.json` and of others.
pub(crate) fn corpus_with(others: Vec<String>) -> Vec<String> {
    let mut fragments: Vec<String> = serde_json::from_str(&vectors("fragments.json")).unwrap();
    fragments.extend(others);
    let mut random = Random(1);
    let mut line = || {
        let mut line = String::new();
        for _ in 0..=random.below(12) {
            let fragment = &fragments[random.below(fragments.len())];
            let times = if random.below(8) == 0 { 1 + random.below(4) } else { 1 };
            line.push_str(&fragment.repeat(times));
            line.push_str(JOINERS[random.below(JOINERS.len())]);
        }
        line
    };
    (0..LINES).map(|_| line()).collect()
}

/// How many digests are those of the vectors.
fn same(name: &str, tokenizer: &Tokenizer) -> usize {
    same_digests(&vectors(&format!("{name}.txt")), &corpus(), |line| {
        let tokens = tokenizer.encode(&[Piece::Text(line)]).unwrap();
        tokens.as_slice()[usize::from(tokenizer.begin.is_some())..].to_vec()
    })
}

/// How many of the digests in a file of vectors are those of a corpus.
pub(crate) fn same_digests(text: &str, corpus: &[String], encode: impl Fn(&str) -> Vec<u32>) -> usize {
    let wanted: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(wanted.len(), LINES / PER_DIGEST);
    let digest = |lines: &[String]| {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        for line in lines {
            let ids = encode(line);
            hash.update(&u32::try_from(ids.len()).unwrap().to_le_bytes());
            ids.iter().for_each(|id| hash.update(&id.to_le_bytes()));
        }
        hash.finish().as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    corpus.chunks(PER_DIGEST).zip(wanted).filter(|(lines, wanted)| digest(lines) == **wanted).count()
}

/// To the terminal even where the test runner keeps the output of tests: a skipped test must be seen.
#[allow(clippy::disallowed_methods, reason = "a skipped test must be seen")]
pub(crate) fn say(text: &str) {
    writeln!(std::io::stdout(), "{text}").unwrap();
}

#[test]
fn smollm2_makes_the_tokens_of_llama_cpp() {
    let path = root().join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !path.exists() {
        say("skipped: no model, run scripts/model fetch");
        return;
    }
    let model = read_model(&path, None, |_, _| ()).unwrap();
    let tokenizer = Tokenizer::load(&model.source().unwrap()).unwrap();
    assert_eq!(same("smollm2", &tokenizer), 100);
}

#[test]
fn a_small_sentencepiece_vocabulary_makes_the_tokens_of_llama_cpp() {
    let rows: Vec<(String, f32, i64)> = serde_json::from_str(&vectors("small.json")).unwrap();
    let scores = rows.iter().map(|row| row.1).collect();
    let kind = |number| match number {
        2 => Kind::Unknown,
        3 => Kind::Control,
        6 => Kind::Byte,
        _ => Kind::Normal,
    };
    let vocabulary = Vocabulary {
        tokens: rows.into_iter().map(|(text, _, number)| Token { text, kind: kind(number) }).collect(),
        scheme: Scheme::Scores { scores, prefix: Prefix::Always },
        begin: Some(1),
        add_begin: true,
        end: Some(2),
        ends: HashSet::new(),
        named: HashSet::new(),
    };
    assert_eq!(same("small", &Tokenizer::of(vocabulary)), 100);
}

#[test]
fn the_peers_make_the_same_tokens() {
    for (name, wanted) in PEERS {
        let folder = root().join("target/tokenizers").join(name);
        let (json, gguf) = (folder.join("tokenizer.json"), folder.join("vocabulary.gguf"));
        let tokenizer = if json.exists() {
            Tokenizer::of(crate::huggingface::tokenizer_for_tests(&std::fs::read(json).unwrap()))
        } else if gguf.exists() {
            let model = read_model(&gguf, None, |_, _| ()).unwrap();
            Tokenizer::load(&model.source().unwrap()).unwrap()
        } else {
            say(&format!("skipped: {name}, see tests/vectors/tokenizer/make.py"));
            continue;
        };
        let same = same(name, &tokenizer);
        say(&format!("{name}: {same} of 100 digests are the same"));
        assert_eq!(same, wanted, "{name}");
    }
}

#[test]
fn the_corpus_is_that_of_the_script() {
    let lines = corpus();
    assert_eq!(lines.iter().map(String::len).sum::<usize>(), 502_084);
    assert!(lines[0].starts_with("    ▁▁    <|im_end|>"));
}
