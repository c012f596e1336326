//! One enclave behind two doors: the gate, and none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cocoon_attestation::Digest;
use cocoon_attestation::policy::SimulatedPolicy;
use cocoon_channel::session::Session;
use cocoon_client::Policy;
use cocoon_enclave::Enclave;
use cocoon_enclave::api::Api;
use cocoon_enclave::attest::{AttestationService, ReportData};
use cocoon_enclave::events::{EventLog, Listening};
use cocoon_enclave::gate::Attested;
use cocoon_enclave::model::Models;
use cocoon_enclave::node::{Claims, Node};
use cocoon_enclave::platform::sim::{SimAttester, SimState};
use cocoon_enclave::platform::{Attester, NoReport, PlatformEvidence};
use cocoon_enclave::server::{Listener, connection, serve};
use cocoon_enclave::settings::ListenAddress;
use cocoon_tests::enclave::{CONFIG, MODEL, limits, now};
use cocoon_tests::sim_state;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::client::Door;

/// An enclave without a model: what is measured does not ask for one.
pub struct Server {
    /// As released: attestation before HTTP.
    pub gated: Door,
    /// The same enclave and TLS, but HTTP at once: the baseline.
    pub bare: Door,
    reports: Arc<AtomicU64>,
    _stops_when_dropped: watch::Sender<bool>,
}

impl Server {
    /// Starts one whose hardware takes `report_time` for a report.
    pub async fn start(report_time: Duration) -> anyhow::Result<Self> {
        let state = SimState::open_or_create(&sim_state(), now(), || ())?;
        let attester = SimAttester::launch(&state, &std::env::current_exe()?, report_time)?;
        let root_pem = state.root_pem()?;
        let policy = SimulatedPolicy {
            root_pem: &root_pem,
            measurement: attester.measurement(),
            models: &[MODEL],
            config: CONFIG,
        };
        let policy = Policy::from_toml(&policy.to_toml())?;
        let reports = Arc::new(AtomicU64::new(0));
        let enclave = enclave(Counting { attester, reports: Arc::clone(&reports) })?;
        let (stop, stopped) = watch::channel(false);

        let listener = Listener::bind(&ListenAddress::Tcp("127.0.0.1:0".to_owned())).await?;
        let Listening::Tcp(address) = listener.address()? else { anyhow::bail!("not TCP") };
        let gated = Door { address: address.to_string(), policy: Some(policy) };
        tokio::spawn(serve(Arc::clone(&enclave), listener, limits(), stopped.clone(), Duration::ZERO));

        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let bare = Door { address: listener.local_addr()?.to_string(), policy: None };
        tokio::spawn(serve_bare(enclave, listener, stopped));
        Ok(Self { gated, bare, reports, _stops_when_dropped: stop })
    }

    /// Reports that the hardware gave so far.
    pub fn reports(&self) -> u64 {
        self.reports.load(Ordering::Relaxed)
    }
}

fn enclave(attester: Counting) -> anyhow::Result<Arc<Enclave>> {
    let claims = Claims { models: vec![MODEL], config: CONFIG, release: Digest([0; 32]) };
    let node = Arc::new(Node::boot(claims, Arc::new(now))?);
    let events = EventLog::new(std::io::sink());
    let attestation = AttestationService::start(Arc::new(attester), Arc::clone(&node), events.clone());
    Ok(Arc::new(Enclave { node, attestation, models: Models::default(), events }))
}

/// What `server::serve` does, without `gate::pass`.
async fn serve_bare(enclave: Arc<Enclave>, listener: TcpListener, stop: watch::Receiver<bool>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (enclave, stop) = (Arc::clone(&enclave), stop.clone());
        tokio::spawn(async move {
            let identity = Arc::clone(&enclave.node.current().identity);
            if tcp.set_nodelay(true).is_err() {
                return;
            }
            // A client that fails here notices by itself.
            if let Ok(session) = Session::accept(tcp, &identity).await {
                let attested = Attested { session, statement: Digest([0; 32]) };
                connection(Api::new(enclave, attested, limits()), stop).await;
            }
        });
    }
}

/// Counts what the hardware is asked for.
struct Counting {
    attester: SimAttester,
    reports: Arc<AtomicU64>,
}

impl Attester for Counting {
    fn attest(&self, data: &ReportData) -> Result<PlatformEvidence, NoReport> {
        self.reports.fetch_add(1, Ordering::Relaxed);
        self.attester.attest(data)
    }
}
