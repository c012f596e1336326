//! Firmware that measures hashes but does not compare them.

use super::{FIRMWARE, altered, reviewed, with_verifier, with_volume};
use crate::predict::enforcement::{HASHES, enforcing};
use crate::predict::firmware::Firmware;

fn refused(firmware: &[u8]) -> String {
    let error = enforcing(Firmware::parse(firmware).unwrap(), &reviewed(firmware)).unwrap_err();
    assert!(error.is_rejection());
    error.to_string()
}

#[test]
fn firmware_is_taken_if_it_was_reviewed_and_has_a_verifier() {
    let good = with_verifier();
    let firmware = || Firmware::parse(&good).unwrap();
    assert_eq!(enforcing(firmware(), &reviewed(&good)).unwrap().firmware().bytes(), good);
    let unknown = enforcing(firmware(), &reviewed(FIRMWARE)).unwrap_err().to_string();
    assert!(unknown.contains("is not known to stop") && unknown.contains("--reviewed-ovmf"), "{unknown}");
    // Large sections have their length elsewhere.
    let mut large = good.clone();
    large.splice(0..4, [0xff, 0xff, 0xff, 2, 0, 0, 0, 0]);
    large[24] = 28;
    large.drain(large.len() - FIRMWARE.len() - 4..large.len() - FIRMWARE.len());
    assert_eq!(large.len(), good.len());
    assert!(enforcing(Firmware::parse(&large).unwrap(), &reviewed(&large)).is_ok());
}

#[test]
fn firmware_without_a_verifier_is_refused_even_if_reviewed() {
    assert!(refused(FIRMWARE).contains("no blob verifier"));
    for missing in 0..HASHES.len() {
        let some: Vec<_> =
            HASHES.into_iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, id)| id).collect();
        assert!(refused(&with_volume(&some.concat())).contains("no blob verifier"), "{missing}");
    }
    // Not in the open: where an option ROM or a variable could have put them.
    let mut open = with_volume(b"nothing");
    open[2000..2048].copy_from_slice(&HASHES.concat());
    assert!(refused(&open).contains("no blob verifier"));
    let mut broken = with_verifier();
    broken[24] = 0xff;
    assert!(refused(&broken).contains("no blob verifier"));
}

/// The table of launch.fd: at 32 bytes before the end the table's own 18 bytes, before it TDX (22), SEV (22), hashes (26).
#[test]
fn firmware_without_a_measured_place_for_hashes_is_refused() {
    let hash_table = 32 + 18 + 22 + 22 + 26;
    assert!(refused(&altered(hash_table, &[0; 4])).contains("base or size is zero"));
    assert!(refused(&altered(hash_table - 4, &[0; 4])).contains("base or size is zero"));
    assert!(refused(&altered(hash_table, &[0, 0x0c, 0x82, 0])).contains("outside of the measured section"));
    // The kind of the fifth section.
    let section = 0x400 - 16 - 4 * 12 - 8;
    assert!(refused(&altered(section, &[1, 0, 0, 0])).contains("no section for kernel hashes"));
    // The GUID of the entry for hashes.
    assert!(refused(&altered(hash_table - 10, &[0; 4])).contains("base or size is zero"));
}
