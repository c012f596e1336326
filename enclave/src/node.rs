//! Who this enclave is: keys, epochs, the epoch statement S.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use cocoon_attestation::wire::{EpochStatement, MAX_EPOCH_SECONDS, PrivacyFlags};
use cocoon_attestation::{Digest, UnixTime};
use cocoon_channel::identity::Identity;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use zeroize::Zeroizing;

use crate::Clock;
use crate::events::{Event, EventLog};

/// A new epoch begins this long after the last, so that clients have time to notice before the old one ends.
pub const EPOCH_LENGTH: Duration = Duration::from_secs(MAX_EPOCH_SECONDS - 600);

/// How often to look whether an epoch is over; by the clock and not by a timer, which a suspended machine stops.
const EPOCH_CHECK: Duration = Duration::from_secs(20);

/// The TLS key is replaced every so many epochs: 10 hours, where `protocol.md` allows 24.
const EPOCHS_PER_KEY: u64 = 12;

/// There is no randomness, or no key could be made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes, so there are no keys")]
pub struct NoKeys;

/// What the configuration makes the enclave state about itself.
#[derive(Clone, Debug)]
pub struct Claims {
    /// Digests of the model manifests.
    pub models: Vec<Digest>,
    /// Digest of the configuration.
    pub config: Digest,
    /// Digest of the release, zero if there is none.
    pub release: Digest,
}

/// One epoch: S and the TLS key that it vouches for.
#[derive(Debug)]
pub struct Epoch {
    /// Number since boot.
    pub number: u64,
    /// When it began, by this enclave's clock.
    pub begun: UnixTime,
    /// S as it is sent and hashed.
    pub statement: Vec<u8>,
    /// The TLS key.
    pub identity: Arc<Identity>,
}

/// The identity of an enclave from boot to end.
pub struct Node {
    boot_id: [u8; 16],
    node_id: Digest,
    receipt_key: Ed25519KeyPair,
    claims: Claims,
    clock: Clock,
    current: RwLock<Arc<Epoch>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

impl Node {
    /// Makes keys and the first epoch.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn boot(claims: Claims, clock: Clock) -> Result<Self, NoKeys> {
        let identity = Identity::generate().map_err(|_no_random| NoKeys)?;
        Self::with_identity(claims, clock, identity)
    }

    /// As [`Node::boot`], with a TLS key from elsewhere: for tests that play an attacker who knows it.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn with_identity(claims: Claims, clock: Clock, identity: Identity) -> Result<Self, NoKeys> {
        let mut boot_id = [0; 16];
        SystemRandom::new().fill(&mut boot_id).map_err(|_no_random| NoKeys)?;
        let receipt_key = receipt_key()?;
        let node_id = Digest::of(&[b"cocoon/node-id/v1", receipt_key.public_key().as_ref()].concat());
        let begun = clock();
        let placeholder = Epoch { number: 0, begun, statement: Vec::new(), identity: Arc::new(identity) };
        let node = Self {
            boot_id,
            node_id,
            receipt_key,
            claims,
            clock,
            current: RwLock::new(Arc::new(placeholder)),
        };
        let identity = node.current().identity.clone();
        node.begin(0, identity);
        Ok(node)
    }

    /// The epoch that runs now.
    #[must_use]
    pub fn current(&self) -> Arc<Epoch> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Identity of this node: derived from the receipt key, so it is a new one with each boot.
    #[must_use]
    pub fn node_id(&self) -> Digest {
        self.node_id
    }

    /// What this node states about itself.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The time, by this enclave's clock.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        (self.clock)()
    }

    /// Begins the next epoch, with a new TLS key when it is time for one. Connections on the old key are told to reconnect when
    /// they attest again.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn rotate(&self) -> Result<u64, NoKeys> {
        let old = self.current();
        let number = old.number + 1;
        let identity = if number.is_multiple_of(EPOCHS_PER_KEY) {
            Arc::new(Identity::generate().map_err(|_no_random| NoKeys)?)
        } else {
            old.identity.clone()
        };
        self.begin(number, identity);
        Ok(number)
    }

    fn begin(&self, number: u64, identity: Arc<Identity>) {
        let begun = self.now();
        let statement = self.statement(number, begun, identity.spki()).encode();
        let epoch = Arc::new(Epoch { number, begun, statement, identity });
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = epoch;
    }

    fn statement(&self, epoch: u64, now: UnixTime, spki: Digest) -> EpochStatement {
        let mut receipt_key = [0; 32];
        receipt_key.copy_from_slice(self.receipt_key.public_key().as_ref());
        EpochStatement {
            boot_id: self.boot_id,
            epoch,
            not_before: now,
            not_after: UnixTime(now.0.saturating_add(MAX_EPOCH_SECONDS)),
            node_id: self.node_id,
            spki,
            receipt_key,
            gpu_evidence: None,
            gpu_ids: Vec::new(),
            gpu_mode: "none".to_owned(),
            models: self.claims.models.clone(),
            config: self.claims.config,
            release: self.claims.release,
            privacy: PrivacyFlags { padding: 0, content_logged: 0, shared_prefix_cache: 0 },
        }
    }

    /// Whether the epoch is over, or the clock was set back or forth so that it does not contain now.
    fn is_due(&self) -> bool {
        let begun = self.current().begun.0;
        !(begun..begun.saturating_add(EPOCH_LENGTH.as_secs())).contains(&self.now().0)
    }

    /// Begins epochs for as long as the enclave lives.
    pub async fn keep_rotating(self: Arc<Self>, events: EventLog) {
        loop {
            tokio::time::sleep(EPOCH_CHECK).await;
            if !self.is_due() {
                continue;
            }
            // Without randomness the old epoch runs out and clients go elsewhere: safe, and tried again.
            if let Ok(epoch) = self.rotate() {
                events.log(&Event::Epoch { epoch });
            }
        }
    }
}

