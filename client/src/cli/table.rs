//! A report as a table that a person can read.

use cocoon_client::{Report, Status};

/// Longer values are shortened in the middle; `--json` shows them whole.
const MAX_VALUE: usize = 44;

pub(super) fn lines(report: &Report) -> Vec<String> {
    let width = report.factors.iter().map(|factor| factor.name.len()).max().unwrap_or(0);
    let mut out = vec![format!("{:<9} {:<width$}  found", "status", "factor")];
    for factor in &report.factors {
        let status = match factor.status {
            Status::Pass => "pass",
            Status::Fail => "FAIL",
            Status::Unchecked => "unchecked",
        };
        let got = shorten(factor.got.as_deref().unwrap_or("-"));
        out.push(format!("{status:<9} {:<width$}  {got}", factor.name));
        if factor.status == Status::Fail {
            let want = shorten(factor.want.as_deref().unwrap_or("-"));
            out.push(format!("{:<9} {:<width$}  wanted: {want}", "", ""));
        }
        if let (Status::Fail | Status::Unchecked, Some(help)) = (factor.status, &factor.help) {
            out.push(format!("{:<9} {:<width$}  ({help})", "", ""));
        }
    }
    out
}

/// What was verified, in one line.
pub(super) fn summary(report: &Report) -> String {
    let count = |status| report.factors.iter().filter(|factor| factor.status == status).count();
    let (pass, fail, unchecked) = (count(Status::Pass), count(Status::Fail), count(Status::Unchecked));
    let verdict = if report.accepted { "ACCEPTED" } else { "REJECTED" };
    let simulated = if is_simulated(report) { " SIMULATED" } else { "" };
    let (platform, product) = (report.platform, report.product);
    format!("{verdict}: {platform} {product}{simulated}, {pass} pass, {fail} fail, {unchecked} unchecked")
}

fn is_simulated(report: &Report) -> bool {
    report.factors.iter().any(|factor| factor.name == "snp.root" && factor.status == Status::Unchecked)
}

/// The warning that nobody may miss.
pub(super) fn warning(report: &Report) -> Option<&'static str> {
    is_simulated(report).then_some(
        "WARNING: the policy accepts a SIMULATED platform: no hardware protects what you send. For development only.",
    )
}

fn shorten(text: &str) -> String {
    let text = super::output::harmless(text);
    let count = text.chars().count();
    if count <= MAX_VALUE || text.contains(' ') {
        return text;
    }
    let half = MAX_VALUE / 2 - 1;
    let head: String = text.chars().take(half).collect();
    let tail: String = text.chars().skip(count - half).collect();
    format!("{head}..{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_shortened_and_escape_sequences_defused() {
        assert_eq!(shorten(&"ab".repeat(48)).len(), MAX_VALUE);
        assert_eq!(shorten("snp"), "snp");
        assert_eq!(shorten("\x1b[2J"), "?[2J");
    }
}
