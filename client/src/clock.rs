//! The one place of this crate that reads the clock.

use std::time::{SystemTime, UNIX_EPOCH};

use cocoon_attestation::UnixTime;

/// The time by which evidence is appraised.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "a client judges freshness by its own clock, which it hands to the Verifier here"
)]
pub fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}
