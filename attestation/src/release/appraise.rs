//! Whether a release is one that the relying party accepts: the factors `release.*`.

use super::note::Said;
use super::{LogProof, PublicKey, ReleaseBundle, ReleaseManifest, rebuild_message, signed_message};
use crate::crypto::SignatureCache;
use crate::policy::{Check, LogDemand, LogPolicy, Quorum, QuorumDemand, ReleasePolicy};
use crate::result::{Factor, none_failed};
use crate::{Context, Digest, Missing, UnixTime};

/// Clocks of those who sign may be ahead of the client's by this much.
const CLOCK_SKEW_SECONDS: u64 = 300;

const SECONDS_PER_DAY: u64 = 24 * 3600;

const NOT_GIVEN: &str = "not given";
const NOBODY: &str = "the enclave was started without a release: `cocoon-enclave --release FILE`";

/// What was found out about the release that came with evidence.
#[derive(Clone, Debug, Default)]
pub(crate) struct Appraised {
    pub(crate) factors: Vec<Factor>,
    verified: Option<ReleaseManifest>,
}

impl Appraised {
    /// The release, if the policy has a section `[release]` and every demand of it holds.
    pub(crate) fn verified(&self) -> Option<&ReleaseManifest> {
        self.verified.as_ref()
    }
}

/// Appraises what came as field 5; `stated` is what S names.
pub(crate) fn appraise(
    bundle: Option<&ReleaseBundle>,
    stated: Digest,
    policy: Option<&ReleasePolicy>,
    ctx: Context<'_>,
) -> Appraised {
    let mut factors = Vec::new();
    if let Some(bundle) = bundle {
        let (got, help) =
            (bundle.digest(), "the host sent another release than the enclave was started with");
        factors.push(Factor::of(
            "release.manifest",
            got == stated,
            got.to_string(),
            format!("{stated}, which S names"),
            help,
        ));
    }
    let Some(policy) = policy else { return Appraised { factors, verified: None } };
    factors.extend(rows(bundle, policy, ctx.now, ctx.signatures));
    let verified = bundle.filter(|_| none_failed(&factors)).map(|bundle| bundle.manifest.clone());
    Appraised { factors, verified }
}

/// Holds a release against a policy, without an enclave: every factor but whether S names it.
#[must_use]
pub fn verify(bundle: &ReleaseBundle, policy: &ReleasePolicy, now: UnixTime) -> Vec<Factor> {
    let signatures = &SignatureCache::new();
    let ctx = Context { now, missing: Missing::Fails, signatures };
    rows(Some(bundle), policy, ctx.now, ctx.signatures)
}

fn rows(
    bundle: Option<&ReleaseBundle>,
    policy: &ReleasePolicy,
    now: UnixTime,
    signatures: &SignatureCache,
) -> Vec<Factor> {
    let mut out = vec![signers(bundle, &policy.signers, signatures), created(bundle, &policy.created)];
    out.extend(log(bundle, &policy.log, now, signatures));
    out.push(witnesses(bundle, policy, now, signatures));
    out.push(rebuilds(bundle, &policy.rebuilds, now, signatures));
    out
}

/// What one key of a quorum says.
enum Vote {
    Missing,
    Wrong,
    Counts,
    /// Rightly signed, at a time that does not count.
    Untimely(String),
}

/// Names of keys that signed, of keys that somebody tried to sign for, and of those that signed at another time.
#[derive(Default)]
struct Votes<'a> {
    good: Vec<&'a str>,
    bad: Vec<&'a str>,
    untimely: Vec<String>,
}

impl<'a> Votes<'a> {
    fn count(quorum: &'a Quorum, said: impl Fn(&'a str, &PublicKey) -> Vote) -> Self {
        let mut votes = Self::default();
        for (name, key) in quorum.keys() {
            match said(name, key) {
                Vote::Counts => votes.good.push(name),
                Vote::Wrong => votes.bad.push(name),
                Vote::Untimely(why) => votes.untimely.push(format!("{name} ({why})")),
                Vote::Missing => {}
            }
        }
        votes
    }

    /// Passes with enough signatures and none that is wrong (C2SP signed-note: a wrong one of a known key spoils the note).
    fn factor(&self, name: &'static str, quorum: &Quorum, help: &str) -> Factor {
        let mut got = if self.good.is_empty() { "nobody".to_owned() } else { self.good.join(", ") };
        if !self.bad.is_empty() {
            got = format!("{got}; a wrong signature of {}", self.bad.join(", "));
        }
        if !self.untimely.is_empty() {
            got = format!("{got}; not counted: {}", self.untimely.join(", "));
        }
        let ok = self.bad.is_empty() && self.good.len() >= quorum.threshold();
        Factor::of(name, ok, got, quorum.to_string(), help)
    }
}

