//! Which of a release's reference values fit a TD.

use crate::Measurement;
use crate::policy::Released;
use crate::release::{ReleaseManifest, TdxReference};

/// Reference values that fit all rows so far: a firmware of one of them with a kernel of another was never released.
pub(super) struct Fitting<'a>(Option<Vec<&'a TdxReference>>);

impl<'a> Fitting<'a> {
    /// All of the verified release, if there is one.
    pub(super) fn of(release: Option<&'a ReleaseManifest>) -> Self {
        Self(release.map(|release| release.tdx.iter().collect()))
    }

    /// Whether some of those left have the value of this row; then the others are dropped. `None` without a release.
    pub(super) fn narrow(
        &mut self,
        row: &Released<Measurement>,
        has: impl Fn(&TdxReference) -> bool,
    ) -> Option<bool> {
        let left = self.0.as_mut().filter(|_| row.is_release())?;
        let found: Vec<_> = left.iter().copied().filter(|reference| has(reference)).collect();
        let fits = !found.is_empty();
        // After a row that fits none, the next ones are still told apart.
        if fits {
            *left = found;
        }
        Some(fits)
    }
}
