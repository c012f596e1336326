//! Logs that are made, extended, cut, forked and altered.

use std::fs;
use std::path::{Path, PathBuf};

use cocoon_attestation::UnixTime;
use cocoon_attestation::release::{MAX_NOTE_SIGNATURES, Note, NoteSignature};
use tempfile::TempDir;

use super::layout::CHECKPOINT;
use super::seen::Seen;
use super::witness::cosign;
use super::{Log, LogError, Writer, public_key};
use crate::key::SigningKey;

const ORIGIN: &str = "log.test/releases";
const NOW: UnixTime = UnixTime(1_800_000_000);

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        SigningKey::create(&place.path("log.pem")).unwrap();
        SigningKey::create(&place.path("witness.pem")).unwrap();
        drop(
            Writer::create(&place.path("log"), ORIGIN, place.key("log.pem"), place.seen("log.pem"), NOW)
                .unwrap(),
        );
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn key(&self, name: &str) -> SigningKey {
        SigningKey::read(&self.path(name)).unwrap()
    }

    fn seen(&self, key: &str) -> Seen {
        Seen::beside(&self.path(key))
    }

    fn writer(&self) -> Result<Writer, LogError> {
        Writer::open(&self.path("log"), self.key("log.pem"), self.seen("log.pem"))
    }

    fn append(&self, entries: std::ops::Range<usize>) -> Result<(), LogError> {
        let entries: Vec<_> = entries.map(|n| format!("entry {n}\n").into_bytes()).collect();
        self.writer()?.append(&entries, NOW)
    }

    fn cosign(&self, name: &str) -> Result<Log, LogError> {
        let (log, witness) = (public_key(&self.key("log.pem")).unwrap(), self.key("witness.pem"));
        cosign(&self.path("log"), (ORIGIN, &log), (name, &witness), &self.seen("witness.pem"), NOW)
    }

    fn check(&self) -> Result<Log, LogError> {
        let log = Log::open(&self.path("log"))?;
        log.check_signature(ORIGIN, &public_key(&self.key("log.pem")).unwrap())?;
        log.check_tiles()?;
        Ok(log)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path("log").join(name)
    }

    /// The log as it is now, to be put back.
    fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(&self.path("log"), copy.path());
        copy
    }

    fn put_back(&self, copy: &TempDir) {
        fs::remove_dir_all(self.path("log")).unwrap();
        copy_dir(copy.path(), &self.path("log"));
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, LogError>) -> String {
    let error = result.unwrap_err();
    assert!(error.is_rejection(), "{error}");
    error.to_string()
}

#[test]
fn logs_of_many_sizes_are_whole_and_extend_each_other() {
    let (place, mut older) = (Place::new(), Vec::new());
    assert_eq!(place.check().unwrap().checkpoint().size, 0);
    let mut from = 0;
    for size in [1, 2, 255, 256, 257, 600, 600] {
        place.append(from..size).unwrap();
        from = size;
        let log = place.check().unwrap();
        assert_eq!(log.checkpoint().size, size as u64);
        for checkpoint in &older {
            log.check_extends(checkpoint).unwrap();
        }
        older.push(log.checkpoint().clone());
        for n in [0, size / 2, size - 1] {
            let proof = log.prove(format!("entry {n}\n").as_bytes()).unwrap();
            assert_eq!((proof.index, proof.checkpoint()), (n as u64, log.checkpoint()));
        }
        assert!(refused(log.prove(b"x")).contains("not in the log"));
    }
    // What is there is not added again.
    place.append(100..200).unwrap();
    assert_eq!(place.check().unwrap().checkpoint().size, 600);
}

#[test]
fn a_log_that_lost_or_changed_entries_is_not_signed() {
    let place = Place::new();
    place.append(0..300).unwrap();
    let old = place.copy();
    place.append(300..310).unwrap();
    place.cosign("witness.test").unwrap();
    let newer = place.check().unwrap();
    place.put_back(&old);
    let cut = "300 entries, it had 310 before: the log was cut or forked; nothing is signed";
    assert!(refused(place.append(300..301)).contains(cut));
    assert!(refused(place.cosign("witness.test")).contains(cut));
    assert!(refused(place.check().unwrap().check_extends(newer.checkpoint())).contains(cut));
    // Another history, signed by the log's own key on a machine that forgot.
    fs::remove_file(place.path("log.pem.seen")).unwrap();
    place.append(400..420).unwrap();
    let forked = "its first 310 entries are others than before";
    assert!(refused(place.cosign("witness.test")).contains(forked));
    assert!(refused(place.check().unwrap().check_extends(newer.checkpoint())).contains(forked));
}

