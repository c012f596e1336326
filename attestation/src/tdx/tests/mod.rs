//! Genuine evidence, synthetic vectors, and quotes that a factory signs under a test root.

#![expect(clippy::arithmetic_side_effects, reason = "an overflow here is a failed test")]

mod corpus;
mod event_log;
pub(crate) mod factory;
mod mutations;
mod rejects;

pub(crate) use event_log::spec_id;

use std::path::PathBuf;

use serde_json::Value;

use super::{Authenticity, Endorsements, Quote, SgxType, TcbStatus, appraise, authenticate};
use crate::policy::TdxPolicy;
use crate::result::{Factor, Status};
use crate::x509::Certificate;
use crate::{Context, Endorsement, EndorsementKind, Missing, SignatureCache, UnixTime};

/// Whether a certificate is one for a platform's attestation.
pub(crate) fn is_pck(certificate: Certificate) -> bool {
    super::Pck::from_certificate(certificate).is_ok()
}

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/evidence");

/// A file of the corpus; `None`, said so, without it.
#[expect(clippy::disallowed_methods, reason = "tests read the corpus")]
fn file(path: &str) -> Option<Vec<u8>> {
    let path = PathBuf::from(CORPUS).join(path);
    if !PathBuf::from(CORPUS).exists() {
        println!("skipped: no evidence corpus");
        return None;
    }
    Some(std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

fn json(path: &str) -> Option<Value> {
    file(path).map(|bytes| serde_json::from_slice(&bytes).unwrap())
}

/// A file of the TDX corpus that is known to be there.
fn tdx_file(path: &str) -> Vec<u8> {
    file(&format!("tdx/{path}")).unwrap()
}

/// Kinds with the names of their files in a set.
const SET: [(EndorsementKind, &str); 6] = [
    (EndorsementKind::IntelTcbInfo, "tcb_info.json"),
    (EndorsementKind::IntelQeIdentity, "qe_identity.json"),
    (EndorsementKind::IntelTcbSigningChain, "tcb_signing_chain.pem"),
    (EndorsementKind::IntelPckCrl, "pck.crl.der"),
    (EndorsementKind::IntelPckCrlIssuerChain, "pck_crl_issuer_chain.pem"),
    (EndorsementKind::IntelRootCaCrl, "root_ca.crl.der"),
];

/// The endorsements of a set in the corpus.
fn set(name: &str) -> Vec<Endorsement> {
    let one = |(kind, file)| Endorsement { kind, bytes: tdx_file(&format!("collateral/{name}/{file}")) };
    SET.map(one).to_vec()
}

fn time(text: &str) -> UnixTime {
    UnixTime(text.parse::<der::DateTime>().unwrap().unix_duration().as_secs())
}

fn strict() -> TdxPolicy {
    policy(&[])
}

/// The strict policy with lines replaced.
fn policy(changes: &[(&str, &str)]) -> TdxPolicy {
    #[derive(serde::Deserialize)]
    struct File {
        tdx: TdxPolicy,
    }
    let mut text = crate::policy::STRICT_TDX.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    toml::from_str::<File>(&text).unwrap().tdx
}

/// What came out for a quote that can be parsed.
struct Outcome {
    who: Authenticity,
    policy: Vec<Factor>,
}

impl Outcome {
    fn accepted(&self) -> bool {
        self.who.is_authentic() && self.policy.iter().all(|f| f.status != Status::Fail)
    }

    /// Names of the failed factors.
    fn failed(&self) -> Vec<&'static str> {
        let all = self.who.factors.iter().chain(&self.policy);
        all.filter(|f| f.status == Status::Fail).map(|f| f.name).collect()
    }

    fn factor(&self, name: &str) -> &Factor {
        self.who.factors.iter().chain(&self.policy).find(|f| f.name == name).unwrap()
    }

    fn got(&self, name: &str) -> &str {
        self.factor(name).got.as_deref().unwrap()
    }

    fn status(&self) -> String {
        self.who.tcb.as_ref().map_or("unknown".to_owned(), |tcb| tcb.status.to_string())
    }
}

fn run(
    quote: &Quote,
    given: &[Endorsement],
    anchor: &Certificate,
    now: UnixTime,
    policy: &TdxPolicy,
) -> Outcome {
    run_with(quote, given, anchor, Missing::Fails, now, policy)
}

fn run_with(
    quote: &Quote,
    given: &[Endorsement],
    anchor: &Certificate,
    missing: Missing,
    now: UnixTime,
    policy: &TdxPolicy,
) -> Outcome {
    let signatures = SignatureCache::new();
    let ctx = Context { now, missing, signatures: &signatures };
    let who = authenticate(quote, &Endorsements::new(given).unwrap(), anchor, ctx);
    // Known signatures change nothing.
    let again = authenticate(quote, &Endorsements::new(given).unwrap(), anchor, ctx);
    assert_eq!(who.factors, again.factors);
    let policy = appraise(quote, &who, policy, None);
    Outcome { who, policy }
}
