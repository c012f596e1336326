//! A policy in words.

use super::{
    Check, Criterion, Demand, LogDemand, NvidiaPolicy, Policy, QuorumDemand, ReleasePolicy, Released,
    SnpPolicy, TcbDemand, TdxPolicy, released,
};
use crate::snp::Root;

/// One row: the factor, and what is demanded or why nothing is.
#[derive(Debug)]
pub(super) struct Row {
    name: &'static str,
    words: Result<String, String>,
}

/// Anything that a policy demands.
pub(super) trait Words {
    fn row(&self, name: &'static str) -> Row;
}

impl<T: Criterion> Words for Check<T> {
    fn row(&self, name: &'static str) -> Row {
        let words = match self {
            Self::Unchecked { why } => Err(why.clone()),
            Self::Exactly(_) | Self::AnyOf(_) | Self::AtLeast(_) => Ok(self.wanted()),
        };
        Row { name, words }
    }
}

impl Words for Demand {
    fn row(&self, name: &'static str) -> Row {
        let words = match self {
            Self::Required => Ok(self.wanted()),
            Self::Unchecked { why } => Err(why.clone()),
        };
        Row { name, words }
    }
}

impl<T: Criterion> Words for Released<T> {
    fn row(&self, name: &'static str) -> Row {
        match self {
            Self::Release => Row { name, words: Ok(released::WORDS.to_owned()) },
            Self::Check(check) => check.row(name),
        }
    }
}

impl Words for QuorumDemand {
    fn row(&self, name: &'static str) -> Row {
        let words = match self {
            Self::Required(quorum) => Ok(quorum.to_string()),
            Self::Unchecked { why } => Err(why.clone()),
        };
        Row { name, words }
    }
}

impl Words for TcbDemand {
    fn row(&self, name: &'static str) -> Row {
        let words = match self {
            Self::Floors | Self::SignedFloors(_) | Self::AtLeast(_) => Ok(self.wanted()),
            Self::Unchecked { why } => Err(why.clone()),
        };
        Row { name, words }
    }
}

/// Measurements that are zero where nobody set them.
const ZERO_IF_UNUSED: [&str; 4] =
    ["tdx.mr_config_id", "tdx.mr_owner", "tdx.mr_owner_config", "tdx.mr_service_td"];

impl Policy {
    /// What it accepts, line by line, for people.
    #[must_use]
    pub fn explain(&self) -> Vec<String> {
        let rows = self.rows();
        let mut out = self.headlines(&rows);
        let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        out.extend([String::new(), "It demands:".to_owned()]);
        let demanded = rows.iter().filter_map(|row| Some((row.name, row.words.as_ref().ok()?)));
        out.extend(demanded.map(|(name, words)| format!("  {name:<width$}  {words}")));
        out.extend([String::new(), "It does not look at:".to_owned()]);
        let ignored = rows.iter().filter_map(|row| Some((row.name, row.words.as_ref().err()?)));
        out.extend(ignored.map(|(name, why)| format!("  {name:<width$}  because: {why}")));
        out
    }

    fn headlines(&self, rows: &[Row]) -> Vec<String> {
        let mut out = vec![
            "Whatever the policy says, signatures, certificate chains, the revocation of processors, the binding to the".to_owned(),
            "session and the time of the statement are always verified.".to_owned(),
        ];
        match self.snp.as_ref().map(|snp| &snp.root) {
            None => out.push("AMD SEV-SNP: not accepted.".to_owned()),
            Some(Root::Amd) => out.push("AMD SEV-SNP: accepted under AMD's root keys.".to_owned()),
            Some(Root::InsecureSimulated(root)) => out.push(format!(
                "AMD SEV-SNP: WARNING: accepted under the SIMULATED root {}: no hardware protects anything.",
                root.subject_cn()
            )),
        }
        match &self.tdx {
            None => out.push("Intel TDX: not accepted.".to_owned()),
            Some(_) => out.push("Intel TDX: accepted under Intel's root key.".to_owned()),
        }
        match &self.nvidia {
            None => out.push("NVIDIA GPUs: not accepted.".to_owned()),
            Some(_) => out.push("NVIDIA GPUs: accepted under NVIDIA's root keys.".to_owned()),
        }
        if let Some(release) = &self.release {
            out.push(format!("Releases: those that {} signed.", release.signers));
        }
        let zeros = rows.iter().filter(|row| !ZERO_IF_UNUSED.contains(&row.name)).filter(|row| {
            row.words.as_ref().is_ok_and(|words| words.len() >= 64 && words.bytes().all(|b| b == b'0'))
        });
        let mut zeros: Vec<_> = zeros.map(|row| row.name).collect();
        zeros.extend(self.release.iter().flat_map(ReleasePolicy::placeholders));
        if !zeros.is_empty() {
            out.push(format!("As it is, it accepts no enclave: fill in {}.", zeros.join(", ")));
        }
        out
    }

