//! Who signed a report, and what NVIDIA says about it.

use super::chain::{Anchors, Arch, DeviceChain};
use super::endorsements::Endorsements;
use super::evidence::GpuEvidence;
use super::reference::{References, Revocation};
use crate::result::{Factor, none_failed};
use crate::{Context, Missing};

/// A report with what was found out about who signed it.
#[derive(Clone, Debug)]
pub struct Authenticity {
    /// Signature and chain. The factors that depend on the policy come from [`super::appraise`].
    pub factors: Vec<Factor>,
    /// Name of the chip by its certificates, such as `GH100`; empty without one.
    pub chip: String,
    /// Generation, for chips that this version knows. An NVSwitch has none.
    pub arch: Option<Arch>,
    /// Names the device for good: serial number of the certificate of its boot ROM, lower-case hex.
    pub ueid: String,
    /// Names the attestation key, which changes with the firmware: its certificate's serial number, lower-case hex.
    pub key_serial: String,
    /// Digest of the firmware by the certificate.
    pub fwid: Option<Vec<u8>>,
    /// What is known besides signature and chain, as it is if the policy wants it.
    pub(super) found: Found,
}

/// Factors that a policy may want or not.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) fwid: Factor,
    /// Whether the report says another FWID than the certificate. Saying none is a failure, but no sign of a forgery.
    fwid_differs: bool,
    pub(super) rim: Factor,
    pub(super) measurements: Factor,
    pub(super) ocsp: Factor,
    /// Whether a response says something bad, or is bad, in contrast to not being there.
    pub(super) ocsp_faults: bool,
    device_revoked: bool,
    /// Whether the firmware can be debugged or is not secured, where the certificate says it.
    pub(super) insecure: Option<bool>,
}

impl Authenticity {
    /// Whether the report is genuine: its signature and its chain hold at that time, no OCSP response that was given says otherwise,
    /// and it does not contradict its certificate about the firmware. Manifests do not matter for that.
    #[must_use]
    pub fn is_authentic(&self) -> bool {
        none_failed(&self.factors) && !self.found.fwid_differs && !self.found.device_revoked
    }
}

/// Verifies who signed the report of `gpu`, and looks for what `given` say about it.
#[must_use]
pub fn authenticate(
    gpu: &GpuEvidence,
    given: &Endorsements,
    anchors: &Anchors,
    ctx: Context<'_>,
) -> Authenticity {
    let chain = DeviceChain::new(&gpu.chain, &anchors.device);
    let (chip, dice) = (chain.chip(), chain.dice());
    // The first certificate is made by the device itself: no responder knows it.
    let device = Revocation::of(&chain.path(), 1, given, ctx);
    let device_revoked = !device.faults.is_empty();
    let references = References::find(&gpu.report, &chip, given, &anchors.rim, ctx);
    let (said, certified) = (gpu.report.opaque.fwid(), dice.map(|dice| dice.fwid));
    let (ocsp, ocsp_faults) = ocsp(device, &references, given, ctx);
    Authenticity {
        factors: vec![chain_factor(&chain, &chip, ctx), signature(gpu, &chain)],
        arch: Arch::of_chip(&chip),
        ueid: chain.ueid(),
        key_serial: chain.key_serial(),
        fwid: certified.map(<[u8]>::to_vec),
        found: Found {
            fwid: fwid(said, certified),
            fwid_differs: said.is_some() && said != certified,
            rim: rim(&references, ctx),
            measurements: measurements(&references, ctx),
            ocsp,
            ocsp_faults,
            device_revoked,
            insecure: dice.and_then(|dice| dice.insecure),
        },
        chip,
    }
}

fn chain_factor(chain: &DeviceChain<'_>, chip: &str, ctx: Context<'_>) -> Factor {
    let faults = chain.faults(ctx);
    let got = if faults.is_empty() { chip.to_owned() } else { faults.join("; ") };
    let help = "not a genuine device of NVIDIA's, or the wrong certificates came with the report";
    Factor::of("nvidia.chain", faults.is_empty(), got, "a chain to the pinned root, valid at this time", help)
}

