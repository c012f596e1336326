//! What is written is read, in one way only.

use serde_cbor::Value;

use super::*;
use crate::cbor;
use crate::release::{
    MAX_BUNDLE_LEN, MAX_MANIFEST_LEN, MAX_NOTE_LEN, MAX_NOTE_SIGNATURES, MAX_STATEMENTS, verifier_key,
};

fn refused(manifest: &ReleaseManifest) -> String {
    ReleaseManifest::decode(&manifest.encode()).unwrap_err().to_string()
}

fn with(change: impl Fn(&mut ReleaseManifest)) -> ReleaseManifest {
    let mut manifest = manifest();
    change(&mut manifest);
    manifest
}

/// The fields of a message, to be changed.
fn fields(bytes: &[u8]) -> std::collections::BTreeMap<Value, Value> {
    let Value::Map(fields) = serde_cbor::from_slice(bytes).unwrap() else { panic!("not a map") };
    fields
}

fn changed(bytes: &[u8], key: i128, value: Value) -> Vec<u8> {
    let mut fields = fields(bytes);
    fields.insert(Value::Integer(key), value);
    cbor::encode(&Value::Map(fields))
}

#[test]
fn manifests_and_bundles_round_trip() {
    let minimal = ReleaseManifest {
        snp: BTreeSet::new(),
        tdx: BTreeSet::new(),
        configs: BTreeSet::new(),
        components: BTreeSet::new(),
        ..manifest()
    };
    for manifest in [manifest(), minimal] {
        assert_eq!(ReleaseManifest::decode(&manifest.encode()).unwrap(), manifest);
        let bare = ReleaseBundle::new(manifest.clone());
        for bundle in [bare, vouched(manifest)] {
            assert_eq!(ReleaseBundle::decode(&bundle.encode()).unwrap(), bundle);
        }
    }
    let json = serde_json::to_value(manifest()).unwrap();
    assert_eq!(json["parts"]["vmlinuz"]["size"], 1);
    assert_eq!(json["created"], "2026-11-24T10:00:00Z");
    assert_eq!(json["tdx"][0]["shapes"][0]["memory_mib"], 4096);
}

#[test]
fn texts_and_paths_are_plain() {
    for version in ["", " ", "1 2", "1\n", "\u{1b}[2J", "ü", &"1".repeat(65)] {
        assert!(refused(&with(|m| m.version = version.to_owned())).contains("release manifest"), "{version}");
    }
    assert!(ReleaseManifest::decode(&with(|m| m.version = "1".repeat(64)).encode()).is_ok());
    assert!(refused(&with(|m| m.source = "a".repeat(129))).contains("at most 128"));
    let part = ImagePart { size: 1, sha256: Digest([0; 32]) };
    for path in ["", "/a", "a/", "../a", "a/../b", "a//b", "./a", "a\\b", "a b", &"a".repeat(129)] {
        let manifest = with(|m| m.parts = BTreeMap::from([(path.to_owned(), part)]));
        let error = refused(&manifest);
        assert!(error.contains("not plain") || error.contains("at most 128"), "{path}: {error}");
    }
    assert!(refused(&with(|m| m.parts.clear())).contains("field 4: empty"));
}

#[test]
fn machines_have_processors_and_memory() {
    let snp = |vcpus, vcpu_type: &str| {
        let vcpu_type = vcpu_type.to_owned();
        with(|m| {
            let reference = SnpReference {
                vcpus,
                vcpu_type: vcpu_type.clone(),
                policy: None,
                measurement: Measurement([1; 48]),
            };
            m.snp = [reference].into();
        })
    };
    assert!(ReleaseManifest::decode(&snp(1, "x").encode()).is_ok());
    assert!(refused(&snp(0, "x")).contains("without processors"));
    assert!(refused(&snp(1, "")).contains("visible"));
    let tdx = |vcpus, memory_mib| {
        with(|m| {
            let shapes = [TdxShape { vcpus, memory_mib, rtmr0: Measurement([1; 48]) }].into();
            let zero = Measurement([0; 48]);
            m.tdx = [TdxReference { mr_td: zero, rtmr1: zero, rtmr2: zero, shapes }].into();
        })
    };
    assert!(ReleaseManifest::decode(&tdx(1, 1).encode()).is_ok());
    assert!(refused(&tdx(0, 1)).contains("without processors") && refused(&tdx(1, 0)).contains("or memory"));
}