fn one_of(verified: bool) -> Vote {
    if verified { Vote::Counts } else { Vote::Wrong }
}

fn signers(bundle: Option<&ReleaseBundle>, quorum: &Quorum, signatures: &SignatureCache) -> Factor {
    const NAME: &str = "release.signatures";
    let Some(bundle) = bundle else { return Factor::fail(NAME, NOT_GIVEN, quorum.to_string(), NOBODY) };
    let message = signed_message(bundle.digest());
    let votes = Votes::count(quorum, |_, key| {
        let one = bundle.signatures().iter().find(|one| one.key == *key);
        one.map_or(Vote::Missing, |one| one_of(key.signed(&message, &one.signature, signatures)))
    });
    votes.factor(NAME, quorum, "too few of the signers that the policy names vouch for this release")
}

fn created(bundle: Option<&ReleaseBundle>, demand: &Check<UnixTime>) -> Factor {
    const NAME: &str = "release.created";
    match (bundle, demand) {
        (Some(bundle), _) => {
            let help = "an older release than the policy accepts: it may have holes that newer ones have not";
            demand.factor(NAME, &bundle.manifest.created, help)
        }
        (None, Check::Unchecked { why }) => Factor::unchecked(NAME, NOT_GIVEN, why),
        (None, _) => Factor::fail(NAME, NOT_GIVEN, demand.wanted(), NOBODY),
    }
}

fn rebuilds(
    bundle: Option<&ReleaseBundle>,
    demand: &QuorumDemand,
    now: UnixTime,
    signatures: &SignatureCache,
) -> Factor {
    const NAME: &str = "release.rebuilds";
    let quorum = match demand {
        QuorumDemand::Unchecked { why } => {
            let count = bundle.map_or(0, |bundle| bundle.rebuilds().len());
            return Factor::unchecked(NAME, count.to_string(), why);
        }
        QuorumDemand::Required(quorum) => quorum,
    };
    let Some(bundle) = bundle else { return Factor::fail(NAME, NOT_GIVEN, quorum.to_string(), NOBODY) };
    let digest = bundle.digest();
    let votes = Votes::count(quorum, |_, key| {
        let one = bundle.rebuilds().iter().find(|one| one.key == *key);
        one.map_or(Vote::Missing, |one| {
            let message = rebuild_message(digest, one.time);
            one_of(!is_future(one.time, now) && key.signed(&message, &one.signature, signatures))
        })
    });
    votes.factor(NAME, quorum, "too few independent parties say that they built the same from this source")
}

/// `release.log` and `release.expiry`.
fn log(
    bundle: Option<&ReleaseBundle>,
    demand: &LogDemand,
    now: UnixTime,
    signatures: &SignatureCache,
) -> Vec<Factor> {
    const LOG: &str = "release.log";
    const EXPIRY: &str = "release.expiry";
    let policy = match demand {
        LogDemand::Unchecked { why } => {
            let got = if bundle.is_some_and(|bundle| bundle.log.is_some()) { "given" } else { NOT_GIVEN };
            return vec![Factor::unchecked(LOG, got, why), Factor::unchecked(EXPIRY, got, why)];
        }
        LogDemand::Required(policy) => policy,
    };
    let want = format!("in the log {}", policy.origin());
    let max_age = format!("at most {} days old", policy.max_age_days());
    let Some((bundle, proof)) = bundle.and_then(|bundle| Some((bundle, bundle.log.as_ref()?))) else {
        let help = "nobody showed that this release is in the log: `cocoon-measure log prove`";
        return vec![
            Factor::fail(LOG, NOT_GIVEN, want, help),
            Factor::fail(EXPIRY, NOT_GIVEN, max_age, help),
        ];
    };
    let logged = logged(proof, &bundle.manifest, policy, signatures);
    let ok = logged.is_ok();
    let got = logged.unwrap_or_else(|why| why);
    let help = "a release that is not in the log may have been made for you alone";
    vec![Factor::of(LOG, ok, got, want, help), expiry(EXPIRY, proof, policy, max_age, now, signatures)]
}