#[test]
fn what_a_crash_leaves_behind_does_no_harm() {
    let place = Place::new();
    place.append(0..255).unwrap();
    let before = fs::read(place.file(CHECKPOINT)).unwrap();
    place.append(255..300).unwrap();
    // All files of the new tree are there, it was not signed.
    fs::write(place.file(CHECKPOINT), &before).unwrap();
    fs::write(place.path("log.pem.seen"), &before).unwrap();
    fs::write(place.file(".checkpoint.new"), b"half").unwrap();
    assert_eq!(place.check().unwrap().checkpoint().size, 255);
    place.append(900..950).unwrap();
    let log = place.check().unwrap();
    assert_eq!(log.checkpoint().size, 305);
    assert!(log.index_of(b"entry 255\n").is_none() && log.index_of(b"entry 949\n").is_some());
    // Published, and not remembered, as earlier versions did.
    fs::write(place.path("log.pem.seen"), &before).unwrap();
    place.append(950..951).unwrap();
    assert_eq!(place.check().unwrap().checkpoint().size, 306);
}

#[test]
fn what_was_signed_and_not_published_is_published_next() {
    let place = Place::new();
    place.append(0..255).unwrap();
    let before = fs::read(place.file(CHECKPOINT)).unwrap();
    place.append(255..300).unwrap();
    let signed = fs::read(place.file(CHECKPOINT)).unwrap();
    assert_eq!(fs::read(place.path("log.pem.seen")).unwrap(), signed);
    let crash = || fs::write(place.file(CHECKPOINT), &before).unwrap();
    crash();
    assert_eq!(place.check().unwrap().checkpoint().size, 255);
    drop(place.writer().unwrap());
    assert_eq!(fs::read(place.file(CHECKPOINT)).unwrap(), signed);
    crash();
    place.append(290..301).unwrap();
    assert_eq!(place.check().unwrap().checkpoint().size, 301);
    // After the very first one, and one that only renewed the time.
    let other = place.path("log2");
    SigningKey::create(&place.path("2.pem")).unwrap();
    let create = || Writer::create(&other, ORIGIN, place.key("2.pem"), place.seen("2.pem"), NOW);
    drop(create().unwrap());
    fs::remove_file(other.join(CHECKPOINT)).unwrap();
    let first = create().unwrap().log().note().to_string();
    let mut again = Writer::open(&other, place.key("2.pem"), place.seen("2.pem")).unwrap();
    again.publish(UnixTime(NOW.0 + 1)).unwrap();
    drop(again);
    fs::write(other.join(CHECKPOINT), first).unwrap();
    Writer::open(&other, place.key("2.pem"), place.seen("2.pem")).unwrap();
}

