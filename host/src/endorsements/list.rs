//! What is in the cache, and what is about to end.

use cocoon_attestation::{About, UnixTime};
use serde::Serialize;

use super::{Cache, EndorsementError};

const WEEK: u64 = 7 * 24 * 3600;

/// From when on a newer edition is asked for: in the last quarter of its time, or the last week of a longer one.
pub(super) fn refresh_at(about: &About) -> UnixTime {
    let lifetime = about.not_after.0.saturating_sub(about.not_before.0);
    UnixTime(about.not_after.0.saturating_sub((lifetime / 4).min(WEEK)))
}

/// How an endorsement stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// Good for a while.
    Good,
    /// In its last quarter, or its last week: fetch a newer one.
    Expiring,
    /// Over: clients refuse it.
    Expired,
    /// Not yet valid: this machine's clock is behind, or the file is wrong.
    Early,
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What it is: `amd-crl`, ..
    pub kind: &'static str,
    /// Of what.
    pub subject: String,
    /// RFC 3339.
    pub not_before: String,
    /// RFC 3339.
    pub not_after: String,
    /// At the time of the table.
    pub state: State,
}

/// Everything in the cache, and what is wrong with files that cannot be read.
///
/// # Errors
/// When the folder cannot be read.
pub fn rows(cache: &Cache, now: UnixTime) -> Result<(Vec<Row>, Vec<String>), EndorsementError> {
    let (entries, damaged) = cache.entries()?;
    let row = |entry: super::cache::Entry| Row {
        kind: entry.endorsement.kind.name(),
        not_before: entry.about.not_before.to_string(),
        not_after: entry.about.not_after.to_string(),
        state: state(&entry.about, now),
        subject: entry.about.subject,
    };
    Ok((entries.into_iter().map(row).collect(), damaged))
}

fn state(about: &About, now: UnixTime) -> State {
    match now {
        now if now > about.not_after => State::Expired,
        now if now < about.not_before => State::Early,
        now if now >= refresh_at(about) => State::Expiring,
        _ => State::Good,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_by_time() {
        let about = |not_before, not_after| About {
            subject: String::new(),
            not_before: UnixTime(not_before),
            not_after: UnixTime(not_after),
        };
        let day = 24 * 3600;
        let response = about(1000, 1000 + day);
        for (now, want) in [
            (999, State::Early),
            (1000, State::Good),
            (1000 + day * 3 / 4 - 1, State::Good),
            (1000 + day * 3 / 4, State::Expiring),
            (1000 + day, State::Expiring),
            (1001 + day, State::Expired),
        ] {
            assert_eq!(state(&response, UnixTime(now)), want, "{now}");
        }
        let certificate = about(0, 1000 * day);
        assert_eq!(refresh_at(&certificate), UnixTime(993 * day));
    }
}
