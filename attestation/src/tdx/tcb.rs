//! TCB status: what Intel says about the security versions of a platform, its TDX module and its quoting enclave.
//!
//! Sources: PCS API v4, "Get TDX TCB Info" (how a level is found), and how Intel's quote verification library brings the statuses
//! of the three parts together.

use serde::{Deserialize, Deserializer};

use super::pck::Pck;
use super::quote::{Quote, TdReport};
use super::tcb_info::{QeIdentity, SvnLevel, TcbInfo, TdxModule};

/// A TCB status, as Intel names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TcbStatus {
    /// Nothing is known against this TCB.
    UpToDate,
    /// Software must mitigate something.
    SwHardeningNeeded,
    /// The platform's owner may have to configure something, for example the BIOS.
    ConfigurationNeeded,
    /// Both.
    ConfigurationAndSwHardeningNeeded,
    /// The TDX module was updated under the running TD: it was launched by an old one, but runs on a current one.
    TdRelaunchAdvised,
    /// The same, and `ConfigurationNeeded`.
    TdRelaunchAdvisedConfigurationNeeded,
    /// Security updates are missing.
    OutOfDate,
    /// The same, and `ConfigurationNeeded`.
    OutOfDateConfigurationNeeded,
    /// Not to be trusted.
    Revoked,
    /// No TCB level of the endorsements is as low as this platform.
    NoLevel,
}

const NAMES: [(TcbStatus, &str); 10] = [
    (TcbStatus::UpToDate, "UpToDate"),
    (TcbStatus::SwHardeningNeeded, "SWHardeningNeeded"),
    (TcbStatus::ConfigurationNeeded, "ConfigurationNeeded"),
    (TcbStatus::ConfigurationAndSwHardeningNeeded, "ConfigurationAndSWHardeningNeeded"),
    (TcbStatus::TdRelaunchAdvised, "TDRelaunchAdvised"),
    (TcbStatus::TdRelaunchAdvisedConfigurationNeeded, "TDRelaunchAdvisedConfigurationNeeded"),
    (TcbStatus::OutOfDate, "OutOfDate"),
    (TcbStatus::OutOfDateConfigurationNeeded, "OutOfDateConfigurationNeeded"),
    (TcbStatus::Revoked, "Revoked"),
    (TcbStatus::NoLevel, "none: no TCB level matches"),
];

impl std::fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = NAMES.iter().find(|(status, _)| status == self).map_or("unknown", |(_, name)| name);
        f.write_str(name)
    }
}

impl<'de> Deserialize<'de> for TcbStatus {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let found = NAMES.iter().find(|(status, name)| *name == text && *status != Self::NoLevel);
        found.map(|(status, _)| *status).ok_or_else(|| serde::de::Error::custom("unknown TCB status"))
    }
}

impl TcbStatus {
    fn out_of_date(self) -> bool {
        matches!(self, Self::OutOfDate | Self::OutOfDateConfigurationNeeded)
    }

    fn configuration_needed(self) -> bool {
        matches!(
            self,
            Self::ConfigurationNeeded
                | Self::ConfigurationAndSwHardeningNeeded
                | Self::TdRelaunchAdvisedConfigurationNeeded
                | Self::OutOfDateConfigurationNeeded
        )
    }

    fn hardening_needed(self) -> bool {
        matches!(self, Self::SwHardeningNeeded | Self::ConfigurationAndSwHardeningNeeded)
    }

    fn relaunch_advised(self) -> bool {
        matches!(self, Self::TdRelaunchAdvised | Self::TdRelaunchAdvisedConfigurationNeeded)
    }

    /// The status of two parts together: what either needs, all need. What Intel's library does, whose table is the case where
    /// only one part is not up to date or asks for configuration.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let either = |of: fn(Self) -> bool| of(self) || of(other);
        if let Some(fatal) = [Self::NoLevel, Self::Revoked].into_iter().find(|s| [self, other].contains(s)) {
            return fatal;
        }
        let configuration = either(Self::configuration_needed);
        if either(Self::out_of_date) {
            return if configuration { Self::OutOfDateConfigurationNeeded } else { Self::OutOfDate };
        }
        if either(Self::relaunch_advised) {
            return if configuration {
                Self::TdRelaunchAdvisedConfigurationNeeded
            } else {
                Self::TdRelaunchAdvised
            };
        }
        match (configuration, either(Self::hardening_needed)) {
            (false, false) => Self::UpToDate,
            (false, true) => Self::SwHardeningNeeded,
            (true, false) => Self::ConfigurationNeeded,
            (true, true) => Self::ConfigurationAndSwHardeningNeeded,
        }
    }
}

/// What Intel says about the TCB of a quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcb {
    /// Platform, TDX module and quoting enclave together.
    pub status: TcbStatus,
    /// Advisories of all three, sorted.
    pub advisory_ids: Vec<String>,
    /// tcbEvaluationDataNumber: which TCB recovery the statuses know of. The lower one of TCB info and QE identity.
    pub evaluation_number: u64,
    /// What is wrong with the identity of the TDX module; empty if nothing is.
    pub module_faults: Vec<String>,
}

/// One part's status, or all parts' together.
struct Level<'a> {
    status: TcbStatus,
    advisory_ids: Vec<&'a str>,
}

impl<'a> Level<'a> {
    const NONE: Self = Self { status: TcbStatus::NoLevel, advisory_ids: Vec::new() };

