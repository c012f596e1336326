//! Many clients, few hardware reports.

use cocoon_client::{Policy, UnverifiedChannel};
use cocoon_tests::programs::EnclaveProcess;

const CLIENTS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_come_at_once_share_reports_and_all_verify() {
    let enclave = EnclaveProcess::start(&[]);
    let policy = Policy::from_toml(&enclave.policy_text()).unwrap();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (address, policy) = (enclave.address.clone(), policy.clone());
            tokio::spawn(async move {
                UnverifiedChannel::open(&address).await.unwrap().verify(policy).await.unwrap()
            })
        })
        .collect();
    let mut sessions = Vec::new();
    for client in clients {
        sessions.push(client.await.unwrap());
    }
    let reports = enclave.program.events("report");
    let leaves: u64 = reports.iter().map(|event| event["leaves"].as_u64().unwrap()).sum();
    println!("{CLIENTS} clients, {} reports", reports.len());
    assert_eq!(leaves, CLIENTS as u64);
    assert!(reports.len() <= CLIENTS / 10, "{} reports for {CLIENTS} clients", reports.len());
}
