//! Demands on Intel TDX evidence.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer};

use super::{Check, Criterion, Flag, Released};
use crate::Measurement;
use crate::tdx::TcbStatus;

/// The section `[tdx]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TdxPolicy {
    /// Version of the quote.
    pub version: Check<u64>,
    /// Status of platform, TDX module and quoting enclave together.
    #[serde(deserialize_with = "tcb_status")]
    pub tcb_status: Check<TcbStatus>,
    /// Advisories that are accepted together with a status other than `UpToDate`. Any other one is refused.
    pub advisories: BTreeSet<String>,
    /// tcbEvaluationDataNumber: which TCB recovery the endorsements know of.
    pub tcb_evaluation_number: Check<u64>,
    /// MRSEAM.
    pub mr_seam: Check<Measurement>,
    /// XFAM.
    pub xfam: Check<Xfam>,
    /// MRTD.
    pub mr_td: Released<Measurement>,
    /// RTMR0.
    pub rtmr0: Released<Measurement>,
    /// RTMR1.
    pub rtmr1: Released<Measurement>,
    /// RTMR2.
    pub rtmr2: Released<Measurement>,
    /// RTMR3, as it is. That it is the replay of configuration and models is appraised apart.
    pub rtmr3: Check<Measurement>,
    /// MRCONFIGID.
    pub mr_config_id: Check<Measurement>,
    /// MROWNER.
    pub mr_owner: Check<Measurement>,
    /// MROWNERCONFIG.
    pub mr_owner_config: Check<Measurement>,
    /// MRSERVICETD, where the quote has it.
    pub mr_service_td: Check<Measurement>,
    /// Bits of ATTRIBUTES.
    pub attributes: TdxAttributes,
    /// How the platform is set up.
    pub platform: TdxPlatform,
}

impl TdxPolicy {
    /// The rows that a release can say, and whether it is to say them.
    pub(super) fn released(&self) -> [(&'static str, bool); 4] {
        [
            ("tdx.mr_td", self.mr_td.is_release()),
            ("tdx.rtmr0", self.rtmr0.is_release()),
            ("tdx.rtmr1", self.rtmr1.is_release()),
            ("tdx.rtmr2", self.rtmr2.is_release()),
        ]
    }
}

/// The section `[tdx.attributes]`: what the TD was launched with (Intel TDX Module ABI).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TdxAttributes {
    /// Bit 0.
    pub debug: Check<Flag>,
    /// Bit 29.
    pub migratable: Check<Flag>,
    /// Bit 28.
    pub sept_ve_disable: Check<Flag>,
    /// Bit 30.
    pub pks: Check<Flag>,
    /// Bit 31.
    pub key_locker: Check<Flag>,
    /// Bit 63.
    pub perfmon: Check<Flag>,
    /// Bit 27.
    pub lass: Check<Flag>,
}

/// The section `[tdx.platform]`: what Intel certified about the machine's setup.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TdxPlatform {
    /// Processor packages can be added without a new registration.
    pub dynamic: Check<Flag>,
    /// Intel keeps the platform's root keys.
    pub cached_keys: Check<Flag>,
    /// Simultaneous multithreading.
    pub smt: Check<Flag>,
}

/// XFAM as the 8 bytes that a quote has, little-endian; in text 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub struct Xfam(pub [u8; 8]);

impl std::fmt::Display for Xfam {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::types::to_hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Xfam {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut bytes = [0; 8];
        hex::decode_to_slice(String::deserialize(d)?, &mut bytes)
            .map_err(|_quotes_input| serde::de::Error::custom("expected 16 hex digits"))?;
        Ok(Self(bytes))
    }
}

impl Criterion for Xfam {
    const ORDERED: bool = false;
}

fn tcb_status<'de, D: Deserializer<'de>>(d: D) -> Result<Check<TcbStatus>, D::Error> {
    let check = Check::deserialize(d)?;
    let named = !matches!(check, Check::Unchecked { .. });
    if named && check.accepts(&TcbStatus::Revoked) {
        return Err(serde::de::Error::custom(
            "Revoked: Intel says that such a platform is not to be trusted",
        ));
    }
    Ok(check)
}

/// The strict `[tdx]` section, with everything that only a release or the caller knows `unchecked`.
pub(crate) const SECTION: &str = r#"[tdx]
version = { any_of = [4, 5] }
# Platform, TDX module and quoting enclave together, as Intel says at this time. Another status can be added, for example
# { any_of = ["UpToDate", "SWHardeningNeeded"] }: it is then accepted only with advisories that are listed next.
tcb_status = { exactly = "UpToDate" }
advisories = []
# Counts Intel's TCB recoveries: endorsements with a lower number do not know of the newer ones. Raise it with each of them.
tcb_evaluation_number = { at_least = 17 }
mr_seam = { unchecked = "the TDX module is known by who signed it and its security version" }
# Processor state that the TD may use, 16 hex digits: one value per kind of machine, part of a release's reference values.
xfam = { unchecked = "no reference value is given" }
# What was launched: the reference values of a release.
mr_td = { unchecked = "no reference value is given" }
rtmr0 = { unchecked = "no reference value is given" }
rtmr1 = { unchecked = "no reference value is given" }
rtmr2 = { unchecked = "no reference value is given" }
# Configuration and models, which the enclave states: replayed in a session.
rtmr3 = { unchecked = "no reference value is given" }
mr_config_id = { unchecked = "no reference value is given" }
mr_owner = { unchecked = "no reference value is given" }
mr_owner_config = { unchecked = "no reference value is given" }
# Zero: no other TD, such as one for migration, is bound to this one.
mr_service_td = { exactly = "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000" }

[tdx.attributes]
# 1 would let the host read the enclave's memory.
debug = { exactly = 0 }
# 1 would let a migration TD take the enclave to another machine.
migratable = { exactly = 0 }
# 0 would let the host take pages from the enclave and hand it others, with the guest's exception handler as the only witness.
sept_ve_disable = { exactly = 1 }
pks = { unchecked = "protection keys for the guest's own kernel" }
# Key Locker keeps keys in processor state that the enclave does not use.
key_locker = { exactly = 0 }
# Performance counters are a way to observe the guest.
perfmon = { exactly = 0 }
lass = { unchecked = "separates the addresses of the guest's own kernel" }

[tdx.platform]
dynamic = { unchecked = "servers with several processor packages are registered so" }
cached_keys = { unchecked = "cloud providers register so; Intel, which is trusted anyway, keeps the platform's root keys" }
smt = { unchecked = "most machines have SMT on; the kernel mitigates leaks between siblings" }
"#;
