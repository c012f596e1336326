//! Properties of the wire formats, on inputs that proptest makes up and shrinks.

use std::collections::BTreeMap;

use cocoon_attestation::binding::{merkle_path, merkle_root, root_from_path};
use cocoon_attestation::release::{
    Component, ImagePart, LogProof, Note, NoteSignature, PublicKey, Rebuild, ReleaseBundle, ReleaseManifest,
    ReleaseSignature, SnpReference, TdxReference, TdxShape,
};
use cocoon_attestation::wire::{
    AttestRequest, AttestResponse, EpochStatement, EvidenceItem, EvidenceSet, FRAME_HEADER_LEN, FrameHeader,
    FrameKind, Mode, PrivacyFlags, encode_frame,
};
use cocoon_attestation::{Digest, ENDORSEMENT_KINDS, Endorsement, EndorsementBundle, Measurement, UnixTime};
use cocoon_tests::fuzz;
use proptest::array::{uniform16, uniform32};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_cbor::Value;

fn digest() -> impl Strategy<Value = Digest> {
    uniform32(any::<u8>()).prop_map(Digest)
}

fn request() -> impl Strategy<Value = AttestRequest> {
    let mode = select(vec![Mode::FreshCpu, Mode::FreshCpuAndGpu]);
    (uniform32(any::<u8>()), mode, option::of(digest()), vec(digest(), 0..110))
        .prop_map(|(nonce, mode, node_id, held)| AttestRequest { nonce, mode, node_id, held })
}

fn endorsement() -> impl Strategy<Value = Endorsement> {
    (select(ENDORSEMENT_KINDS.to_vec()), vec(any::<u8>(), 0..300))
        .prop_map(|((kind, _), bytes)| Endorsement { kind, bytes })
}

fn response() -> impl Strategy<Value = AttestResponse> {
    let place = (1_u64..=4096).prop_flat_map(|size| (0..size, Just(size)));
    let bytes = || vec(any::<u8>(), 0..300);
    (bytes(), bytes(), place, vec(digest(), 0..=12), vec(endorsement(), 0..5), option::of(bytes())).prop_map(
        |(statement, evidence, (index, size), path, mut endorsements, release)| {
            // On the wire they are sorted by digest, each once.
            endorsements.sort_by_key(|item| item.digest().0);
            endorsements.dedup();
            AttestResponse { statement, evidence, index, size, path, endorsements, release }
        },
    )
}

fn statement() -> impl Strategy<Value = EpochStatement> {
    let ids = (uniform16(any::<u8>()), any::<u64>(), digest(), digest(), uniform32(any::<u8>()));
    let validity = (0..=u64::MAX - 3600, 0..=3600_u64);
    let gpus = option::of((digest(), vec(vec(any::<u8>(), 1..=32), 1..=8)));
    let claims = (vec(digest(), 1..=4), digest(), digest(), "[a-z]{0,16}", (0..=1_u64, 0..=1_u64, 0..=1_u64));
    (ids, validity, gpus, claims).prop_map(
        |((boot_id, epoch, node_id, spki, receipt_key), (from, length), gpus, claims)| {
            let (models, config, release, gpu_mode, flags) = claims;
            let (gpu_evidence, gpu_ids) =
                gpus.map_or((None, Vec::new()), |(digest, ids)| (Some(digest), ids));
            EpochStatement {
                boot_id,
                epoch,
                not_before: UnixTime(from),
                not_after: UnixTime(from + length),
                node_id,
                spki,
                receipt_key,
                gpu_evidence,
                gpu_ids,
                gpu_mode,
                models,
                config,
                release,
                privacy: PrivacyFlags {
                    padding: flags.0,
                    content_logged: flags.1,
                    shared_prefix_cache: flags.2,
                },
            }
        },
    )
}

fn evidence() -> impl Strategy<Value = EvidenceSet> {
    let label = prop_oneof![Just("cpu".to_owned()), any::<u8>().prop_map(|n| format!("gpu{n}"))];
    let item = ("[a-z/]{0,40}", vec(any::<u8>(), 0..300))
        .prop_map(|(media_type, bytes)| EvidenceItem { media_type, bytes });
    btree_map(label, item, 0..=17).prop_map(EvidenceSet)
}

