//! What a quote claims, for people and programs.

use std::collections::BTreeMap;

use super::authenticate::Authenticity;
use super::quote::Quote;
use crate::result::Claim;

/// Claims by name, as `cocoon inspect tdx --json` shows them. Bytes are hex in the order in which the quote has them.
#[must_use]
pub fn claims(quote: &Quote, who: &Authenticity) -> BTreeMap<&'static str, Claim> {
    let hex = |bytes: &[u8]| Claim::Text(crate::types::to_hex(bytes));
    let body = &quote.body;
    let [rtmr0, rtmr1, rtmr2, rtmr3] = &body.rtmr;
    let mut out = BTreeMap::from([
        ("version", Claim::Number(quote.version.into())),
        ("tee_type", Claim::Text(format!("{:#x}", quote.tee_type))),
        ("tee_tcb_svn", hex(&body.tee_tcb_svn)),
        ("mr_seam", hex(&body.mr_seam.0)),
        ("mr_signer_seam", hex(&body.mr_signer_seam.0)),
        ("seam_attributes", hex(&body.seam_attributes)),
        ("td_attributes", hex(&body.td_attributes.to_le_bytes())),
        ("xfam", hex(&body.xfam.to_le_bytes())),
        ("mr_td", hex(&body.mr_td.0)),
        ("mr_config_id", hex(&body.mr_config_id.0)),
        ("mr_owner", hex(&body.mr_owner.0)),
        ("mr_owner_config", hex(&body.mr_owner_config.0)),
        ("rtmr0", hex(&rtmr0.0)),
        ("rtmr1", hex(&rtmr1.0)),
        ("rtmr2", hex(&rtmr2.0)),
        ("rtmr3", hex(&rtmr3.0)),
        ("report_data", hex(&body.report_data)),
        ("fmspc", hex(&quote.pck.fmspc)),
        ("ppid", hex(&quote.pck.ppid)),
        ("qe_isv_svn", Claim::Number(quote.qe_report.isv_svn.into())),
    ]);
    if let Some(td) = &body.td_15 {
        out.insert("tee_tcb_svn_2", hex(&td.tee_tcb_svn_2));
        out.insert("mr_service_td", hex(&td.mr_service_td.0));
    }
    let (status, advisories) = match &who.tcb {
        Some(tcb) => {
            out.insert("tcb_evaluation_number", Claim::Number(tcb.evaluation_number));
            (tcb.status.to_string(), tcb.advisory_ids.clone())
        }
        None => ("unknown".to_owned(), Vec::new()),
    };
    out.insert("tcb_status", Claim::Text(status));
    out.insert("advisory_ids", Claim::List(advisories));
    out
}