#[test]
fn lists_are_sorted_and_bounded() {
    let bytes = manifest().encode();
    for key in [6, 7, 9] {
        let Value::Array(items) = fields(&bytes)[&Value::Integer(key)].clone() else { panic!("no list") };
        let reversed = items.iter().rev().cloned().collect();
        let twice = [&items[..1], &items[..]].concat();
        for wrong in [reversed, twice] {
            let error = ReleaseManifest::decode(&changed(&bytes, key, Value::Array(wrong))).unwrap_err();
            assert!(error.to_string().contains("not sorted or has something twice"), "{key}: {error}");
        }
        let error = ReleaseManifest::decode(&changed(&bytes, key, Value::Array(Vec::new()))).unwrap_err();
        assert!(error.to_string().contains("leave the field out"), "{error}");
    }
    let digests = |n: u16| (0..n).map(|n| Digest::of(&n.to_be_bytes())).collect::<BTreeSet<_>>();
    assert!(ReleaseManifest::decode(&with(|m| m.configs = digests(64)).encode()).is_ok());
    assert!(refused(&with(|m| m.configs = digests(65))).contains("at most 64"));
    let parts = |n: u16| {
        let part = ImagePart { size: 1, sha256: Digest([0; 32]) };
        (0..n).map(|n| (n.to_string(), part)).collect::<BTreeMap<_, _>>()
    };
    assert!(ReleaseManifest::decode(&with(|m| m.parts = parts(64)).encode()).is_ok());
    assert!(refused(&with(|m| m.parts = parts(65))).contains("at most 64"));
    let component = |n: u16| {
        let [kind, version] = ["deb", "1"].map(str::to_owned);
        Component { kind, name: n.to_string(), version, sha256: None }
    };
    let components = |n: u16| with(|m| m.components = (0..n).map(component).collect());
    assert!(ReleaseManifest::decode(&components(1024).encode()).is_ok());
    assert!(refused(&components(1025)).contains("at most 1024"));
    let snp = |n: u16| {
        let one = |n: u16| SnpReference {
            vcpus: u64::from(n) + 1,
            vcpu_type: "x".to_owned(),
            policy: None,
            measurement: Measurement([0; 48]),
        };
        with(|m| m.snp = (0..n).map(one).collect())
    };
    assert!(ReleaseManifest::decode(&snp(256).encode()).is_ok());
    assert!(refused(&snp(257)).contains("at most 256"));
    let shape = |n: u16| TdxShape { vcpus: u64::from(n) + 1, memory_mib: 1, rtmr0: Measurement([0; 48]) };
    let zero = Measurement([0; 48]);
    let tdx = |kinds: u8, shapes: u16| {
        let one = |n: u8| TdxReference {
            mr_td: Measurement([n; 48]),
            rtmr1: zero,
            rtmr2: zero,
            shapes: (0..shapes).map(shape).collect(),
        };
        with(|m| m.tdx = (0..kinds).map(one).collect())
    };
    for (good, bad) in [((64, 1), (65, 1)), ((1, 64), (1, 65))] {
        assert!(ReleaseManifest::decode(&tdx(good.0, good.1).encode()).is_ok());
        assert!(refused(&tdx(bad.0, bad.1)).contains("at most 64"));
    }
}

#[test]
fn sizes_are_bounded() {
    let component = |n: usize, len: usize| {
        let name = format!("{n:04}{}", "x".repeat(len - 4));
        Component { kind: "deb".to_owned(), name, version: "1".to_owned(), sha256: None }
    };
    // As many as fit, then one that fills the rest.
    let filled = |target: usize| {
        let mut manifest = with(|m| m.components.clear());
        for n in 0.. {
            let room = target - manifest.encode().len();
            if room < 130 {
                let fits = (5..128).find(|len| {
                    let mut one = manifest.clone();
                    one.components.insert(component(n, *len));
                    one.encode().len() == target
                });
                manifest.components.insert(component(n, fits.unwrap()));
                return manifest;
            }
            manifest.components.insert(component(n, if room < 260 { 40 } else { 120 }));
        }
        manifest
    };
    assert!(ReleaseManifest::decode(&filled(MAX_MANIFEST_LEN).encode()).is_ok());
    assert!(refused(&filled(MAX_MANIFEST_LEN + 1)).contains("at most 65536"));
    // With as much of everything else as there may be, it still fits into a bundle.
    let mut bundle = ReleaseBundle::new(filled(MAX_MANIFEST_LEN));
    for seed in 0..16 {
        bundle.sign(Key::of(seed).release(bundle.digest())).unwrap();
        bundle.attest_rebuild(Key::of(seed).rebuild(bundle.digest(), UnixTime(u64::MAX))).unwrap();
    }
    let mut proof = proof(&bundle.manifest, NOW);
    let room = MAX_NOTE_LEN - proof.note.to_string().len();
    // An em dash, two spaces, a newline; base64 of 4 + 3 * n bytes.
    let bytes = (room - 60) / 4 * 3;
    let signature = vec![1; bytes - bytes % 3 - 4 + 2];
    proof.note.sign(NoteSignature { name: "x".to_owned(), id: [0; 4], signature });
    proof.path = vec![Digest([1; 32]); 40];
    bundle.log = Some(proof);
    let bytes = bundle.encode();
    assert!(bytes.len() <= MAX_BUNDLE_LEN && bytes.len() > MAX_BUNDLE_LEN - 5000, "{}", bytes.len());
    assert!(ReleaseBundle::decode(&bytes).is_ok());
    let long = vec![0; MAX_BUNDLE_LEN + 1];
    assert!(ReleaseBundle::decode(&long).unwrap_err().to_string().contains("at most 81920"));
    bundle.log.as_mut().unwrap().path.push(Digest([1; 32]));
    assert!(ReleaseBundle::decode(&bundle.encode()).unwrap_err().to_string().contains("at most 40"));
}

