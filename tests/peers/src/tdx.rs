//! TDX: the crate `dcap-qvl`.

use anyhow::Context;
use cocoon_attestation::appraisal::inspect;
use cocoon_attestation::policy::Policy;
use cocoon_attestation::result::Report;
use cocoon_attestation::{Context as Verification, EndorsementKind as Kind, Missing, SignatureCache, tdx};
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{QuoteCollateralV3, QuotePolicy};

use crate::evidence::TdxCase;

/// Intel's documents in the form that `dcap-qvl` takes.
pub fn collateral(case: &TdxCase) -> anyhow::Result<QuoteCollateralV3> {
    let text = |kind| Ok::<_, anyhow::Error>(String::from_utf8(case.document(kind)?.to_vec())?);
    let (tcb_info, tcb_info_signature) = signed(&text(Kind::IntelTcbInfo)?, "tcbInfo")?;
    let (qe_identity, qe_identity_signature) = signed(&text(Kind::IntelQeIdentity)?, "enclaveIdentity")?;
    Ok(QuoteCollateralV3 {
        pck_crl_issuer_chain: text(Kind::IntelPckCrlIssuerChain)?,
        root_ca_crl: case.document(Kind::IntelRootCaCrl)?.to_vec(),
        pck_crl: case.document(Kind::IntelPckCrl)?.to_vec(),
        tcb_info_issuer_chain: text(Kind::IntelTcbSigningChain)?,
        tcb_info,
        tcb_info_signature,
        qe_identity_issuer_chain: text(Kind::IntelTcbSigningChain)?,
        qe_identity,
        qe_identity_signature,
        pck_certificate_chain: None,
    })
}

/// Text and signature of `{"member":..,"signature":".."}`.
fn signed(document: &str, member: &str) -> anyhow::Result<(String, Vec<u8>)> {
    let rest = document.trim().strip_prefix(&format!("{{\"{member}\":")).context("another document")?;
    let (inner, signature) = rest.rsplit_once(",\"signature\":\"").context("not signed")?;
    Ok((inner.to_owned(), hex::decode(signature.trim_end_matches("\"}"))?))
}

/// Whether its strict policy accepts, with what clouds' machines need: dynamic platform, cached keys, SMT.
pub fn theirs_strictly(case: &TdxCase, collateral: &QuoteCollateralV3) -> anyhow::Result<()> {
    let policy =
        QuotePolicy::strict(case.now.0).allow_dynamic_platform(true).allow_cached_keys(true).allow_smt(true);
    QuoteVerifier::new_prod().verify_with_policy(&case.quote, collateral, case.now.0, &policy)?;
    Ok(())
}

/// What `dcap-qvl` says: status and advisories. It refuses debug TDs and some attributes by itself.
pub fn theirs(case: &TdxCase, collateral: &QuoteCollateralV3) -> anyhow::Result<(String, Vec<String>)> {
    let report = QuoteVerifier::new_prod().verify(&case.quote, collateral, case.now.0)?;
    Ok((report.status.to_string(), report.advisory_ids))
}

/// The same from us, with the strict policy.
pub fn ours(case: &TdxCase, policy: &Policy, known: &SignatureCache) -> anyhow::Result<Report> {
    let ctx = Verification { now: case.now, missing: Missing::Fails, signatures: known };
    Ok(inspect::tdx(&case.quote, None, tdx::Endorsements::new(&case.given)?, policy, None, ctx))
}
