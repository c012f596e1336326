//! The Rust code agrees with `tests/vectors`, which `make.py` wrote without it.

use cocoon_attestation::binding::{
    ChannelBinding, Role, exporter_context, gpu_nonce, leaf_data, leaf_hash, merkle_path, merkle_root,
    report_data, root_from_path,
};
use cocoon_attestation::release::{
    Checkpoint, Note, NoteKind, PublicKey, ReleaseBundle, ReleaseManifest, cosigned_message, key_id,
    log_entry, rebuild_message, signed_message,
};
use cocoon_attestation::wire::{
    AttestRequest, AttestResponse, EXPORTER_LABEL, EpochStatement, EvidenceSet, FrameHeader, ModelManifest,
    config_digest,
};
use cocoon_attestation::{Digest, UnixTime};
use cocoon_tests::vectors::read;
use ring::{digest, hmac};

#[test]
fn binding() {
    let vectors = read("binding.txt");
    let (gpu, sessions) = vectors.split_last().unwrap();
    for v in sessions {
        let request = v.bytes("request");
        let role = role(v.number("role"));
        let channel = ChannelBinding {
            role,
            cipher_suite: v.number("cipher_suite").try_into().unwrap(),
            named_group: v.number("named_group").try_into().unwrap(),
            spki: Digest(v.array("spki_sha256")),
            peer_spki: v.arrays("peer_spki_sha256").into_iter().map(Digest).next(),
            exported: v.array("exported"),
        };
        assert_eq!(Digest::of(&request).0, v.array("reqhash"));
        assert_eq!(exporter_context(role, &request), v.array("exporter_context"));
        let data = leaf_data(&channel, &request);
        assert_eq!(data, v.bytes("leaf_data"));
        let leaf = leaf_hash(&data);
        assert_eq!(leaf.0, v.array("leaf"));
        let leaves: Vec<Digest> =
            std::iter::once(leaf).chain(v.arrays("other_leaves").into_iter().map(Digest)).collect();
        let root = merkle_root(&leaves).unwrap();
        assert_eq!(root.0, v.array("root"));
        let mode = AttestRequest::decode(&request).unwrap().mode;
        let size = v.number("size").try_into().unwrap();
        assert_eq!(
            report_data(mode, &v.bytes("statement"), root, size),
            v.array("report_data"),
            "{}",
            v.text("name")
        );
    }
    let nonce = gpu_nonce(
        gpu.array("boot_id"),
        gpu.number("epoch"),
        Digest(gpu.array("spki_sha256")),
        gpu.array("x"),
    );
    assert_eq!(nonce.0, gpu.array("gpu_nonce"));
}

fn role(code: u64) -> Role {
    let roles = [Role::Enclave, Role::Client];
    roles.into_iter().find(|role| u64::from(role.code()) == code).expect("role 1 or 2")
}

/// RFC 8446 section 7.1, by HMAC: one block is enough, because no output here is longer than the hash.
fn expand_label(algorithm: hmac::Algorithm, secret: &[u8], label: &[u8], context: &[u8], len: u8) -> Vec<u8> {
    let mut info = vec![0, len, u8::try_from(label.len()).unwrap() + 6];
    info.extend_from_slice(b"tls13 ");
    info.extend_from_slice(label);
    info.push(u8::try_from(context.len()).unwrap());
    info.extend_from_slice(context);
    info.push(1);
    let block = hmac::sign(&hmac::Key::new(algorithm, secret), &info);
    block.as_ref()[..len.into()].to_vec()
}

/// rustls does not take a secret from outside, so this shows that label, context and length are ours, and that two implementations
/// of RFC 8446 section 7.5 agree. It says nothing of rustls's own.
#[test]
fn exporter() {
    for v in read("exporter.txt") {
        let (algorithm, hash) = match v.text("hash") {
            "sha256" => (hmac::HMAC_SHA256, &digest::SHA256),
            "sha384" => (hmac::HMAC_SHA384, &digest::SHA384),
            other => panic!("unknown hash {other}"),
        };
        assert_eq!(v.text("label").as_bytes(), EXPORTER_LABEL);
        let context = exporter_context(role(v.number("role")), &v.bytes("request"));
        assert_eq!(context, v.array("context"));
        let (secret, empty) = (v.bytes("exporter_master_secret"), digest::digest(hash, b""));
        let len = u8::try_from(secret.len()).unwrap();
        let derived = expand_label(algorithm, &secret, EXPORTER_LABEL, empty.as_ref(), len);
        let exported =
            expand_label(algorithm, &derived, b"exporter", digest::digest(hash, &context).as_ref(), 32);
        assert_eq!(exported, v.bytes("exported"), "{}", v.text("name"));
    }
}

