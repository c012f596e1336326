//! Tests of all of this at once, on real evidence and on evidence made under test roots.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "an overflow or a wrong number here is a failed test"
)]

mod corpus;
pub(crate) mod factory;
mod formats;
mod ocsp;
mod rejects;
mod rim;
mod wrapping;
mod xml;

use serde_json::Value;

use super::*;
use crate::policy::NvidiaPolicy;
use crate::result::{Factor, Status};
use crate::{Context, Missing, SignatureCache, UnixTime};

const EVIDENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/evidence");

/// A file of the corpus; `None` where there is no corpus at all.
fn corpus(path: &str) -> Option<Vec<u8>> {
    read(&format!("{EVIDENCE}/nvidia/{path}"))
}

#[expect(clippy::disallowed_methods, reason = "test data lies in files")]
fn read(path: &str) -> Option<Vec<u8>> {
    if std::fs::metadata(EVIDENCE).is_err() {
        println!("skipped: no evidence corpus");
        return None;
    }
    Some(std::fs::read(path).unwrap_or_else(|e| panic!("{path}: {e}")))
}

fn manifest() -> Option<Value> {
    Some(serde_json::from_slice(&corpus("manifest.json")?).unwrap())
}

/// Whether the extension of an attestation key's certificate can be read.
pub(crate) fn has_identity(certificate: &crate::x509::Certificate) -> bool {
    super::dice::Identity::of(certificate).is_some()
}

/// Everything that is known about one GPU, with the verdict.
struct Verdict {
    authentic: bool,
    accepted: bool,
    factors: Vec<Factor>,
}

impl Verdict {
    fn factor(&self, name: &str) -> &Factor {
        let mut found = self.factors.iter().filter(|factor| factor.name == name);
        let factor = found.next().unwrap_or_else(|| panic!("{name} is missing"));
        assert!(found.next().is_none(), "{name} twice");
        factor
    }

    fn status(&self, name: &str) -> Status {
        self.factor(name).status
    }

    fn got(&self, name: &str) -> &str {
        self.factor(name).got.as_deref().unwrap()
    }
}

fn inspect(
    gpu: &GpuEvidence,
    given: &Endorsements,
    anchors: &Anchors,
    nonce: Option<[u8; 32]>,
    ctx: Context<'_>,
) -> Verdict {
    let who = authenticate(gpu, given, anchors, ctx);
    let mut factors = who.factors.clone();
    factors.extend(appraise(gpu, &who, nonce, &NvidiaPolicy::strict(1).unwrap()));
    let authentic = who.is_authentic();
    Verdict { authentic, accepted: authentic && crate::result::none_failed(&factors), factors }
}

impl Verdict {
    /// Names of the factors that failed.
    fn failed(&self) -> Vec<&'static str> {
        self.factors.iter().filter(|f| f.status == Status::Fail).map(|f| f.name).collect()
    }
}