#[test]
fn what_was_signed_and_is_not_all_there_is_not_published() {
    let place = Place::new();
    place.append(0..255).unwrap();
    let before = fs::read(place.file(CHECKPOINT)).unwrap();
    place.append(255..300).unwrap();
    fs::write(place.file(CHECKPOINT), &before).unwrap();
    let crashed = place.copy();
    let cut = "255 entries, it had 300 before: the log was cut or forked; nothing is signed";
    for name in ["tile/entries/001.p/44", "tile/0/001.p/44"] {
        let mut bytes = fs::read(place.file(name)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(place.file(name), bytes).unwrap();
        assert!(refused(place.append(300..301)).contains(cut), "{name} altered");
        fs::remove_file(place.file(name)).unwrap();
        assert!(refused(place.append(300..301)).contains(cut), "{name} lost");
        assert_eq!(fs::read(place.file(CHECKPOINT)).unwrap(), before);
        place.put_back(&crashed);
    }
    // What another key signed is not published in this one's name.
    let seen = fs::read_to_string(place.path("log.pem.seen")).unwrap();
    let unsigned = Note::new(Note::parse(&seen).unwrap().text().to_owned());
    let mut forged = unsigned;
    forged.sign(NoteSignature { name: ORIGIN.to_owned(), id: [0; 4], signature: vec![0; 64] });
    fs::write(place.path("log.pem.seen"), forged.to_string()).unwrap();
    assert!(refused(place.append(300..301)).contains(cut));
}

#[test]
fn every_altered_or_missing_file_is_named() {
    let place = Place::new();
    place.append(0..600).unwrap();
    let good = place.copy();
    for name in ["tile/0/000", "tile/0/002.p/88", "tile/1/000.p/2"] {
        let mut bytes = fs::read(place.file(name)).unwrap();
        bytes[0] ^= 1;
        fs::write(place.file(name), bytes).unwrap();
        let error = refused(place.check());
        assert!(error.contains(name) && error.contains("what follows from the entries"), "{error}");
        assert!(refused(place.append(600..601)).contains(name));
        place.put_back(&good);
        fs::remove_file(place.file(name)).unwrap();
        assert!(place.check().unwrap_err().to_string().contains(name));
        place.put_back(&good);
    }
    for (change, want) in [(0, "cut"), (7, "do not lead to this root")] {
        let name = "tile/entries/001";
        let mut bytes = fs::read(place.file(name)).unwrap();
        bytes[change] ^= 0x40;
        fs::write(place.file(name), bytes).unwrap();
        let error = refused(place.check());
        assert!(error.contains(want), "{error}");
        place.put_back(&good);
    }
    let text = fs::read_to_string(place.file(CHECKPOINT)).unwrap();
    for (from, to, want) in [
        ("\n600\n", "\n599\n", "nothing else"),
        ("\n600\n", "\n1000001\n", "at most 1000000"),
        ("log.test/releases\n600", "other.test\n600", "of the log other.test"),
        ("\u{2014}", "-", "malformed signed note"),
        ("\n600\n", "\n", "malformed checkpoint"),
    ] {
        // Partial tiles of the size that is claimed are there too.
        fs::create_dir_all(place.file("tile/entries/002.p")).unwrap();
        fs::copy(place.file("tile/entries/002.p/88"), place.file("tile/entries/002.p/87")).unwrap();
        fs::write(place.file(CHECKPOINT), text.replacen(from, to, 1)).unwrap();
        let error = refused(place.check());
        assert!(error.contains(want), "{want}: {error}");
        place.put_back(&good);
    }
    fs::write(place.file(CHECKPOINT), [0xff]).unwrap();
    assert!(refused(place.check()).contains("not UTF-8"));
    fs::write(place.file(CHECKPOINT), vec![b'a'; 8193]).unwrap();
    assert!(refused(place.check()).contains("more than 8192 bytes"));
}

#[test]
fn a_log_has_one_key_and_one_beginning() {
    let place = Place::new();
    let again = Writer::create(&place.path("log"), ORIGIN, place.key("log.pem"), place.seen("log.pem"), NOW);
    assert!(again.unwrap_err().to_string().contains("there is a log already"));
    let other = Writer::open(&place.path("log"), place.key("witness.pem"), place.seen("witness.pem"));
    assert!(refused(other).contains("not signed by"));
    let elsewhere = place.path("elsewhere");
    let second = Writer::create(&elsewhere, "other.test", place.key("log.pem"), place.seen("log.pem"), NOW);
    assert!(second.unwrap_err().to_string().contains("another log than log.test/releases"));
    place.append(0..1).unwrap();
    let same = Writer::create(&elsewhere, ORIGIN, place.key("log.pem"), place.seen("log.pem"), NOW);
    assert!(refused(same).contains("it had 1 before"));
    for bad in ["", "a b", "a+b", "a\n"] {
        let new = Writer::create(&elsewhere, bad, place.key("witness.pem"), place.seen("witness.pem"), NOW);
        assert!(new.unwrap_err().to_string().contains("an origin is visible ASCII"), "{bad}");
    }
    let held = place.writer().unwrap();
    assert!(matches!(place.writer(), Err(LogError::Busy { .. })));
    assert!(matches!(place.cosign("witness.test"), Err(LogError::Busy { .. })));
    drop(held);
}

#[test]
fn witnesses_stay_until_the_log_grows() {
    let place = Place::new();
    place.append(0..3).unwrap();
    let witness = public_key(&place.key("witness.pem")).unwrap();
    place.cosign("witness.test").unwrap();
    let cosigned = |place: &Place| place.check().unwrap().note().cosigned_at("witness.test", &witness);
    assert_eq!(cosigned(&place), Some(NOW));
    let later = UnixTime(NOW.0 + 1);
    place.writer().unwrap().publish(later).unwrap();
    assert_eq!(cosigned(&place), Some(NOW));
    let log = public_key(&place.key("log.pem")).unwrap();
    assert_eq!(place.check().unwrap().note().cosigned_at(ORIGIN, &log), Some(later));
    place.append(3..4).unwrap();
    assert_eq!(cosigned(&place), None);
    place.cosign("witness.test").unwrap();
    // Not its own log's, not under any name, not with the log's key, not without room.
    assert!(place.cosign("a b").unwrap_err().to_string().contains("a name is visible ASCII"));
    let own =
        cosign(&place.path("log"), (ORIGIN, &log), ("w", &place.key("log.pem")), &place.seen("log.pem"), NOW);
    assert!(own.unwrap_err().to_string().contains("no witness of itself"));
    let other = cosign(
        &place.path("log"),
        ("x", &log),
        ("w", &place.key("witness.pem")),
        &place.seen("witness.pem"),
        NOW,
    );
    assert!(refused(other).contains("expected x"));
    let mut full = Note::parse(&fs::read_to_string(place.file(CHECKPOINT)).unwrap()).unwrap();
    for n in full.signatures().len()..MAX_NOTE_SIGNATURES {
        full.sign(NoteSignature { name: n.to_string(), id: [0; 4], signature: vec![0] });
    }
    fs::write(place.file(CHECKPOINT), full.to_string()).unwrap();
    let seen = fs::read(place.path("witness.pem.seen")).unwrap();
    assert!(place.cosign("another.test").unwrap_err().to_string().contains("no room for another signature"));
    assert_eq!(
        fs::read(place.path("witness.pem.seen")).unwrap(),
        seen,
        "what cannot be read is not remembered"
    );
}