/// The key that signs receipts; its public half is in S.
fn receipt_key() -> Result<Ed25519KeyPair, NoKeys> {
    let mut seed = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(&mut *seed).map_err(|_no_random| NoKeys)?;
    Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(|_rejected| NoKeys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        let claims =
            Claims { models: vec![Digest([1; 32])], config: Digest([2; 32]), release: Digest([0; 32]) };
        Node::boot(claims, Arc::new(|| UnixTime(1_800_000_000))).unwrap()
    }

    #[test]
    fn statements_are_well_formed_and_vouch_for_the_tls_key() {
        let node = node();
        let epoch = node.current();
        let s = EpochStatement::decode(&epoch.statement).unwrap();
        assert_eq!((s.epoch, s.spki, s.node_id), (0, epoch.identity.spki(), node.node_id()));
        assert_eq!(s.models, node.claims().models);
    }

    #[test]
    fn an_epoch_ends_by_the_clock_even_when_it_jumps() {
        let time = Arc::new(std::sync::atomic::AtomicU64::new(1_800_000_000));
        let clock = Arc::clone(&time);
        let claims =
            Claims { models: vec![Digest([1; 32])], config: Digest([2; 32]), release: Digest([0; 32]) };
        let node =
            Node::boot(claims, Arc::new(move || UnixTime(clock.load(std::sync::atomic::Ordering::Relaxed))))
                .unwrap();
        let length = EPOCH_LENGTH.as_secs();
        for (seconds, due) in [(0, false), (length - 1, false), (length, true), (10 * length, true)] {
            time.store(1_800_000_000 + seconds, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(node.is_due(), due, "{seconds}");
        }
        time.store(1_799_999_999, std::sync::atomic::Ordering::Relaxed);
        assert!(node.is_due(), "the clock was set back");
    }

    #[test]
    fn epochs_advance_and_the_key_is_replaced_in_time() {
        let node = node();
        let first = node.current();
        for number in 1..EPOCHS_PER_KEY {
            assert_eq!(node.rotate(), Ok(number));
            assert_eq!(node.current().identity.spki(), first.identity.spki());
        }
        assert_eq!(node.rotate(), Ok(EPOCHS_PER_KEY));
        assert_ne!(node.current().identity.spki(), first.identity.spki());
        assert!(EPOCHS_PER_KEY * EPOCH_LENGTH.as_secs() <= 24 * 3600);
    }
}
