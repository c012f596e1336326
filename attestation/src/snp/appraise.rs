//! Factors of the policy for an SNP report.

use super::authenticate::Authenticity;
use super::product::Product;
use super::report::Report;
use crate::policy::{Flag, SnpPolicy, TcbFloors};
use crate::release::ReleaseManifest;
use crate::result::Factor;
use crate::types::Id;

/// Every row of the policy; `release` is the verified one, if there is one. REPORT_DATA is not among the rows: what it must be
/// depends on where the evidence came from.
#[must_use]
pub fn appraise(
    report: &Report,
    who: &Authenticity,
    policy: &SnpPolicy,
    floors: &TcbFloors,
    release: Option<&ReleaseManifest>,
) -> Vec<Factor> {
    let mut out = vec![
        policy.version.factor("snp.version", &report.version.into(), "update the processor's firmware"),
        product(who, policy),
    ];
    out.extend(tcb(report, who, policy, floors));
    out.extend(guest_policy(report, policy));
    out.extend(platform(report, policy));
    out.extend(identity(report, policy, release));
    out
}

fn product(who: &Authenticity, policy: &SnpPolicy) -> Factor {
    let Some(product) = who.product else {
        return Factor::fail(
            "snp.product",
            "unknown",
            policy.product.wanted(),
            "a processor that this version does not know",
        );
    };
    let help = match product {
        Product::Milan => {
            "the key seed of Milan processors can be extracted by software (arXiv 2605.12990): reports can be forged"
        }
        Product::Genoa | Product::Turin => "the policy accepts other processors",
    };
    policy.product.factor("snp.product", &product, help)
}

fn tcb(report: &Report, who: &Authenticity, policy: &SnpPolicy, floors: &TcbFloors) -> Vec<Factor> {
    let product = who.product.unwrap_or(Product::Milan);
    let [current, reported, committed, launch] =
        [report.current_tcb, report.reported_tcb, report.committed_tcb, report.launch_tcb]
            .map(|tcb| tcb.parts(product));
    let lowest = [current, reported, committed, launch];
    let help = "the processor runs firmware with known weaknesses: its owner must update it";
    let ordered = current.is_at_least(&reported);
    let order_help = "the firmware says that it is newer than it is";
    let committed_help = "the host can still roll the firmware back: it must commit (SNP_COMMIT)";
    vec![
        policy.tcb.factor(product, report.cpuid, &lowest, floors, help),
        policy.tcb_reported.factor(
            "snp.tcb.reported",
            ordered,
            &reported,
            &format!("at most CURRENT ({current})"),
            order_help,
        ),
        policy.tcb_committed.factor(
            "snp.tcb.committed",
            committed == current,
            &committed,
            &format!("CURRENT ({current})"),
            committed_help,
        ),
    ]
}

/// POLICY (AMD 56860, table 9).
fn guest_policy(report: &Report, policy: &SnpPolicy) -> Vec<Factor> {
    let rows = &policy.policy;
    let bit = |n| Flag(report.policy_bit(n));
    let allows = "the owner of the guest allowed it when it was launched";
    let mut out = vec![
        rows.debug.factor("snp.policy.debug", &bit(19), "the host can read the memory of this enclave"),
        rows.migrate_ma.factor(
            "snp.policy.migrate_ma",
            &bit(18),
            "a migration agent can take the enclave elsewhere",
        ),
        rows.smt.factor("snp.policy.smt", &bit(16), allows),
        rows.single_socket.factor("snp.policy.single_socket", &bit(20), allows),
        rows.cxl.factor("snp.policy.cxl", &bit(21), allows),
        rows.mem_aes_256_xts.factor("snp.policy.mem_aes_256_xts", &bit(22), allows),
        rows.rapl_dis.factor("snp.policy.rapl_dis", &bit(23), allows),
        rows.ciphertext_hiding.factor("snp.policy.ciphertext_hiding", &bit(24), allows),
        rows.page_swap_disable.factor("snp.policy.page_swap_disable", &bit(25), allows),
    ];
    // Bit 17 is always one, bits 26 to 63 are zero.
    let reserved = report.policy & !0x03ff_ffff;
    let ok = report.policy_bit(17) == 1 && reserved == 0;
    let help = "a bit that this version does not know may mean anything";
    out.push(Factor::of(
        "snp.policy.reserved",
        ok,
        format!("{:#x}", report.policy),
        "bit 17 set, bits 26 to 63 clear",
        help,
    ));
    out
}

/// PLATFORM_INFO (AMD 56860, table 24). Bits that are not specified say nothing and are not looked at.
fn platform(report: &Report, policy: &SnpPolicy) -> Vec<Factor> {
    let rows = &policy.platform;
    let bit = |n| Flag(report.platform_bit(n));
    let setup = "the machine's firmware setup differs from what the policy accepts";
    vec![
        rows.smt_en.factor("snp.platform.smt_en", &bit(0), setup),
        rows.tsme_en.factor("snp.platform.tsme_en", &bit(1), setup),
        rows.ecc_en.factor("snp.platform.ecc_en", &bit(2), "memory without error correction can be made to flip bits"),
        rows.rapl_dis.factor("snp.platform.rapl_dis", &bit(3), "the host can measure the power that secrets cost"),
        rows.ciphertext_hiding_dram_en.factor("snp.platform.ciphertext_hiding_dram_en", &bit(4), setup),
        rows.alias_check_complete.factor(
            "snp.platform.alias_check_complete",
            &bit(5),
            "memory modules that lie about their size were not ruled out (BadRAM, AMD-SB-3015): update the firmware",
        ),
    ]
}

fn identity(report: &Report, policy: &SnpPolicy, release: Option<&ReleaseManifest>) -> Vec<Factor> {
    let key = report.signing_key().map_or("none", super::SigningKey::name).to_owned();
    let other = "the launch was configured in another way than the release says";
    vec![
        policy.signing_key.factor("snp.signing_key", &key, "the policy accepts other keys"),
        policy.chip_key_masked.factor(
            "snp.chip_key_masked",
            &Flag(report.chip_key_masked()),
            "the host hides the chip's key",
        ),
        policy.vmpl.factor(
            "snp.vmpl",
            &Flag(report.vmpl.into()),
            "the report was asked for by other code than the kernel",
        ),
        policy.measurement.factor(
            "snp.measurement",
            &report.measurement,
            release.map(|release| release.has_snp(&report.measurement, report.policy)),
            "other software runs there than the policy accepts; `docs/factors.md` says how to find out why",
        ),
        policy.host_data.factor("snp.host_data", &crate::Digest(report.host_data), other),
        policy.family_id.factor("snp.family_id", &Id(report.family_id), other),
        policy.image_id.factor("snp.image_id", &Id(report.image_id), other),
        policy.guest_svn.factor("snp.guest_svn", &report.guest_svn.into(), "an old release"),
        policy.id_key_digest.factor("snp.id_key_digest", &crate::Measurement(report.id_key_digest), other),
        policy.author_key_digest.factor(
            "snp.author_key_digest",
            &crate::Measurement(report.author_key_digest),
            other,
        ),
    ]
}
