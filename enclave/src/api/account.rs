//! What an answer came to, and the receipt for it.

use std::sync::{Arc, Mutex, PoisonError};

use cocoon_attestation::Digest;
use cocoon_attestation::receipt::{Receipt, SignedReceipt};
use ring::digest::{Context, SHA256};

use super::wanted::Outcome;
use crate::node::Node;

/// What a receipt says of an answer, but for its bytes. Clones share what the answer came to.
#[derive(Clone, Debug)]
pub(super) struct Account {
    statement: Digest,
    request: Digest,
    model: Digest,
    outcome: Arc<Mutex<Outcome>>,
}

impl Account {
    /// Of the answer of `model` to a request with this body, on a connection that was told the S with digest `statement`. Until it
    /// ends it counts as failed.
    pub(super) fn new(statement: Digest, body: &[u8], model: Digest) -> Self {
        let outcome = Outcome { prompt_tokens: 0, completion_tokens: 0, finish_reason: "error" };
        Self { statement, request: Digest::of(body), model, outcome: Arc::new(Mutex::new(outcome)) }
    }

    /// The answer ended. To be told before its last bytes go.
    pub(super) fn settle(&self, outcome: Outcome) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
    }
}

/// The bytes of an answer on their way out.
pub(super) struct Tally {
    node: Arc<Node>,
    hash: Context,
    account: Option<Account>,
}

impl Tally {
    /// Without an account there will be no receipt: nothing was computed.
    pub(super) fn new(node: Arc<Node>, account: Option<Account>) -> Self {
        Self { node, hash: Context::new(&SHA256), account }
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
    }

    /// The receipt, once all bytes were added.
    pub(super) fn receipt(&self) -> Option<SignedReceipt> {
        let account = self.account.as_ref()?;
        let outcome = *account.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let mut response = Digest([0; 32]);
        response.0.copy_from_slice(self.hash.clone().finish().as_ref());
        Some(self.node.sign(Receipt {
            statement: account.statement,
            request: account.request,
            response,
            model: account.model,
            prompt_tokens: outcome.prompt_tokens as u64,
            completion_tokens: outcome.completion_tokens as u64,
            sequence: 0,
            finish_reason: outcome.finish_reason.to_owned(),
        }))
    }
}
