//! What TDX firmware and kernel measure in a boot, by the log of a virtual TPM, against what is predicted of RTMR1 and RTMR2.

use std::path::Path;
use std::process::Command;

use cocoon_attestation::tdx::replay_rtmr;
use cocoon_measurements::image::directory::{Directory, TDX_FIRMWARE};
use cocoon_measurements::predict::firmware::Firmware;
use cocoon_measurements::predict::{Boot, authenticode, tdx};
use cocoon_tests::measured_boot::{Event, MeasuredBoot, initramfs};
use cocoon_tests::programs::binary;
use cocoon_tests::vm::{Lab, SHAPE};
use ring::digest::{SHA384, digest};

/// Types of events: TCG PC Client Platform Firmware Profile, section 10.4.1.
const SEPARATOR: u32 = 4;
const EVENT_TAG: u32 = 6;
const BOOT_SERVICES_APPLICATION: u32 = 0x8000_0003;
const ACTION: u32 = 0x8000_0007;

/// PCRs that are RTMR1 in a TD.
const RTMR1_PCRS: [u32; 5] = [2, 3, 4, 5, 6];
/// The kernel's integrity subsystem extends it, which speaks to TPMs alone: a TD has none, and firmware leaves it alone.
const IMA_PCR: u32 = 10;

type Extension = (u32, u32, [u8; 48]);

fn sha384(bytes: &[u8]) -> [u8; 48] {
    digest(&SHA384, bytes).as_ref().try_into().unwrap()
}

fn extensions(events: &[Event]) -> Vec<Extension> {
    events.iter().map(|event| (event.pcr, event.kind, event.digest)).collect()
}

fn digests(extensions: &[Extension]) -> Vec<[u8; 48]> {
    extensions.iter().map(|(_, _, digest)| *digest).collect()
}

/// As a TD has them. The one difference is known and nothing else is left out: before the kernel starts, firmware separates each PCR from
/// what follows (edk2, `Tcg2Dxe`, `OnReadyToBoot`), but RTMR1, into which five of them are mapped, once (`TdTcg2Dxe`, the same function).
fn one_separator(events: &[Event]) -> Vec<Extension> {
    let mut all = extensions(events);
    let first = all.iter().position(|(_, kind, _)| *kind == SEPARATOR).unwrap();
    let separators: Vec<_> = all.drain(first + 1..first + RTMR1_PCRS.len()).collect();
    let want = RTMR1_PCRS.map(|pcr| (pcr, SEPARATOR, sha384(&[0; 4])));
    assert_eq!((all[first], separators.as_slice()), (want[0], &want[1..]));
    all
}

/// RTMR1 and RTMR2 as `cocoon-measure` predicts them for the same files.
fn command(lab: &Lab, initrd: &Path) -> (String, String) {
    let image = lab.copy("predicted");
    std::fs::copy(initrd, image.join("initrd")).unwrap();
    let mut command = Command::new(binary("cocoon-measure"));
    command.args(["predict", "tdx", "--json", "--memory", "1024", "--vcpus", SHAPE[1], "--image"]).arg(image);
    let output = command.output().unwrap();
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |key: &str| value[key].as_str().unwrap().to_owned();
    (text("rtmr1"), text("rtmr2"))
}

/// With what is in the files, not with what the prediction makes of them.
fn expected(boot: &Boot<'_>) -> ([Extension; 5], [Extension; 2]) {
    let action = |pcr, text: &str| (pcr, ACTION, sha384(text.as_bytes()));
    // As the image's firmware puts it together; others have the word before the line.
    let line = format!("{} initrd=initrd\0", String::from_utf8_lossy(boot.command_line));
    let line: Vec<u8> = line.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let rtmr1 = [
        (4, BOOT_SERVICES_APPLICATION, authenticode::digest(boot.kernel).unwrap()),
        action(4, "Calling EFI Application from Boot Option"),
        (2, SEPARATOR, sha384(&[0; 4])),
        action(5, "Exit Boot Services Invocation"),
        action(5, "Exit Boot Services Returned with Success"),
    ];
    let rtmr2 = [(9, EVENT_TAG, sha384(&line)), (9, EVENT_TAG, sha384(boot.initrd))];
    (rtmr1, rtmr2)
}

/// The log is all of what the TPM was extended with, so a boot has no further inputs that nobody wrote down.
fn assert_complete(boot: &MeasuredBoot) {
    for (pcr, value) in boot.pcrs.iter().filter(|(pcr, _)| **pcr != IMA_PCR) {
        assert_eq!(hex::encode(boot.replay(*pcr)), hex::encode(value), "PCR {pcr}");
    }
    assert!(boot.events.iter().all(|event| event.pcr != IMA_PCR));
}

#[test]
fn a_boot_measures_what_is_predicted_for_rtmr1_and_rtmr2() {
    let Some(lab) = Lab::open() else { return };
    let initrd = lab.path("initrd");
    std::fs::write(&initrd, initramfs(&binary("event-log-init"))).unwrap();
    let Some(booted) = MeasuredBoot::of(&lab, &initrd, &[]) else { return };
    assert_complete(&booted);

    let mut parts = Directory::new(&lab.image).parts().unwrap();
    parts.initrd = std::fs::read(&initrd).unwrap();
    let (rtmr1, rtmr2) = expected(&parts.boot());
    let (found1, found2) = (one_separator(&booted.of_rtmr(1)), extensions(&booted.of_rtmr(2)));
    assert_eq!(found1, rtmr1);
    assert_eq!(found2, rtmr2);

    let firmware = std::fs::read(lab.image.join(TDX_FIRMWARE)).unwrap();
    let predicted = tdx::predict(&Firmware::parse(&firmware).unwrap(), &parts.boot()).unwrap();
    assert_eq!(
        (replay_rtmr(&digests(&found1)), replay_rtmr(&digests(&found2))),
        (predicted.rtmr1.0, predicted.rtmr2.0)
    );
    assert_eq!(command(&lab, &initrd), (predicted.rtmr1.to_string(), predicted.rtmr2.to_string()));
}