    fn of(status: TcbStatus, advisory_ids: &'a [String]) -> Self {
        Self { status, advisory_ids: advisory_ids.iter().map(String::as_str).collect() }
    }

    /// The best level that `svn` reaches.
    fn by_svn(levels: &'a [SvnLevel], svn: u16) -> Self {
        let reached = levels.iter().find(|level| svn >= level.tcb.isvsvn);
        reached.map_or(Self::NONE, |level| Self::of(level.tcb_status, &level.advisory_ids))
    }

    fn and(mut self, other: Self) -> Self {
        self.status = self.status.and(other.status);
        self.advisory_ids.extend(other.advisory_ids);
        self
    }
}

/// The TCB of `quote` by endorsements that fit it.
pub(super) fn appraise(quote: &Quote, info: &TcbInfo, identity: &QeIdentity) -> Tcb {
    let qe = || Level::by_svn(&identity.tcb_levels, quote.qe_report.isv_svn);
    let at = |svn: &[u8; 16]| platform(&quote.pck, svn, info).and(module(svn, info)).and(qe());
    let launch = at(&quote.body.tee_tcb_svn);
    let all = match &quote.body.td_15 {
        Some(td) if td.tee_tcb_svn_2 != quote.body.tee_tcb_svn => {
            let old_module = module(&quote.body.tee_tcb_svn, info).status.out_of_date();
            relaunch(launch, at(&td.tee_tcb_svn_2), old_module)
        }
        Some(_) | None => launch,
    };
    let mut advisory_ids: Vec<String> = all.advisory_ids.into_iter().map(str::to_owned).collect();
    advisory_ids.sort_unstable();
    advisory_ids.dedup();
    Tcb {
        status: all.status,
        advisory_ids,
        evaluation_number: info.tcb_evaluation_data_number.min(identity.tcb_evaluation_data_number),
        module_faults: module_faults(&quote.body, info),
    }
}

/// The TDX module was updated under a running TD (TD-preserving update). If the module at launch is out of date and everything is
/// current with the one that runs now, the TD still was set up by the old one: that is `TDRelaunchAdvised`, never `UpToDate`. In
/// every other case the worse of both counts; in particular, a launch that no level knows stays that. Intel's library looks at
/// fewer components of the module that runs now, so it advises a relaunch in some cases where this says `OutOfDate`.
fn relaunch<'a>(launch: Level<'a>, now: Level<'a>, old_module: bool) -> Level<'a> {
    let recovered = TcbStatus::TdRelaunchAdvised;
    if old_module && launch.status.out_of_date() && !now.status.out_of_date() {
        // Fatal statuses stay what they are, and configuration counts at either time.
        let mut status = recovered.and(now.status);
        if launch.status.configuration_needed() {
            status = status.and(TcbStatus::ConfigurationNeeded);
        }
        return Level { status, ..launch.and(now) };
    }
    launch.and(now)
}

/// The best level that the platform reaches in every component. If TEE_TCB_SVN names a module version (byte 1), bytes 0 and 1 are
/// judged by the module's identity instead.
fn platform<'a>(pck: &Pck, svn: &[u8; 16], info: &'a TcbInfo) -> Level<'a> {
    let [_, version, ..] = *svn;
    let skipped = if version == 0 { 0 } else { 2 };
    let reached = info.tcb_levels.iter().find(|level| {
        let sgx = pck.components.iter().zip(&level.tcb.sgxtcbcomponents);
        let tdx = svn.iter().zip(&level.tcb.tdxtcbcomponents).skip(skipped);
        sgx.chain(tdx).all(|(have, want)| *have >= want.svn) && pck.pce_svn >= level.tcb.pcesvn
    });
    reached.map_or(Level::NONE, |level| Level::of(level.tcb_status, &level.advisory_ids))
}

/// The level of the TDX module by its own SVN (byte 0), where TEE_TCB_SVN names its version (byte 1).
fn module<'a>(svn: &[u8; 16], info: &'a TcbInfo) -> Level<'a> {
    let [isv_svn, version, ..] = *svn;
    if version == 0 {
        return Level::of(TcbStatus::UpToDate, &[]);
    }
    let identity = info.tdx_module_identities.iter().find(|m| m.id.eq_ignore_ascii_case(&module_id(version)));
    identity.map_or(Level::NONE, |identity| Level::by_svn(&identity.tcb_levels, isv_svn.into()))
}

fn module_id(version: u8) -> String {
    format!("TDX_{version:02X}")
}

/// Who signed the module that launched the TD, and its attributes, against what Intel says for its version.
fn module_faults(body: &TdReport, info: &TcbInfo) -> Vec<String> {
    let [_, version, ..] = body.tee_tcb_svn;
    let known: Option<TdxModule> = match version {
        0 => Some(info.tdx_module),
        _ => {
            let id = module_id(version);
            info.tdx_module_identities.iter().find(|m| m.id.eq_ignore_ascii_case(&id)).map(|m| m.module())
        }
    };
    let Some(known) = known else {
        return vec![format!("the TCB info has no module {}", module_id(version))];
    };
    let checks = [
        (known.mrsigner.0 == body.mr_signer_seam.0, "MRSIGNERSEAM is another"),
        (
            known.attributes.is_under(&known.attributes_mask, &body.seam_attributes),
            "SEAMATTRIBUTES are others",
        ),
    ];
    checks.into_iter().filter(|(ok, _)| !ok).map(|(_, fault)| fault.to_owned()).collect()
}
