//! Signed notes (C2SP signed-note): a text, a blank line, and lines with signatures over the text.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::PublicKey;
use super::checkpoint::cosigned_message;
use crate::{Error, SignatureCache, UnixTime, crypto};

/// A checkpoint with 32 signatures of Ed25519 stays below it.
pub const MAX_NOTE_LEN: usize = 8 * 1024;

/// C2SP signed-note wants at least 16.
pub const MAX_NOTE_SIGNATURES: usize = 32;

/// Longest name of a key.
const MAX_NAME: usize = 128;

/// What every line of a signature begins with: an em dash and a space.
const LINE_START: &str = "\u{2014} ";

const WHAT: &str = "signed note";

/// A note, well-formed; nothing is verified yet. Written, it is again what was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// With its last newline.
    text: String,
    signatures: Vec<NoteSignature>,
}

/// One line under a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// Name of the key.
    pub name: String,
    /// [`key_id`] of the key.
    pub id: [u8; 4],
    /// What is signed, and how, depends on the kind of the key.
    pub signature: Vec<u8>,
}

/// Kinds of keys (C2SP signed-note, "Signature types").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoteKind {
    /// 0x01: Ed25519 over the text.
    Ed25519,
    /// 0x04: time and Ed25519 over time and text (C2SP tlog-cosignature).
    Cosignature,
}

impl NoteKind {
    /// The byte in [`key_id`].
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ed25519 => 1,
            Self::Cosignature => 4,
        }
    }
}

/// What a note says under one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said<T> {
    /// No line of this key.
    Nothing,
    /// A line that is not this key's signature.
    Forged,
    /// Signed.
    Signed(T),
}

/// `SHA-256(name || 0x0A || kind || key)[..4]`.
#[must_use]
pub fn key_id(name: &str, kind: NoteKind, key: &PublicKey) -> [u8; 4] {
    let [a, b, c, d, ..] = crypto::sha256(&[name.as_bytes(), b"\n", &[kind.code()], &key.0]);
    [a, b, c, d]
}

/// How other tools write a key: `name+id+base64(kind || key)` (C2SP signed-note, "Verifier keys").
#[must_use]
pub fn verifier_key(name: &str, kind: NoteKind, key: &PublicKey) -> String {
    let id = crate::types::to_hex(&key_id(name, kind, key));
    format!("{name}+{id}+{}", STANDARD.encode([&[kind.code()], key.0.as_slice()].concat()))
}

/// Whether a key can have this name: visible ASCII without a plus sign. C2SP signed-note allows more than ASCII.
#[must_use]
pub fn is_key_name(name: &str) -> bool {
    super::is_word(name, MAX_NAME) && !name.contains('+')
}

