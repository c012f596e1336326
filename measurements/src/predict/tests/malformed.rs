//! Files that make no sense.

use super::{FIRMWARE, KERNEL, altered, firmware, with_only_volume, with_volume};
use crate::predict::firmware::{Firmware, MAX_FIRMWARE};
use crate::predict::snp::launch::{Hashes, Order, Start, Vcpus};
use crate::predict::tdx::InitrdWord;
use crate::predict::{Boot, authenticode, tdx};

fn refused(bytes: &[u8]) -> String {
    Firmware::parse(bytes).unwrap_err().to_string()
}

#[test]
fn what_is_no_firmware_is_refused() {
    assert!(refused(b"").contains("does not end with a table of GUIDs"));
    assert!(refused(&FIRMWARE[1..]).contains("it has 8191 bytes, expected whole pages"));
    assert!(refused(&[0; 4096]).contains("does not end with a table of GUIDs"));
    assert!(refused(&vec![0; MAX_FIRMWARE + 4096]).contains("at most 16777216 bytes"));
    assert!(Firmware::parse(&[vec![0; MAX_FIRMWARE - FIRMWARE.len()], FIRMWARE.to_vec()].concat()).is_ok());
    // The table's length, its GUID, the length of its last entry.
    assert!(refused(&altered(50, &[0xff, 0xff])).contains("does not end with a table"));
    assert!(refused(&altered(50, &[17, 0])).contains("does not end with a table"));
    assert!(refused(&altered(40, &[0])).contains("does not end with a table"));
    assert!(refused(&altered(68, &[17, 0])).contains("an entry of its table is cut off"));
    assert!(refused(&altered(68, &[0xff, 0])).contains("an entry of its table is cut off"));
    // The entry for SEV with the GUID of that for TDX.
    let tdx = FIRMWARE[FIRMWARE.len() - 66..][..16].to_vec();
    assert!(refused(&altered(88, &tdx)).contains("an entry twice"));
}

#[test]
fn metadata_that_makes_no_sense_is_refused() {
    let sev = |from_end, bytes: &[u8]| {
        let altered = altered(from_end, bytes);
        Firmware::parse(&altered).unwrap().sev_sections().unwrap_err().to_string()
    };
    let place = 32 + 18 + 22 + 22;
    assert!(sev(place, &[0xff; 4]).contains("ASEV metadata lies before the file"));
    assert!(sev(place, &[1, 0, 0, 0]).contains("has no header of version 1"));
    assert!(sev(0x400, b"ASEX").contains("has no header of version 1"));
    assert!(sev(0x400 - 8, &[2]).contains("has no header of version 1"));
    assert!(sev(0x400 - 12, &[0, 0]).contains("no sections, or too many"));
    assert!(sev(0x400 - 12, &[65]).contains("no sections, or too many"));
    assert!(sev(0x400 - 4, &[89]).contains("length that does not fit"));
    let section = 0x400 - 16;
    assert!(sev(section, &[1]).contains("no whole pages"));
    assert!(sev(section - 4, &[0; 4]).contains("no whole pages"));
    assert!(sev(section - 4, &[0, 0x10, 0, 0x10]).contains("no whole pages"));
    assert!(sev(section, &[0, 0xf0, 0xff, 0xff]).contains("no whole pages"));
    assert!(sev(section - 8, &[7]).contains("unknown kind"));
    // Two pages of secrets.
    assert!(sev(section - 12 - 4, &[0, 0x20]).contains("no whole pages"));
    let tdx = |from_end, bytes: &[u8]| {
        let altered = altered(from_end, bytes);
        tdx::predict(
            &Firmware::parse(&altered).unwrap(),
            &Boot { kernel: KERNEL, initrd: b"", command_line: b"" },
        )
        .unwrap_err()
        .to_string()
    };
    assert!(tdx(0x600, b"XDVF").contains("TDVF metadata has no header"));
    let section = 0x600 - 16;
    for (at, bytes) in
        [(0, [0xff; 4]), (4, [0xff; 4]), (8, [1, 0, 0, 0]), (16, [1, 0x10, 0, 0]), (16, [0; 4])]
    {
        assert!(tdx(section - at, &bytes).contains("a section of its TDVF metadata"), "{at}");
    }
    assert!(tdx(section - 16, &[0, 0, 0, 0x10]).contains("a section of its TDVF metadata"));
    assert!(tdx(section - 24, &[9]).contains("a section of its TDVF metadata"));
    assert!(tdx(section - 28, &[4]).contains("a section of its TDVF metadata"));
    assert!(tdx(66, &[0]).contains("TDVF metadata is not there"));
}

