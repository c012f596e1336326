//! A processor of AMD's that signs what it is told, under a test root.

use rcgen::{CertificateParams, CertificateRevocationListParams, KeyIdMethod, SerialNumber, date_time_ymd};

use crate::nvidia::tests::factory::{Party, end_entity, extension};
use crate::x509::Certificate;
use crate::{Endorsement, EndorsementKind};

/// Boot loader, TEE, SNP, microcode: as in the report, and by the number of their extension.
const TCB: [u8; 8] = [10, 1, 0, 0, 0, 0, 23, 200];
const SPLS: [(u64, u8); 4] = [(1, 10), (2, 1), (3, 23), (8, 200)];
const CHIP_ID: [u8; 64] = [0xc1; 64];

pub(super) const MEASUREMENT: [u8; 48] = [0x4d; 48];

/// A Genoa processor.
pub(super) struct Processor {
    ark: Party,
    ask: Party,
    vcek: Party,
}

impl Processor {
    pub(super) fn new() -> Self {
        let ark = Party::new("ARK-Test", None, authority);
        let ask = Party::new("SEV-Test", Some(&ark), authority);
        let vcek = Party::new("SEV-VCEK", Some(&ask), |params| {
            end_entity(params);
            let amd = |rest: &[u64]| [&[1, 3, 6, 1, 4, 1, 3704, 1], rest].concat();
            params.custom_extensions = SPLS
                .iter()
                .map(|(number, value)| extension(&amd(&[3, *number]), integer(*value)))
                .chain([extension(&amd(&[4]), CHIP_ID.to_vec())])
                .collect();
        });
        Self { ark, ask, vcek }
    }

    /// As a policy names it.
    pub(super) fn root(&self) -> Certificate {
        self.ark.certificate.clone()
    }

    pub(super) fn report(&self, report_data: &[u8; 64]) -> Vec<u8> {
        let mut report = vec![0; 0x2a0];
        let mut set = |at: usize, bytes: &[u8]| report[at..at + bytes.len()].copy_from_slice(bytes);
        set(0x00, &[3]);
        set(0x08, &0x3_0000_u64.to_le_bytes());
        set(0x34, &[1]);
        for tcb in [0x38, 0x180, 0x1e0, 0x1f0] {
            set(tcb, &TCB);
        }
        set(0x40, &[0x24]);
        set(0x50, report_data);
        set(0x90, &MEASUREMENT);
        set(0x188, &[0x19, 0x11, 1]);
        set(0x1a0, &CHIP_ID);
        let signature = self.vcek.sign_fixed(&report);
        let mut scalars = [0; 512];
        for (scalar, at) in signature.chunks(48).zip([0, 72]) {
            let little_endian: Vec<u8> = scalar.iter().rev().copied().collect();
            scalars[at..at + 48].copy_from_slice(&little_endian);
        }
        [report, scalars.to_vec()].concat()
    }

    pub(super) fn endorsements(&self) -> Vec<Endorsement> {
        let certificate = |party: &Party| Endorsement {
            kind: EndorsementKind::AmdCertificate,
            bytes: party.certificate.der().to_vec(),
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2027, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.ark.issuer()).unwrap().der().to_vec();
        vec![
            certificate(&self.vcek),
            certificate(&self.ask),
            Endorsement { kind: EndorsementKind::AmdCrl, bytes: list },
        ]
    }
}

fn authority(params: &mut CertificateParams) {
    params.key_usages.push(rcgen::KeyUsagePurpose::CrlSign);
}

/// DER INTEGER.
fn integer(value: u8) -> Vec<u8> {
    if value < 0x80 { vec![2, 1, value] } else { vec![2, 2, 0, value] }
}
