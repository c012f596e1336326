use crate::embedding::tests::tiny_tokenizer;
use crate::embedding::vocabulary;
use std::time::{Duration, Instant};

fn ids(text: &str) -> Vec<u32> {
    tiny_tokenizer().encode(text, 1 << 20).unwrap_or_default().as_slice().to_vec()
}

const UNKNOWN: u32 = 1;
const ENDS_OF_TEXT: [u32; 2] = [2, 3];

#[test]
fn text_lies_between_the_two_ends() {
    assert_eq!(ids(""), ENDS_OF_TEXT);
    assert_eq!(ids(" \t\u{0}\u{200b}"), ENDS_OF_TEXT);
    assert_eq!(tiny_tokenizer().count("the the"), 4);
    assert_eq!(ids("the"), [2, 5, 3]);
}

#[test]
fn no_text_is_a_special_token() {
    let file = crate::embedding::tests::tiny_file("tokenizer.json");
    // Names without punctuation, which a word could be.
    let renamed = String::from_utf8(file).unwrap();
    let renamed = renamed.replace("[MASK]", "mask").replace("[CLS]", "cls").replace("[UNK]", "unk");
    // And some that are used as such, but not declared.
    let mut undeclared: serde_json::Value = serde_json::from_str(&renamed).unwrap();
    undeclared["added_tokens"] = serde_json::json!([{"id": 4, "content": "mask", "special": true}]);
    let [renamed, undeclared] =
        [renamed, undeclared.to_string()].map(|file| vocabulary::read(file.as_bytes(), 580).unwrap());
    for tokenizer in [tiny_tokenizer(), renamed, undeclared] {
        for text in
            ["[CLS]", "[SEP]", "a[MASK]b", "[UNK]", "[PAD][PAD]", "[cls]", "cls", "mask", "unk", "mask cls"]
        {
            let tokens = tokenizer.encode(text, 64).unwrap_or_default();
            let [first, within @ .., last] = tokens.as_slice() else { panic!("two ends") };
            assert_eq!([*first, *last], ENDS_OF_TEXT);
            assert!(!within.is_empty() && within.iter().all(|id| *id > 4), "{text}: {within:?}");
        }
    }
}

#[test]
fn a_word_with_an_unknown_part_is_unknown_as_a_whole() {
    assert_eq!(ids("theing"), [2, 5, 9, 3]);
    // A letter that is in no vocabulary.
    assert_eq!(ids("theing\u{1e900}ing the"), [2, UNKNOWN, 5, 3]);
}

#[test]
fn words_have_a_limit() {
    let at = "a".repeat(100);
    assert_eq!(ids(&at).len(), 102);
    assert_eq!(ids(&format!("{at}a the")), [2, UNKNOWN, 5, 3]);
    // The limit counts letters after normalisation, not bytes, and a word at a time.
    assert_eq!(ids(&"é".repeat(100)).len(), 102);
    assert_eq!(ids(&format!("{at}-{at}")).len(), 203);
}

#[test]
fn tokens_are_counted_where_they_are_too_many() {
    let tokenizer = tiny_tokenizer();
    assert_eq!(tokenizer.encode("the the", 4).unwrap_or_default().len(), 4);
    assert_eq!(tokenizer.encode("the the", 3).err(), Some(4));
    assert_eq!(tokenizer.encode("", 1).err(), Some(2));
}

/// A quadratic walk over a megabyte would take minutes.
#[test]
fn hostile_text_takes_linear_time() {
    let tokenizer = tiny_tokenizer();
    let started = Instant::now();
    for piece in
        ["a", "e\u{301}", "\u{301}", "x!", "\u{ac00}", "[CLS]", "\u{1e9e}", "\u{fb01}", "\u{0}", "\u{1f9e8}"]
    {
        let text = piece.repeat((1 << 20) / piece.len());
        assert!(tokenizer.count(&text) >= 2);
    }
    let word = format!("{}\u{10ffff} ", "a".repeat(99));
    assert!(tokenizer.count(&word.repeat((1 << 20) / word.len())) > 10_000);
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}
