//! An enclave in this process, for tests that hand something to an attacker or turn the enclave's clock.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cocoon_attestation::policy::SimulatedPolicy;
use cocoon_attestation::{Digest, UnixTime};
use cocoon_channel::identity::Identity;
use cocoon_client::Policy;
use cocoon_enclave::api::Limits;
use cocoon_enclave::attest::AttestationService;
use cocoon_enclave::events::{EventLog, Listening};
use cocoon_enclave::model::{ModelError, Models};
use cocoon_enclave::node::{Claims, Node};
use cocoon_enclave::platform::Attester;
use cocoon_enclave::platform::sim::{SimAttester, SimState};
use cocoon_enclave::server::{Listener, serve};
use cocoon_enclave::settings::{ListenAddress, ModelSettings};
use cocoon_enclave::{Clock, Enclave};
use cocoon_inference::EngineConfig;
use tokio::sync::watch;

use crate::sim_state;

/// What every enclave of this module states.
pub const MODEL: Digest = Digest([0x11; 32]);
/// What every enclave of this module states.
pub const CONFIG: Digest = Digest([0x22; 32]);

/// The time now.
#[expect(clippy::disallowed_methods, reason = "tests hand this clock to client and enclave")]
pub fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

/// A running enclave without a model.
pub struct InProcess {
    /// Where it listens.
    pub address: String,
    /// Its keys and epochs.
    pub node: Arc<Node>,
    /// Seconds that its clock is ahead.
    pub clock_offset: Arc<AtomicU64>,
    events: Events,
    log: EventLog,
    policy: String,
    stop: watch::Sender<bool>,
    /// All of it, for servers that are not the enclave's own.
    pub enclave: Arc<Enclave>,
}

/// An event log that is kept.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<u8>>>);

impl Write for Events {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl InProcess {
    /// Starts one; its TLS key is `identity`, or a fresh one.
    pub async fn start(identity: Option<Identity>) -> Self {
        let (node, policy, attester, clock_offset) = parts(identity, MODEL);
        Self::run(node, policy, Arc::new(attester), clock_offset, Models::default()).await
    }

    /// Starts one with the small real model, which it calls `m`.
    pub async fn with_model() -> Self {
        let (models, log) = (Models::default(), EventLog::new(std::io::sink()));
        let wanted =
            ModelSettings { path: crate::model(), size: None, digest: None, name: Some("m".to_owned()) };
        let read = models.read(&[wanted], &log).unwrap();
        let (node, policy, attester, clock_offset) = parts(None, read[0].digest);
        let mut config = EngineConfig::default();
        config.kv_bytes = Some(256 << 20); // a whole context
        models.load(read, false, &config, &log, || Ok::<_, ModelError>(())).unwrap();
        Self::run(node, policy, Arc::new(attester), clock_offset, models).await
    }

    /// Starts one whose hardware is `attester`.
    pub async fn start_on(attester: Arc<dyn Attester>) -> Self {
        let (node, policy, _, clock_offset) = parts(None, MODEL);
        Self::run(node, policy, attester, clock_offset, Models::default()).await
    }

    async fn run(
        node: Arc<Node>,
        policy: String,
        attester: Arc<dyn Attester>,
        clock_offset: Arc<AtomicU64>,
        models: Models,
    ) -> Self {
        let events = Events::default();
        let log = EventLog::new(events.clone());
        let attestation = AttestationService::start(attester, node.clone(), log.clone());
        let enclave = Arc::new(Enclave { node: node.clone(), attestation, models, events: log.clone() });
        let served = Arc::clone(&enclave);
        let listener = Listener::bind(&ListenAddress::Tcp("127.0.0.1:0".to_owned())).await.unwrap();
        let Listening::Tcp(address) = listener.address().unwrap() else { panic!("not TCP") };
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(serve(served, listener, limits(), stopped, Duration::from_secs(5)));
        Self { address: address.to_string(), node, clock_offset, events, log, policy, stop, enclave }
    }

    /// The policy that accepts it.
    pub fn policy(&self) -> Policy {
        Policy::from_toml(&self.policy).unwrap()
    }

    /// The text of that policy.
    pub fn policy_text(&self) -> &str {
        &self.policy
    }

    /// Its event log.
    pub fn events(&self) -> String {
        self.log.flush();
        String::from_utf8(self.events.0.lock().unwrap().clone()).unwrap()
    }

    /// Asks it to end.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

/// What tests allow.
pub fn limits() -> Limits {
    Limits { max_connections: 1024, request_deadline: Duration::from_secs(60) }
}

fn parts(identity: Option<Identity>, model: Digest) -> (Arc<Node>, String, SimAttester, Arc<AtomicU64>) {
    let state = SimState::open_or_create(&sim_state(), now(), || ()).unwrap();
    let attester =
        SimAttester::launch(&state, &std::env::current_exe().unwrap(), Duration::from_millis(1)).unwrap();
    let claims = Claims { models: vec![model], config: CONFIG, release: Digest([0; 32]) };
    let root_pem = state.root_pem().unwrap();
    let policy = SimulatedPolicy {
        root_pem: &root_pem,
        measurement: attester.measurement(),
        models: &[model],
        config: CONFIG,
    };
    let clock_offset = Arc::new(AtomicU64::new(0));
    let offset = Arc::clone(&clock_offset);
    let clock: Clock = Arc::new(move || UnixTime(now().0 + offset.load(Ordering::Relaxed)));
    let node = match identity {
        Some(identity) => Node::with_identity(claims, clock, identity),
        None => Node::boot(claims, clock),
    };
    (Arc::new(node.unwrap()), policy.to_toml(), attester, clock_offset)
}
