//! Raw vendor evidence, looked at offline: no session, so nothing that binds it to one.

use super::cpu::Cpu;
use super::gpu::Gpus;
use crate::crypto::constant_time_eq;
use crate::nvidia::GpuEvidence;
use crate::policy::Policy;
use crate::release::{self, ReleaseBundle, ReleaseManifest};
use crate::result::{Factor, Report, none_failed};
use crate::wire::{AttestResponse, EpochStatement};
use crate::{Context, Error, nvidia, snp, tdx};

/// Appraises an SNP report. `report_data`: what REPORT_DATA must be, if that is known.
#[must_use]
pub fn snp(
    report: &[u8],
    given: snp::Endorsements,
    policy: &Policy,
    report_data: Option<[u8; 64]>,
    ctx: Context<'_>,
) -> Report {
    match snp::Report::parse(report) {
        Ok(report) => {
            let parsed = Cpu::Snp { report: Box::new(report), given };
            limited(ctx, |ctx| cpu(&parsed, policy, None, report_data, ctx))
        }
        Err(error) => malformed("snp", &error),
    }
}

/// Appraises a TDX quote. `event_log`: the CC event log that explains its RTMRs, if there is one. `report_data`: what REPORTDATA must
/// be, if that is known.
#[must_use]
pub fn tdx(
    quote: &[u8],
    event_log: Option<&[u8]>,
    given: tdx::Endorsements,
    policy: &Policy,
    report_data: Option<[u8; 64]>,
    ctx: Context<'_>,
) -> Report {
    let log = event_log.map(tdx::EventLog::parse).transpose();
    match tdx::Quote::parse(quote).and_then(|quote| Ok((quote, log?))) {
        Ok((quote, log)) => {
            let replayed = log.map(|log| log.factor(&quote));
            let parsed = Cpu::Tdx { quote: Box::new(quote), given };
            let mut report = limited(ctx, |ctx| cpu(&parsed, policy, None, report_data, ctx));
            report.factors.extend(replayed);
            report.accepted = report.accepted && none_failed(&report.factors);
            report
        }
        Err(error) => malformed("tdx", &error),
    }
}

/// Appraises a saved AttestResponse. What ties it to a session is not in the file: those rows are unchecked.
#[must_use]
pub fn bundle(response: &[u8], policy: &Policy, ctx: Context<'_>) -> Report {
    match Saved::parse(response) {
        Ok(parsed) => limited(ctx, |ctx| saved(&parsed, policy, ctx)),
        Err(error) => malformed("unknown", &error),
    }
}

fn saved(saved: &Saved, policy: &Policy, ctx: Context<'_>) -> Report {
    let Saved { cpu: parsed, gpus, statement, bundle } = saved;
    let appraised = release::appraise(bundle.as_ref(), statement.release, policy.release.as_ref(), ctx);
    let mut report = cpu(parsed, policy, appraised.verified(), None, ctx);
    report.factors.extend(appraised.factors.clone());
    let who = gpus.authenticate(policy, ctx);
    report.factors.retain(|factor| factor.name != REPORT_DATA);
    let why = "the session is not in the file";
    let report_data = crate::types::to_hex(parsed.report_data());
    report.factors.push(Factor::unchecked("channel.binding", report_data, why));
    report.factors.push(Factor::unchecked("channel.spki", statement.spki.to_string(), why));
    report.factors.push(super::policy::window(statement, ctx.now));
    report.factors.extend(parsed.appraise_statement(statement));
    report.factors.extend(super::policy::statement(statement, policy, appraised.verified()));
    report.factors.extend(gpus.factors(&who, statement, None, policy));
    report.claims.extend(super::claims::of(statement));
    report.claims.extend(gpus.claims(&who));
    report.claims.extend(appraised.verified().into_iter().flat_map(super::claims::of_release));
    report.authentic = report.authentic && who.iter().all(nvidia::Authenticity::is_authentic);
    report.accepted = report.authentic && none_failed(&report.factors);
    report
}

