//! SEV-SNP: the crate `sev`.

use anyhow::Context;
use cocoon_attestation::appraisal::inspect;
use cocoon_attestation::policy::Policy;
use cocoon_attestation::{Context as Verification, Missing, SignatureCache};
use sev::certs::snp::{Certificate, Chain, Verifiable, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;

use crate::evidence::SnpCase;

/// What `sev` does for a report: certificates, their signatures, the report's.
pub fn theirs(case: &SnpCase) -> anyhow::Result<()> {
    let der = |bytes: &[u8]| Certificate::from_der(bytes).context("not a certificate");
    let chain =
        Chain { ca: ca::Chain { ark: der(&case.ark)?, ask: der(&case.issuer)? }, vek: der(&case.key)? };
    chain.verify()?;
    let report = AttestationReport::from_bytes(&case.report)?;
    (&chain, &report).verify()?;
    Ok(())
}

/// Whether we find the evidence authentic; all of the strict policy is applied as well.
pub fn ours(
    case: &SnpCase,
    lists: &[Vec<u8>],
    policy: &Policy,
    known: &SignatureCache,
) -> anyhow::Result<bool> {
    let ctx = Verification { now: case.now, missing: Missing::Unchecked, signatures: known };
    Ok(inspect::snp(&case.report, case.endorsements(lists)?, policy, None, ctx).authentic)
}
