//! Factors of authenticity: signatures, chains, and that the key belongs to this chip and firmware.

use super::Evidence;
use crate::UnixTime;
use crate::policy::Policy;
use crate::result::Factor;
use crate::snp::{Chain, Root};

pub(super) fn factors(evidence: &Evidence, policy: &Policy, now: UnixTime) -> Vec<Factor> {
    let report = &evidence.report;
    let mut out = vec![root(&policy.snp.root)];
    let given: Vec<&[u8]> = evidence.endorsements.iter().map(Vec::as_slice).collect();
    let chain = match Chain::find(report, &given, &policy.snp.root) {
        Ok(chain) => chain,
        Err(e) => {
            let help = "the enclave must send the VCEK and ASK of its processor; the policy must accept that product";
            out.push(Factor::fail("snp.chain", e.to_string(), "VCEK, ASK and root", help));
            return out;
        }
    };
    let faults = chain.faults(now, &crate::SignatureCache::new());
    let want = "a chain to the root that the policy accepts, valid now";
    let help = "not a genuine processor of that vendor, or the policy names another root";
    let got = if faults.is_empty() { chain.ark.subject() } else { faults.join("; ") };
    out.push(Factor::of("snp.chain", faults.is_empty(), got, want, help));
    let signed = report.is_signed_by(&chain.vcek);
    let (got, want) = (if signed { "valid" } else { "invalid" }, "valid under the VCEK");
    out.push(Factor::of(
        "snp.signature",
        signed,
        got,
        want,
        "the report was altered, or another chip signed it",
    ));
    let help = "the certificate is of another chip than the report";
    out.push(Factor::of(
        "snp.hwid",
        chain.is_of_chip(report),
        "hwID of the VCEK",
        "CHIP_ID of the report",
        help,
    ));
    let help = "the certificate is of another firmware version than the report";
    let (got, want) = ("TCB of the VCEK", "REPORTED_TCB of the report");
    out.push(Factor::of("snp.vcek_tcb", chain.is_of_tcb(report), got, want, help));
    out
}

fn root(root: &Root) -> Factor {
    match root {
        Root::Amd(products) => {
            let names: Vec<_> = products.iter().map(|product| product.name()).collect();
            Factor::pass("snp.root", format!("AMD {}", names.join(", ")))
        }
        Root::InsecureSimulated(_) => Factor::unchecked(
            "snp.root",
            "simulated",
            "the policy names a simulated root: no hardware protects this enclave",
        ),
    }
}
