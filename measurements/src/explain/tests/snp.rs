use cocoon_attestation::Measurement;

use super::{Images, LINE, boot, inputs, other};
use crate::explain::snp::{Expected, explain, explain_both};
use crate::explain::{Explanation, Input};
use crate::image::directory::SNP_FIRMWARE;
use crate::predict::Boot;
use crate::predict::firmware::Firmware;
use crate::predict::snp::launch::{Hashes, Order, Start, Vcpus};
use crate::predict::snp::{MAX_VCPUS, Shape};
use crate::predict::tests::{FIRMWARE, KERNEL};

/// A guest in all that is measured of it.
struct Guest<'a> {
    firmware: &'a [u8],
    boot: Boot<'a>,
    hashes: bool,
    order: Order,
    shape: Shape,
}

fn guest() -> Guest<'static> {
    let shape = Shape { vcpus: 4, vcpu_type: "EPYC-Genoa".parse().unwrap(), guest_features: 1 };
    Guest { firmware: FIRMWARE, boot: boot(), hashes: true, order: Order::Qemu, shape }
}

impl Guest<'_> {
    fn measurement(&self) -> Measurement {
        let firmware = Firmware::parse(self.firmware).unwrap();
        let hashes = self.hashes.then(|| Hashes::of(&self.boot));
        let launch = Start::new(&firmware, self.order).unwrap().with(hashes.as_ref()).unwrap();
        let Shape { vcpus, vcpu_type, guest_features } = self.shape;
        Vcpus::new(&firmware, self.order, vcpu_type, guest_features).unwrap().add(launch, vcpus).measurement()
    }

    fn with_line(line: &[u8]) -> Measurement {
        Guest { boot: Boot { command_line: line, ..boot() }, ..guest() }.measurement()
    }
}

fn expected() -> Expected {
    let Shape { vcpus, vcpu_type, guest_features } = guest().shape;
    Expected {
        vcpus: Some(vcpus),
        vcpu_type: Some(vcpu_type),
        guest_features: Some(guest_features),
        words: vec!["odd.word=3".to_owned()],
    }
}

fn explained(got: Measurement) -> Explanation {
    explain(&got, &Images::new().material(SNP_FIRMWARE, &["other"]), &expected()).unwrap()
}

#[test]
fn the_expected_measurement_has_no_differences() {
    let same = explained(guest().measurement());
    assert_eq!(inputs(&same), []);
    // What is not expected is found and is no difference.
    let images = Images::new();
    let any = Guest { shape: Shape { vcpus: MAX_VCPUS, guest_features: 0x21, ..guest().shape }, ..guest() };
    let found =
        explain(&any.measurement(), &images.material(SNP_FIRMWARE, &[]), &Expected::default()).unwrap();
    assert_eq!(inputs(&found), []);
    let shape: Vec<_> = found.found.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(shape, ["512", "EPYC-Genoa", "0x21"]);
}

#[test]
fn each_file_is_named() {
    let (firmware, kernel) = (other(FIRMWARE), other(KERNEL));
    let with = |boot| Guest { boot, ..guest() }.measurement();
    let of = |measurement| inputs(&explained(measurement));
    assert_eq!(of(Guest { firmware: &firmware, ..guest() }.measurement()), [Input::Firmware]);
    assert_eq!(of(with(Boot { kernel: &kernel, ..boot() })), [Input::Kernel]);
    assert_eq!(of(with(Boot { initrd: b"other", ..boot() })), [Input::Initrd]);
    assert_eq!(of(with(Boot { command_line: b"debug", ..boot() })), [Input::Cmdline]);
    let all = Guest {
        firmware: &firmware,
        boot: Boot { kernel: &kernel, initrd: b"other", command_line: b"debug" },
        ..guest()
    };
    let found = explained(all.measurement());
    assert_eq!(inputs(&found), [Input::Firmware, Input::Kernel, Input::Initrd, Input::Cmdline]);
    assert!(found.differences[1].got.contains("other/vmlinuz (sha256 "), "{found:?}");
    assert!(found.differences[1].want.contains("image/vmlinuz (sha256 "), "{found:?}");
}

