//! Releases made by the tests: keys from seeds, a manifest, a log of some entries.

#![expect(clippy::arithmetic_side_effects, reason = "an overflow here is a failed test")]

mod demands;
mod formats;

use std::collections::{BTreeMap, BTreeSet};

use ring::signature::{Ed25519KeyPair, KeyPair};

use super::{
    Checkpoint, Component, ImagePart, LogProof, Note, NoteKind, NoteSignature, PublicKey, Rebuild,
    ReleaseBundle, ReleaseManifest, ReleaseSignature, SnpReference, TdxReference, TdxShape, cosigned_message,
    key_id, log_entry, rebuild_message, signed_message,
};
use crate::binding::{leaf_hash, merkle_path, merkle_root};
use crate::{Digest, Measurement, UnixTime};

pub(crate) const ORIGIN: &str = "log.test/releases";
pub(crate) const WITNESS: &str = "witness.test/w1";
/// 2026-11-24T12:00:00Z, when the hardware of the tests is appraised too.
pub(crate) const NOW: UnixTime = UnixTime(1_795_521_600);

/// Seeds of the parties' keys.
pub(crate) const ALICE: u8 = 1;
pub(crate) const BOB: u8 = 2;
pub(crate) const CAROL: u8 = 3;
pub(crate) const LOG: u8 = 4;
pub(crate) const WATCHER: u8 = 5;
pub(crate) const REBUILDER: u8 = 6;

pub(crate) struct Key(Ed25519KeyPair);

impl Key {
    pub(crate) fn of(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    pub(crate) fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key().as_ref().try_into().unwrap())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).as_ref().try_into().unwrap()
    }

    pub(crate) fn release(&self, release: Digest) -> ReleaseSignature {
        ReleaseSignature { key: self.public(), signature: self.sign(&signed_message(release)) }
    }

    pub(crate) fn rebuild(&self, release: Digest, time: UnixTime) -> Rebuild {
        Rebuild { key: self.public(), time, signature: self.sign(&rebuild_message(release, time)) }
    }

    pub(crate) fn note(&self, name: &str, text: &str) -> NoteSignature {
        let id = key_id(name, NoteKind::Ed25519, &self.public());
        NoteSignature { name: name.to_owned(), id, signature: self.sign(text.as_bytes()).to_vec() }
    }

    pub(crate) fn cosign(&self, name: &str, text: &str, time: UnixTime) -> NoteSignature {
        let id = key_id(name, NoteKind::Cosignature, &self.public());
        let signature = self.sign(&cosigned_message(time, text));
        let signature = [time.0.to_be_bytes().as_slice(), &signature].concat();
        NoteSignature { name: name.to_owned(), id, signature }
    }
}

pub(crate) fn manifest() -> ReleaseManifest {
    let part = |n: u8| ImagePart { size: n.into(), sha256: Digest([n; 32]) };
    let snp = |vcpus, policy, n| SnpReference {
        vcpus,
        vcpu_type: "EPYC-v4".to_owned(),
        policy,
        measurement: Measurement([n; 48]),
    };
    let tdx = |n| TdxReference {
        mr_td: Measurement([n; 48]),
        rtmr1: Measurement([n + 1; 48]),
        rtmr2: Measurement([n + 2; 48]),
        shapes: [TdxShape { vcpus: 2, memory_mib: 4096, rtmr0: Measurement([n + 3; 48]) }].into(),
    };
    let component = |kind: &str, name: &str, sha256| Component {
        kind: kind.to_owned(),
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        sha256,
    };
    ReleaseManifest {
        version: "1.2.3".to_owned(),
        source: "git:0123456789abcdef0123456789abcdef01234567".to_owned(),
        created: UnixTime(NOW.0 - 7200),
        parts: BTreeMap::from([("vmlinuz".to_owned(), part(1)), ("snp/OVMF.amdsev.fd".to_owned(), part(2))]),
        inputs: Digest([3; 32]),
        snp: BTreeSet::from([snp(2, None, 0x4d), snp(4, Some(0x3_0000), 0x4e)]),
        tdx: BTreeSet::from([tdx(0x44), tdx(0x50)]),
        configs: BTreeSet::from([Digest([0x22; 32])]),
        components: BTreeSet::from([
            component("crate", "ring", Some(Digest([4; 32]))),
            component("crate", "cocoon-enclave", None),
            component("deb", "ovmf", Some(Digest([5; 32]))),
        ]),
    }
}

/// A proof that `manifest` is entry 2 of 5, signed and cosigned by the log at `time`.
pub(crate) fn proof(manifest: &ReleaseManifest, time: UnixTime) -> LogProof {
    let mut leaves: Vec<_> = (0..5_u8).map(|n| leaf_hash(&[n])).collect();
    leaves[2] = leaf_hash(&log_entry(manifest));
    let checkpoint = Checkpoint { origin: ORIGIN.to_owned(), size: 5, root: merkle_root(&leaves).unwrap() };
    let text = checkpoint.text();
    let mut note = Note::new(text.clone());
    note.sign(Key::of(LOG).note(ORIGIN, &text));
    note.sign(Key::of(LOG).cosign(ORIGIN, &text, time));
    LogProof::new(2, merkle_path(&leaves, 2).unwrap(), note).unwrap()
}

/// A release for which everybody vouches: two signers, the log an hour ago, a witness, a rebuilder.
pub(crate) fn vouched(manifest: ReleaseManifest) -> ReleaseBundle {
    let hour_ago = UnixTime(NOW.0 - 3600);
    let mut bundle = ReleaseBundle::new(manifest);
    let digest = bundle.digest();
    for signer in [ALICE, BOB] {
        bundle.sign(Key::of(signer).release(digest)).unwrap();
    }
    bundle.attest_rebuild(Key::of(REBUILDER).rebuild(digest, hour_ago)).unwrap();
    let mut proof = proof(&bundle.manifest, hour_ago);
    let line = Key::of(WATCHER).cosign(WITNESS, proof.note.text(), hour_ago);
    proof.note.sign(line);
    bundle.log = Some(proof);
    bundle
}

/// The section that demands all of it.
pub(crate) fn section() -> String {
    let key = |seed| Key::of(seed).public();
    format!(
        "[release]\n\
         signers = {{ threshold = 2, keys = {{ alice = \"{}\", bob = \"{}\", carol = \"{}\" }} }}\n\
         created = {{ at_least = \"2026-11-24T10:00:00Z\" }}\n\
         log = {{ origin = \"{ORIGIN}\", key = \"{}\", max_age_days = 30 }}\n\
         witnesses = {{ threshold = 1, keys = {{ \"{WITNESS}\" = \"{}\" }} }}\n\
         rebuilds = {{ threshold = 1, keys = {{ dave = \"{}\" }} }}\n",
        key(ALICE),
        key(BOB),
        key(CAROL),
        key(LOG),
        key(WATCHER),
        key(REBUILDER),
    )
}
