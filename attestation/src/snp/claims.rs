//! What a report claims, for people and programs.

use std::collections::BTreeMap;

use super::authenticate::Authenticity;
use super::report::Report;
use super::tcb::TcbVersion;
use crate::result::Claim;

/// Claims by name, as `cocoon inspect snp --json` shows them.
#[must_use]
pub fn claims(report: &Report, who: &Authenticity) -> BTreeMap<&'static str, Claim> {
    let hex = |bytes: &[u8]| Claim::Text(crate::types::to_hex(bytes));
    let tcb = |tcb: TcbVersion| match who.product {
        Some(product) => Claim::Numbers(tcb.parts(product).named().collect()),
        None => hex(&tcb.0),
    };
    let mut out = BTreeMap::from([
        ("version", Claim::Number(report.version.into())),
        ("guest_svn", Claim::Number(report.guest_svn.into())),
        ("policy", Claim::Text(format!("{:#x}", report.policy))),
        ("platform_info", Claim::Text(format!("{:#x}", report.platform_info))),
        ("vmpl", Claim::Number(report.vmpl.into())),
        ("measurement", Claim::Text(report.measurement.to_string())),
        ("report_data", hex(&report.report_data)),
        ("host_data", hex(&report.host_data)),
        ("family_id", hex(&report.family_id)),
        ("image_id", hex(&report.image_id)),
        ("id_key_digest", hex(&report.id_key_digest)),
        ("author_key_digest", hex(&report.author_key_digest)),
        ("author_key_enabled", Claim::Number(report.author_key_enabled())),
        ("signing_key", Claim::Text(report.signing_key().map_or("none", super::SigningKey::name).to_owned())),
        ("chip_id", hex(&report.chip_id)),
        ("reported_tcb", tcb(report.reported_tcb)),
        ("current_tcb", tcb(report.current_tcb)),
        ("committed_tcb", tcb(report.committed_tcb)),
        ("launch_tcb", tcb(report.launch_tcb)),
    ]);
    out.extend(report.cpuid.map(|cpuid| ("cpuid", hex(&cpuid))));
    out.extend(who.csp_id.clone().map(|id| ("csp_id", Claim::Text(id))));
    if let Some([launch, current]) = report.mitigations {
        out.insert("launch_mitigation_vector", Claim::Text(format!("{launch:#x}")));
        out.insert("current_mitigation_vector", Claim::Text(format!("{current:#x}")));
    }
    out
}
