//! Every parser of outside bytes, as a function that must not panic, hang or eat memory, whatever it is given.
//!
//! `tests/fuzz` runs them under libFuzzer; the test `fuzz_smoke` runs them on mutated seeds in every build.

use cocoon_attestation::binding::{ChannelBinding, Role};
use cocoon_attestation::policy::Policy;
use cocoon_attestation::receipt::{Receipt, ReceiptBundle, SignedReceipt};
use cocoon_attestation::release::{Checkpoint, Note, ReleaseBundle, ReleaseManifest};
use cocoon_attestation::wire::{
    AttestRequest, AttestResponse, EpochStatement, EvidenceSet, FrameHeader, check_client_hello,
};
use cocoon_attestation::x509::{Certificate, RevocationList};
use cocoon_attestation::{
    Digest, ENDORSEMENT_KINDS, Endorsement, EndorsementBundle, UnixTime, appraisal::RawEvidence, nvidia, snp,
    tdx,
};
use cocoon_measurements::{explain, image, predict};

/// A parser under test.
pub type Target = fn(&[u8]);

/// Name and function of every target.
pub const TARGETS: [(&str, Target); 51] = [
    ("attest_request", |bytes| round_trip(AttestRequest::decode(bytes).ok().map(|m| m.encode()), bytes)),
    ("attest_response", |bytes| round_trip(AttestResponse::decode(bytes).ok().map(|m| m.encode()), bytes)),
    ("epoch_statement", |bytes| round_trip(EpochStatement::decode(bytes).ok().map(|m| m.encode()), bytes)),
    ("receipt", |bytes| {
        round_trip(Receipt::decode(bytes).ok().map(|m| m.encode()), bytes);
        round_trip(SignedReceipt::decode(bytes).ok().map(|m| m.encode()), bytes);
    }),
    ("receipt_bundle", |bytes| {
        let bundle = ReceiptBundle::decode(bytes).ok();
        let _any = bundle.as_ref().map(|bundle| bundle.signed.verify(&bundle.statement));
        round_trip(bundle.map(|m| m.encode()), bytes);
    }),
    ("padded_answer", cocoon_client::fuzzing::padded_answer),
    ("embeddings_answer", cocoon_client::fuzzing::embeddings),
    ("evidence_set", |bytes| round_trip(EvidenceSet::decode(bytes).ok().map(|m| m.encode()), bytes)),
    ("frame_header", |bytes| {
        let _any = bytes.first_chunk().map(|header| FrameHeader::parse(*header));
    }),
    ("client_hello", |bytes| {
        let _any = check_client_hello(bytes);
    }),
    ("snp_report", |bytes| {
        let _any = snp::Report::parse(bytes);
    }),
    ("certificate", |bytes| {
        let _any = Certificate::from_pem_or_der(bytes);
    }),
    ("revocation_list", |bytes| {
        let _any = RevocationList::from_pem_or_der(bytes);
    }),
    ("certificate_list", |bytes| {
        let _any = Certificate::list_from_pem_or_der(bytes, 8);
    }),
    ("endorsement", |bytes| {
        round_trip(Endorsement::decode(bytes).ok().map(|m| m.encode()), bytes);
        // What is recognised can be described.
        for item in Endorsement::recognise(bytes).unwrap_or_default() {
            let _any = item.about();
        }
    }),
    ("endorsement_bundle", |bytes| {
        round_trip(EndorsementBundle::decode(bytes).ok().map(|m| m.encode()), bytes);
    }),
    ("tdx_quote", |bytes| {
        let _any = tdx::Quote::parse(bytes);
    }),
    ("tdx_endorsements", |bytes| {
        let given = ENDORSEMENT_KINDS.map(|(kind, _)| Endorsement { kind, bytes: bytes.to_vec() });
        let _any = tdx::Endorsements::new(&given);
    }),
    ("tdx_event_log", |bytes| {
        let _any = tdx::EventLog::parse(bytes).map(|log| log.replay());
    }),
    ("nvidia_report", |bytes| {
        let _any = nvidia::Report::parse(bytes);
    }),
    ("nvidia_evidence", |bytes| {
        round_trip(nvidia::GpuEvidence::decode(bytes).ok().map(|gpu| gpu.encode()), bytes);
    }),
    ("nvidia_rim", |bytes| {
        let _any = nvidia::Rim::parse(bytes);
    }),
    ("nvidia_ocsp", |bytes| {
        let _any = nvidia::OcspResponse::parse(bytes);
    }),
    ("policy", |bytes| {
        let _any = std::str::from_utf8(bytes).map(Policy::from_toml);
    }),
    ("release_manifest", |bytes| {
        round_trip(ReleaseManifest::decode(bytes).ok().map(|m| m.encode()), bytes);
    }),
    ("release_bundle", |bytes| {
        round_trip(ReleaseBundle::decode(bytes).ok().map(|m| m.encode()), bytes);
    }),
    ("signed_note", |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        round_trip(Note::parse(text).ok().map(|note| note.to_string().into()), bytes);
        round_trip(Checkpoint::parse(text).ok().map(|checkpoint| checkpoint.text().into()), bytes);
    }),
    ("verify", verify),
    ("chat_request", cocoon_enclave::fuzzing::chat_request),
    ("tool_calls", cocoon_enclave::fuzzing::tool_calls),
    ("json_schema", cocoon_inference::fuzzing::schema),
    ("host_port", cocoon_enclave::fuzzing::host_port),
    ("command_line", cocoon_enclave::fuzzing::command_line),
    ("driver_lock", |bytes| {
        let _any = image::cuda::Driver::parse(std::path::Path::new("d"), &String::from_utf8_lossy(bytes));
    }),
    ("snp_certificate_table", cocoon_enclave::fuzzing::certificate_table),
    ("tdx_quote_response", cocoon_enclave::fuzzing::quote_response),
    ("initramfs", |bytes| {
        let _any = image::archive::entries(bytes);
    }),
    ("image_manifest", |bytes| {
        let _any = serde_json::from_slice::<image::manifest::Manifest>(bytes);
    }),
    ("firmware", firmware),
    ("kernel", |bytes| {
        let _any = predict::authenticode::digest(bytes);
    }),
    ("saved_measurement", |bytes| {
        let _any = explain::evidence::Measured::from_evidence(bytes);
        let _any = std::str::from_utf8(bytes).map(explain::evidence::Measured::from_text);
    }),
    ("gguf", cocoon_inference::fuzzing::model),
    ("model_archive", cocoon_inference::fuzzing::archive),
    ("safetensors", cocoon_inference::fuzzing::safetensors),
    ("model_config", cocoon_inference::fuzzing::config),
    ("tokenizer_json", cocoon_inference::fuzzing::tokenizer),
    ("client_text", |bytes| cocoon_inference::fuzzing::text(&String::from_utf8_lossy(bytes))),
    ("bert_config", cocoon_inference::fuzzing::bert_config),
    ("bert_tokenizer", cocoon_inference::fuzzing::bert_tokenizer),
    ("bert_text", |bytes| cocoon_inference::fuzzing::bert_text(&String::from_utf8_lossy(bytes))),
    ("chat_template", |bytes| {
        if let Ok(source) = std::str::from_utf8(bytes) {
            cocoon_inference::fuzzing::template(source);
        }
    }),
];

