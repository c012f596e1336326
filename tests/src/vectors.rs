//! Reads `tests/vectors/*.txt`: blocks of `key = value`, separated by empty lines; `#` starts a comment.

use std::collections::BTreeMap;

use crate::repository;

/// One block.
pub struct Vector(BTreeMap<String, String>);

impl Vector {
    /// A value as it stands.
    pub fn text(&self, key: &str) -> &str {
        self.0.get(key).unwrap_or_else(|| panic!("the vector has no {key}"))
    }

    /// A decimal number.
    pub fn number(&self, key: &str) -> u64 {
        self.text(key).parse().unwrap()
    }

    /// A hex string; `-` is the empty one.
    pub fn bytes(&self, key: &str) -> Vec<u8> {
        hex::decode(self.text(key).trim_start_matches('-')).unwrap()
    }

    /// A hex string of a known length.
    pub fn array<const N: usize>(&self, key: &str) -> [u8; N] {
        self.bytes(key).try_into().unwrap()
    }

    /// Several hex strings of a known length, separated by spaces; `-` for none.
    pub fn arrays<const N: usize>(&self, key: &str) -> Vec<[u8; N]> {
        let words = self.text(key).split(' ').filter(|word| *word != "-");
        words.map(|word| hex::decode(word).unwrap().try_into().unwrap()).collect()
    }
}

/// All blocks of a file.
pub fn read(name: &str) -> Vec<Vector> {
    let path = repository().join("tests/vectors").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let blocks = text.split("\n\n").map(|block| {
        let lines = block.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split_once(" = ").unwrap()).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    });
    let vectors: Vec<Vector> = blocks.filter(|map: &BTreeMap<_, _>| !map.is_empty()).map(Vector).collect();
    assert!(!vectors.is_empty(), "{name} has no vectors");
    vectors
}
