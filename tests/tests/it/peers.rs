//! What other implementations say of the same bytes.

use cocoon_attestation::wire::{AttestResponse, EvidenceSet};
use cocoon_client::UnverifiedChannel;
use cocoon_tests::enclave::InProcess;
use cocoon_tests::sim_state;
use sev::certs::snp::{Certificate, Chain, Verifiable, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;

#[tokio::test(flavor = "multi_thread")]
async fn the_sev_crate_verifies_simulated_reports() {
    let enclave = InProcess::start(None).await;
    let evidence = UnverifiedChannel::open(&enclave.address).await.unwrap().evidence().clone();
    let response = AttestResponse::decode(&evidence.response).unwrap();
    let report = EvidenceSet::decode(&response.evidence).unwrap().0.remove("cpu").unwrap().bytes;
    let der = |name: &str| Certificate::from_der(&std::fs::read(sim_state().join(name)).unwrap()).unwrap();
    let chain = Chain { ca: ca::Chain { ark: der("ark.der"), ask: der("ask.der") }, vek: der("vcek.der") };
    let parsed = AttestationReport::from_bytes(&report).unwrap();
    (&chain, &parsed).verify().unwrap();

    let ours = cocoon_attestation::snp::Report::parse(&report).unwrap();
    assert_eq!(
        (ours.version, ours.vmpl, ours.measurement.0),
        (parsed.version, parsed.vmpl, parsed.measurement)
    );
    assert_eq!(
        (ours.report_data, ours.chip_id, ours.policy),
        (parsed.report_data, parsed.chip_id, parsed.policy.0)
    );

    let mut altered = report;
    altered[0x50] ^= 1;
    assert!((&chain, &AttestationReport::from_bytes(&altered).unwrap()).verify().is_err());
}

#[test]
fn the_built_in_roots_are_those_of_the_sev_crate() {
    use sev::certs::snp::builtin::{genoa, milan, turin};
    let roots = cocoon_tests::repository().join("attestation/src/snp/roots");
    let theirs = [
        ("ark_milan", milan::ark()),
        ("ask_milan", milan::ask()),
        ("ark_genoa", genoa::ark()),
        ("ask_genoa", genoa::ask()),
        ("ark_turin", turin::ark()),
        ("ask_turin", turin::ask()),
    ];
    for (name, theirs) in theirs {
        let ours = std::fs::read(roots.join(name).with_extension("der")).unwrap();
        assert_eq!(theirs.unwrap().to_der().unwrap(), ours, "{name}");
    }
}
