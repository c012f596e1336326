//! Demands on AMD SEV-SNP evidence.

use serde::Deserialize;

use super::{Check, Demand, Flag, Released, TcbDemand};
use crate::snp::{Product, Root};
use crate::types::Id;
use crate::x509::Certificate;
use crate::{Digest, Measurement};

/// The section `[snp]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpPolicy {
    /// Where the chain must end: `"amd"`, or `{ insecure_simulated = "PEM" }`.
    #[serde(deserialize_with = "root")]
    pub root: Root,
    /// EPYC generation.
    pub product: Check<Product>,
    /// Version of the report.
    pub version: Check<u64>,
    /// `VCEK` or `VLEK`.
    pub signing_key: Check<String>,
    /// MASK_CHIP_KEY.
    pub chip_key_masked: Check<Flag>,
    /// All four TCB versions against floors.
    pub tcb: TcbDemand,
    /// REPORTED_TCB is at most CURRENT_TCB.
    pub tcb_reported: Demand,
    /// COMMITTED_TCB is CURRENT_TCB.
    pub tcb_committed: Demand,
    /// Privilege level that asked for the report.
    pub vmpl: Check<Flag>,
    /// Launch digest.
    pub measurement: Released<Measurement>,
    /// HOST_DATA.
    pub host_data: Check<Digest>,
    /// FAMILY_ID of the ID block.
    pub family_id: Check<Id>,
    /// IMAGE_ID of the ID block.
    pub image_id: Check<Id>,
    /// GUEST_SVN of the ID block.
    pub guest_svn: Check<u64>,
    /// ID_KEY_DIGEST.
    pub id_key_digest: Check<Measurement>,
    /// AUTHOR_KEY_DIGEST.
    pub author_key_digest: Check<Measurement>,
    /// Bits of POLICY.
    pub policy: SnpGuestPolicy,
    /// Bits of PLATFORM_INFO.
    pub platform: SnpPlatform,
}

/// The section `[snp.policy]`: what the guest's owner allowed (AMD 56860, table 9).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpGuestPolicy {
    /// Bit 19.
    pub debug: Check<Flag>,
    /// Bit 18.
    pub migrate_ma: Check<Flag>,
    /// Bit 16.
    pub smt: Check<Flag>,
    /// Bit 20.
    pub single_socket: Check<Flag>,
    /// Bit 21.
    pub cxl: Check<Flag>,
    /// Bit 22.
    pub mem_aes_256_xts: Check<Flag>,
    /// Bit 23.
    pub rapl_dis: Check<Flag>,
    /// Bit 24.
    pub ciphertext_hiding: Check<Flag>,
    /// Bit 25.
    pub page_swap_disable: Check<Flag>,
}

/// The section `[snp.platform]`: how the machine is set up (AMD 56860, table 24).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpPlatform {
    /// Bit 0.
    pub smt_en: Check<Flag>,
    /// Bit 1.
    pub tsme_en: Check<Flag>,
    /// Bit 2.
    pub ecc_en: Check<Flag>,
    /// Bit 3.
    pub rapl_dis: Check<Flag>,
    /// Bit 4.
    pub ciphertext_hiding_dram_en: Check<Flag>,
    /// Bit 5.
    pub alias_check_complete: Check<Flag>,
}

fn root<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Root, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Choice {
        Amd,
        InsecureSimulated(String),
    }
    match Choice::deserialize(d)? {
        Choice::Amd => Ok(Root::Amd),
        Choice::InsecureSimulated(pem) => {
            let root = Certificate::from_pem_or_der(pem.as_bytes()).map_err(serde::de::Error::custom)?;
            Ok(Root::InsecureSimulated(Box::new(root)))
        }
    }
}

/// The strict `[snp]` section. `{root}`, `{product}`, `{tcb}`, `{measurement}` are filled in.
pub(super) const SECTION: &str = r#"[snp]
# Where the certificate chain must end: AMD's root keys, which are built in.
root = {root}
# Milan is left out: the key seed of its processors can be extracted by software (arXiv 2605.12990).
product = {product}
# Older reports lack the processor's identity.
version = { at_least = 3 }
# VCEK: a key of this chip. VLEK: one that a cloud provider shares among its chips.
signing_key = { any_of = ["VCEK"] }
chip_key_masked = { exactly = 0 }
# "floors": the lowest firmware without known holes, per processor, as this version of Cocoon knows it.
tcb = {tcb}
tcb_reported = "required"
# The host cannot roll the firmware back behind what is reported.
tcb_committed = "required"
# Privilege level of the code that asked for the report: 0 is the enclave's kernel.
vmpl = { exactly = 0 }
# What was launched: the reference values of a release.
measurement = {measurement}
host_data = {host_data}
family_id = { unchecked = "MEASUREMENT already names the software" }
image_id = { unchecked = "MEASUREMENT already names the software" }
guest_svn = { unchecked = "MEASUREMENT already names the software" }
id_key_digest = { unchecked = "MEASUREMENT already names the software" }
author_key_digest = { unchecked = "MEASUREMENT already names the software" }

[snp.policy]
# 1 would let the host read the enclave's memory.
debug = { exactly = 0 }
# 1 would let a migration agent take the enclave to another machine.
migrate_ma = { exactly = 0 }
smt = { unchecked = "most machines have SMT on; the kernel mitigates leaks between siblings" }
single_socket = { unchecked = "either is safe" }
cxl = { exactly = 0 }
mem_aes_256_xts = { unchecked = "AES-128-XTS is accepted" }
rapl_dis = { unchecked = "power readings are coarse since AMD-SB-7005" }
ciphertext_hiding = { unchecked = "only Turin can hide ciphertext" }
page_swap_disable = { unchecked = "swapping keeps pages encrypted" }

[snp.platform]
smt_en = { unchecked = "see snp.policy.smt" }
tsme_en = { unchecked = "does not protect the enclave, which has its own key" }
# Memory without error correction makes flipping bits easy.
ecc_en = { exactly = 1 }
rapl_dis = { unchecked = "see snp.policy.rapl_dis" }
ciphertext_hiding_dram_en = { unchecked = "only Turin can hide ciphertext" }
# Memory modules that lie about their size were ruled out at boot (BadRAM, AMD-SB-3015).
alias_check_complete = { exactly = 1 }
"#;
