//! Factors of the policy for a TD quote.

use super::authenticate::Authenticity;
use super::fitting::Fitting;
use super::quote::{Quote, TdReport};
use super::tcb::TcbStatus;
use crate::policy::{Check, Criterion, Flag, TdxPolicy};
use crate::release::{ReleaseManifest, TdxReference};
use crate::result::{Factor, Status};

/// ATTRIBUTES (Intel TDX Module ABI): bits that a policy can make demands on.
const DEBUG: u64 = 1;
const LASS: u64 = 1 << 27;
const SEPT_VE_DISABLE: u64 = 1 << 28;
const MIGRATABLE: u64 = 1 << 29;
const PKS: u64 = 1 << 30;
const KEY_LOCKER: u64 = 1 << 31;
const PERFMON: u64 = 1 << 63;
const KNOWN_ATTRIBUTES: u64 = DEBUG | LASS | SEPT_VE_DISABLE | MIGRATABLE | PKS | KEY_LOCKER | PERFMON;

/// XFAM (Intel TDX Module ABI): x87 and SSE are always there.
const XFAM_FIXED_1: u64 = 0x3;

/// AVX, AVX-512, PT, PKRU, CET, user interrupts, LBR and AMX may be there, and nothing else.
const XFAM_ALLOWED: u64 = 0x0006_dbe7;

/// Every row of the policy; `release` is the verified one, if there is one. REPORTDATA is not among the rows: what it must be
/// depends on where the evidence came from.
#[must_use]
pub fn appraise(
    quote: &Quote,
    who: &Authenticity,
    policy: &TdxPolicy,
    release: Option<&ReleaseManifest>,
) -> Vec<Factor> {
    let version =
        policy.version.factor("tdx.version", &quote.version.into(), "update the host's TDX software");
    let mut out = vec![version];
    out.extend(tcb(who, policy));
    out.extend(module(&quote.body, who, policy));
    out.extend(attributes(&quote.body, policy));
    out.extend(xfam(&quote.body, policy));
    out.extend(measurements(&quote.body, policy, release));
    out.extend(platform(quote, policy));
    out
}

/// TCB status, advisories, and which TCB recovery they know of.
fn tcb(who: &Authenticity, policy: &TdxPolicy) -> Vec<Factor> {
    const STATUS: &str = "tdx.tcb_status";
    const ADVISORIES: &str = "tdx.advisories";
    const NUMBER: &str = "tdx.tcb_evaluation_number";
    let Some(tcb) = &who.tcb else {
        let unknown = |name, want: String| match who.without_tcb {
            Status::Unchecked => Factor::unchecked(name, "unknown", "TCB info or QE identity was not given"),
            Status::Pass | Status::Fail => {
                Factor::fail(name, "unknown", want, "see tdx.endorsements: without them nobody knows the TCB")
            }
        };
        return vec![
            unknown(STATUS, policy.tcb_status.wanted()),
            unknown(ADVISORIES, "none but those listed".to_owned()),
            unknown(NUMBER, policy.tcb_evaluation_number.wanted()),
        ];
    };
    let status = policy.tcb_status.factor(STATUS, &tcb.status, status_help(tcb.status));
    let listed = |id: &String| policy.advisories.contains(id);
    let open: Vec<&str> = tcb.advisory_ids.iter().filter(|id| !listed(id)).map(String::as_str).collect();
    let got = if tcb.advisory_ids.is_empty() { "none".to_owned() } else { tcb.advisory_ids.join(", ") };
    // A platform that is up to date has done what its advisories ask for.
    let ok = open.is_empty() || tcb.status == TcbStatus::UpToDate;
    let advisories = match status.status {
        Status::Unchecked => Factor::unchecked(ADVISORIES, got, "the policy does not look at the TCB status"),
        Status::Pass | Status::Fail => {
            let want = format!("none but those that the policy lists; {} is not", open.join(", "));
            Factor::of(ADVISORIES, ok, got, want, "the policy accepts this status for other reasons only")
        }
    };
    let help = "the host staples endorsements that do not know of the latest TCB recovery";
    vec![status, advisories, policy.tcb_evaluation_number.factor(NUMBER, &tcb.evaluation_number, help)]
}