    fn rows(&self) -> Vec<Row> {
        let mut out = vec![self.channel.named_group.row("channel.named_group")];
        out.extend(self.snp.iter().flat_map(snp));
        out.extend(self.tdx.iter().flat_map(tdx));
        out.extend(self.nvidia.iter().flat_map(nvidia));
        out.extend(self.release.iter().flat_map(release));
        let (platform, claims, privacy) = (&self.platform, &self.claims, &self.privacy);
        let count = |n: usize| format!("none of {n} machines");
        out.extend([
            Row { name: "platform.deny", words: Ok(count(platform.deny.len())) },
            platform.id.row("platform.id"),
            platform.tier.row("platform.tier"),
            claims.model.row("claims.model"),
            claims.config.row("claims.config"),
            claims.release.row("claims.release"),
            claims.gpu_mode.row("claims.gpu_mode"),
            privacy.padding.row("privacy.padding"),
            privacy.content_logged.row("privacy.content_logged"),
            privacy.shared_prefix_cache.row("privacy.shared_prefix_cache"),
        ]);
        out
    }
}

fn snp(snp: &SnpPolicy) -> Vec<Row> {
    let (policy, platform) = (&snp.policy, &snp.platform);
    vec![
        snp.product.row("snp.product"),
        snp.version.row("snp.version"),
        snp.signing_key.row("snp.signing_key"),
        snp.chip_key_masked.row("snp.chip_key_masked"),
        snp.tcb.row("snp.tcb"),
        snp.tcb_reported.row("snp.tcb.reported"),
        snp.tcb_committed.row("snp.tcb.committed"),
        snp.vmpl.row("snp.vmpl"),
        snp.measurement.row("snp.measurement"),
        snp.host_data.row("snp.host_data"),
        snp.family_id.row("snp.family_id"),
        snp.image_id.row("snp.image_id"),
        snp.guest_svn.row("snp.guest_svn"),
        snp.id_key_digest.row("snp.id_key_digest"),
        snp.author_key_digest.row("snp.author_key_digest"),
        policy.debug.row("snp.policy.debug"),
        policy.migrate_ma.row("snp.policy.migrate_ma"),
        policy.smt.row("snp.policy.smt"),
        policy.single_socket.row("snp.policy.single_socket"),
        policy.cxl.row("snp.policy.cxl"),
        policy.mem_aes_256_xts.row("snp.policy.mem_aes_256_xts"),
        policy.rapl_dis.row("snp.policy.rapl_dis"),
        policy.ciphertext_hiding.row("snp.policy.ciphertext_hiding"),
        policy.page_swap_disable.row("snp.policy.page_swap_disable"),
        platform.smt_en.row("snp.platform.smt_en"),
        platform.tsme_en.row("snp.platform.tsme_en"),
        platform.ecc_en.row("snp.platform.ecc_en"),
        platform.rapl_dis.row("snp.platform.rapl_dis"),
        platform.ciphertext_hiding_dram_en.row("snp.platform.ciphertext_hiding_dram_en"),
        platform.alias_check_complete.row("snp.platform.alias_check_complete"),
    ]
}

fn tdx(tdx: &TdxPolicy) -> Vec<Row> {
    let (attributes, platform) = (&tdx.attributes, &tdx.platform);
    let listed: Vec<_> = tdx.advisories.iter().map(String::as_str).collect();
    let listed = if listed.is_empty() { "none".to_owned() } else { listed.join(", ") };
    let advisories = match &tdx.tcb_status {
        Check::Unchecked { .. } => Err("the TCB status is not looked at".to_owned()),
        Check::Exactly(_) | Check::AnyOf(_) | Check::AtLeast(_) => {
            Ok(format!("{listed}, unless the TCB status is UpToDate"))
        }
    };
    vec![
        tdx.version.row("tdx.version"),
        tdx.tcb_status.row("tdx.tcb_status"),
        Row { name: "tdx.advisories", words: advisories },
        tdx.tcb_evaluation_number.row("tdx.tcb_evaluation_number"),
        tdx.mr_seam.row("tdx.mr_seam"),
        tdx.xfam.row("tdx.xfam"),
        tdx.mr_td.row("tdx.mr_td"),
        tdx.rtmr0.row("tdx.rtmr0"),
        tdx.rtmr1.row("tdx.rtmr1"),
        tdx.rtmr2.row("tdx.rtmr2"),
        tdx.rtmr3.row("tdx.rtmr3"),
        tdx.mr_config_id.row("tdx.mr_config_id"),
        tdx.mr_owner.row("tdx.mr_owner"),
        tdx.mr_owner_config.row("tdx.mr_owner_config"),
        tdx.mr_service_td.row("tdx.mr_service_td"),
        attributes.debug.row("tdx.attributes.debug"),
        attributes.migratable.row("tdx.attributes.migratable"),
        attributes.sept_ve_disable.row("tdx.attributes.sept_ve_disable"),
        attributes.pks.row("tdx.attributes.pks"),
        attributes.key_locker.row("tdx.attributes.key_locker"),
        attributes.perfmon.row("tdx.attributes.perfmon"),
        attributes.lass.row("tdx.attributes.lass"),
        platform.dynamic.row("tdx.platform.dynamic"),
        platform.cached_keys.row("tdx.platform.cached_keys"),
        platform.smt.row("tdx.platform.smt"),
    ]
}

fn release(release: &ReleasePolicy) -> Vec<Row> {
    let (log, expiry) = match &release.log {
        LogDemand::Required(log) => (
            Ok(format!("in the log {}", log.origin())),
            Ok(format!("a proof of at most {} days", log.max_age_days())),
        ),
        LogDemand::Unchecked { why } => (Err(why.clone()), Err(why.clone())),
    };
    vec![
        Row { name: "release.manifest", words: Ok("the one that S names".to_owned()) },
        Row { name: "release.signatures", words: Ok(release.signers.to_string()) },
        release.created.row("release.created"),
        Row { name: "release.log", words: log },
        Row { name: "release.expiry", words: expiry },
        release.witnesses.row("release.witnesses"),
        release.rebuilds.row("release.rebuilds"),
    ]
}

fn nvidia(nvidia: &NvidiaPolicy) -> Vec<Row> {
    vec![
        nvidia.arch.row("nvidia.arch"),
        nvidia.count.row("nvidia.count"),
        nvidia.driver_version.row("nvidia.driver_version"),
        nvidia.vbios_version.row("nvidia.vbios_version"),
        nvidia.fwid.row("nvidia.fwid"),
        nvidia.rim.row("nvidia.rim"),
        nvidia.measurements.row("nvidia.measurements"),
        nvidia.ocsp.row("nvidia.ocsp"),
        nvidia.debug.row("nvidia.debug"),
        nvidia.protected_pcie.row("nvidia.protected_pcie"),
        nvidia.feature.row("nvidia.feature"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{init, strict};

    fn explained(text: &str) -> String {
        Policy::from_toml(text).unwrap().explain().join("\n")
    }

    #[test]
    fn says_what_is_demanded_what_is_not_and_what_to_fill_in() {
        let words = explained(&init(0));
        assert!(
            words.contains("accepts no enclave: fill in snp.measurement, tdx.mr_td, tdx.rtmr0, tdx.rtmr1, tdx.rtmr2, claims.model, claims.config."),
            "{words}"
        );
        assert!(words.contains("accepted under AMD's root keys"));
        let (demanded, ignored) = words.split_once("It does not look at:").unwrap();
        assert!(demanded.contains("snp.vmpl") && !ignored.contains("snp.vmpl"));
        assert!(ignored.contains("because: either is safe"));
        assert!(!explained(&strict()).contains("accepts no enclave"));
    }

    #[test]
    fn advisories_go_with_the_status() {
        let of = |text: &str| {
            let words = explained(text);
            let (demanded, ignored) = words.split_once("It does not look at:").unwrap();
            (demanded.contains("tdx.advisories"), ignored.contains("tdx.advisories"))
        };
        let demanded = "tcb_status = { exactly = \"UpToDate\" }";
        assert!(strict().contains(demanded));
        assert_eq!(of(&strict()), (true, false));
        let unchecked = strict().replace(demanded, "tcb_status = { unchecked = \"test\" }");
        assert_eq!(of(&unchecked), (false, true));
    }

    /// A row that a policy has and `explain` forgets would be a silent hole in the explanation.
    #[test]
    fn every_row_is_explained() {
        let text = strict();
        let mut section = String::new();
        let words = explained(&text);
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']').to_owned();
            } else if let Some((key, _)) =
                line.split_once(" = ").filter(|_| !line.starts_with('#') && !section.is_empty())
            {
                let name = format!(
                    "{section}.{}",
                    if section == "snp" { key.replace("tcb_", "tcb.") } else { key.to_owned() }
                );
                let known =
                    ["snp.root", "platform.datacenter"].contains(&name.as_str()) || words.contains(&name);
                assert!(known, "{name} is not explained");
            }
        }
    }
}
