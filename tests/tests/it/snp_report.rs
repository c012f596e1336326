//! ATTESTATION_REPORT: what the parser takes, and the policy's rows, one at a time.

use cocoon_attestation::appraisal::inspect;
use cocoon_attestation::policy::{Policy, strict};
use cocoon_attestation::result::Status;
use cocoon_attestation::snp::{Product, REPORT_LEN, Report, SigningKey};
use cocoon_attestation::x509::Certificate;
use cocoon_attestation::{Context, Error, Missing, SignatureCache};
use cocoon_tests::enclave::now;
use cocoon_tests::factory::{Chip, Processor, offset};
use der::pem::LineEnding;

fn genoa() -> Processor {
    Processor::of(Product::Genoa)
}

#[test]
fn products_are_told_by_family_and_model() {
    let product = |family: u8, model: u8| {
        let mut processor = genoa();
        processor.report.set(offset::CPUID, &[family, model, 0]);
        let report = Report::parse(&processor.report.sign()).unwrap();
        report.product()
    };
    use Product::{Genoa, Milan, Turin};
    let cases = [
        (0x19, 0x00, Some(Milan)),
        (0x19, 0x0f, Some(Milan)),
        (0x19, 0x10, Some(Genoa)),
        (0x19, 0x1f, Some(Genoa)),
        (0x19, 0x20, None),
        (0x19, 0x9f, None),
        (0x19, 0xa0, Some(Genoa)),
        (0x19, 0xaf, Some(Genoa)),
        (0x19, 0xb0, None),
        (0x1a, 0x00, Some(Turin)),
        (0x1a, 0x1f, Some(Turin)),
        (0x1a, 0x20, None),
        (0x17, 0x31, None),
        (0x1b, 0x00, None),
        (0x00, 0x00, None),
    ];
    for (family, model, expected) in cases {
        assert_eq!(product(family, model), expected, "family {family:#x}, model {model:#x}");
    }
}

#[test]
fn reports_that_are_not_as_the_abi_says_are_malformed() {
    let parse = |at: usize, content: &[u8]| {
        let mut report = genoa().report;
        report.set(at, content);
        Report::parse(&report.sign()).map(|report| report.version)
    };
    let refused = |at: usize, content: &[u8], why: &str| match parse(at, content) {
        Err(Error::Malformed { why: got, .. }) => assert!(got.contains(why), "{at:#x}: {got}"),
        other => panic!("{at:#x}: {other:?}"),
    };
    for version in [3, 4, 5] {
        assert_eq!(parse(offset::VERSION, &[version]).unwrap(), u32::from(version));
    }
    for version in [0, 1, 6, 0xff] {
        refused(offset::VERSION, &[version], "version");
    }
    refused(offset::VERSION, &[3, 0, 0, 1], "version");
    for algorithm in [0, 2] {
        refused(offset::ALGORITHM, &[algorithm], "algorithm");
    }
    // First and last byte of each reserved field below the signature. 0x1f8 has a meaning from version 5 on.
    let reserved = [(0x4c, 0x4f), (0x18b, 0x19f), (0x1eb, 0x1eb), (0x1ef, 0x1ef), (0x208, 0x29f)];
    for at in reserved.into_iter().chain([(0x1f8, 0x207)]).flat_map(|(first, last)| [first, last]) {
        refused(at, &[1], "reserved");
    }
    // Version 2 says nothing about the processor.
    refused(offset::VERSION, &[2], "reserved field at 0x188");
    let mut version_2 = genoa().report;
    version_2.set(offset::VERSION, &[2]);
    version_2.set(offset::CPUID, &[0; 3]);
    assert_eq!(Report::parse(&version_2.sign()).unwrap().product(), None);
    // SIGNING_KEY.
    refused(offset::FLAGS, &[7 << 2], "not signed");
    for flags in [[2 << 2, 0], [6 << 2, 0], [1 << 5, 0], [0, 1]] {
        refused(offset::FLAGS, &flags, "bits that are not specified");
    }
    for at in [0x48, 0x1e8, 0x1ea, 0x1ec, 0x1ee, 0x1f0, 0x1f7] {
        assert!(parse(at, &[1]).is_ok(), "{at:#x} is not reserved");
    }
    let mut version_5 = genoa().report;
    version_5.set(offset::VERSION, &[5]);
    version_5.set(0x1f8, &[1; 16]);
    assert!(Report::parse(&version_5.sign()).is_ok());
    version_5.set(0x208, &[1]);
    assert!(Report::parse(&version_5.sign()).is_err());
}

