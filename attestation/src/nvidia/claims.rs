//! What a report claims, for people and programs.

use std::collections::BTreeMap;

use super::authenticate::Authenticity;
use super::evidence::GpuEvidence;
use crate::result::Claim;

/// Claims by name, as `cocoon inspect nvidia --json` shows them.
#[must_use]
pub fn claims(gpu: &GpuEvidence, who: &Authenticity) -> BTreeMap<&'static str, Claim> {
    let (report, opaque) = (&gpu.report, &gpu.report.opaque);
    let text = |text: &str| Claim::Text(text.to_owned());
    let known = |text: Option<&str>| Claim::Text(text.unwrap_or("unknown").to_owned());
    let mut out = BTreeMap::from([
        ("arch", known(who.arch.map(super::Arch::name))),
        ("chip", known(Some(who.chip.as_str()).filter(|chip| !chip.is_empty()))),
        ("driver_version", known(opaque.driver_version())),
        ("vbios_version", known(opaque.vbios_version().as_deref())),
        ("nonce", Claim::Text(crate::types::to_hex(&report.nonce))),
        ("measurements", Claim::Number(u64::try_from(report.measurements.len()).unwrap_or(u64::MAX))),
        ("protected_pcie", text(opaque.protected_pcie())),
        ("feature", text(opaque.feature())),
        ("ueid", text(&who.ueid)),
        ("key_serial", text(&who.key_serial)),
    ]);
    out.extend(opaque.fwid().map(|fwid| ("fwid", Claim::Text(crate::types::to_hex(fwid)))));
    if let Some(ids) = super::rim_ids(report, &who.chip) {
        out.insert("rim_ids", Claim::List(ids.to_vec()));
    }
    out
}