#[test]
fn each_of_the_machine_is_named() {
    let shaped = |shape| inputs(&explained(Guest { shape, ..guest() }.measurement()));
    let good = guest().shape;
    assert_eq!(shaped(Shape { vcpus: 1, ..good }), [Input::Vcpus]);
    assert_eq!(shaped(Shape { vcpus: MAX_VCPUS, ..good }), [Input::Vcpus]);
    assert_eq!(shaped(Shape { vcpu_type: "EPYC-Milan".parse().unwrap(), ..good }), [Input::VcpuType]);
    assert_eq!(
        shaped(Shape { vcpu_type: "EPYC-Genoa-v1".parse().unwrap(), ..good }),
        [],
        "the same signature"
    );
    assert_eq!(shaped(Shape { guest_features: 0x201, ..good }), [Input::GuestFeatures]);
    assert_eq!(inputs(&explained(Guest { order: Order::Ec2, ..guest() }.measurement())), [Input::PageOrder]);
    assert_eq!(inputs(&explained(Guest { hashes: false, ..guest() }.measurement())), [Input::KernelHashes]);
}

#[test]
fn each_change_of_the_command_line_is_named() {
    let material = Images::new().material(SNP_FIRMWARE, &[]);
    for (line, how) in [
        (&b"console=ttyS0 loglevel=1"[..], "(without the word \"quiet\")"),
        (b"console=ttyS0 quiet loglevel=1 cocoon.tee=sim", "(with the word \"cocoon.tee=sim\" at its end)"),
        (b"odd.word=3 console=ttyS0 quiet loglevel=1", "(with the word \"odd.word=3\" at its start)"),
        (b"console=ttyS0 quiet loglevel=1\n", "(with a newline at its end)"),
        (b"", "(empty)"),
        (b"console=ttyS1 quiet loglevel=1", "(with '1' at byte 12)"),
        (b"console=ttyS0  quiet loglevel=1", "(with ' ' more at byte 13)"),
        (b"console=ttyS0 quiet loglevel=", "(without byte 29)"),
    ] {
        let found = explain(&Guest::with_line(line), &material, &expected()).unwrap();
        assert_eq!(inputs(&found), [Input::Cmdline], "{how}");
        assert!(found.differences[0].got.ends_with(how), "{:?} {how}", found.differences);
        assert_eq!(found.differences[0].want, format!("{:?}", String::from_utf8_lossy(LINE)));
    }
    // A byte and another number of processors, where that is not expected.
    let shape = Shape { vcpus: 63, ..guest().shape };
    let guest =
        Guest { shape, boot: Boot { command_line: b"console=ttyS0 quiet loglevel=7", ..boot() }, ..guest() };
    let material = Images::new().material(SNP_FIRMWARE, &[]);
    assert_eq!(
        inputs(&explain(&guest.measurement(), &material, &Expected::default()).unwrap()),
        [Input::Cmdline]
    );
}

#[test]
fn what_nothing_explains_is_said_to_be_so() {
    let images = Images::new();
    let found = explain(&Measurement([7; 48]), &images.material(SNP_FIRMWARE, &[]), &expected()).unwrap();
    assert!(!found.explained && found.differences.is_empty() && found.tried > 10_000);
    assert_eq!(found.unexplained, ["measurement"]);
    std::fs::write(images.path("image").join(SNP_FIRMWARE), b"no firmware").unwrap();
    let refused = explain(&Measurement([7; 48]), &images.material(SNP_FIRMWARE, &[]), &expected());
    assert!(refused.unwrap_err().to_string().contains("firmware: it has 11 bytes"));
}

#[test]
fn two_measurements_are_compared_by_what_makes_them() {
    let material = Images::new().material(SNP_FIRMWARE, &["other"]);
    let both = |got: &Measurement, want: &Measurement| {
        explain_both(got, want, &material, &Expected::default()).unwrap()
    };
    let of = |vcpus, command_line| {
        Guest { shape: Shape { vcpus, ..guest().shape }, boot: Boot { command_line, ..boot() }, ..guest() }
            .measurement()
    };
    let found = both(&of(4, LINE), &of(8, LINE));
    assert_eq!(inputs(&found), [Input::Vcpus]);
    assert_eq!((found.differences[0].got.as_str(), found.differences[0].want.as_str()), ("4", "8"));
    // Both have the other line: only the number differs between them.
    assert_eq!(inputs(&both(&of(4, b"debug"), &of(8, b"debug"))), [Input::Vcpus]);
    let found = both(&of(4, LINE), &of(4, b"debug"));
    assert_eq!(inputs(&found), [Input::Cmdline]);
    assert!(found.differences[0].want.starts_with("\"debug\""), "{found:?}");
    let alone = Images::new().material(SNP_FIRMWARE, &[]);
    let found = explain_both(&of(4, LINE), &Measurement([7; 48]), &alone, &expected()).unwrap();
    assert!(!found.explained);
    assert_eq!(found.unexplained, ["wanted measurement"]);
}
