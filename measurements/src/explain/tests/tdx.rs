use cocoon_attestation::Measurement;

use super::{Images, boot, inputs, other};
use crate::explain::evidence::Registers;
use crate::explain::tdx::explain;
use crate::explain::{Explanation, Input};
use crate::image::directory::TDX_FIRMWARE;
use crate::predict::Boot;
use crate::predict::firmware::Firmware;
use crate::predict::tdx::{InitrdWord, Order, mr_td, predict, rtmr2};
use crate::predict::tests::{FIRMWARE, KERNEL};

fn registers(firmware: &[u8], boot: &Boot<'_>) -> Registers {
    let found = predict(&Firmware::parse(firmware).unwrap(), boot).unwrap();
    Registers { mr_td: Some(found.mr_td), rtmr1: Some(found.rtmr1), rtmr2: Some(found.rtmr2) }
}

fn explained(got: &Registers) -> Explanation {
    explain(got, &Images::new().material(TDX_FIRMWARE, &["other"]), &["odd=1".to_owned()]).unwrap()
}

#[test]
fn each_register_names_its_input() {
    let of = |got: &Registers| inputs(&explained(got));
    assert_eq!(of(&registers(FIRMWARE, &boot())), []);
    assert_eq!(of(&registers(&other(FIRMWARE), &boot())), [Input::Firmware]);
    assert_eq!(of(&registers(FIRMWARE, &Boot { kernel: &other(KERNEL), ..boot() })), [Input::Kernel]);
    assert_eq!(of(&registers(FIRMWARE, &Boot { initrd: b"other", ..boot() })), [Input::Initrd]);
    assert_eq!(of(&registers(FIRMWARE, &Boot { command_line: b"debug", ..boot() })), [Input::Cmdline]);
    let both = Boot { initrd: b"other", command_line: b"console=ttyS0 quiet loglevel=1 odd=1", ..boot() };
    let found = explained(&registers(FIRMWARE, &both));
    assert_eq!(inputs(&found), [Input::Initrd, Input::Cmdline]);
    assert!(found.differences[1].got.ends_with("(with the word \"odd=1\" at its end)"), "{found:?}");
    let edit = Boot { command_line: b"console=ttyS0 quiet loglevel=7", ..boot() };
    let alone = Registers { rtmr2: Some(rtmr2(InitrdWord::First, &edit).unwrap()), ..Registers::default() };
    assert!(explained(&alone).differences[0].got.ends_with("(with '7' at byte 29)"));
}

#[test]
fn another_place_of_the_initrd_in_the_line_is_firmware() {
    let of = |boot: &Boot<'_>| {
        let rtmr2 = Some(rtmr2(InitrdWord::Last, boot).unwrap());
        explained(&Registers { rtmr2, ..Registers::default() })
    };
    let found = of(&boot());
    assert_eq!(inputs(&found), [Input::Firmware]);
    assert_eq!(found.differences[0].got, "one that puts initrd=initrd behind the command line");
    let found = of(&Boot { initrd: b"other", command_line: b"debug", ..boot() });
    assert_eq!(inputs(&found), [Input::Firmware, Input::Initrd, Input::Cmdline]);
}

#[test]
fn the_old_order_of_pages_is_named() {
    let firmware = other(FIRMWARE);
    let legacy = mr_td(&Firmware::parse(&firmware).unwrap(), Order::TwoPass).unwrap();
    let got = Registers { mr_td: Some(legacy), ..registers(FIRMWARE, &boot()) };
    assert_eq!(inputs(&explained(&got)), [Input::Firmware, Input::PageOrder]);
}

#[test]
fn registers_that_nothing_explains_are_named_one_by_one() {
    let good = registers(&other(FIRMWARE), &boot());
    let odd = Some(Measurement([7; 48]));
    let found = explained(&Registers { rtmr1: odd, rtmr2: odd, ..good });
    assert!(!found.explained);
    let names: Vec<_> = found.unexplained.iter().map(|text| text.split(':').next().unwrap()).collect();
    assert_eq!(names, ["rtmr1", "rtmr2"]);
    assert_eq!(found.differences[0].input, Input::Firmware, "what is explained is still said");
    let found = explained(&Registers { mr_td: odd, ..Registers::default() });
    assert!(found.unexplained[0].starts_with("mrtd: the firmware"));
}
