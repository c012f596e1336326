//! Genuine evidence of a genuine enclave, in the wrong place.

use std::sync::{Arc, Mutex};

use cocoon_attestation::wire::{AttestRequest, AttestResponse};
use cocoon_channel::identity::Identity;
use cocoon_client::{Error, Report, UnverifiedChannel, connect};
use cocoon_tests::enclave::InProcess;
use cocoon_tests::impostor::{self, ask};

fn failed(report: &Report) -> Vec<&'static str> {
    report.failures().map(|factor| factor.name).collect()
}

async fn refused(address: &str, policy: cocoon_client::Policy) -> Report {
    match connect(address, policy).await {
        Err(Error::Rejected(rejection)) => *rejection.report,
        Err(other) => panic!("refused for another reason: {other}"),
        Ok(_) => panic!("accepted"),
    }
}

/// A P-256 key in PKCS#8, twice: one for the enclave, one for the attacker who got it.
fn known_key() -> Vec<u8> {
    rcgen::KeyPair::generate().unwrap().serialize_der()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_man_in_the_middle_with_a_key_of_his_own_is_refused() {
    let enclave = InProcess::start(None).await;
    let upstream = enclave.address.clone();
    let mitm = impostor::start(Identity::generate().unwrap(), move |request| {
        let upstream = upstream.clone();
        async move { ask(&upstream, &request).await }
    })
    .await;
    let report = refused(&mitm, enclave.policy()).await;
    assert!(report.authentic, "the evidence itself is genuine");
    assert_eq!(failed(&report), ["channel.binding", "channel.spki"]);
    // The control: without him the same policy accepts.
    connect(&enclave.address, enclave.policy()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_man_in_the_middle_who_knows_the_tls_key_is_refused() {
    let key = known_key();
    let enclave = InProcess::start(Some(Identity::dangerous_from_pkcs8(&key).unwrap())).await;
    let upstream = enclave.address.clone();
    let mitm = impostor::start(Identity::dangerous_from_pkcs8(&key).unwrap(), move |request| {
        let upstream = upstream.clone();
        async move { ask(&upstream, &request).await }
    })
    .await;
    let report = refused(&mitm, enclave.policy()).await;
    assert!(report.authentic);
    assert_eq!(
        failed(&report),
        ["channel.binding"],
        "the key is right; only the exporter tells the sessions apart"
    );
    connect(&enclave.address, enclave.policy()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_response_is_refused() {
    let key = known_key();
    let enclave = InProcess::start(Some(Identity::dangerous_from_pkcs8(&key).unwrap())).await;
    let recorded = UnverifiedChannel::open(&enclave.address).await.unwrap().evidence().response.clone();
    let replayer = impostor::start(Identity::dangerous_from_pkcs8(&key).unwrap(), move |_| {
        let recorded = recorded.clone();
        async move { recorded }
    })
    .await;
    assert_eq!(failed(&refused(&replayer, enclave.policy()).await), ["channel.binding"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_to_another_request_is_refused() {
    let key = known_key();
    let enclave = InProcess::start(Some(Identity::dangerous_from_pkcs8(&key).unwrap())).await;
    let upstream = enclave.address.clone();
    // Another nonce; another mode.
    for change in [
        |request: &mut AttestRequest| request.nonce[0] ^= 1,
        |request: &mut AttestRequest| {
            request.mode = cocoon_attestation::wire::Mode::FreshCpuAndGpu;
        },
    ] {
        let upstream = upstream.clone();
        let mitm = impostor::start(Identity::dangerous_from_pkcs8(&key).unwrap(), move |request| {
            let upstream = upstream.clone();
            async move {
                let mut request = AttestRequest::decode(&request).unwrap();
                change(&mut request);
                ask(&upstream, &request.encode()).await
            }
        })
        .await;
        assert_eq!(failed(&refused(&mitm, enclave.policy()).await), ["channel.binding"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_place_of_another_client_is_refused() {
    let enclave = InProcess::start(None).await;
    let mut evidence = UnverifiedChannel::open(&enclave.address).await.unwrap().evidence().clone();
    let mut response = AttestResponse::decode(&evidence.response).unwrap();
    response.size += 1;
    response.path.push(cocoon_attestation::Digest([0; 32]));
    evidence.response = response.encode();
    let refusal = evidence
        .verify(&enclave.policy(), cocoon_tests::enclave::now(), &cocoon_attestation::SignatureCache::new())
        .unwrap_err();
    assert!(refusal.to_string().contains("channel.binding"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_statement_of_another_enclave_is_refused() {
    // Same processor, same measurement, another boot: S of one with the report of the other.
    let (one, other) = (InProcess::start(None).await, InProcess::start(None).await);
    let foreign = UnverifiedChannel::open(&other.address).await.unwrap().evidence().clone();
    let mut evidence = UnverifiedChannel::open(&one.address).await.unwrap().evidence().clone();
    let mut response = AttestResponse::decode(&evidence.response).unwrap();
    response.statement = AttestResponse::decode(&foreign.response).unwrap().statement;
    evidence.response = response.encode();
    let refusal = evidence
        .verify(&one.policy(), cocoon_tests::enclave::now(), &cocoon_attestation::SignatureCache::new())
        .unwrap_err();
    assert!(refusal.to_string().contains("channel.binding, channel.spki"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flipped_bit_of_the_report_is_refused() {
    let enclave = InProcess::start(None).await;
    let evidence = UnverifiedChannel::open(&enclave.address).await.unwrap().evidence().clone();
    let (policy, now) = (enclave.policy(), cocoon_tests::enclave::now());
    assert!(evidence.clone().verify(&policy, now, &cocoon_attestation::SignatureCache::new()).is_ok());
    let response = AttestResponse::decode(&evidence.response).unwrap();
    let start = response.evidence.windows(4).position(|w| w == [3, 0, 0, 0]).unwrap();
    for byte in 0..cocoon_attestation::snp::REPORT_LEN {
        let mut response = response.clone();
        response.evidence[start + byte] ^= 1 << (byte % 8);
        let evidence =
            cocoon_attestation::appraisal::RawEvidence { response: response.encode(), ..evidence.clone() };
        assert!(
            evidence.verify(&policy, now, &cocoon_attestation::SignatureCache::new()).is_err(),
            "byte {byte:#x} of the report is not protected"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_statements_and_garbage_are_refused() {
    let enclave = InProcess::start(None).await;
    let evidence = UnverifiedChannel::open(&enclave.address).await.unwrap().evidence().clone();
    let now = cocoon_tests::enclave::now();
    for (offset, accepted) in [(3600 + 290, true), (3600 + 310, false)] {
        let later = cocoon_attestation::UnixTime(now.0 + offset);
        assert_eq!(
            evidence
                .clone()
                .verify(&enclave.policy(), later, &cocoon_attestation::SignatureCache::new())
                .is_ok(),
            accepted,
            "{offset} s later"
        );
    }
    let earlier = cocoon_attestation::UnixTime(now.0 - 400);
    assert!(
        evidence
            .verify(&enclave.policy(), earlier, &cocoon_attestation::SignatureCache::new())
            .unwrap_err()
            .to_string()
            .contains("epoch.window")
    );

    let answers = Arc::new(Mutex::new(vec![b"garbage".to_vec(), vec![0xa0], Vec::new()]));
    let impostor = impostor::start(Identity::generate().unwrap(), move |_| {
        let answer = answers.lock().unwrap().pop().unwrap();
        async move { answer }
    })
    .await;
    for _ in 0..3 {
        assert!(matches!(connect(&impostor, enclave.policy()).await, Err(Error::Malformed(_))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_without_the_simulated_root_refuses() {
    let enclave = InProcess::start(None).await;
    let text = enclave.policy_text();
    let (before, rest) = text.split_once("\nroot = {").unwrap();
    let (_, after) = rest.split_once("\"\"\" }").unwrap();
    let production = format!("{before}\nroot = \"amd\"{after}");
    let report = refused(&enclave.address, cocoon_client::Policy::from_toml(&production).unwrap()).await;
    assert!(!report.authentic);
    assert!(failed(&report).contains(&"snp.chain"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_demand_of_the_policy_has_a_refusal() {
    let enclave = InProcess::start(None).await;
    let text = enclave.policy_text();
    let measurement = text.split("measurement = { exactly = \"").nth(1).unwrap()[..96].to_owned();
    let cases = [
        ("any_of = [\"X25519MLKEM768\"]", "any_of = [\"X25519\"]".to_owned(), "channel.named_group"),
        ("version = { at_least = 3 }", "version = { at_least = 4 }".to_owned(), "snp.version"),
        (measurement.as_str(), "0".repeat(96), "snp.measurement"),
        ("debug = { exactly = 0 }", "debug = { exactly = 1 }".to_owned(), "snp.policy.debug"),
        ("vmpl = { exactly = 0 }", "vmpl = { exactly = 1 }".to_owned(), "snp.vmpl"),
        ("1111111111111111111111111111111111111111111111111111111111111111", "3".repeat(64), "claims.model"),
        ("2222222222222222222222222222222222222222222222222222222222222222", "3".repeat(64), "claims.config"),
        (
            "release = { unchecked = \"a simulated enclave is not released\" }",
            format!("release = {{ exactly = \"{}\" }}", "3".repeat(64)),
            "claims.release",
        ),
        (
            "gpu_mode = { exactly = \"none\" }",
            "gpu_mode = { exactly = \"on\" }".to_owned(),
            "claims.gpu_mode",
        ),
        ("padding = { at_least = 1 }", "padding = { at_least = 2 }".to_owned(), "privacy.padding"),
        (
            "content_logged = { exactly = 0 }",
            "content_logged = { exactly = 1 }".to_owned(),
            "privacy.content_logged",
        ),
        (
            "shared_prefix_cache = { exactly = 0 }",
            "shared_prefix_cache = { exactly = 1 }".to_owned(),
            "privacy.shared_prefix_cache",
        ),
    ];
    for (from, to, factor) in cases {
        assert!(text.contains(from), "{from}");
        let policy = cocoon_client::Policy::from_toml(&text.replace(from, &to)).unwrap();
        assert_eq!(failed(&refused(&enclave.address, policy).await), [factor]);
    }
}
