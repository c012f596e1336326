//! Vendor signatures that this process verified before.

use std::sync::LazyLock;

use cocoon_attestation::SignatureCache;

static KNOWN: LazyLock<SignatureCache> = LazyLock::new(SignatureCache::new);

/// For every appraisal of this process: a fleet's certificates are the same ones again and again.
pub(crate) fn signatures() -> &'static SignatureCache {
    &KNOWN
}
