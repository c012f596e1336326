//! Who this enclave is: keys, epochs, the epoch statement S.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use cocoon_attestation::receipt::{Receipt, SignedReceipt};
use cocoon_attestation::wire::{EpochStatement, MAX_EPOCH_SECONDS, PrivacyFlags};
use cocoon_attestation::{Digest, UnixTime};
use cocoon_channel::identity::Identity;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use zeroize::Zeroizing;

use crate::Clock;
use crate::events::{EpochFault, Event, EventLog};
use crate::platform::gpu::Binding;
use crate::platform::{GpuAttester, GpuError, GpuSet};
use crate::ticks::Moments;

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

/// Why there is no epoch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// No keys.
    #[error(transparent)]
    NoKeys(#[from] NoKeys),
    /// No evidence of the GPUs.
    #[error(transparent)]
    Gpus(#[from] GpuError),
}

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
#[derive(Clone, Debug)]
pub struct Epoch {
    /// Number since boot.
    pub number: u64,
    /// When it began, by this enclave's clock.
    pub begun: UnixTime,
    /// S as it is sent and hashed.
    pub statement: Vec<u8>,
    /// The TLS key.
    pub identity: Arc<Identity>,
    /// Evidence of the GPUs, which S names.
    pub gpus: Option<GpuSet>,
}

/// The identity of an enclave from boot to end.
pub struct Node {
    boot_id: [u8; 16],
    node_id: Digest,
    receipt_key: Ed25519KeyPair,
    /// Receipts so far.
    receipts: AtomicU64,
    moments: Moments,
    claims: Claims,
    clock: Clock,
    gpus: Option<Gpus>,
    current: RwLock<Arc<Epoch>>,
}

struct Gpus {
    attester: Arc<dyn GpuAttester>,
    /// Held while evidence is collected.
    asking: Mutex<()>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

impl Node {
    /// Makes keys and the first epoch, without GPUs.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn boot(claims: Claims, clock: Clock) -> Result<Self, NodeError> {
        Self::boot_with_gpus(claims, clock, None)
    }

    /// Makes keys and the first epoch, with the evidence of `gpus`; only then programs may use them. Blocks while they attest.
    ///
    /// # Errors
    /// When there is no randomness, or the GPUs do not attest.
    pub fn boot_with_gpus(
        claims: Claims,
        clock: Clock,
        gpus: Option<Arc<dyn GpuAttester>>,
    ) -> Result<Self, NodeError> {
        let identity = Identity::generate().map_err(|_no_random| NoKeys)?;
        Self::new(claims, clock, identity, gpus)
    }

    /// As [`Node::boot`], with a TLS key from elsewhere: for tests that play an attacker who knows it.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn with_identity(claims: Claims, clock: Clock, identity: Identity) -> Result<Self, NodeError> {
        Self::new(claims, clock, identity, None)
    }

    fn new(
        claims: Claims,
        clock: Clock,
        identity: Identity,
        gpus: Option<Arc<dyn GpuAttester>>,
    ) -> Result<Self, NodeError> {
        let boot_id = random()?;
        let receipt_key = receipt_key()?;
        let node_id = Digest::of(&[b"cocoon/node-id/v1", receipt_key.public_key().as_ref()].concat());
        let (begun, identity) = (clock(), Arc::new(identity));
        let placeholder =
            Epoch { number: 0, begun, statement: Vec::new(), identity: identity.clone(), gpus: None };
        let node = Self {
            boot_id,
            node_id,
            receipt_key,
            receipts: AtomicU64::new(0),
            moments: Moments::new().map_err(|_no_random| NoKeys)?,
            claims,
            clock,
            gpus: gpus.map(|attester| Gpus { attester, asking: Mutex::new(()) }),
            current: RwLock::new(Arc::new(placeholder)),
        };
        node.begin(0, identity)?;
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

    /// When cells of padded answers leave.
    pub(crate) fn moments(&self) -> &Moments {
        &self.moments
    }

    /// Signs a receipt, whose number is the next one whatever it says.
    #[must_use]
    pub fn sign(&self, receipt: Receipt) -> SignedReceipt {
        let sequence = self.receipts.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let receipt = Receipt { sequence, ..receipt }.encode();
        let mut signature = [0; 64];
        signature.copy_from_slice(self.receipt_key.sign(&SignedReceipt::message(&receipt)).as_ref());
        SignedReceipt { receipt, signature }
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
    /// they attest again. Blocks while GPUs attest.
    ///
    /// # Errors
    /// When there is no randomness, or the GPUs do not attest: the old epoch runs on until its end, and the GPUs take no new work.
    pub fn rotate(&self) -> Result<u64, NodeError> {
        let old = self.current();
        let number = old.number + 1;
        let identity = if number.is_multiple_of(EPOCHS_PER_KEY) {
            Arc::new(Identity::generate().map_err(|_no_random| NoKeys)?)
        } else {
            old.identity.clone()
        };
        self.begin(number, identity)?;
        Ok(number)
    }

    fn begin(&self, number: u64, identity: Arc<Identity>) -> Result<(), NodeError> {
        let gpus = match &self.gpus {
            None => None,
            Some(gpus) => {
                let _one_at_a_time = gpus.asking.lock().unwrap_or_else(PoisonError::into_inner);
                Some(self.collect_for_epoch(gpus, number, identity.spki())?)
            }
        };
        // After the GPUs have answered, which takes seconds: S is as young as it says.
        let begun = self.now();
        let statement = self.statement(number, begun, identity.spki(), gpus.as_ref()).encode();
        let epoch = Arc::new(Epoch { number, begun, statement, identity, gpus });
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = epoch;
        Ok(())
    }

    /// Evidence of all GPUs for an epoch; programs may use the GPUs from the first one on, and until one fails.
    fn collect_for_epoch(&self, gpus: &Gpus, epoch: u64, spki: Digest) -> Result<GpuSet, NodeError> {
        let bound = Binding { boot_id: self.boot_id, epoch, spki, x: random()? };
        let collected = GpuSet::collect(&*gpus.attester, bound).and_then(|set| {
            // The model runs on those of the first epoch.
            if epoch > 0 && !self.are_those_of_the_epoch(&set) {
                return Err(GpuError::Changed);
            }
            gpus.attester.set_ready(true)?;
            Ok(set)
        });
        if collected.is_err() {
            // It failed already, and that is what is told.
            let _fails_too = gpus.attester.set_ready(false);
        }
        Ok(collected?)
    }

    /// `epoch` with evidence of its GPUs that was made for `leaf` only, and S that names it: mode 1. Blocks while they attest.
    ///
    /// # Errors
    /// When they do not attest, do so for somebody else, or are others than those of the epoch.
    pub(crate) fn fresh(&self, epoch: &Epoch, leaf: Digest) -> Result<Epoch, GpuError> {
        let Some(gpus) = &self.gpus else { return Ok(epoch.clone()) };
        let Ok(_one_at_a_time) = gpus.asking.try_lock() else { return Err(GpuError::Busy) };
        let spki = epoch.identity.spki();
        let bound = Binding { boot_id: self.boot_id, epoch: epoch.number, spki, x: leaf.0 };
        let set = GpuSet::collect(&*gpus.attester, bound)?;
        if epoch.gpus.as_ref().is_none_or(|old| old.ids() != set.ids()) {
            return Err(GpuError::Changed);
        }
        let statement = self.statement(epoch.number, epoch.begun, spki, Some(&set)).encode();
        Ok(Epoch { statement, gpus: Some(set), ..epoch.clone() })
    }

    fn are_those_of_the_epoch(&self, set: &GpuSet) -> bool {
        self.current().gpus.as_ref().is_some_and(|now| now.ids() == set.ids())
    }

    /// Asks the GPUs again, once a program uses them: they are those that attested before. Blocks while they attest.
    ///
    /// # Errors
    /// When they do not attest, or are others.
    pub fn confirm_gpus(&self) -> Result<(), NodeError> {
        let Some(gpus) = &self.gpus else { return Ok(()) };
        let _one_at_a_time = gpus.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = self.current();
        let bound =
            Binding { boot_id: self.boot_id, epoch: epoch.number, spki: epoch.identity.spki(), x: random()? };
        let set = GpuSet::collect(&*gpus.attester, bound)?;
        if self.are_those_of_the_epoch(&set) { Ok(()) } else { Err(GpuError::Changed.into()) }
    }

    /// Whether there are GPUs that attest.
    #[must_use]
    pub fn has_gpus(&self) -> bool {
        self.gpus.is_some()
    }

    /// The end: no program may use the GPUs any more. Blocks on the driver.
    pub fn retire(&self) {
        if let Some(gpus) = &self.gpus {
            // There is nobody to tell, and the machine ends.
            let _stays_ready = gpus.attester.set_ready(false);
        }
    }

    fn statement(&self, epoch: u64, now: UnixTime, spki: Digest, gpus: Option<&GpuSet>) -> EpochStatement {
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
            gpu_evidence: gpus.map(GpuSet::digest),
            gpu_ids: gpus.map_or_else(Vec::new, |gpus| gpus.ids().to_vec()),
            // Evidence is collected only with confidential computing on, and devtools off.
            gpu_mode: if gpus.is_some() { "on" } else { "none" }.to_owned(),
            models: self.claims.models.clone(),
            config: self.claims.config,
            release: self.claims.release,
            privacy: PrivacyFlags { padding: 1, content_logged: 0, shared_prefix_cache: 0 },
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
            let node = self.clone();
            let rotated = tokio::task::spawn_blocking(move || node.rotate()).await;
            // The old epoch runs out and clients go elsewhere: safe, and tried again.
            events.log(&match rotated {
                Ok(Ok(epoch)) => Event::Epoch { epoch },
                Ok(Err(NodeError::NoKeys(_))) => Event::EpochFailed { reason: EpochFault::NoKeys },
                Ok(Err(NodeError::Gpus(_))) => Event::EpochFailed { reason: EpochFault::Gpus },
                Err(_panicked) => Event::EpochFailed { reason: EpochFault::Broken },
            });
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], NoKeys> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_no_random| NoKeys)?;
    Ok(bytes)
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