fn signature(gpu: &GpuEvidence, chain: &DeviceChain<'_>) -> Factor {
    let signed = chain.key().is_some_and(|key| gpu.report.is_signed_by(key));
    let (got, want) =
        (if signed { "valid" } else { "invalid" }, "valid under the key of the first certificate");
    Factor::of("nvidia.signature", signed, got, want, "the report was altered, or another GPU signed it")
}

fn fwid(said: Option<&[u8]>, certified: Option<&[u8]>) -> Factor {
    let shown = |fwid: Option<&[u8]>| fwid.map_or_else(|| "none".to_owned(), hex::encode);
    let same = said.is_some() && said == certified;
    let help = match said {
        None => "the driver is too old to say which firmware holds the attestation key: update it",
        Some(_) => "the report was not made by the firmware that the attestation key was certified for",
    };
    Factor::of("nvidia.fwid", same, shown(said), shown(certified), help)
}

fn rim(references: &References<'_>, ctx: Context<'_>) -> Factor {
    const NAME: &str = "nvidia.rim";
    if !references.faults.is_empty() {
        let want = "RIMs for this report, signed under the pinned root and valid at this time";
        let help = "the wrong or old RIMs were given: `cocoon-host endorsements fetch`";
        return Factor::fail(NAME, references.faults.join("; "), want, help);
    }
    match references.missing() {
        Some(what) if ctx.missing == Missing::Fails || references.best().next().is_none() => {
            ctx.missing.factor(NAME, what)
        }
        _ => Factor::pass(
            NAME,
            references.best().map(|c| c.rim.version.as_str()).collect::<Vec<_>>().join(", "),
        ),
    }
}

/// One manifest alone proves nothing: what it does not cover would count as compared. So a missing one of two is a failure,
/// while without any nothing was asked for.
fn measurements(references: &References<'_>, ctx: Context<'_>) -> Factor {
    const NAME: &str = "nvidia.measurements";
    let missing = references.missing();
    if let (Some(what), None) = (missing, references.best().next()) {
        return ctx.missing.factor(NAME, what);
    }
    let list = |indices: &[u8]| indices.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let mut faults: Vec<String> = missing.into_iter().map(|what| format!("{what} was not given")).collect();
    for (role, candidate) in [("driver", &references.driver), ("VBIOS", &references.vbios)] {
        let Some(candidate) = candidate else { continue };
        if !candidate.mismatches.is_empty() {
            faults.push(format!("differ at {} ({role})", list(&candidate.mismatches)));
        }
        if !candidate.faults.is_empty() {
            faults.push(format!("the {role}'s RIM is not good"));
        }
    }
    let conflicts = references.conflicts();
    if !conflicts.is_empty() {
        faults.push(format!("both RIMs have a value at {}", list(&conflicts)));
    }
    let compared = references.best().fold(0, |sum: usize, c| sum.saturating_add(c.compared));
    let got = if faults.is_empty() { format!("{compared} compared") } else { faults.join("; ") };
    let want = "every active measurement of both RIMs";
    let help = "other firmware or another configuration runs on the GPU than NVIDIA released (measurements by index, from 0)";
    Factor::of(NAME, faults.is_empty(), got, want, help)
}

/// Of the device and of those who signed the manifests that count.
fn ocsp(
    device: Revocation,
    references: &References<'_>,
    given: &Endorsements,
    ctx: Context<'_>,
) -> (Factor, bool) {
    const NAME: &str = "nvidia.ocsp";
    let mut all = device;
    references.best().for_each(|candidate| all.extend(candidate.revocation.clone()));
    all.faults.extend(given.responses.iter().filter_map(|r| r.as_ref().err()).map(ToString::to_string));
    if !all.faults.is_empty() {
        let help = "NVIDIA does not vouch for a certificate any more, or the host staples old responses";
        return (Factor::fail(NAME, all.faults.join("; "), "current responses that say good", help), true);
    }
    if !all.missing.is_empty() {
        return (
            ctx.missing.factor(NAME, &format!("an OCSP response about {}", all.missing.join(", "))),
            false,
        );
    }
    // A chain of one certificate has nothing to ask about; it is broken, which the chain's factor says.
    let asked = !all.good.is_empty();
    (
        Factor::of(NAME, asked, format!("{} good", all.good.len()), "responses", "the chain is too short"),
        false,
    )
}
