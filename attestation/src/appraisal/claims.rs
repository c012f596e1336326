//! What the evidence claims, for people and programs.

use std::collections::BTreeMap;

use super::Evidence;
use crate::result::Claim;

pub(super) fn of(evidence: &Evidence) -> BTreeMap<&'static str, Claim> {
    let (report, s) = (&evidence.report, &evidence.statement);
    let hex = |bytes: &[u8]| Claim::Text(hex::encode(bytes));
    BTreeMap::from([
        ("version", Claim::Number(report.version.into())),
        ("guest_svn", Claim::Number(report.guest_svn.into())),
        ("policy", Claim::Text(format!("{:#x}", report.policy))),
        ("platform_info", Claim::Text(format!("{:#x}", report.platform_info))),
        ("vmpl", Claim::Number(report.vmpl.into())),
        ("measurement", Claim::Text(report.measurement.to_string())),
        ("report_data", hex(&report.report_data)),
        ("host_data", hex(&report.host_data)),
        ("chip_id", hex(&report.chip_id)),
        ("reported_tcb", reported_tcb(evidence)),
        ("boot_id", hex(&s.boot_id)),
        ("epoch", Claim::Number(s.epoch)),
        ("not_before", Claim::Number(s.not_before.0)),
        ("not_after", Claim::Number(s.not_after.0)),
        ("node_id", Claim::Text(s.node_id.to_string())),
        ("receipt_key", hex(&s.receipt_key)),
        ("models", Claim::List(s.models.iter().map(ToString::to_string).collect())),
        ("config", Claim::Text(s.config.to_string())),
        ("release", Claim::Text(s.release.to_string())),
        ("gpu_mode", Claim::Text(s.gpu_mode.clone())),
    ])
}

fn reported_tcb(evidence: &Evidence) -> Claim {
    let Some(product) = evidence.report.product() else { return Claim::Numbers(BTreeMap::new()) };
    let names = ["bootloader", "tee", "snp", "microcode"];
    let parts = evidence.report.reported_tcb.parts(product).map(u64::from);
    let fmc = evidence.report.reported_tcb.fmc(product).map(|fmc| ("fmc", u64::from(fmc)));
    Claim::Numbers(names.into_iter().zip(parts).chain(fmc).collect())
}
