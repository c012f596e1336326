//! Factors of the policy: is this session bound, is S current, is it what the relying party accepts.

use super::Evidence;
use super::Signers;
use crate::UnixTime;
use crate::crypto::constant_time_eq;
use crate::policy::{Flag, NamedGroup, Policy};
use crate::release::ReleaseManifest;
use crate::result::Factor;
use crate::wire::EpochStatement;

/// Clocks of client and enclave may differ by this much.
const CLOCK_SKEW_SECONDS: u64 = 300;

pub(super) fn factors(evidence: &Evidence, who: &Signers, policy: &Policy, now: UnixTime) -> Vec<Factor> {
    let mut out = session(evidence, policy, now);
    out.extend(who.release.factors.clone());
    let release = who.release.verified();
    out.extend(evidence.cpu.appraise(&who.cpu, policy, release));
    out.extend(evidence.cpu.appraise_statement(&evidence.statement));
    out.extend(statement(&evidence.statement, policy, release));
    out
}

fn session(evidence: &Evidence, policy: &Policy, now: UnixTime) -> Vec<Factor> {
    let (channel, statement) = (&evidence.channel, &evidence.statement);
    let bound = evidence
        .expected_report_data
        .is_some_and(|expected| constant_time_eq(&expected, evidence.cpu.report_data()));
    let got = if bound { "this session" } else { "another session" };
    let help = "replayed, relayed or diverted evidence: somebody is between you and the enclave";
    let mut out = vec![Factor::of("channel.binding", bound, got, "this session", help)];
    let help = "the other side's TLS key is not the one that the hardware vouches for";
    let (got, want) = (statement.spki.to_string(), channel.spki.to_string());
    out.push(Factor::of("channel.spki", statement.spki == channel.spki, got, want, help));
    let group = NamedGroup(channel.named_group);
    let help = "a key exchange that the policy does not accept was negotiated";
    out.push(policy.channel.named_group.factor("channel.named_group", &group, help));
    out.push(window(statement, now));
    if let Some(want) = evidence.request.node_id {
        let same = want == statement.node_id;
        let help = "another node answered than the one that was asked for";
        out.push(Factor::of("epoch.node_id", same, statement.node_id.to_string(), want.to_string(), help));
    }
    out
}

/// Whether S is of now.
pub(super) fn window(statement: &EpochStatement, now: UnixTime) -> Factor {
    let from = statement.not_before.0.saturating_sub(CLOCK_SKEW_SECONDS);
    let until = statement.not_after.0.saturating_add(CLOCK_SKEW_SECONDS);
    let window = format!("{} to {}", statement.not_before, statement.not_after);
    let (want, help) = (format!("to contain {now}"), "an old statement, or one of the clocks is wrong");
    Factor::of("epoch.window", (from..=until).contains(&now.0), window, want, help)
}

/// What S states; `release` is the verified one, if there is one.
pub(super) fn statement(
    s: &EpochStatement,
    policy: &Policy,
    release: Option<&ReleaseManifest>,
) -> Vec<Factor> {
    let (claims, privacy) = (&policy.claims, &policy.privacy);
    let (logged, shared) = (Flag(s.privacy.content_logged), Flag(s.privacy.shared_prefix_cache));
    let less = "the enclave promises less privacy";
    let mut out: Vec<Factor> = s
        .models
        .iter()
        .map(|model| claims.model.factor("claims.model", model, "another model is served"))
        .collect();
    out.extend([
        claims.config.factor(
            "claims.config",
            &s.config,
            release.map(|release| release.configs.contains(&s.config)),
            "the enclave is configured in another way",
        ),
        claims.release.factor(
            "claims.release",
            &s.release,
            release.map(|release| release.digest() == s.release),
            "the enclave is of another release",
        ),
        claims.gpu_mode.factor("claims.gpu_mode", &s.gpu_mode, "the GPUs are in another mode"),
        privacy.padding.factor("privacy.padding", &s.privacy.padding, less),
        privacy.content_logged.factor("privacy.content_logged", &logged, less),
        privacy.shared_prefix_cache.factor("privacy.shared_prefix_cache", &shared, less),
    ]);
    out
}
