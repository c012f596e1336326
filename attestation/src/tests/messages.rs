//! CBOR: every value of every message replaced by every kind of value.

use serde_cbor::Value;

use crate::nvidia::GpuEvidence;
use crate::nvidia::tests::factory::Factory;
use crate::wire::{AttestRequest, AttestResponse, EpochStatement, EvidenceItem, EvidenceSet, Mode};
use crate::{Digest, Endorsement, EndorsementBundle, EndorsementKind, cbor};

/// `tree` with each of its nodes replaced by, or removed for, something else.
fn changed(tree: &Value) -> Vec<Value> {
    let mut out = vec![
        Value::Null,
        Value::Integer(0),
        Value::Integer(-1),
        Value::Integer(i128::from(u64::MAX)),
        Value::Bytes(Vec::new()),
        Value::Bytes(vec![7; 33]),
        Value::Text("x".repeat(200)),
        Value::Array(Vec::new()),
        Value::Array(vec![Value::Null; 300]),
        Value::Map([].into()),
        Value::Map((0..20).map(|n| (Value::Integer(n), Value::Null)).collect()),
    ];
    if let Value::Array(items) = tree {
        for (at, item) in items.iter().enumerate() {
            let with = |put: &[Value]| Value::Array([&items[..at], put, &items[at + 1..]].concat());
            out.push(with(&[]));
            out.push(with(&[item.clone(), item.clone()]));
            out.extend(changed(item).into_iter().map(|new| with(&[new])));
        }
    }
    if let Value::Map(entries) = tree {
        for (key, value) in entries {
            let mut rest = entries.clone();
            rest.remove(key);
            out.push(Value::Map(rest.clone()));
            let with = |key: &Value, value: &Value| {
                let mut all = rest.clone();
                all.insert(key.clone(), value.clone());
                Value::Map(all)
            };
            out.extend(changed(value).iter().map(|new| with(key, new)));
            out.extend(changed(key).iter().map(|new| with(new, value)));
        }
    }
    out
}

/// Gives the reasons for which changes of `bytes` were refused; what is accepted must be the one encoding of what was read.
#[track_caller]
fn refusals(bytes: &[u8], read: impl Fn(&[u8]) -> Result<Vec<u8>, crate::Error>) -> usize {
    assert_eq!(read(bytes).unwrap(), bytes);
    let tree: Value = serde_cbor::from_slice(bytes).unwrap();
    let mut refused = 0;
    for change in changed(&tree) {
        let bytes = cbor::encode(&change);
        match read(&bytes) {
            Ok(again) => assert_eq!(again, bytes, "accepted what is not canonical: {change:?}"),
            Err(error) => {
                assert!(error.to_string().len() < 400, "{error}");
                refused += 1;
            }
        }
    }
    refused
}

fn endorsement() -> Endorsement {
    Endorsement { kind: EndorsementKind::AmdCrl, bytes: vec![1, 2] }
}

#[test]
fn requests_and_responses() {
    let request = AttestRequest {
        nonce: [1; 32],
        mode: Mode::FreshCpuAndGpu,
        node_id: Some(Digest([2; 32])),
        held: vec![Digest([3; 32]); 2],
    };
    let refused = refusals(&request.encode(), |bytes| AttestRequest::decode(bytes).map(|m| m.encode()));
    assert!(refused > 50, "{refused}");
    let response = AttestResponse {
        statement: vec![1],
        evidence: vec![2],
        index: 1,
        size: 3,
        path: vec![Digest([4; 32]); 2],
        endorsements: vec![endorsement()],
        release: Some(vec![5]),
    };
    let refused = refusals(&response.encode(), |bytes| AttestResponse::decode(bytes).map(|m| m.encode()));
    assert!(refused > 70, "{refused}");
    let refused = refusals(&endorsement().encode(), |bytes| Endorsement::decode(bytes).map(|m| m.encode()));
    assert!(refused > 20, "{refused}");
    let bundle = EndorsementBundle(vec![endorsement()]).encode();
    let refused = refusals(&bundle, |bytes| EndorsementBundle::decode(bytes).map(|m| m.encode()));
    assert!(refused > 40, "{refused}");
}

#[test]
fn releases() {
    use crate::release::tests::{manifest, vouched};
    use crate::release::{ReleaseBundle, ReleaseManifest};
    let refused = refusals(&manifest().encode(), |bytes| ReleaseManifest::decode(bytes).map(|m| m.encode()));
    assert!(refused > 400, "{refused}");
    let bundle = vouched(manifest()).encode();
    let refused = refusals(&bundle, |bytes| ReleaseBundle::decode(bytes).map(|m| m.encode()));
    assert!(refused > 150, "{refused}");
}

#[test]
fn what_is_stated_and_signed() {
    let with_gpus = EpochStatement {
        gpu_evidence: Some(Digest([8; 32])),
        gpu_ids: vec![vec![9; 16]; 2],
        ..crate::wire::samples::statement()
    };
    let refused = refusals(&with_gpus.encode(), |bytes| EpochStatement::decode(bytes).map(|m| m.encode()));
    assert!(refused > 150, "{refused}");
    let item = EvidenceItem { media_type: "a/b".to_owned(), bytes: vec![1] };
    let set = EvidenceSet([("cpu".to_owned(), item.clone()), ("gpu0".to_owned(), item)].into());
    let refused = refusals(&set.encode(), |bytes| EvidenceSet::decode(bytes).map(|m| m.encode()));
    assert!(refused > 70, "{refused}");
    let factory = Factory::new();
    let gpu = factory.gpu(&factory.report(|_| {})).encode();
    let refused = refusals(&gpu, |bytes| GpuEvidence::decode(bytes).map(|m| m.encode()));
    assert!(refused > 70, "{refused}");
}