fn status_help(status: TcbStatus) -> &'static str {
    match status {
        TcbStatus::NoLevel => {
            "Intel does not say how good firmware as old as this is: its owner must update it"
        }
        TcbStatus::TdRelaunchAdvised | TcbStatus::TdRelaunchAdvisedConfigurationNeeded => {
            "the TDX module was updated since the TD was launched: restart it"
        }
        TcbStatus::UpToDate
        | TcbStatus::SwHardeningNeeded
        | TcbStatus::ConfigurationNeeded
        | TcbStatus::ConfigurationAndSwHardeningNeeded
        | TcbStatus::OutOfDate
        | TcbStatus::OutOfDateConfigurationNeeded
        | TcbStatus::Revoked => {
            "the platform's owner must update its firmware or configuration: see the advisories"
        }
    }
}

/// The TDX module: Intel's production module. Its security version counts in the TCB status.
fn module(body: &TdReport, who: &Authenticity, policy: &TdxPolicy) -> Vec<Factor> {
    let help = "the TDX module is not one of Intel's production modules";
    let zero = |name, bytes: &[u8]| {
        let ok = bytes.iter().all(|byte| *byte == 0);
        Factor::of(name, ok, if ok { "zero".to_owned() } else { crate::types::to_hex(bytes) }, "zero", help)
    };
    let mut out = vec![
        policy.mr_seam.factor("tdx.mr_seam", &body.mr_seam, "another TDX module than the policy accepts"),
        zero("tdx.mr_signer_seam", &body.mr_signer_seam.0),
        zero("tdx.seam_attributes", &body.seam_attributes),
    ];
    out.push(match &who.tcb {
        Some(tcb) => {
            let ok = tcb.module_faults.is_empty();
            let got = if ok { "known".to_owned() } else { tcb.module_faults.join("; ") };
            Factor::of("tdx.module", ok, got, "as the TCB info says", help)
        }
        None if who.without_tcb == Status::Unchecked => {
            Factor::unchecked("tdx.module", "unknown", "TCB info or QE identity was not given")
        }
        None => Factor::fail("tdx.module", "unknown", "as the TCB info says", "see tdx.endorsements"),
    });
    out
}

fn attributes(body: &TdReport, policy: &TdxPolicy) -> Vec<Factor> {
    let rows = &policy.attributes;
    let bit = |mask| Flag(u64::from(body.td_attributes & mask != 0));
    let feature = "the TD was launched with other features than the policy accepts";
    let mut out = vec![
        rows.debug.factor(
            "tdx.attributes.debug",
            &bit(DEBUG),
            "the host can read the memory of this enclave",
        ),
        rows.migratable.factor(
            "tdx.attributes.migratable",
            &bit(MIGRATABLE),
            "a migration TD can take the enclave to another machine",
        ),
        rows.sept_ve_disable.factor(
            "tdx.attributes.sept_ve_disable",
            &bit(SEPT_VE_DISABLE),
            "the host can take pages from the enclave unnoticed: launch it with SEPT_VE_DISABLE",
        ),
        rows.pks.factor("tdx.attributes.pks", &bit(PKS), feature),
        rows.key_locker.factor("tdx.attributes.key_locker", &bit(KEY_LOCKER), feature),
        rows.perfmon.factor("tdx.attributes.perfmon", &bit(PERFMON), feature),
        rows.lass.factor("tdx.attributes.lass", &bit(LASS), feature),
    ];
    let reserved = body.td_attributes & !KNOWN_ATTRIBUTES;
    let (got, help) = (format!("{reserved:#x}"), "a bit that this version does not know may mean anything");
    out.push(Factor::of("tdx.attributes.reserved", reserved == 0, got, "0x0", help));
    out
}

fn xfam(body: &TdReport, policy: &TdxPolicy) -> Vec<Factor> {
    let ok = body.xfam & XFAM_FIXED_1 == XFAM_FIXED_1 && body.xfam & !XFAM_ALLOWED == 0;
    let want = format!("bits {XFAM_FIXED_1:#x} set, none but {XFAM_ALLOWED:#x}");
    let help = "no TDX module that this version knows makes such a TD";
    let xfam = crate::policy::Xfam(body.xfam.to_le_bytes());
    vec![
        Factor::of("tdx.xfam.fixed", ok, format!("{:#x}", body.xfam), want, help),
        policy.xfam.factor(
            "tdx.xfam",
            &xfam,
            "the TD was launched with other processor state than the release says",
        ),
    ]
}

