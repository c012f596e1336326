//! Releases that tests make up, and the parties that vouch for them.

use cocoon_attestation::release::{
    Checkpoint, Component, ImagePart, LogProof, Note, NoteKind, NoteSignature, PublicKey, Rebuild,
    ReleaseBundle, ReleaseManifest, ReleaseSignature, SnpReference, TdxReference, TdxShape, key_id,
};
use cocoon_attestation::{Digest, Measurement, UnixTime};

/// The manifest of a release that nobody built.
pub fn manifest(version: &str) -> ReleaseManifest {
    let measurement = |byte| Measurement([byte; 48]);
    let snp = SnpReference {
        vcpus: 4,
        vcpu_type: "EPYC-v4".to_owned(),
        policy: Some(0x3_0000),
        measurement: measurement(1),
    };
    let shape = TdxShape { vcpus: 4, memory_mib: 4096, rtmr0: measurement(5) };
    let tdx = TdxReference {
        mr_td: measurement(2),
        rtmr1: measurement(3),
        rtmr2: measurement(4),
        shapes: [shape].into(),
    };
    let component = Component {
        kind: "crate".to_owned(),
        name: "ring".to_owned(),
        version: "0.17.14".to_owned(),
        sha256: Some(Digest([6; 32])),
    };
    ReleaseManifest {
        version: version.to_owned(),
        source: "git:0123456789abcdef".to_owned(),
        created: UnixTime(1_800_000_000),
        parts: [("vmlinuz".to_owned(), ImagePart { size: 7, sha256: Digest([7; 32]) })].into(),
        inputs: Digest([8; 32]),
        snp: [snp].into(),
        tdx: [tdx].into(),
        configs: [Digest([9; 32])].into(),
        components: [component].into(),
    }
}

/// A bundle of the right form with signatures that are nobody's.
pub fn bundle() -> ReleaseBundle {
    let mut bundle = ReleaseBundle::new(manifest("1.0.0"));
    let (key, signature) = (PublicKey([1; 32]), [2; 64]);
    bundle.sign(ReleaseSignature { key, signature }).unwrap();
    bundle.attest_rebuild(Rebuild { key, time: UnixTime(1_800_000_000), signature }).unwrap();
    let checkpoint = Checkpoint { origin: "log.test".to_owned(), size: 2, root: Digest([3; 32]) };
    let mut note = Note::new(checkpoint.text());
    for kind in [NoteKind::Ed25519, NoteKind::Cosignature] {
        let id = key_id("log.test", kind, &key);
        note.sign(NoteSignature { name: "log.test".to_owned(), id, signature: vec![4; 64] });
    }
    bundle.log = Some(LogProof::new(1, vec![Digest([5; 32])], note).unwrap());
    bundle
}