/// What is in a saved AttestResponse.
struct Saved {
    cpu: Cpu,
    gpus: Gpus,
    statement: EpochStatement,
    bundle: Option<ReleaseBundle>,
}

impl Saved {
    fn parse(response: &[u8]) -> Result<Self, Error> {
        let response = AttestResponse::decode(response)?;
        let statement = EpochStatement::decode(&response.statement)?;
        let bundle = response.release.as_deref().map(ReleaseBundle::decode).transpose()?;
        let (cpu, gpus) = super::devices(&response)?;
        Ok(Self { cpu, gpus, statement, bundle })
    }
}

/// Appraises the report of one GPU. `nonce`: what it must have been asked for with, if that is known.
#[must_use]
pub fn nvidia(
    gpu: &GpuEvidence,
    given: &nvidia::Endorsements,
    policy: &Policy,
    nonce: Option<[u8; 32]>,
    ctx: Context<'_>,
) -> Report {
    limited(ctx, |ctx| one_gpu(gpu, given, policy, nonce, ctx))
}

fn one_gpu(
    gpu: &GpuEvidence,
    given: &nvidia::Endorsements,
    policy: &Policy,
    nonce: Option<[u8; 32]>,
    ctx: Context<'_>,
) -> Report {
    let who = nvidia::authenticate(gpu, given, &policy.anchors.nvidia, ctx);
    let mut factors = who.factors.clone();
    match &policy.nvidia {
        Some(rows) => factors.extend(nvidia::appraise(gpu, &who, nonce, rows)),
        None => {
            let help = "the policy has no section for this kind of evidence";
            factors.push(Factor::fail(
                "evidence.platform",
                "nvidia",
                "a policy with a section [nvidia]",
                help,
            ));
        }
    }
    factors.extend(policy.platform.gpu_factors(&who.ueid));
    let authentic = who.is_authentic();
    Report {
        platform: "nvidia",
        product: who.arch.map_or("unknown", nvidia::Arch::name),
        authentic,
        accepted: authentic && none_failed(&factors),
        factors,
        claims: nvidia::claims(gpu, &who),
    }
}

const REPORT_DATA: &str = "evidence.report_data";

/// `appraise`, with as many signatures as one appraisal verifies.
fn limited(ctx: Context<'_>, appraise: impl FnOnce(Context<'_>) -> Report) -> Report {
    let signatures = &ctx.signatures.for_one_appraisal();
    let ctx = Context { signatures, ..ctx };
    let mut report = appraise(ctx);
    if let Some(factor) = ctx.budget_factor() {
        report.factors.push(factor);
        (report.authentic, report.accepted) = (false, false);
    }
    report
}

fn cpu(
    cpu: &Cpu,
    policy: &Policy,
    release: Option<&ReleaseManifest>,
    report_data: Option<[u8; 64]>,
    ctx: Context<'_>,
) -> Report {
    let who = cpu.authenticate(policy, ctx);
    let mut factors = who.factors().to_vec();
    factors.extend(cpu.appraise(&who, policy, release));
    factors.push(expected_report_data(cpu, report_data));
    let authentic = who.is_authentic();
    Report {
        platform: cpu.platform(),
        product: who.product(),
        authentic,
        accepted: authentic && none_failed(&factors),
        factors,
        claims: cpu.claims(&who),
    }
}

fn expected_report_data(cpu: &Cpu, expected: Option<[u8; 64]>) -> Factor {
    let got = crate::types::to_hex(cpu.report_data());
    match expected {
        None => Factor::unchecked(REPORT_DATA, got, "no expected value was given"),
        Some(expected) => {
            let same = constant_time_eq(&expected, cpu.report_data());
            let help = "the evidence was made for something else";
            Factor::of(REPORT_DATA, same, got, crate::types::to_hex(&expected), help)
        }
    }
}

/// The report for bytes that are no evidence of the platform that they were said to be of.
#[must_use]
pub fn malformed(platform: &'static str, error: &Error) -> Report {
    let mut report = Report { platform, ..Report::malformed(error) };
    for factor in &mut report.factors {
        factor.help = Some("the file is of another kind, or it was cut or altered".to_owned());
    }
    report
}