#[test]
fn bundles_have_one_statement_of_each_key_in_order() {
    let mut bundle = vouched(manifest());
    let bytes = bundle.encode();
    for key in [2, 4] {
        let Value::Array(items) = fields(&bytes)[&Value::Integer(key)].clone() else { panic!("no list") };
        let twice = [items.clone(), items].concat();
        let error = ReleaseBundle::decode(&changed(&bytes, key, Value::Array(twice))).unwrap_err();
        assert!(error.to_string().contains("sorted by key"), "{error}");
    }
    let digest = bundle.digest();
    // Again under the same key: replaced.
    bundle.sign(Key::of(ALICE).release(digest)).unwrap();
    assert_eq!(bundle.encode(), bytes);
    for seed in 10.. {
        let added = bundle.sign(Key::of(seed).release(digest));
        if bundle.signatures().len() == MAX_STATEMENTS && added.is_err() {
            break;
        }
        added.unwrap();
    }
    let merged = {
        let mut one = ReleaseBundle::new(manifest());
        one.merge(vouched(manifest())).unwrap();
        one.merge(ReleaseBundle::new(manifest())).unwrap();
        one
    };
    assert_eq!(merged, vouched(manifest()));
    let other = ReleaseBundle::new(with(|m| m.version = "2".to_owned()));
    assert!(bundle.merge(other).unwrap_err().to_string().contains("another release"));
}

#[test]
fn notes_are_read_in_one_way() {
    let proof = proof(&manifest(), NOW);
    let text = proof.note.to_string();
    assert_eq!(Note::parse(&text).unwrap(), proof.note);
    assert!(text.starts_with("log.test/releases\n5\n") && text.contains("=\n\n\u{2014} log.test/releases "));
    let refused = |text: &str| Note::parse(text).unwrap_err().to_string();
    assert!(refused("").contains("no blank line"));
    assert!(refused(&text.replace("\n\n", "\n")).contains("no blank line"));
    assert!(refused(text.trim_end()).contains("does not end"));
    assert!(refused(&format!("{text}\n")).contains("does not end"));
    assert!(refused(&text.replace('5', "\t5")).contains("control"));
    assert!(refused(&text.replace("5\n", "5\r\n")).contains("control"));
    assert!(refused(&text.replace('\u{2014}', "-")).contains("no signature"));
    assert!(refused(&text.replace("\u{2014} log.test", "\u{2014} log+test")).contains("a name of a key"));
    assert!(refused(&text.replace("\u{2014} log.test/releases", "\u{2014} ")).contains("a name of a key"));
    let line = text.lines().nth(4).unwrap();
    assert!(refused(&format!("{text}{line}\n")).contains("two signatures of one key"));
    assert!(refused(&text.replace(line, &line[..line.len() - 1])).contains("base64"));
    assert!(refused(&text.replace(line, &format!("{line}="))).contains("base64"));
    let short = |bytes: &str| format!("a\n\n\u{2014} x {bytes}\n");
    assert!(refused(&short("AAAAAA==")).contains("too short"), "an id alone");
    assert!(Note::parse(&short("AAAAAAA=")).is_ok());
    let many = |n: usize| {
        let line = |n| format!("\u{2014} {n} AAAAAAA=\n");
        format!("a\n\n{}", (0..n).map(line).collect::<String>())
    };
    assert_eq!(Note::parse(&many(MAX_NOTE_SIGNATURES)).unwrap().signatures().len(), MAX_NOTE_SIGNATURES);
    assert!(refused(&many(MAX_NOTE_SIGNATURES + 1)).contains("more than 32"));
    let long = |n: usize| format!("{}\n\n\u{2014} x AAAAAAA=\n", "a".repeat(n - 17));
    assert!(Note::parse(&long(MAX_NOTE_LEN)).is_ok() && long(MAX_NOTE_LEN).len() == MAX_NOTE_LEN);
    assert!(refused(&long(MAX_NOTE_LEN + 1)).contains("at most 8192"));
}

