//! Factors of authenticity: who signed the quote, up to Intel's root, and what Intel has said since (Intel TDX DCAP, quote verification).

use super::endorsements::{Endorsed, Endorsements, Fit, Search};
use super::quote::Quote;
use super::tcb::{self, Tcb};
use super::tcb_info::{QeIdentity, TcbInfo};
use crate::crypto::{self, SignatureScheme};
use crate::result::{Factor, Status};
use crate::x509::{Certificate, CertificatePath, RevocationList};
use crate::{Context, Missing};

/// The subjects that Intel gives to PCK certificates and their two issuers.
const PCK: &str = "Intel SGX PCK Certificate";
const PCK_ISSUERS: [&str; 2] = ["Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA"];

/// What was found out about who signed a quote.
#[derive(Clone, Debug)]
pub struct Authenticity {
    /// In the order in which they were appraised.
    pub factors: Vec<Factor>,
    /// What Intel says about the TCB, in documents whose signatures hold. `None` without such documents.
    pub tcb: Option<Tcb>,
    /// What it means that `tcb` is `None`.
    pub(super) without_tcb: Status,
}

impl Authenticity {
    /// Whether every signature and chain holds, as far as endorsements were given.
    #[must_use]
    pub fn is_authentic(&self) -> bool {
        self.factors.iter().all(|factor| factor.status != Status::Fail)
    }
}

/// Verifies who signed `quote`, up to `anchor` (Intel's, see [`super::intel_root`], or that of a test).
#[must_use]
pub fn authenticate(
    quote: &Quote,
    given: &Endorsements,
    anchor: &Certificate,
    ctx: Context<'_>,
) -> Authenticity {
    let search = Search { given, anchor, ctx };
    let info = search.tcb_info(&quote.pck);
    let identity = search.qe_identity();
    let factors = vec![
        signature(quote),
        qe_report(quote),
        chain(quote, anchor, ctx),
        revocation(quote, &search, &info, &identity),
        endorsements(&search, &info, &identity),
        qe_identity(quote, &identity, &search),
    ];
    // Documents that nobody is known to have signed say nothing; those that expired still inform.
    let tcb = match (info.best(), identity.best()) {
        (Some(info), Some(identity)) if info.signer.is_some() && identity.signer.is_some() => {
            Some(tcb::appraise(quote, info.body, identity.body))
        }
        _ => None,
    };
    let not_given = info.is_missing() || identity.is_missing() || !search.has_signer();
    let without_tcb =
        if not_given && ctx.missing == Missing::Unchecked { Status::Unchecked } else { Status::Fail };
    Authenticity { factors, tcb, without_tcb }
}

/// The factor for `faults`, or for what is missing, or that everything is as it must be.
fn factor(
    name: &'static str,
    faults: &[String],
    missing: &[&str],
    ctx: Context<'_>,
    [good, want, help]: [&str; 3],
) -> Factor {
    if !faults.is_empty() {
        return Factor::fail(name, faults.join("; "), want, help);
    }
    if !missing.is_empty() {
        return ctx.missing.factor(name, &missing.join(" and "));
    }
    Factor::pass(name, good)
}

/// The attestation key signed header and body, and the quoting enclave reported that key.
fn signature(quote: &Quote) -> Factor {
    let seal = &quote.seal;
    let point = [&[4][..], &seal.attestation_key].concat();
    let signed = SignatureScheme::EcdsaP256Sha256Fixed.verify(&point, &seal.signed, &seal.signature);
    let hash = crypto::sha256(&[&seal.attestation_key, &seal.qe_auth_data]);
    let bound = quote.qe_report.report_data == *[hash, [0; 32]].as_flattened();
    let got = match (signed, bound) {
        (true, true) => "valid",
        (false, true) => "invalid",
        (true, false) => "by a key that the quoting enclave did not report",
        (false, false) => "invalid, and the key is not the one that the quoting enclave reported",
    };
    let want = "valid under the attestation key that the quoting enclave reported";
    Factor::of(
        "tdx.signature",
        signed && bound,
        got,
        want,
        "the quote was altered, or put together from others",
    )
}

/// The platform's key signed the report of the quoting enclave.
fn qe_report(quote: &Quote) -> Factor {
    let scheme = SignatureScheme::EcdsaP256Sha256Fixed;
    let key = quote.pck.certificate.key_for(scheme);
    let ok = key.is_some_and(|key| scheme.verify(key, &quote.seal.qe_report, &quote.seal.qe_signature));
    let (got, want) = (if ok { "valid" } else { "invalid" }, "signed by the key of the PCK certificate");
    Factor::of(
        "tdx.qe_report",
        ok,
        got,
        want,
        "the quote was made on another platform than its certificates are of",
    )
}

