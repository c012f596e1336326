//! Raw vendor evidence, looked at offline: no session, so nothing that binds it to one.

use super::cpu::Cpu;
use crate::crypto::constant_time_eq;
use crate::policy::Policy;
use crate::result::{Factor, Report, none_failed};
use crate::{Context, Error, snp};

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
        Ok(report) => cpu(&Cpu::Snp { report: Box::new(report), given }, policy, report_data, ctx),
        Err(error) => malformed("snp", &error),
    }
}

fn cpu(cpu: &Cpu, policy: &Policy, report_data: Option<[u8; 64]>, ctx: Context<'_>) -> Report {
    let who = cpu.authenticate(policy, ctx);
    let mut factors = who.factors().to_vec();
    factors.extend(cpu.appraise(&who, policy));
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
    const NAME: &str = "evidence.report_data";
    let got = hex::encode(cpu.report_data());
    match expected {
        None => Factor::unchecked(NAME, got, "no expected value was given"),
        Some(expected) => {
            let same = constant_time_eq(&expected, cpu.report_data());
            let help = "the evidence was made for something else";
            Factor::of(NAME, same, got, hex::encode(expected), help)
        }
    }
}

/// The report for bytes that are no evidence of the platform that they were said to be of.
#[must_use]
pub fn malformed(platform: &'static str, error: &Error) -> Report {
    Report { platform, ..Report::malformed(error) }
}