#[test]
fn firmware_that_does_not_say_where_it_puts_the_initrd_is_refused() {
    let of = |firmware: &[u8]| InitrdWord::of(&Firmware::parse(firmware).unwrap());
    assert_eq!(of(FIRMWARE).unwrap(), InitrdWord::First);
    assert_eq!(of(&with_only_volume(b"a initrd=initrd\0")).unwrap(), InitrdWord::Last);
    let none = with_only_volume(b"nothing");
    // In one volume, and in two.
    let both = [with_only_volume(b" initrd=initrd\0initrd=initrd \0"), with_volume(b" initrd=initrd\0")];
    for firmware in [none].iter().chain(&both) {
        let boot = Boot { kernel: KERNEL, initrd: b"", command_line: b"" };
        let error = tdx::predict(&Firmware::parse(firmware).unwrap(), &boot).unwrap_err();
        assert!(error.is_rejection() && error.to_string().contains("does not say in one way"), "{error}");
    }
}

#[test]
fn firmware_that_cannot_start_a_guest_is_refused() {
    let hashes = Hashes::of(&Boot { kernel: b"", initrd: b"", command_line: b"" });
    let start = |from_end, bytes: &[u8]| {
        let altered = altered(from_end, bytes);
        let firmware = Firmware::parse(&altered).unwrap();
        Start::new(&firmware, Order::Qemu)
            .and_then(|start| start.with(Some(&hashes)))
            .unwrap_err()
            .to_string()
    };
    let table = 32 + 18 + 22 + 22 + 26;
    assert!(start(table, &[0x51, 0x0f]).contains("does not fit its page"));
    assert!(start(table - 4, &[175, 0, 0, 0]).contains("does not fit its page"));
    let kind = 0x400 - 16 - 8;
    assert!(start(kind - 4 * 12, &[1]).contains("no section for kernel hashes"));
    assert!(start(kind - 12, &[0x10]).contains("two sections for kernel hashes"));
    let reset = table + 26 + 22;
    let altered = altered(reset, &[0; 4]);
    let stopped = Vcpus::new(&Firmware::parse(&altered).unwrap(), Order::Qemu, "EPYC".parse().unwrap(), 1);
    assert!(stopped.unwrap_err().to_string().contains("does not say where further processors start"));
    assert!(Vcpus::new(&firmware(), Order::Qemu, "EPYC".parse().unwrap(), 1).is_ok());
}

#[test]
fn what_is_no_kernel_is_refused() {
    let refused = |at: usize, bytes: &[u8]| {
        let mut kernel = KERNEL.to_vec();
        kernel[at..at + bytes.len()].copy_from_slice(bytes);
        authenticode::digest(&kernel).unwrap_err().to_string()
    };
    assert!(refused(0, b"ZM").contains("no PE file"));
    assert!(refused(60, &[0xff; 4]).contains("no PE file"));
    assert!(refused(0x80, b"PX").contains("no PE file"));
    assert!(refused(0x98, &[0x0c]).contains("no PE file"));
    assert!(refused(0x86, &[97, 0]).contains("no PE file"));
    // An optional header without room for its directories.
    assert!(refused(0x94, &[100, 0]).contains("no PE file"));
    let section = 0x98 + 160;
    assert!(refused(section + 20, &[0, 3]).contains("overlap or lie outside"));
    assert!(refused(section + 20, &[0, 6]).contains("overlap or lie outside"));
    assert!(refused(section + 40 + 20, &[0, 1]).contains("overlap or lie outside"));
    assert!(refused(section + 16, &[0xff; 4]).contains("overlap or lie outside"));
    // Headers of all bytes: sections would lie in them. Certificates larger than the file.
    assert!(refused(0x98 + 60, &[0xff; 4]).contains("overlap or lie outside"));
    assert!(refused(0x98 + 112 + 36, &[0, 1, 0, 0x10]).contains("certificates lie outside"));
    for len in 0..0x600 {
        assert!(authenticode::digest(&KERNEL[..len]).is_err(), "cut to {len}");
    }
    // Checksum and certificates have no influence, all else has.
    let digest = authenticode::digest(KERNEL).unwrap();
    for at in (0..KERNEL.len()).filter(|at| !(0x80..0x98 + 240).contains(at) && *at >= 64) {
        let mut other = KERNEL.to_vec();
        other[at] ^= 1;
        assert_eq!(authenticode::digest(&other).unwrap() == digest, at >= 0x680, "{at:#x}");
    }
}
