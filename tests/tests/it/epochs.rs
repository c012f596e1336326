//! Epochs and re-attestation on a live connection.

use std::sync::atomic::Ordering;

use cocoon_client::{ChatRequest, Error, connect};
use cocoon_tests::enclave::InProcess;

#[tokio::test(flavor = "multi_thread")]
async fn a_live_connection_attests_again() {
    let enclave = InProcess::start(None).await;
    let session = connect(&enclave.address, enclave.policy()).await.unwrap();
    let first = session.result();
    let again = session.attest_again().await.unwrap();
    assert_eq!(first.statement(), again.statement(), "the same epoch");
    assert_ne!(first.report().claims["report_data"], again.report().claims["report_data"], "a fresh report");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_epoch_is_noticed_and_verified_before_the_next_request() {
    let enclave = InProcess::start(None).await;
    let session = connect(&enclave.address, enclave.policy()).await.unwrap();
    enclave.node.rotate().unwrap();
    // This answer carries the number of the new epoch; the next request is sent after it was verified.
    session.model_status().await.unwrap();
    assert_eq!(session.result().statement().epoch, 0);
    session.model_status().await.unwrap();
    assert_eq!(session.result().statement().epoch, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_is_not_accepted_ends_the_session() {
    let enclave = InProcess::start(None).await;
    let session = connect(&enclave.address, enclave.policy()).await.unwrap();
    // The enclave's clock runs away: its next statement begins in the client's future.
    enclave.clock_offset.store(3600, Ordering::Relaxed);
    enclave.node.rotate().unwrap();
    session.model_status().await.unwrap();
    let refused = session.model_status().await.unwrap_err();
    assert!(matches!(&refused, Error::Rejected(r) if r.to_string().contains("epoch.window")), "{refused}");
    assert!(matches!(session.model_status().await, Err(Error::Ended(_))), "a refused session sends nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_new_tls_key_the_client_connects_again() {
    let enclave = InProcess::start(None).await;
    let session = connect(&enclave.address, enclave.policy()).await.unwrap();
    let old_key = session.result().statement().spki;
    while enclave.node.current().identity.spki() == old_key {
        enclave.node.rotate().unwrap();
    }
    session.model_status().await.unwrap();
    assert!(matches!(session.model_status().await, Err(Error::Ended(_))));
    let fresh = connect(&enclave.address, enclave.policy()).await.unwrap();
    assert_ne!(fresh.result().statement().spki, old_key);
}

/// Whatever the enclave is by then, the client has what the receipt names.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_after_a_new_epoch_or_tls_key_has_a_receipt_that_verifies() {
    let enclave = InProcess::with_model().await;
    for epochs in [1, 12] {
        let session = connect(&enclave.address, enclave.policy()).await.unwrap();
        let before = session.result().statement().clone();
        for _ in 0..epochs {
            enclave.node.rotate().unwrap();
        }
        let mut request = ChatRequest::new("m", "What is new?");
        request.max_tokens = Some(3);
        let mut answer = session.chat(&request).await.unwrap();
        while answer.next().await.unwrap().is_some() {}
        let named = &answer.receipt().expect("a receipt").statement;
        assert_eq!((named.epoch, named.spki), (before.epoch, before.spki));
        assert_eq!(session.result().statement(), &before, "nothing was attested for that");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_enclave_says_goodbye() {
    let enclave = InProcess::start(None).await;
    let session = connect(&enclave.address, enclave.policy()).await.unwrap();
    // This one has not attested yet: it is not waited for.
    let _unattested = tokio::net::TcpStream::connect(&enclave.address).await.unwrap();
    // Connections are accepted in order: when a later one is served, the one above waits for its ClientHello.
    connect(&enclave.address, enclave.policy()).await.unwrap();
    enclave.stop();
    let start = std::time::Instant::now();
    while session.model_status().await.is_ok() {
        assert!(start.elapsed() < cocoon_tests::programs::PATIENCE, "it goes on serving");
    }
    // From then on the client is told to connect again, not that nobody can be reached.
    while !matches!(session.model_status().await, Err(Error::Ended(_))) {
        assert!(
            start.elapsed() < cocoon_tests::programs::PATIENCE,
            "the end of the connection is not noticed"
        );
    }
    while !enclave.events().contains("\"stopped\"") {
        assert!(start.elapsed() < cocoon_tests::programs::PATIENCE, "{}", enclave.events());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(enclave.events().contains("{\"event\":\"stopped\",\"cut\":0}"), "{}", enclave.events());
    assert!(enclave.events().contains("\"reason\":\"stopping\""), "{}", enclave.events());
}