impl Note {
    /// A note that nobody signed yet. `text` ends in a newline.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self { text, signatures: Vec::new() }
    }

    /// Reads a note.
    ///
    /// # Errors
    /// `Malformed` for what is no note, is longer than 8 KiB, or has more than 32 signatures or two of one key.
    pub fn parse(note: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Err(Error::malformed(WHAT, why));
        if note.len() > MAX_NOTE_LEN {
            return wrong(&format!("{} bytes, at most {MAX_NOTE_LEN} are allowed", note.len()));
        }
        if note.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
            return wrong("a control character");
        }
        let Some((text, lines)) = note.rsplit_once("\n\n") else {
            return wrong("no blank line before the signatures");
        };
        let Some(lines) = lines.strip_suffix('\n') else { return wrong("the last line does not end") };
        let mut read = Self::new(format!("{text}\n"));
        for line in lines.split('\n') {
            if read.signatures.len() >= MAX_NOTE_SIGNATURES {
                return wrong(&format!("more than {MAX_NOTE_SIGNATURES} signatures"));
            }
            let signature = NoteSignature::parse(line)?;
            if read.position(&signature).is_some() {
                return wrong("two signatures of one key");
            }
            read.signatures.push(signature);
        }
        Ok(read)
    }

    /// The text that is signed, with its last newline.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The lines under it.
    #[must_use]
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Adds a signature, or replaces the one of the same key.
    pub fn sign(&mut self, signature: NoteSignature) {
        match self.position(&signature).and_then(|at| self.signatures.get_mut(at)) {
            Some(old) => *old = signature,
            None => self.signatures.push(signature),
        }
    }

    fn position(&self, like: &NoteSignature) -> Option<usize> {
        self.signatures.iter().position(|known| known.name == like.name && known.id == like.id)
    }

    fn line(&self, name: &str, kind: NoteKind, key: &PublicKey) -> Option<&NoteSignature> {
        let id = key_id(name, kind, key);
        self.signatures.iter().find(|line| line.name == name && line.id == id)
    }

    /// Whether the key of the log `name` signed the text.
    pub(crate) fn signed_by(&self, name: &str, key: &PublicKey, signatures: &SignatureCache) -> Said<()> {
        let Some(line) = self.line(name, NoteKind::Ed25519, key) else { return Said::Nothing };
        match key.signed(self.text.as_bytes(), &line.signature, signatures) {
            true => Said::Signed(()),
            false => Said::Forged,
        }
    }

    /// When `name` cosigned the text.
    pub(crate) fn cosigned_by(
        &self,
        name: &str,
        key: &PublicKey,
        signatures: &SignatureCache,
    ) -> Said<UnixTime> {
        let Some(line) = self.line(name, NoteKind::Cosignature, key) else { return Said::Nothing };
        let Some((time, signature)) = line.signature.split_first_chunk() else { return Said::Forged };
        let time = UnixTime(u64::from_be_bytes(*time));
        // C2SP tlog-cosignature: a time is at most 2^63 - 1.
        let possible = i64::try_from(time.0).is_ok();
        match possible && key.signed(&cosigned_message(time, &self.text), signature, signatures) {
            true => Said::Signed(time),
            false => Said::Forged,
        }
    }

    /// The latest time of a line that looks like a cosignature of `name`; nobody checked it.
    pub(super) fn claimed_time(&self, name: &str) -> Option<UnixTime> {
        let time = |line: &NoteSignature| {
            let (time, signature) = line.signature.split_first_chunk()?;
            (line.name == name && signature.len() == 64).then(|| UnixTime(u64::from_be_bytes(*time)))
        };
        self.signatures.iter().filter_map(time).max()
    }

    /// Whether `key` signed the text under `name`, for those who keep a log.
    #[must_use]
    pub fn is_signed_by(&self, name: &str, key: &PublicKey) -> bool {
        self.signed_by(name, key, &SignatureCache::new()) == Said::Signed(())
    }

    /// When `key` cosigned the text under `name`, if it did, for those who keep a log.
    #[must_use]
    pub fn cosigned_at(&self, name: &str, key: &PublicKey) -> Option<UnixTime> {
        match self.cosigned_by(name, key, &SignatureCache::new()) {
            Said::Signed(time) => Some(time),
            Said::Nothing | Said::Forged => None,
        }
    }
}

impl NoteSignature {
    fn parse(line: &str) -> Result<Self, Error> {
        let wrong = |why| Error::malformed(WHAT, why);
        let parts = line.strip_prefix(LINE_START).and_then(|rest| rest.split_once(' '));
        let (name, encoded) = parts.ok_or_else(|| wrong("a line that is no signature"))?;
        if !is_key_name(name) {
            return Err(wrong("a name of a key that none can have"));
        }
        let bytes =
            STANDARD.decode(encoded).map_err(|_quotes_input| wrong("a signature that is not base64"))?;
        let Some((id, signature)) = bytes.split_first_chunk().filter(|(_, rest)| !rest.is_empty()) else {
            return Err(wrong("a signature that is too short"));
        };
        Ok(Self { name: name.to_owned(), id: *id, signature: signature.to_vec() })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for NoteSignature { name, id, signature } in &self.signatures {
            writeln!(f, "{LINE_START}{name} {}", STANDARD.encode([id, signature.as_slice()].concat()))?;
        }
        Ok(())
    }
}
