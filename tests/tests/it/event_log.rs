//! `cocoon inspect tdx --event-log` on the log of a real guest.

use crate::corpus::{corpus, failed, inspect};

#[test]
fn the_log_of_a_guest_explains_its_quote_and_a_changed_one_does_not() {
    let Some(root) = corpus() else { return };
    let root = root.join("tdx");
    let dir = tempfile::tempdir().unwrap();
    let with = |log: &[u8]| {
        let path = dir.path().join("log");
        std::fs::write(&path, log).unwrap();
        let quote = root.join("v4-00806f-gcp/quote.bin").display().to_string();
        let given = root.join("collateral/00806f-2025-06").display().to_string();
        let log = path.display().to_string();
        let at = "2025-06-10T00:00:00Z";
        let args = ["tdx", "--quote", &quote, "--endorsements", &given, "--event-log", &log, "--at", at];
        inspect(&args.map(String::from)).1
    };
    let log = std::fs::read(root.join("v4-00806f-gcp/ccel_data.bin")).unwrap();
    let report = with(&log);
    assert!(report["authentic"] == true && !failed(&report).contains(&"tdx.event_log"));
    let factors = report["factors"].as_array().unwrap();
    let factor = factors.iter().find(|factor| factor["name"] == "tdx.event_log").unwrap();
    assert_eq!(
        (&factor["status"], &factor["got"]),
        (&"pass".into(), &"43 events make RTMR0, RTMR1, RTMR2".into())
    );
    // A byte of the first digest: behind the specification identifier, a register, a type, a count and an algorithm.
    let mut changed = log.clone();
    let first = 32 + usize::from(log[28]) + 4 + 4 + 4 + 2;
    changed[first] ^= 1;
    assert!(failed(&with(&changed)).contains(&"tdx.event_log"));
    let report = with(&log[..log.len() / 2]);
    assert_eq!((failed(&report), &report["authentic"]), (vec!["evidence.format"], &false.into()));
}