#[test]
fn signatures_are_one_way_to_write_and_of_one_key() {
    let genuine = genoa();
    let good = genuine.report.sign();
    assert_eq!(good.len(), REPORT_LEN);
    for bad in [&good[..REPORT_LEN - 1], &[&good[..], &[0]].concat(), &[]] {
        assert!(Report::parse(bad).unwrap_err().to_string().contains("a report has 1184"));
    }
    let vcek = Certificate::from_der(&genuine.vcek.issue()).unwrap();
    let verdict = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        Report::parse(&bytes).map(|report| report.is_signed_by(&vcek))
    };
    let (r, s, end) = (offset::SIGNATURE, offset::SIGNATURE + 72, offset::SIGNATURE + 144);
    for at in [r + 48, r + 71, s + 48, s + 71] {
        assert!(verdict(at).unwrap_err().to_string().contains("padding"), "{at:#x}");
    }
    for at in [end, REPORT_LEN - 1] {
        assert!(verdict(at).unwrap_err().to_string().contains("reserved"), "{at:#x}");
    }
    for at in [r, r + 47, s, s + 47, offset::REPORT_DATA, offset::MEASUREMENT] {
        assert_eq!(verdict(at), Ok(false), "{at:#x}");
    }
    // No signature at all, and zero or the group's order as a scalar, which some verifiers took for anybody's signature.
    let order =
        "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973";
    let mut order = hex::decode(order).unwrap();
    order.reverse();
    for (scalar_r, scalar_s) in [
        (&[0; 48][..], &[0; 48][..]),
        (&order, &order),
        (&good[r..r + 48], &[0; 48]),
        (&[0; 48], &good[s..s + 48]),
    ] {
        let mut bytes = good.clone();
        bytes[r..r + 48].copy_from_slice(scalar_r);
        bytes[s..s + 48].copy_from_slice(scalar_s);
        assert!(!Report::parse(&bytes).unwrap().is_signed_by(&vcek));
    }
    // Another processor's key, and keys of another kind.
    let mut other = genuine.clone();
    other.report.signed_by = Chip::Other;
    assert!(!Report::parse(&other.report.sign()).unwrap().is_signed_by(&vcek));
    let report = Report::parse(&good).unwrap();
    assert!(report.is_signed_by(&vcek));
    assert!(!report.is_signed_by(&Certificate::from_der(&genuine.ask.issue()).unwrap()));
}

/// The strict policy, but for the root, with one change.
fn policy(from: &str, to: &str) -> Policy {
    let root = der::pem::encode_string("CERTIFICATE", LineEnding::LF, &genoa().ark.issue()).unwrap();
    let text = strict()
        .replace("root = \"amd\"", &format!("root = {{ insecure_simulated = \"\"\"\n{root}\"\"\" }}"));
    assert!(text.contains(from), "{from}");
    Policy::from_toml(&text.replace(from, to)).unwrap()
}

/// Factors that fail for a processor under the strict policy.
fn rejected(
    product: Product,
    spoil: impl FnOnce(&mut Processor),
    policy: &Policy,
) -> (bool, Vec<&'static str>) {
    let mut processor = Processor::of(product);
    spoil(&mut processor);
    let ctx = Context { now: now(), missing: Missing::Fails, signatures: &SignatureCache::new() };
    let report = inspect::snp(&processor.report.sign(), processor.endorsements(), policy, None, ctx);
    assert_eq!(report.accepted, report.failures().count() == 0);
    (report.authentic, report.failures().map(|factor| factor.name).collect())
}

#[test]
fn each_row_of_the_strict_policy_refuses() {
    let strict = policy("vmpl", "vmpl");
    assert_eq!(rejected(Product::Genoa, |_| (), &strict), (true, vec![]));
    assert_eq!(rejected(Product::Turin, |_| (), &strict), (true, vec![]));
    assert_eq!(rejected(Product::Milan, |_| (), &strict), (true, vec!["snp.product", "snp.tcb"]));
    type Spoil = fn(&mut Processor);
    let cases: [(Spoil, &[&str]); 13] = [
        (|p| p.report.set(offset::POLICY + 2, &[0x0b]), &["snp.policy.debug"]),
        (|p| p.report.set(offset::POLICY + 2, &[0x07]), &["snp.policy.migrate_ma"]),
        (|p| p.report.set(offset::POLICY + 2, &[0x23]), &["snp.policy.cxl"]),
        (|p| p.report.set(offset::POLICY + 2, &[0x01]), &["snp.policy.reserved"]),
        (|p| p.report.set(offset::POLICY + 3, &[0x04]), &["snp.policy.reserved"]),
        (|p| p.report.set(offset::POLICY + 7, &[0x80]), &["snp.policy.reserved"]),
        (|p| p.report.set(offset::PLATFORM_INFO, &[0x20]), &["snp.platform.ecc_en"]),
        (|p| p.report.set(offset::PLATFORM_INFO, &[0x04]), &["snp.platform.alias_check_complete"]),
        (|p| p.report.set(0x30, &[1]), &["snp.vmpl"]),
        (|p| p.report.set(offset::FLAGS, &[2]), &["snp.chip_key_masked"]),
        (|p| p.report.set(offset::LAUNCH_TCB, &[1]), &["snp.tcb"]),
        (|p| p.report.set(offset::CURRENT_TCB + 7, &[255]), &["snp.tcb.committed"]),
        (|p| p.report.set(offset::COMMITTED_TCB + 7, &[199]), &["snp.tcb.committed"]),
    ];
    for (n, (spoil, expected)) in cases.into_iter().enumerate() {
        assert_eq!(rejected(Product::Genoa, spoil, &strict), (true, expected.to_vec()), "case {n}");
    }
    // A stepping without a floor, and firmware that claims less than it reports.
    let stepping = |p: &mut Processor| p.report.set(offset::CPUID + 2, &[9]);
    assert_eq!(rejected(Product::Genoa, stepping, &strict), (true, vec!["snp.tcb"]));
    let lower = |p: &mut Processor| {
        p.report.set(offset::CURRENT_TCB + 7, &[199]);
        p.report.set(offset::COMMITTED_TCB + 7, &[199]);
    };
    assert_eq!(rejected(Product::Genoa, lower, &strict), (true, vec!["snp.tcb.reported"]));
}

