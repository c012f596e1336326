//! Which manifests a report is compared with, and the comparison.

use super::endorsements::Endorsements;
use super::ocsp;
use super::rim::Rim;
use super::spdm::Report;
use crate::Context;
use crate::x509::{Certificate, CertificatePath};

/// While NVDEC0 is off, this measurement means nothing (NVIDIA/nvtrust, `verifier/rim`; index as manifests count).
const NVDEC0_INDEX: u8 = 35;

/// What a manifest is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Driver,
    Vbios,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Vbios => "VBIOS",
        }
    }

    /// What `rim` is for `report` of a `chip`: its signed content says it, not its place or file name.
    fn of(rim: &Rim, report: &Report, chip: &str) -> Option<Self> {
        if rim.product != chip || rim.edition != "GPU" {
            return None;
        }
        if report.opaque.driver_version() == Some(&rim.version) {
            return Some(Self::Driver);
        }
        let vbios = report.opaque.vbios_version();
        vbios.is_some_and(|version| version.eq_ignore_ascii_case(&rim.version)).then_some(Self::Vbios)
    }
}

/// What OCSP responses say about certificates of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Revocation {
    pub(super) faults: Vec<String>,
    /// Certificates that no response is about.
    pub(super) missing: Vec<String>,
    pub(super) good: Vec<String>,
}

impl Revocation {
    /// Of every certificate of `path` from number `first` on.
    pub(super) fn of(
        path: &CertificatePath<'_>,
        first: usize,
        given: &Endorsements,
        ctx: Context<'_>,
    ) -> Self {
        let mut out = Self::default();
        let issuers = path.certificates.iter().skip(1).copied().chain([path.anchor]);
        for (certificate, issuer) in path.certificates.iter().zip(issuers).skip(first) {
            let name = certificate.subject_cn();
            match ocsp::status(given.responses.iter().flatten(), certificate, issuer, ctx) {
                None => out.missing.push(name),
                Some(faults) if faults.is_empty() => out.good.push(name),
                Some(faults) => out.faults.extend(faults),
            }
        }
        out
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.faults.extend(other.faults);
        self.missing.extend(other.missing);
        self.good.extend(other.good);
    }
}

/// A manifest that is for the report.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) rim: &'a Rim,
    role: Role,
    /// Of signature and chain.
    pub(super) faults: Vec<String>,
    pub(super) revocation: Revocation,
    /// Indices at which the report differs.
    pub(super) mismatches: Vec<u8>,
    pub(super) compared: usize,
}

impl<'a> Candidate<'a> {
    fn new(
        rim: &'a Rim,
        role: Role,
        report: &Report,
        given: &Endorsements,
        anchor: &Certificate,
        ctx: Context<'_>,
    ) -> Self {
        let faults = rim.signature.faults(anchor, ctx);
        let path = rim.signature.path(anchor, ctx);
        let revocation = path.map(|path| Revocation::of(&path, 0, given, ctx)).unwrap_or_default();
        let exempt = |index| index == NVDEC0_INDEX && report.opaque.is_nvdec0_off();
        let compared: Vec<_> = rim.active.iter().filter(|value| !exempt(value.index)).collect();
        let differs = |got: Option<&[u8; 48]>, alternatives: &[[u8; 48]]| {
            !got.is_some_and(|got| alternatives.contains(got))
        };
        let mismatches = compared
            .iter()
            .filter(|value| differs(report.measurement(value.index), &value.alternatives))
            .map(|value| value.index)
            .collect();
        Self { rim, role, faults, revocation, mismatches, compared: compared.len() }
    }

    /// Of several editions of one manifest, the best: whoever staples them chooses anyway.
    fn rank(&self) -> (usize, usize, usize) {
        let faults = self.faults.len().saturating_add(self.revocation.faults.len());
        (faults, self.mismatches.len(), self.revocation.missing.len())
    }
}

/// All manifests as far as they concern one report.
#[derive(Clone, Debug, Default)]
pub(super) struct References<'a> {
    pub(super) driver: Option<Candidate<'a>>,
    pub(super) vbios: Option<Candidate<'a>>,
    /// What is wrong with manifests.
    pub(super) faults: Vec<String>,
}

impl<'a> References<'a> {
    pub(super) fn find(
        report: &Report,
        chip: &str,
        given: &'a Endorsements,
        anchor: &Certificate,
        ctx: Context<'_>,
    ) -> Self {
        let (mut out, mut candidates) = (Self::default(), Vec::<Candidate<'a>>::new());
        for item in &given.rims {
            let rim = match item {
                Ok(rim) => rim,
                Err(error) => {
                    out.faults.push(error.to_string());
                    continue;
                }
            };
            let Some(role) = Role::of(rim, report, chip) else {
                if given.exclusive {
                    out.faults
                        .push(format!("the RIM of {} {} is not for this report", rim.product, rim.version));
                }
                continue;
            };
            if given.exclusive && candidates.iter().any(|other| other.rim == rim) {
                out.faults.push(format!("the {} RIM is given twice", role.name()));
                continue;
            }
            candidates.push(Candidate::new(rim, role, report, given, anchor, ctx));
        }
        let best = |role| candidates.iter().filter(|c| c.role == role).min_by_key(|c| c.rank()).cloned();
        (out.driver, out.vbios) = (best(Role::Driver), best(Role::Vbios));
        // Where all were given for this report, all must be good; else those that count.
        let counted: Vec<_> = match given.exclusive {
            true => candidates.iter().collect(),
            false => out.best().collect(),
        };
        let faults: Vec<_> = counted
            .iter()
            .flat_map(|c| c.faults.iter().map(|fault| format!("{} RIM: {fault}", c.role.name())))
            .collect();
        out.faults.extend(faults);
        out
    }

    /// The driver's and the VBIOS's, as far as they are there.
    pub(super) fn best(&self) -> impl Iterator<Item = &Candidate<'a>> {
        self.driver.iter().chain(&self.vbios)
    }

    /// What is not there.
    pub(super) fn missing(&self) -> Option<&'static str> {
        match (&self.driver, &self.vbios) {
            (None, None) => Some("a RIM of driver and VBIOS"),
            (None, Some(_)) => Some("the driver's RIM"),
            (Some(_), None) => Some("the VBIOS's RIM"),
            (Some(_), Some(_)) => None,
        }
    }

    /// Indices at which both manifests have a value, so that one of them is not what it seems.
    pub(super) fn conflicts(&self) -> Vec<u8> {
        let indices = |c: &Option<Candidate<'_>>| -> Vec<u8> {
            c.iter().flat_map(|c| c.rim.active.iter().map(|value| value.index)).collect()
        };
        let vbios = indices(&self.vbios);
        indices(&self.driver).into_iter().filter(|index| vbios.contains(index)).collect()
    }
}