fn measurements(body: &TdReport, policy: &TdxPolicy, release: Option<&ReleaseManifest>) -> Vec<Factor> {
    let software =
        "other software runs there than the policy accepts; `docs/factors.md` says how to find out why";
    let other = "the launch was configured in another way than the release says";
    let [rtmr0, rtmr1, rtmr2, rtmr3] = &body.rtmr;
    let mut fitting = Fitting::of(release);
    let fits_td = fitting.narrow(&policy.mr_td, |reference| reference.mr_td == body.mr_td);
    let of_shape = |reference: &TdxReference| reference.shapes.iter().any(|shape| shape.rtmr0 == *rtmr0);
    let fits_0 = fitting.narrow(&policy.rtmr0, of_shape);
    let fits_1 = fitting.narrow(&policy.rtmr1, |reference| reference.rtmr1 == *rtmr1);
    let fits_2 = fitting.narrow(&policy.rtmr2, |reference| reference.rtmr2 == *rtmr2);
    let mut out = vec![
        policy.mr_td.factor("tdx.mr_td", &body.mr_td, fits_td, software),
        policy.rtmr0.factor("tdx.rtmr0", rtmr0, fits_0, software),
        policy.rtmr1.factor("tdx.rtmr1", rtmr1, fits_1, software),
        policy.rtmr2.factor("tdx.rtmr2", rtmr2, fits_2, software),
        policy.rtmr3.factor(
            "tdx.rtmr3",
            rtmr3,
            "another configuration or other models than the policy accepts",
        ),
        policy.mr_config_id.factor("tdx.mr_config_id", &body.mr_config_id, other),
        policy.mr_owner.factor("tdx.mr_owner", &body.mr_owner, other),
        policy.mr_owner_config.factor("tdx.mr_owner_config", &body.mr_owner_config, other),
    ];
    out.push(service_td(body, policy));
    out
}

/// A TD report 1.0 does not say which TD serves this one. The service TDs that exist migrate: a TD that is not migratable has none.
fn service_td(body: &TdReport, policy: &TdxPolicy) -> Factor {
    const NAME: &str = "tdx.mr_service_td";
    let (rows, help) = (&policy.mr_service_td, "another TD serves this one, and could act for it");
    match (&body.td_15, rows) {
        (Some(td), _) => rows.factor(NAME, &td.mr_service_td, help),
        (None, Check::Unchecked { why }) => Factor::unchecked(NAME, "absent", why),
        (None, _) if rows.accepts(&crate::Measurement([0; 48])) && body.td_attributes & MIGRATABLE == 0 => {
            Factor::unchecked(
                NAME,
                "absent",
                "a TD report 1.0 has no such field, and the TD is not migratable",
            )
        }
        (None, _) => Factor::fail(NAME, "absent", rows.wanted(), "a TD report 1.0 has no such field"),
    }
}

/// How Intel says in the PCK certificate that the platform is set up.
fn platform(quote: &Quote, policy: &TdxPolicy) -> Vec<Factor> {
    let (configuration, rows) = (quote.pck.configuration, &policy.platform);
    let help = "the platform was registered with another setup than the policy accepts";
    let flag = |name, check: &Check<Flag>, value: Option<bool>| match (value, check) {
        (Some(value), _) => check.factor(name, &Flag(value.into()), help),
        (None, Check::Unchecked { why }) => Factor::unchecked(name, "not stated", why),
        (None, _) => Factor::fail(name, "not stated", check.wanted(), help),
    };
    vec![
        flag("tdx.platform.dynamic", &rows.dynamic, configuration.and_then(|c| c.dynamic_platform)),
        flag("tdx.platform.cached_keys", &rows.cached_keys, configuration.and_then(|c| c.cached_keys)),
        flag("tdx.platform.smt", &rows.smt, configuration.and_then(|c| c.smt_enabled)),
    ]
}

impl Criterion for TcbStatus {
    const ORDERED: bool = false;
}
