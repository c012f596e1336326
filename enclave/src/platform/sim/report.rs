//! A report of version 3, encoded by AMD's own crate: the Verifier's parser and this writer share no code.

use cocoon_attestation::Measurement;
use ring::rand::SystemRandom;
use ring::signature::EcdsaKeyPair;
use sev::firmware::guest::{AttestationReport, GuestPolicy, PlatformInfo};
use sev::firmware::host::TcbVersion;
use sev::parser::ByteParser;

/// What a Genoa of stepping 1 says of itself (CPUID family 0x19, model 0x11).
const FAMILY: u8 = 0x19;
const MODEL: u8 = 0x11;
const STEPPING: u8 = 1;

/// TCB of the simulated firmware: boot loader, TEE, SNP, microcode. Not below the Verifier's floors.
pub(super) const TCB: [u8; 4] = [10, 0, 23, 84];

/// SMT allowed, and the bit that must be one.
const POLICY: u64 = 0x3_0000;

/// ECC memory, and no aliases in it (AMD 56860, table 24).
const PLATFORM_INFO: u64 = 0x24;

/// Signed bytes, and where r and s lie behind them, little-endian in 72 bytes each.
const SIGNED_LEN: usize = 0x2a0;
const SCALAR_LEN: usize = 48;
const SCALAR_ROOM: usize = 72;

/// What was launched, and where.
pub(super) struct Launched {
    pub(super) chip_id: [u8; 64],
    pub(super) measurement: Measurement,
    pub(super) host_data: [u8; 32],
}

pub(super) fn signed(key: &EcdsaKeyPair, launched: Launched, report_data: [u8; 64]) -> Option<Vec<u8>> {
    let [bootloader, tee, snp, microcode] = TCB;
    let tcb = TcbVersion::new(None, bootloader, tee, snp, microcode);
    let report = AttestationReport {
        version: 3,
        policy: GuestPolicy::from(POLICY),
        sig_algo: 1,
        plat_info: PlatformInfo::from(PLATFORM_INFO),
        current_tcb: tcb,
        reported_tcb: tcb,
        committed_tcb: tcb,
        launch_tcb: tcb,
        report_data,
        measurement: launched.measurement.0,
        host_data: launched.host_data,
        cpuid_fam_id: Some(FAMILY),
        cpuid_mod_id: Some(MODEL),
        cpuid_step: Some(STEPPING),
        chip_id: launched.chip_id,
        ..AttestationReport::default()
    };
    let mut bytes = report.to_bytes().ok()?.to_vec();
    let signature = key.sign(&SystemRandom::new(), bytes.get(..SIGNED_LEN)?).ok()?;
    let (r, s) = signature.as_ref().split_at_checked(SCALAR_LEN)?;
    for (scalar, offset) in [(r, SIGNED_LEN), (s, SIGNED_LEN + SCALAR_ROOM)] {
        let little_endian: Vec<u8> = scalar.iter().rev().copied().collect();
        bytes.get_mut(offset..offset + SCALAR_LEN)?.copy_from_slice(&little_endian);
    }
    Some(bytes)
}