#[test]
fn checkpoints_are_written_in_one_way() {
    let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    let good = format!("example.com/behind-the-sofa\n20852163\n{root}\n");
    let read = Checkpoint::parse(&good).unwrap();
    assert_eq!((read.size, read.text()), (20_852_163, good.clone()));
    for bad in [
        String::new(),
        good.trim_end().to_owned(),
        format!("{good}extension\n"),
        good.replace("20852163", "020852163"),
        good.replace("20852163", "+20852163"),
        good.replace("20852163", ""),
        good.replace("20852163", "18446744073709551616"),
        good.replace("example.com", "example com"),
        good.replace("example.com/behind-the-sofa", ""),
        good.replace(root, &root[..40]),
        good.replace("q2I=", "q2J="),
    ] {
        assert!(Checkpoint::parse(&bad).is_err(), "{bad}");
        assert!(LogProof::new(0, Vec::new(), Note::new(bad)).is_err());
    }
}

/// C2SP signed-note and tlog-cosignature: what an id is of.
#[test]
fn ids_of_keys() {
    let key = Key::of(LOG).public();
    for (kind, code) in [(NoteKind::Ed25519, 1_u8), (NoteKind::Cosignature, 4)] {
        let all = [b"log.test/releases\n".as_slice(), &[code], &key.0].concat();
        assert_eq!(key_id(ORIGIN, kind, &key), Digest::of(&all).0[..4]);
    }
    // RFC 8032's first test key, under the name that C2SP signed-note shows.
    let key: PublicKey = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a".parse().unwrap();
    let text = verifier_key("example.com/foo", NoteKind::Ed25519, &key);
    let parts: Vec<_> = text.split('+').collect();
    assert_eq!((parts[0], parts[1].len()), ("example.com/foo", 8));
    assert!(text.ends_with("+AddamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea"), "{text}");
    let message = cosigned_message(UnixTime(1_679_315_147), "a\n1\nb\n");
    assert_eq!(message, b"cosignature/v1\ntime 1679315147\na\n1\nb\n");
}

#[test]
fn merging_keeps_the_better_proof() {
    let with = |log: Option<LogProof>| {
        let mut bundle = ReleaseBundle::new(manifest());
        bundle.log = log;
        bundle
    };
    let kept = |own: &LogProof, new: &LogProof| {
        let mut bundle = with(Some(own.clone()));
        bundle.merge(with(Some(new.clone()))).unwrap();
        bundle.log.unwrap()
    };
    let grown = |origin: &str, time: UnixTime| {
        let mut leaves: Vec<_> = (0..6_u8).map(|n| leaf_hash(&[n])).collect();
        leaves[2] = leaf_hash(&log_entry(&manifest()));
        let checkpoint =
            Checkpoint { origin: origin.to_owned(), size: 6, root: merkle_root(&leaves).unwrap() };
        let text = checkpoint.text();
        let mut note = Note::new(text.clone());
        note.sign(Key::of(LOG).note(origin, &text));
        note.sign(Key::of(LOG).cosign(origin, &text, time));
        LogProof::new(2, merkle_path(&leaves, 2).unwrap(), note).unwrap()
    };
    let old = proof(&manifest(), UnixTime(NOW.0 - 1));
    let young = proof(&manifest(), NOW);
    let large = grown(ORIGIN, UnixTime(NOW.0 - 2));
    let mut watched = young.clone();
    watched.note.sign(Key::of(WATCHER).cosign(WITNESS, young.note.text(), NOW));
    for (worse, better) in [(&old, &young), (&young, &large), (&watched, &large), (&young, &watched)] {
        assert_eq!(kept(worse, better), *better);
        assert_eq!(kept(better, worse), *better);
    }
    // One that leads elsewhere, and one of another log.
    let mut astray = large.clone();
    astray.index = 3;
    assert_eq!(kept(&young, &astray), young);
    assert_eq!(kept(&astray, &young), young);
    assert_eq!(kept(&young, &grown("other.test", NOW)), young);
    for (own, new) in [(None, Some(&old)), (Some(&old), None)] {
        let mut bundle = with(own.cloned());
        bundle.merge(with(new.cloned())).unwrap();
        assert_eq!(bundle.log.as_ref(), Some(&old));
    }
}