#[test]
fn rows_that_a_policy_states_refuse_other_values() {
    let zeros = |n: usize| "0".repeat(n);
    let rows = [
        (
            "signing_key = { any_of = [\"VCEK\"] }",
            "signing_key = { exactly = \"VLEK\" }".to_owned(),
            "snp.signing_key",
        ),
        ("version = { at_least = 3 }", "version = { at_least = 5 }".to_owned(), "snp.version"),
        ("family_id = ", format!("family_id = {{ exactly = \"{}01\" }} #", zeros(30)), "snp.family_id"),
        ("image_id = ", format!("image_id = {{ exactly = \"{}01\" }} #", zeros(30)), "snp.image_id"),
        ("guest_svn = ", "guest_svn = { at_least = 1 } #".to_owned(), "snp.guest_svn"),
        ("host_data = ", format!("host_data = {{ exactly = \"{}01\" }} #", zeros(62)), "snp.host_data"),
        (
            "id_key_digest = ",
            format!("id_key_digest = {{ exactly = \"{}01\" }} #", zeros(94)),
            "snp.id_key_digest",
        ),
        (
            "author_key_digest = ",
            format!("author_key_digest = {{ exactly = \"{}01\" }} #", zeros(94)),
            "snp.author_key_digest",
        ),
        ("measurement = ", format!("measurement = {{ exactly = \"{}01\" }} #", zeros(94)), "snp.measurement"),
        ("single_socket = ", "single_socket = { exactly = 1 } #".to_owned(), "snp.policy.single_socket"),
        (
            "mem_aes_256_xts = ",
            "mem_aes_256_xts = { exactly = 1 } #".to_owned(),
            "snp.policy.mem_aes_256_xts",
        ),
        (
            "ciphertext_hiding = ",
            "ciphertext_hiding = { exactly = 1 } #".to_owned(),
            "snp.policy.ciphertext_hiding",
        ),
        (
            "page_swap_disable = ",
            "page_swap_disable = { exactly = 1 } #".to_owned(),
            "snp.policy.page_swap_disable",
        ),
        (
            "\nrapl_dis = { unchecked = \"power",
            "\nrapl_dis = { exactly = 1 } #".to_owned(),
            "snp.policy.rapl_dis",
        ),
        (
            "\nrapl_dis = { unchecked = \"see",
            "\nrapl_dis = { exactly = 1 } #".to_owned(),
            "snp.platform.rapl_dis",
        ),
        ("\nsmt = ", "\nsmt = { exactly = 0 } #".to_owned(), "snp.policy.smt"),
        ("smt_en = ", "smt_en = { exactly = 1 } #".to_owned(), "snp.platform.smt_en"),
        ("tsme_en = ", "tsme_en = { exactly = 1 } #".to_owned(), "snp.platform.tsme_en"),
        (
            "ciphertext_hiding_dram_en = ",
            "ciphertext_hiding_dram_en = { exactly = 1 } #".to_owned(),
            "snp.platform.ciphertext_hiding_dram_en",
        ),
        (
            "deny = []",
            "deny = [\"".to_owned() + &hex::encode((1..=64).collect::<Vec<u8>>()) + "\"]",
            "platform.deny",
        ),
        ("\nid = ", "\nid = { any_of = [\"aa\"] } #".to_owned(), "platform.id"),
        ("tier = ", "tier = { any_of = [\"datacenter\"] } #".to_owned(), "platform.tier"),
    ];
    for (from, to, factor) in rows {
        assert_eq!(rejected(Product::Genoa, |_| (), &policy(from, &to)), (true, vec![factor]), "{from}");
    }
}

#[test]
fn report_data_is_compared_when_it_is_known() {
    let (processor, strict) = (genoa(), policy("vmpl", "vmpl"));
    let status = |expected| {
        let ctx = Context { now: now(), missing: Missing::Fails, signatures: &SignatureCache::new() };
        let report = inspect::snp(&processor.report.sign(), processor.endorsements(), &strict, expected, ctx);
        let factor = report.factors.iter().find(|factor| factor.name == "evidence.report_data").unwrap();
        (factor.status, report.accepted)
    };
    assert_eq!(status(None), (Status::Unchecked, true));
    assert_eq!(status(Some([0; 64])), (Status::Pass, true));
    assert_eq!(status(Some([1; 64])), (Status::Fail, false));
    assert_eq!(Report::parse(&processor.report.sign()).unwrap().signing_key(), Ok(SigningKey::Vcek));
}