#[test]
fn merkle() {
    for v in read("merkle.txt") {
        let (size, index, name) = (v.number("size"), v.number("index"), v.text("name"));
        let path: Vec<Digest> = v.arrays("path").into_iter().map(Digest).collect();
        let root = Digest(v.array("root"));
        let got = root_from_path(Digest(v.array("leaf")), index, size, &path);
        match v.text("verdict") {
            "valid" => {
                let leaves: Vec<Digest> = (0..size).map(|i| Digest::of(&[i as u8])).collect();
                assert_eq!(merkle_path(&leaves, index as usize), Some(path), "{name}");
                assert_eq!(got, Some(root), "{name}");
            }
            "no root" => assert_eq!(got, None, "{name}"),
            "another root" => assert!(got.is_some_and(|other| other != root), "{name}"),
            other => panic!("unknown verdict {other}"),
        }
    }
}

#[test]
fn messages() {
    for v in read("messages.txt") {
        let bytes = v.bytes("bytes");
        let encoded = match v.text("message") {
            "AttestRequest" => AttestRequest::decode(&bytes).map(|m| m.encode()),
            "AttestResponse" => AttestResponse::decode(&bytes).map(|m| m.encode()),
            "EpochStatement" => EpochStatement::decode(&bytes).map(|m| m.encode()),
            "ReleaseManifest" => ReleaseManifest::decode(&bytes).map(|m| m.encode()),
            "ReleaseBundle" => ReleaseBundle::decode(&bytes).map(|m| m.encode()),
            "EvidenceSet" => EvidenceSet::decode(&bytes).map(|m| m.encode()),
            other => panic!("unknown message {other}"),
        };
        match v.text("verdict") {
            "valid" => assert_eq!(encoded.unwrap(), bytes, "{}", v.text("name")),
            _ => assert!(encoded.is_err(), "{}", v.text("name")),
        }
    }
}

#[test]
fn frames() {
    for v in read("frames.txt") {
        let parsed = FrameHeader::parse(v.array("header"));
        match v.text("verdict") {
            "valid" => {
                let header = parsed.unwrap();
                assert_eq!(
                    (u64::from(header.kind.code()), header.len as u64),
                    (v.number("kind"), v.number("length"))
                );
            }
            _ => assert!(parsed.is_err(), "{}", v.text("name")),
        }
    }
}

#[test]
fn releases() {
    let vectors = read("release.txt");
    let [manifest, checkpoint] = vectors.as_slice() else { panic!("two vectors") };
    let read = ReleaseManifest::decode(&manifest.bytes("encoded")).unwrap();
    let digest = read.digest();
    assert_eq!(digest.0, manifest.array("digest"));
    assert_eq!(signed_message(digest), manifest.bytes("signed"));
    assert_eq!(rebuild_message(digest, UnixTime(manifest.number("time"))), manifest.bytes("rebuilt"));
    assert_eq!(log_entry(&read), manifest.bytes("entry"));
    assert_eq!(leaf_hash(&log_entry(&read)).0, manifest.array("leaf"));
    let text = String::from_utf8(checkpoint.bytes("text")).unwrap();
    let (key, origin) = (PublicKey(checkpoint.array("key")), Checkpoint::parse(&text).unwrap().origin);
    assert_eq!(key_id(&origin, NoteKind::Ed25519, &key), checkpoint.array("id_ed25519"));
    assert_eq!(key_id(&origin, NoteKind::Cosignature, &key), checkpoint.array("id_cosignature"));
    let time = UnixTime(checkpoint.number("time"));
    assert_eq!(cosigned_message(time, &text), checkpoint.bytes("cosigned"));
    let note = String::from_utf8(checkpoint.bytes("note")).unwrap();
    let parsed = Note::parse(&note).unwrap();
    assert_eq!((parsed.to_string(), parsed.text()), (note, text.as_str()));
    assert!(parsed.signatures().iter().all(|line| line.name == origin));
}

#[test]
fn digests() {
    let vectors = read("digests.txt");
    let [model, config] = vectors.as_slice() else { panic!("two vectors") };
    let manifest = ModelManifest::gguf(model.number("size"), Digest(model.array("sha256")));
    assert_eq!((manifest.encode(), manifest.digest().0), (model.bytes("manifest"), model.array("digest")));
    let settings = config
        .text("settings")
        .split(' ')
        .map(|s| s.split_once('=').unwrap())
        .map(|(k, v)| (k, v.to_owned()));
    assert_eq!(config_digest(settings).unwrap().0, config.array("digest"));
}
