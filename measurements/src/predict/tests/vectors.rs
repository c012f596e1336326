//! `tests/vectors/launch.txt`, which other programs wrote.

use std::collections::BTreeMap;

use sev::measurement::snp::{SnpMeasurementArgs, snp_calc_launch_digest};
use sev::measurement::vcpu_types::CpuType;
use sev::measurement::vmsa::{GuestFeatures, VMMType};

use super::{KERNEL, firmware, with_only_volume};
use crate::predict::firmware::Firmware;
use crate::predict::snp::launch::{Hashes, Order, Start, Vcpus};
use crate::predict::snp::{MAX_VCPUS, Shape, VcpuType, check_policy, measure};
use crate::predict::{Boot, Error, authenticode, tdx};

const VECTORS: &str = include_str!("../../../../tests/vectors/launch.txt");

fn blocks() -> Vec<BTreeMap<&'static str, &'static str>> {
    let pairs = |block: &'static str| block.lines().filter_map(|line| line.split_once(" = ")).collect();
    VECTORS.split("\n\n").map(pairs).collect()
}

fn boot(block: &BTreeMap<&str, &'static str>) -> (Vec<u8>, &'static [u8]) {
    (hex::decode(block["initrd"]).unwrap(), block["cmdline"].as_bytes())
}

fn shape(block: &BTreeMap<&str, &str>) -> Shape {
    Shape {
        vcpus: block["vcpus"].parse().unwrap(),
        vcpu_type: block["type"].parse().unwrap(),
        guest_features: u64::from_str_radix(block["features"], 16).unwrap(),
    }
}

#[test]
fn snp_as_sev_snp_measure_has_it() {
    let blocks = blocks();
    let (initrd, command_line) = boot(&blocks[0]);
    let boot = Boot { kernel: KERNEL, initrd: &initrd, command_line };
    assert_eq!(blocks.len(), 13);
    for block in &blocks[1..] {
        let found = measure(&firmware(), &boot, &shape(block)).unwrap();
        assert_eq!(found.measurement.to_string(), block["measurement"], "{block:?}");
    }
}

/// The crate `sev` on all types, both orders, from files.
#[test]
fn snp_as_the_crate_sev_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        std::fs::write(dir.path().join(name), content).unwrap();
        dir.path().join(name)
    };
    let boot = Boot { kernel: KERNEL, initrd: b"some", command_line: b"console=ttyS0" };
    let (ovmf, kernel, initrd) =
        (file("ovmf", super::FIRMWARE), file("kernel", boot.kernel), file("initrd", boot.initrd));
    for vcpu_type in VcpuType::all() {
        // The crate lacks QEMU's newest names.
        let Ok(theirs) = CpuType::try_from(vcpu_type.to_string().as_str()) else { continue };
        for (order, program) in [(Order::Qemu, VMMType::QEMU), (Order::Ec2, VMMType::EC2)] {
            for (vcpus, features, kernel_hashes) in [(1, 1, true), (5, 0x21, true), (2, 1, false)] {
                let args = SnpMeasurementArgs {
                    vcpus,
                    vcpu_type: theirs,
                    ovmf_file: ovmf.clone(),
                    guest_features: GuestFeatures(features),
                    kernel_file: kernel_hashes.then(|| kernel.clone()),
                    initrd_file: Some(initrd.clone()),
                    append: Some("console=ttyS0"),
                    ovmf_hash_str: None,
                    vmm_type: Some(program),
                };
                let want = snp_calc_launch_digest(args).unwrap().get_hex_ld();
                let hashes = kernel_hashes.then(|| Hashes::of(&boot));
                let launch = Start::new(&firmware(), order).unwrap().with(hashes.as_ref()).unwrap();
                let state = Vcpus::new(&firmware(), order, *vcpu_type, features).unwrap();
                let got = state.add(launch, vcpus).measurement().to_string();
                assert_eq!(got, want, "{vcpu_type} {order:?} {vcpus}");
                assert_eq!(
                    state.each(launch).nth(vcpus as usize - 1).unwrap().1.measurement().to_string(),
                    want
                );
            }
        }
    }
}

#[test]
fn tdx_as_another_implementation_has_it() {
    let block = &blocks()[0];
    let (initrd, command_line) = boot(block);
    let found = tdx::predict(&firmware(), &Boot { kernel: KERNEL, initrd: &initrd, command_line }).unwrap();
    assert_eq!(found.mr_td.to_string(), block["mr_td"]);
    assert_eq!(found.rtmr1.to_string(), block["rtmr1"]);
    assert_eq!(found.rtmr2.to_string(), block["rtmr2"]);
    let boot = Boot { kernel: KERNEL, initrd: &initrd, command_line };
    let last = with_only_volume(b"\xff initrd=initrd\0kernel \0");
    let found_last = tdx::predict(&Firmware::parse(&last).unwrap(), &boot).unwrap();
    assert_eq!(found_last.rtmr2.to_string(), block["rtmr2_last"]);
    assert_eq!(hex::encode(authenticode::digest(KERNEL).unwrap()), block["authenticode"]);
    assert_ne!(tdx::mr_td(&firmware(), tdx::Order::TwoPass).unwrap(), found.mr_td);
}

#[test]
fn shapes_and_lines_that_no_guest_has_are_refused() {
    let good = Shape { vcpus: 1, vcpu_type: "EPYC-Genoa".parse().unwrap(), guest_features: 1 };
    let of = |shape: Shape, command_line| {
        measure(&firmware(), &Boot { kernel: b"", initrd: b"", command_line }, &shape)
    };
    assert!(of(good, b"quiet").is_ok() && of(Shape { vcpus: MAX_VCPUS, ..good }, b"").is_ok());
    let refused = |shape, line| of(shape, line).unwrap_err();
    assert!(refused(Shape { vcpus: 0, ..good }, b"").to_string().contains("0 vCPUs, expected 1 to 512"));
    assert!(matches!(refused(Shape { vcpus: MAX_VCPUS + 1, ..good }, b""), Error::Misuse(_)));
    assert!(refused(Shape { guest_features: 2, ..good }, b"").to_string().contains("0x2 lack bit 0"));
    for line in [&b"quiet\n"[..], b"a\0b", b"\x7f", "\u{e9}".as_bytes()] {
        assert!(refused(good, line).to_string().contains("expected printable ASCII"));
        let boot = Boot { kernel: KERNEL, initrd: b"", command_line: line };
        assert!(tdx::predict(&firmware(), &boot).unwrap_err().is_rejection());
    }
    assert!("EPYC-genoa".parse::<VcpuType>().unwrap_err().to_string().contains("expected one of EPYC, "));
    assert!("host".parse::<VcpuType>().is_err());
    let distinct: Vec<_> = VcpuType::distinct().map(|one| one.to_string()).collect();
    assert_eq!(distinct, ["EPYC", "EPYC-Rome", "EPYC-Milan", "EPYC-Genoa", "EPYC-Turin"]);
    assert_eq!(check_policy(0x30000).unwrap(), 0x30000);
    for bad in [0, 0x10000, 0x30000 | 1 << 26] {
        assert!(check_policy(bad).unwrap_err().to_string().contains("bit 17 must be set"));
    }
}
