//! Lines that differ a little from an expected one.

use std::fmt;

/// Words that people and other images put into command lines.
const KNOWN: [&str; 22] = [
    "cocoon.tee=sim",
    "cocoon.tee=snp",
    "cocoon.tee=tdx",
    "console=ttyS0",
    "console=hvc0",
    "console=tty0",
    "debug",
    "earlyprintk=ttyS0",
    "ignore_loglevel",
    "init=/bin/sh",
    "loglevel=6",
    "loglevel=7",
    "loglevel=8",
    "lockdown=none",
    "mitigations=off",
    "module.sig_enforce=0",
    "nokaslr",
    "panic=-1",
    "quiet",
    "rdinit=/bin/sh",
    "ro",
    "single",
];

/// A line and what was done to make it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variation {
    /// The line.
    pub line: Vec<u8>,
    /// What was done.
    pub how: String,
}

/// Variations by whole words, and at the ends: a word less, one of the known or `extra` ones more, a newline, nothing at all.
#[must_use]
pub fn words(line: &[u8], extra: &[String]) -> Vec<Variation> {
    let mut out = Vec::new();
    let mut add = |line: Vec<u8>, how: String| out.push(Variation { line, how });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    add(Vec::new(), "empty".to_owned());
    for (end, name) in [("\n", "a newline"), ("\r\n", "a carriage return and a newline"), (" ", "a space")] {
        add([line, end.as_bytes()].concat(), format!("with {name} at its end"));
    }
    let trimmed = line.trim_ascii();
    if trimmed != line {
        add(trimmed.to_vec(), "without white space at its ends".to_owned());
    }
    let all: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    for (skip, word) in all.iter().enumerate() {
        let rest: Vec<&[u8]> =
            all.iter().enumerate().filter(|(at, _)| *at != skip).map(|(_, word)| *word).collect();
        add(rest.join(&b' '), format!("without the word {:?}", text(word)));
    }
    for word in KNOWN.iter().copied().chain(extra.iter().map(String::as_str)) {
        add([line, b" ", word.as_bytes()].concat(), format!("with the word {word:?} at its end"));
        add([word.as_bytes(), b" ", line].concat(), format!("with the word {word:?} at its start"));
    }
    out
}

/// One byte more, less or another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// The byte at this place is that one.
    Replace(usize, u8),
    /// Before this place there is that byte.
    Insert(usize, u8),
    /// The byte at this place is not there.
    Remove(usize),
}

impl Edit {
    /// All of them, with printable ASCII.
    pub fn all(line: &[u8]) -> impl Iterator<Item = Self> + '_ {
        let printable = || b' '..=b'~';
        let replace =
            (0..line.len()).flat_map(move |at| printable().map(move |byte| Self::Replace(at, byte)));
        let replace =
            replace.filter(|edit| !matches!(edit, Self::Replace(at, byte) if line.get(*at) == Some(byte)));
        let insert = (0..=line.len()).flat_map(move |at| printable().map(move |byte| Self::Insert(at, byte)));
        replace.chain((0..line.len()).map(Self::Remove)).chain(insert)
    }

    /// The line after it.
    #[must_use]
    pub fn apply(self, line: &[u8]) -> Vec<u8> {
        let (at, byte, skip) = match self {
            Self::Replace(at, byte) => (at, Some(byte), 1),
            Self::Insert(at, byte) => (at, Some(byte), 0),
            Self::Remove(at) => (at, None, 1),
        };
        let (before, behind) = line.split_at_checked(at).unwrap_or((line, &[]));
        let mut out = before.to_vec();
        out.extend(byte);
        out.extend_from_slice(behind.get(skip..).unwrap_or_default());
        out
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replace(at, byte) => write!(f, "with {:?} at byte {at}", char::from(*byte)),
            Self::Insert(at, byte) => write!(f, "with {:?} more at byte {at}", char::from(*byte)),
            Self::Remove(at) => write!(f, "without byte {at}"),
        }
    }
}
