//! Factors of authenticity: signature, chain, revocation, and that the key belongs to this chip and firmware.

use super::chain::{Chain, Endorsements, NoChain, Root};
use super::report::{Report, SigningKey};
use crate::Context;

use crate::result::Factor;

/// A report with what was found out about who signed it.
#[derive(Clone, Debug)]
pub struct Authenticity {
    /// All must not have failed, and signature and chain must have passed, for the report to be authentic.
    pub factors: Vec<Factor>,
    /// The product by the chain, or without a chain by the report.
    pub product: Option<super::Product>,
    /// The cloud provider that a VLEK belongs to.
    pub csp_id: Option<String>,
}

/// Verifies who signed `report`.
#[must_use]
pub fn authenticate(report: &Report, given: &Endorsements, root: &Root, ctx: Context<'_>) -> Authenticity {
    let mut factors = vec![root_factor(root)];
    let chain = match Chain::find(report, given, root) {
        Ok(chain) => chain,
        Err(NoChain::NoKey) => {
            let what = "the VCEK or VLEK of the processor";
            factors
                .extend(["snp.chain", "snp.crl", "snp.signature"].map(|name| ctx.missing.factor(name, what)));
            return Authenticity { factors, product: report.product(), csp_id: None };
        }
        Err(NoChain::Broken(why)) => {
            let want = "VCEK or VLEK, its issuer and AMD's root";
            factors.push(Factor::fail("snp.chain", why, want, CHAIN_HELP));
            let unknown = |name, want| Factor::fail(name, "unknown", want, "see snp.chain");
            factors.push(unknown("snp.crl", CRL_WANT));
            factors.push(unknown("snp.signature", SIGNATURE_WANT));
            return Authenticity { factors, product: report.product(), csp_id: None };
        }
    };
    let faults = chain.faults(report, ctx);
    let got = if faults.is_empty() {
        format!("{} {}", chain.product, chain.kind().name())
    } else {
        faults.join("; ")
    };
    factors.push(Factor::of(
        "snp.chain",
        faults.is_empty(),
        got,
        "a chain to the pinned root, valid at this time",
        CHAIN_HELP,
    ));
    factors.push(revocation(&chain, ctx));
    let signed = report.is_signed_by(chain.key);
    let got = if signed { "valid" } else { "invalid" };
    let help = "the report was altered, or another chip signed it";
    factors.push(Factor::of("snp.signature", signed, got, SIGNATURE_WANT, help));
    factors.extend(belongs(report, &chain, root));
    Authenticity { factors, product: Some(chain.product), csp_id: chain.csp_id() }
}

const CRL_WANT: &str = "a current list that does not name the chain";
const SIGNATURE_WANT: &str = "valid under the key of the chain";
const CHAIN_HELP: &str = "not a genuine processor of that vendor, or the wrong certificates were stapled";

fn root_factor(root: &Root) -> Factor {
    match root {
        Root::Amd => Factor::pass("snp.root", "AMD"),
        Root::InsecureSimulated(_) => Factor::unchecked(
            "snp.root",
            "simulated",
            "the policy names a simulated root: no hardware protects this enclave",
        ),
    }
}

fn revocation(chain: &Chain<'_>, ctx: Context<'_>) -> Factor {
    match chain.revocation(ctx) {
        None => ctx.missing.factor("snp.crl", "the revocation list of the root"),
        Some(faults) => {
            let got = if faults.is_empty() { "not revoked".to_owned() } else { faults.join("; ") };
            let help = "AMD does not vouch for this key any more, or the host staples an old list";
            Factor::of("snp.crl", faults.is_empty(), got, CRL_WANT, help)
        }
    }
}

/// That the key is this chip's, at this firmware, of this product.
fn belongs(report: &Report, chain: &Chain<'_>, root: &Root) -> Vec<Factor> {
    let mut out = Vec::new();
    if chain.kind() == SigningKey::Vlek {
        let why = "a VLEK belongs to a cloud provider, not to a chip";
        out.push(Factor::unchecked("snp.hwid", chain.csp_id().unwrap_or_default(), why));
    } else {
        let (got, help) = ("hwID of the VCEK", "the certificate is of another chip than the report");
        out.push(Factor::of("snp.hwid", chain.is_of_chip(report), got, "CHIP_ID of the report", help));
    }
    let reported = report.reported_tcb.parts(chain.product);
    let certified = chain.tcb();
    let got = certified.map_or("not in the certificate".to_owned(), |tcb| tcb.to_string());
    let same = certified == Some(reported) && report.reported_tcb.is_well_formed(chain.product);
    let help = "the certificate is of another firmware version than the report";
    out.push(Factor::of("snp.vcek_tcb", same, got, reported.to_string(), help));
    // Version 2 says nothing about the processor; with a simulated root the chain does not.
    if let (Some(cpuid), Root::Amd) = (report.cpuid, root) {
        let by_cpuid = report.product();
        let got = by_cpuid.map_or(format!("unknown processor {cpuid:02x?}"), |product| product.to_string());
        let help = "the report is of another kind of processor than the key that signed it";
        out.push(Factor::of(
            "snp.cpuid",
            by_cpuid == Some(chain.product),
            got,
            chain.product.to_string(),
            help,
        ));
    }
    out
}

impl Authenticity {
    /// Whether every signature and chain holds.
    #[must_use]
    pub fn is_authentic(&self) -> bool {
        let passed =
            |name| self.factors.iter().any(|f| f.name == name && f.status == crate::result::Status::Pass);
        crate::result::none_failed(&self.factors) && passed("snp.chain") && passed("snp.signature")
    }
}
