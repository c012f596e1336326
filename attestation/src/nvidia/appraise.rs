//! Factors of the policy for a GPU's report.

use std::collections::BTreeSet;

use super::authenticate::Authenticity;
use super::chain::Arch;
use super::evidence::GpuEvidence;
use super::version::Version;
use crate::crypto::constant_time_eq;
use crate::policy::{Check, Demand, NvidiaPolicy};
use crate::result::Factor;

/// Every row of the policy for one GPU. `expected_nonce`: what the report must have been asked for with; `None` where nobody knows,
/// as for evidence from a file.
#[must_use]
pub fn appraise(
    gpu: &GpuEvidence,
    who: &Authenticity,
    expected_nonce: Option<[u8; 32]>,
    policy: &NvidiaPolicy,
) -> Vec<Factor> {
    let (found, opaque) = (&who.found, &gpu.report.opaque);
    let mut out = vec![
        nonce(gpu, expected_nonce),
        demand(&policy.fwid, &found.fwid),
        arch(who, policy),
        version("nvidia.driver_version", opaque.driver_version(), &policy.driver_version),
        version("nvidia.vbios_version", opaque.vbios_version().as_deref(), &policy.vbios_version),
        demand(&policy.rim, &found.rim),
        demand(&policy.measurements, &found.measurements),
    ];
    // That nobody asked NVIDIA can be accepted; what NVIDIA said cannot be ignored.
    out.push(if found.ocsp_faults { found.ocsp.clone() } else { demand(&policy.ocsp, &found.ocsp) });
    out.push(debug(who, policy));
    let help = "the GPU shares its work with others in a way that this version cannot appraise: NVSwitches send no evidence";
    out.push(policy.protected_pcie.factor(
        "nvidia.protected_pcie",
        &opaque.protected_pcie().to_owned(),
        help,
    ));
    out.push(policy.feature.factor("nvidia.feature", &opaque.feature().to_owned(), help));
    out
}

/// The rows for all GPUs of a machine together: their number, and that none is counted twice. `ueids`: see [`Authenticity::ueid`].
#[must_use]
pub fn appraise_all(ueids: &[&str], policy: &NvidiaPolicy) -> Vec<Factor> {
    let count = u64::try_from(ueids.len()).unwrap_or(u64::MAX);
    let distinct = ueids.iter().filter(|id| !id.is_empty()).collect::<BTreeSet<_>>().len();
    let (got, want) = (format!("{distinct} distinct"), format!("{count} distinct"));
    let help = "one GPU sent several reports: others do not attest";
    vec![
        policy.count.factor(
            "nvidia.count",
            &count,
            "GPUs are missing, or there are more than were asked for",
        ),
        Factor::of("nvidia.distinct", distinct == ueids.len(), got, want, help),
    ]
}

fn nonce(gpu: &GpuEvidence, expected: Option<[u8; 32]>) -> Factor {
    const NAME: &str = "nvidia.nonce";
    let got = crate::types::to_hex(&gpu.report.nonce);
    match expected {
        None => Factor::unchecked(NAME, got, "no expected value was given"),
        Some(expected) => {
            let same = constant_time_eq(&expected, &gpu.report.nonce);
            Factor::of(
                NAME,
                same,
                got,
                crate::types::to_hex(&expected),
                "the report was made for something else, or before",
            )
        }
    }
}

/// `found`, unless the policy does not look at it.
fn demand(demand: &Demand, found: &Factor) -> Factor {
    match demand {
        Demand::Required => found.clone(),
        Demand::Unchecked { why } => {
            Factor::unchecked(found.name, found.got.clone().unwrap_or_default(), why)
        }
    }
}

fn arch(who: &Authenticity, policy: &NvidiaPolicy) -> Factor {
    const NAME: &str = "nvidia.arch";
    match who.arch {
        // No policy can accept what nobody has appraised.
        None => {
            let got = if who.chip.is_empty() { "unknown" } else { &who.chip };
            let help = "not a GPU, or one that this version does not know";
            Factor::fail(NAME, got, policy.arch.wanted(), help)
        }
        Some(arch) => policy.arch.factor(NAME, &arch.name().to_owned(), "the policy accepts other GPUs"),
    }
}

fn version(name: &'static str, got: Option<&str>, want: &Check<Version>) -> Factor {
    let help = "a version that the policy does not accept runs on the GPU";
    match (got.and_then(|got| got.parse().ok()), want) {
        (Some(version), _) => want.factor(name, &version, help),
        (None, Check::Unchecked { why }) => Factor::unchecked(name, "none", why),
        (None, Check::Exactly(_) | Check::AnyOf(_) | Check::AtLeast(_)) => {
            Factor::fail(name, "none", want.wanted(), "the report does not say it in a form that is known")
        }
    }
}

/// Hopper says nothing about this: there a production chain has to do, as other chips are fused and certified apart.
fn debug(who: &Authenticity, policy: &NvidiaPolicy) -> Factor {
    const NAME: &str = "nvidia.debug";
    let got = match (who.found.insecure, who.arch) {
        (Some(true), _) => "on",
        (Some(false), _) => "off",
        (None, Some(Arch::Hopper)) => {
            return Factor::unchecked(NAME, "unstated", "the certificates of this generation do not say it");
        }
        (None, _) => "unstated",
    };
    policy.debug.factor(
        NAME,
        got == "off",
        &got,
        "off",
        "the firmware of the GPU can be debugged or is not secured",
    )
}
