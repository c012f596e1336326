//! What every appraisal needs besides evidence and policy.

use crate::UnixTime;
use crate::crypto::{MAX_VERIFICATIONS, SignatureCache};
use crate::result::Factor;

/// The circumstances of an appraisal.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The time of verification.
    pub now: UnixTime,
    /// What an endorsement that was not given means.
    pub missing: Missing,
    /// Vendor signatures that were verified before.
    pub signatures: &'a SignatureCache,
}

impl Context<'_> {
    /// The factor that fails when there were more signatures than an appraisal verifies.
    pub(crate) fn budget_factor(&self) -> Option<Factor> {
        let want = format!("at most {MAX_VERIFICATIONS} to verify");
        let help = "somebody made this evidence, or what was stapled to it, to keep its verifier busy";
        self.signatures.is_exceeded().then(|| Factor::fail("evidence.signatures", "more", want, help))
    }
}

/// What an endorsement that was not given means: revocation list, TCB info, RIM, OCSP response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A failure. In a session always.
    Fails,
    /// The factor is unchecked, and says so. Only to look at evidence offline.
    Unchecked,
}

impl Missing {
    /// The factor `name` when `what` was not given.
    pub(crate) fn factor(self, name: &'static str, what: &str) -> Factor {
        match self {
            Self::Fails => Factor::fail(
                name,
                "not given",
                what,
                "the host must staple it: `cocoon-host endorsements fetch`",
            ),
            Self::Unchecked => Factor::unchecked(name, "not given", &format!("{what} was not given")),
        }
    }
}
