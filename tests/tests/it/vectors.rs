//! The Rust code agrees with `tests/vectors`, which `make.py` wrote without it.

use cocoon_attestation::Digest;
use cocoon_attestation::binding::{
    ChannelBinding, Role, exporter_context, gpu_nonce, leaf_data, leaf_hash, merkle_path, merkle_root,
    report_data, root_from_path,
};
use cocoon_attestation::wire::{
    AttestRequest, AttestResponse, EpochStatement, EvidenceSet, FrameHeader, ModelManifest, config_digest,
};
use cocoon_tests::vectors::read;

#[test]
fn binding() {
    let vectors = read("binding.txt");
    let (gpu, sessions) = vectors.split_last().unwrap();
    for v in sessions {
        let request = v.bytes("request");
        let channel = ChannelBinding {
            role: Role::Enclave,
            cipher_suite: v.number("cipher_suite").try_into().unwrap(),
            named_group: v.number("named_group").try_into().unwrap(),
            spki: Digest(v.array("spki_sha256")),
            peer_spki: None,
            exported: v.array("exported"),
        };
        assert_eq!(Digest::of(&request).0, v.array("reqhash"));
        assert_eq!(exporter_context(Role::Enclave, &request), v.array("exporter_context"));
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

#[test]
fn merkle() {
    for v in read("merkle.txt") {
        let (size, index) = (v.number("size"), v.number("index"));
        let leaves: Vec<Digest> = (0..size).map(|i| Digest::of(&[i as u8])).collect();
        let path: Vec<Digest> = v.arrays("path").into_iter().map(Digest).collect();
        assert_eq!(merkle_path(&leaves, index as usize), Some(path.clone()));
        let root = Digest(v.array("root"));
        assert_eq!(root_from_path(Digest(v.array("leaf")), index, size, &path), Some(root));
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