fn word() -> impl Strategy<Value = String> {
    "[!-~]{1,64}"
}

fn measurement() -> impl Strategy<Value = Measurement> {
    vec(any::<u8>(), 48).prop_map(|bytes| Measurement(bytes.try_into().unwrap()))
}

fn manifest() -> impl Strategy<Value = ReleaseManifest> {
    let part = (any::<u64>(), digest()).prop_map(|(size, sha256)| ImagePart { size, sha256 });
    let snp = (1_u64.., word(), option::of(any::<u64>()), measurement());
    let snp = snp.prop_map(|(vcpus, vcpu_type, policy, measurement)| SnpReference {
        vcpus,
        vcpu_type,
        policy,
        measurement,
    });
    let shape = (1_u64.., 1_u64.., measurement());
    let shape = shape.prop_map(|(vcpus, memory_mib, rtmr0)| TdxShape { vcpus, memory_mib, rtmr0 });
    let tdx = (measurement(), measurement(), measurement(), btree_set(shape, 0..4));
    let tdx = tdx.prop_map(|(mr_td, rtmr1, rtmr2, shapes)| TdxReference { mr_td, rtmr1, rtmr2, shapes });
    let component = (word(), word(), word(), option::of(digest()));
    let component =
        component.prop_map(|(kind, name, version, sha256)| Component { kind, name, version, sha256 });
    let lists = (
        btree_map("[a-z0-9_-]{1,20}(/[a-z0-9_-]{1,20}){0,2}", part, 1..5),
        btree_set(snp, 0..5),
        btree_set(tdx, 0..3),
        btree_set(digest(), 0..4),
        btree_set(component, 0..6),
    );
    (word(), word(), any::<u64>(), digest(), lists).prop_map(|(version, source, created, inputs, lists)| {
        let (parts, snp, tdx, configs, components) = lists;
        let created = UnixTime(created);
        ReleaseManifest { version, source, created, parts, inputs, snp, tdx, configs, components }
    })
}

fn note() -> impl Strategy<Value = Note> {
    let line = ("[!-*,-~]{1,40}", any::<[u8; 4]>(), vec(any::<u8>(), 1..80));
    let line = line.prop_map(|(name, id, signature)| NoteSignature { name, id, signature });
    ("[!-*,-~]{1,40}", any::<u64>(), digest(), vec(line, 1..5)).prop_map(|(origin, size, root, lines)| {
        let checkpoint = cocoon_attestation::release::Checkpoint { origin, size, root };
        let mut note = Note::new(checkpoint.text());
        lines.into_iter().for_each(|line| note.sign(line));
        note
    })
}

fn release() -> impl Strategy<Value = ReleaseBundle> {
    let signature = || (uniform32(any::<u8>()), any::<u64>(), uniform32(any::<u8>()));
    let log = option::of((any::<u64>(), vec(digest(), 0..=40), note()));
    (manifest(), vec(signature(), 0..5), log, vec(signature(), 0..5)).prop_map(
        |(manifest, signatures, log, rebuilds)| {
            let mut bundle = ReleaseBundle::new(manifest);
            let twice = |half: [u8; 32]| -> [u8; 64] { [half, half].concat().try_into().unwrap() };
            for (key, _, half) in signatures {
                bundle.sign(ReleaseSignature { key: PublicKey(key), signature: twice(half) }).unwrap();
            }
            for (key, time, half) in rebuilds {
                let (key, time) = (PublicKey(key), UnixTime(time));
                bundle.attest_rebuild(Rebuild { key, time, signature: twice(half) }).unwrap();
            }
            bundle.log = log.map(|(index, path, note)| LogProof::new(index, path, note).unwrap());
            bundle
        },
    )
}

/// Any value that CBOR of `cocoon/1` may hold, near what messages hold.
fn value() -> impl Strategy<Value = Value> {
    let bytes = select(vec![0, 1, 16, 31, 32, 33]).prop_flat_map(|n| vec(any::<u8>(), n));
    let leaf = prop_oneof![
        Just(Value::Null),
        (-1_i128..=5).prop_map(Value::Integer),
        bytes.prop_map(Value::Bytes),
        "[a-z]{0,8}".prop_map(Value::Text),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let key = prop_oneof![
            (0_i128..=5).prop_map(Value::Integer),
            vec(any::<u8>(), 32).prop_map(Value::Bytes),
            "[a-z]{0,4}".prop_map(Value::Text),
        ];
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            btree_map(key, inner, 0..4).prop_map(Value::Map),
        ]
    })
}

