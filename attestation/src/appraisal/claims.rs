//! What S claims, for people and programs.

use std::collections::BTreeMap;

use crate::release::ReleaseManifest;
use crate::result::Claim;
use crate::wire::EpochStatement;

pub(super) fn of(s: &EpochStatement) -> BTreeMap<&'static str, Claim> {
    let hex = |bytes: &[u8]| Claim::Text(crate::types::to_hex(bytes));
    BTreeMap::from([
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

/// What a verified release claims.
pub(super) fn of_release(release: &ReleaseManifest) -> [(&'static str, Claim); 2] {
    let text = |text: &str| Claim::Text(text.to_owned());
    [("release_version", text(&release.version)), ("release_source", text(&release.source))]
}