/// PCK, its issuer, the pinned root: nothing more and nothing less.
fn chain(quote: &Quote, anchor: &Certificate, ctx: Context<'_>) -> Factor {
    let (pck, issuer) = (&quote.pck.certificate, &quote.seal.pck_issuer);
    let path = CertificatePath { certificates: vec![pck, issuer], anchor };
    let mut faults = path.faults(ctx.now, ctx.signatures);
    if pck.subject_cn() != PCK {
        faults.push(format!("{} is not {PCK}", pck.subject_cn()));
    }
    if !PCK_ISSUERS.contains(&issuer.subject_cn().as_str()) {
        faults.push(format!("{} is not a CA of PCK certificates", issuer.subject_cn()));
    }
    if quote.seal.named_root != anchor.der() {
        faults.push("the quote names another root than the pinned one".to_owned());
    }
    let help =
        "not a genuine Intel platform, or its certificates are too old: the host must fetch them again";
    let words = [&issuer.subject_cn(), "PCK, its issuer and the pinned root, valid at this time", help];
    factor("tdx.chain", &faults, &[], ctx, words)
}

/// Current lists of root and PCK issuer, and none of the keys on them.
fn revocation(
    quote: &Quote,
    search: &Search<'_>,
    info: &Fit<Endorsed<'_, TcbInfo>>,
    identity: &Fit<Endorsed<'_, QeIdentity>>,
) -> Factor {
    let issuer = &quote.seal.pck_issuer;
    let (pck_crl, root_crl) = (search.pck_crl(issuer), search.root_crl());
    let mut faults = [pck_crl.faults(), root_crl.faults()].concat();
    faults.extend(revoked(&pck_crl, &quote.pck.certificate));
    faults.extend(revoked(&root_crl, issuer));
    let signers = [info.best().and_then(|d| d.signer), identity.best().and_then(|d| d.signer)];
    let mut signers: Vec<&Certificate> = signers.into_iter().flatten().collect();
    signers.dedup();
    faults.extend(signers.into_iter().filter_map(|signer| revoked(&root_crl, signer)));
    let missing = [
        (pck_crl.is_missing(), "the revocation list of PCK certificates"),
        (root_crl.is_missing(), "the revocation list of the root"),
    ];
    let missing: Vec<&str> =
        missing.into_iter().filter(|(missing, _)| *missing).map(|(_, what)| what).collect();
    let help = "Intel does not vouch for this platform any more, or the host staples an old list";
    let words = ["not revoked", "current lists that name none of the keys", help];
    factor("tdx.crl", &faults, &missing, search.ctx, words)
}

fn revoked(list: &Fit<&RevocationList>, certificate: &Certificate) -> Option<String> {
    let since = list.best()?.revoked_since(certificate)?;
    Some(format!("{} was revoked at {since}", certificate.subject_cn()))
}

/// TCB info and QE identity: for this platform, signed by Intel's key, current.
fn endorsements(
    search: &Search<'_>,
    info: &Fit<Endorsed<'_, TcbInfo>>,
    identity: &Fit<Endorsed<'_, QeIdentity>>,
) -> Factor {
    let missing = [
        (info.is_missing(), "the TCB info"),
        (identity.is_missing(), "the QE identity"),
        (!search.has_signer(), "the chain of the TCB signing key"),
    ];
    let missing: Vec<&str> =
        missing.into_iter().filter(|(missing, _)| *missing).map(|(_, what)| what).collect();
    let mut faults = info.faults();
    // One signer's faults are told once.
    faults.extend(identity.faults().into_iter().filter(|fault| !info.faults().contains(fault)));
    let help = "the host staples what is old, or for another platform: `cocoon-host endorsements fetch`";
    let words =
        ["current, for this platform", "TCB info and QE identity by Intel, current, for this platform", help];
    factor("tdx.endorsements", &faults, &missing, search.ctx, words)
}

/// The quoting enclave is Intel's. Its TCB level counts in [`Tcb::status`].
fn qe_identity(quote: &Quote, identity: &Fit<Endorsed<'_, QeIdentity>>, search: &Search<'_>) -> Factor {
    let (want, help) = ("Intel's TD quoting enclave", "another enclave than Intel's made the quote");
    let name = "tdx.qe_identity";
    let known = match identity {
        Fit::Missing => return search.ctx.missing.factor(name, "the QE identity"),
        Fit::None(why) => return Factor::fail(name, why, want, "the host must staple the right one"),
        Fit::Best(_, _) if !search.has_signer() => {
            return search.ctx.missing.factor(name, "the chain of the TCB signing key");
        }
        Fit::Best(known, _) => known.body,
    };
    let report = &quote.qe_report;
    let checks = [
        (known.mrsigner.0 == report.mr_signer, "MRSIGNER"),
        (known.isvprodid == report.isv_prod_id, "ISVPRODID"),
        (known.miscselect.is_under(&known.miscselect_mask, &report.misc_select), "MISCSELECT"),
        (known.attributes.is_under(&known.attributes_mask, &report.attributes), "ATTRIBUTES"),
    ];
    let other: Vec<&str> = checks.into_iter().filter(|(ok, _)| !ok).map(|(_, field)| field).collect();
    let got = if other.is_empty() { want.to_owned() } else { format!("another {}", other.join(" and ")) };
    Factor::of(name, other.is_empty(), got, want, help)
}
