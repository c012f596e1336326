//! The same bytes, and what each says of them.

use cocoon_attestation::SignatureCache;
use cocoon_attestation::policy::Policy;
use cocoon_attestation::result::{Claim, Report, Status};

use crate::evidence::Corpus;
use crate::{snp, tdx};

/// Compares everything; prints a line each.
///
/// # Errors
/// When a verdict differs, or the evidence cannot be read.
pub fn compare(corpus: &Corpus) -> anyhow::Result<()> {
    let policy = Policy::strict()?;
    let mut different = 0;
    let mut line = |id: &str, ours: String, theirs: String, same: bool| {
        println!(
            "{} {id}\n    Cocoon: {ours}\n    peer:   {theirs}",
            if same { "same     " } else { "DIFFERENT" }
        );
        different += u32::from(!same);
    };
    for case in corpus.snp()? {
        let ours = snp::ours(&case, &[], &policy, &SignatureCache::new())?;
        let theirs = snp::theirs(&case);
        let said =
            theirs.as_ref().map_or_else(|error| format!("refused: {error}"), |()| "verified".to_owned());
        line(&case.id, format!("authentic: {ours}"), said, ours == theirs.is_ok());
    }
    for case in corpus.tdx()? {
        let ours = tdx::ours(&case, &policy, &SignatureCache::new())?;
        let theirs = tdx::theirs(&case, &tdx::collateral(&case)?);
        let strictly = tdx::theirs_strictly(&case, &tdx::collateral(&case)?);
        let mine = (claim(&ours, "tcb_status"), list(&ours, "advisory_ids"));
        let same = match &theirs {
            Ok(theirs) => ours.authentic && mine == *theirs,
            // It says no more than that it refuses: we must refuse too.
            Err(_) => !ours.accepted,
        } && strictly.is_ok() == ours.accepted;
        let said =
            theirs.map_or_else(|error| format!("refused: {error:#}"), |t| format!("{} {:?}", t.0, t.1));
        let failed: Vec<_> =
            ours.factors.iter().filter(|f| f.status == Status::Fail).map(|f| f.name).collect();
        let strictly = if strictly.is_ok() { "accepted" } else { "refused" };
        let shown = format!("authentic: {}, {} {:?}, failed {failed:?}", ours.authentic, mine.0, mine.1);
        line(&case.id, shown, format!("{said}; by its strict policy {strictly}"), same);
    }
    anyhow::ensure!(different == 0, "{different} verdicts differ");
    Ok(())
}

fn claim(report: &Report, name: &str) -> String {
    match report.claims.get(name) {
        Some(Claim::Text(text)) => text.clone(),
        _ => "none".to_owned(),
    }
}

fn list(report: &Report, name: &str) -> Vec<String> {
    match report.claims.get(name) {
        Some(Claim::List(items)) => items.clone(),
        _ => Vec::new(),
    }
}