/// Runs the target of this name.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name");
    target.1(bytes);
}

/// What was accepted must be the one canonical encoding.
fn round_trip(encoded: Option<Vec<u8>>, bytes: &[u8]) {
    if let Some(encoded) = encoded {
        assert_eq!(encoded, bytes, "accepted bytes that are not canonical");
    }
}

/// Firmware for both platforms: its tables, its compressed volume, and all that is measured of it.
fn firmware(bytes: &[u8]) {
    use predict::snp::launch::{Hashes, Order, Start, Vcpus};
    let Ok(firmware) = predict::firmware::Firmware::parse(bytes) else { return };
    let hashes = Hashes::of(&predict::Boot { kernel: b"k", initrd: b"i", command_line: b"c" });
    for order in [Order::Qemu, Order::Ec2] {
        let _any = Start::new(&firmware, order).and_then(|start| start.with(Some(&hashes)));
        let _any = Vcpus::new(&firmware, order, predict::snp::VcpuType::all()[0], 1);
    }
    for order in [predict::tdx::Order::SinglePass, predict::tdx::Order::TwoPass] {
        let _any = predict::tdx::mr_td(&firmware, order);
    }
    let _any = predict::enforcement::enforcing(firmware, &[Digest::of(bytes)]);
}

/// The whole pipeline on a response from a stranger. Nothing is ever accepted: no fuzzer holds AMD's keys.
fn verify(bytes: &[u8]) {
    let channel = ChannelBinding {
        role: Role::Enclave,
        cipher_suite: 0x1302,
        named_group: 0x11ec,
        spki: Digest([6; 32]),
        peer_spki: None,
        exported: [0; 32],
    };
    let evidence =
        RawEvidence { request: AttestRequest::new([0; 32]).encode(), response: bytes.to_vec(), channel };
    let policy =
        Policy::from_toml(include_str!("../../docs/examples/policy.toml")).expect("the example is a policy");
    assert!(
        evidence
            .verify(&policy, UnixTime(1_800_000_000), &cocoon_attestation::SignatureCache::new())
            .is_err()
    );
}