/// `bytes` with one of its fields replaced, added or left out.
fn with_field(bytes: &[u8], key: i128, value: Option<Value>) -> Vec<u8> {
    let Value::Map(mut fields) = serde_cbor::from_slice(bytes).unwrap() else { panic!("not a map") };
    match value {
        Some(value) => fields.insert(Value::Integer(key), value),
        None => fields.remove(&Value::Integer(key)),
    };
    let pairs: BTreeMap<_, _> = fields;
    serde_cbor::to_vec(&Value::Map(pairs)).unwrap()
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        request in request(), response in response(), statement in statement(), evidence in evidence(),
        endorsements in vec(endorsement(), 0..8), release in release(),
    ) {
        prop_assert_eq!(ReleaseManifest::decode(&release.manifest.encode()).unwrap(), release.manifest.clone());
        prop_assert_eq!(ReleaseBundle::decode(&release.encode()).unwrap(), release);
        prop_assert_eq!(AttestRequest::decode(&request.encode()).unwrap(), request);
        prop_assert_eq!(AttestResponse::decode(&response.encode()).unwrap(), response);
        prop_assert_eq!(EpochStatement::decode(&statement.encode()).unwrap(), statement);
        prop_assert_eq!(EvidenceSet::decode(&evidence.encode()).unwrap(), evidence);
        let bundle = EndorsementBundle(endorsements);
        prop_assert_eq!(EndorsementBundle::decode(&bundle.encode()).unwrap(), bundle);
    }

    /// Whatever one field of a good message becomes: what is accepted is the one encoding of what was read.
    #[test]
    fn one_strange_field(
        request in request(), response in response(), statement in statement(), release in release(),
        key in 0_i128..=16, value in option::of(value()),
    ) {
        fuzz::run("attest_request", &with_field(&request.encode(), key, value.clone()));
        fuzz::run("attest_response", &with_field(&response.encode(), key, value.clone()));
        fuzz::run("epoch_statement", &with_field(&statement.encode(), key, value.clone()));
        fuzz::run("release_manifest", &with_field(&release.manifest.encode(), key, value.clone()));
        fuzz::run("release_bundle", &with_field(&release.encode(), key, value.clone()));
        let bundle = EndorsementBundle(Vec::new()).encode();
        fuzz::run("endorsement_bundle", &with_field(&bundle, key, value));
    }

    #[test]
    fn any_value_at_all(value in value()) {
        let bytes = serde_cbor::to_vec(&value).unwrap();
        for name in ["attest_request", "attest_response", "epoch_statement", "evidence_set", "endorsement", "endorsement_bundle", "release_manifest", "release_bundle"] {
            fuzz::run(name, &bytes);
        }
    }

    #[test]
    fn frames(body in vec(any::<u8>(), 0..2000), kind in select(vec![FrameKind::AttestRequest, FrameKind::AttestResponse])) {
        let frame = encode_frame(kind, &body).unwrap();
        let (header, rest) = frame.split_first_chunk::<FRAME_HEADER_LEN>().unwrap();
        prop_assert_eq!(FrameHeader::parse(*header).unwrap(), FrameHeader { kind, len: body.len() });
        prop_assert_eq!(rest, body);
    }

    #[test]
    fn a_leaf_leads_to_its_root_and_to_no_other(
        leaves in btree_set(uniform32(any::<u8>()), 1..70), at in any::<Index>(), other in any::<Index>(),
    ) {
        let leaves: Vec<Digest> = leaves.into_iter().map(Digest).collect();
        let root = merkle_root(&leaves).unwrap();
        let (at, other, size) = (at.index(leaves.len()), other.index(leaves.len()), leaves.len() as u64);
        let path = merkle_path(&leaves, at).unwrap();
        prop_assert_eq!(root_from_path(leaves[at], at as u64, size, &path).unwrap(), root);
        if other != at {
            prop_assert_ne!(root_from_path(leaves[other], at as u64, size, &path), Some(root));
        }
    }
}