/// The place in the log, or why it is in none.
fn logged(
    proof: &LogProof,
    manifest: &ReleaseManifest,
    policy: &LogPolicy,
    signatures: &SignatureCache,
) -> Result<String, String> {
    let checkpoint = proof.checkpoint();
    if checkpoint.origin != policy.origin() {
        return Err(format!("in another log: {}", checkpoint.origin));
    }
    match proof.note.signed_by(policy.origin(), policy.key(), signatures) {
        Said::Nothing => return Err("a checkpoint that the log's key did not sign".to_owned()),
        Said::Forged => return Err("a checkpoint with a wrong signature".to_owned()),
        Said::Signed(()) => {}
    }
    if !proof.includes(manifest) {
        return Err("a proof that leads elsewhere".to_owned());
    }
    Ok(format!("entry {} of {}", proof.index, checkpoint.size))
}

/// The log itself cosigns its checkpoints: that is when it still stood by them.
fn expiry(
    name: &'static str,
    proof: &LogProof,
    policy: &LogPolicy,
    want: String,
    now: UnixTime,
    signatures: &SignatureCache,
) -> Factor {
    let help =
        "a host that holds back newer releases, or a log that is not looked after: fetch a newer proof";
    let time = match proof.note.cosigned_by(policy.origin(), policy.key(), signatures) {
        Said::Nothing => return Factor::fail(name, "no time of the log", want, help),
        Said::Forged => return Factor::fail(name, "a wrong signature", want, help),
        Said::Signed(time) => time,
    };
    let ok = untimely(time, now, policy).is_none();
    Factor::of(name, ok, time.to_string(), format!("{want} at {now}"), help)
}

/// Witnesses say that they saw this log a short time ago: a log that they do not watch any more could renew its own time alone.
fn witnesses(
    bundle: Option<&ReleaseBundle>,
    policy: &ReleasePolicy,
    now: UnixTime,
    signatures: &SignatureCache,
) -> Factor {
    const NAME: &str = "release.witnesses";
    let proof = bundle.and_then(|bundle| bundle.log.as_ref());
    let quorum = match &policy.witnesses {
        QuorumDemand::Unchecked { why } => {
            let count = proof.map_or(0, |proof| proof.note.signatures().len());
            return Factor::unchecked(NAME, format!("{count} signatures"), why);
        }
        QuorumDemand::Required(quorum) => quorum,
    };
    let Some(proof) = proof else { return Factor::fail(NAME, NOT_GIVEN, quorum.to_string(), NOBODY) };
    let LogDemand::Required(log) = &policy.log else {
        // Policies from files cannot say this.
        let help = "without a log that the policy names there is nothing to witness";
        return Factor::fail(NAME, "no log to witness", quorum.to_string(), help);
    };
    let votes = Votes::count(quorum, |name, key| match proof.note.cosigned_by(name, key, signatures) {
        Said::Signed(time) => untimely(time, now, log).map_or(Vote::Counts, Vote::Untimely),
        Said::Forged => Vote::Wrong,
        Said::Nothing => Vote::Missing,
    });
    let help = "too few witnesses saw the log as this proof shows it, not long ago: it may show others another one; \
                let them cosign and fetch a newer proof";
    votes.factor(NAME, quorum, help)
}

/// Why a cosignature of this time does not count, if so.
fn untimely(time: UnixTime, now: UnixTime, policy: &LogPolicy) -> Option<String> {
    let max_age = policy.max_age_days().saturating_mul(SECONDS_PER_DAY);
    if is_future(time, now) {
        return Some(format!("cosigned at {time}, which is in the future"));
    }
    let old = now.0.saturating_sub(time.0) > max_age;
    old.then(|| format!("cosigned at {time}, more than {} days ago", policy.max_age_days()))
}

fn is_future(time: UnixTime, now: UnixTime) -> bool {
    time.0 > now.0.saturating_add(CLOCK_SKEW_SECONDS)
}
